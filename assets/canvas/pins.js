// The pinned token, kept in positions of the full sequence so that it survives a zoom.

export class Pins {
  constructor(figure) {
    this.figure = figure;
    this.pinned = null; // {axis, index}
    this.key = null; // of the cell by which its query was pinned
    this.said = "null"; // what Python said last
  }

  /** Python's word counts when it changes; a page that never passes `selected` leaves pinning to the browser. */
  take(message) {
    const said = JSON.stringify(message.selected);
    if (said !== this.said && said !== JSON.stringify(this.pinned)) this.key = null;
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

  /** Pin a token, or let it go. By another cell of the row that is pinned (`key`), the row stays. */
  toggle(matrix, { axis, index }, key = null) {
    const now = this.target(matrix);
    const again = now?.axis === axis && now.index === index;
    if (again && (key === null || key === this.key)) return this.clear();
    this.set({ axis, index: matrix.span(axis, index)[0] }, key);
  }

  clear() {
    this.set(null);
  }

  set(token, key = null) {
    [this.pinned, this.key] = [token, key];
    this.figure.send(key === null ? { token } : { token, key });
    this.figure.refresh();
  }
}
