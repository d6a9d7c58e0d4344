// The pinned token, kept in positions of the full sequence so that it survives a zoom.

export class Pins {
  constructor(figure) {
    this.figure = figure;
    this.pinned = null; // {axis, index}
    this.said = "null"; // what Python said last
  }

  /** Python's word counts when it changes; a page that never passes `selected` leaves pinning to the browser. */
  take(message) {
    const said = JSON.stringify(message.selected);
    if (said !== this.said) this.pinned = message.selected;
    this.said = said;
  }

  get any() {
    return this.pinned !== null;
  }

  /** The pinned token as a row or column of this picture, or null if it is elsewhere. */
  target(matrix) {
    if (!this.pinned) return null;
    const index = matrix.indexOf(this.pinned.axis, this.pinned.index);
    return index < 0 ? null : { axis: this.pinned.axis, index };
  }

  toggle(matrix, { axis, index }) {
    const now = this.target(matrix);
    if (now?.axis === axis && now.index === index) return this.clear();
    this.set({ axis, index: matrix.span(axis, index)[0] });
  }

  clear() {
    this.set(null);
  }

  set(token) {
    this.pinned = token;
    this.figure.send({ token });
    this.figure.refresh();
  }
}
