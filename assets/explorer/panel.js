// The large head; up to four of them beside each other. Each is a Figure, and what is pointed at in one is pointed at
// in all. A message that brings a matrix is drawn as it is; else the heads come from the store.

import { Figure } from "./figure.js";
import { Matrix } from "./matrix.js";
import { Store } from "./store.js";

const HIGH = 600; // of a head alone
const FLAT = 300; // of each where there are several

export class Panel {
  constructor(parent, views) {
    this.views = views;
    this.figures = [];
    this.root = document.createElement("div");
    this.root.className = "hw-panel";
    this.root.dataset.testid = "headwise-heads";
    parent.append(this.root);
    this.ruler = document.createElement("div"); // as high as the page says that there is room
    this.ruler.className = "hw-room";
    this.root.append(this.ruler);
    this.resizes = new ResizeObserver(() => this.message && this.draw());
    this.resizes.observe(this.ruler);
  }

  update(message, send) {
    this.speak = send;
    if (message === this.message) return this.draw(); // another theme
    this.message = message;
    if (this.store !== Store.of(message.explorer)) {
      this.store?.leave(this);
      this.store = Store.of(message.explorer);
      this.store.watch(this);
    }
    this.store.send = send;
    this.store.take(message);
    this.draw();
  }

  unmount() {
    this.resizes.disconnect();
    this.store?.leave(this);
    for (const figure of this.figures) figure.unmount();
    this.root.remove();
  }

  changed(what) {
    if (what === "look") this.look();
    else if (what === "pin") this.pin();
    else if (what !== "matrix" && !this.message.matrix) this.draw(); // else another head is Python's to send
  }

  draw() {
    const { store, message } = this;
    const shown = message.matrix ? [null] : store.whole ? store.shown.filter((head) => store.heads.has(head)) : [];
    if (!shown.length) return; // what was drawn stays until all that it takes is here
    this.arrange(shown.length);
    shown.forEach((head, place) => this.drawOne(this.figures[place], head, shown.length));
    const chosen = shown[0] && store.heads.has(store.chosen) ? store.heads.whole(store.chosen) : null;
    store.matrix = chosen ? new Matrix({ ...message, ...chosen }) : this.figures[0].view.matrix;
    store.tell("matrix");
    if (store.pointer !== this) this.look();
  }

  drawOne(figure, head, count) {
    const { store, message } = this;
    const [lines, height] = [count > 2 ? 2 : 1, count > 1 ? FLAT : HIGH];
    const room = this.ruler.offsetHeight / lines;
    const own = { explorer: null, selected: store.pinned, height, room };
    const chosen = !head || head.join() === store.chosen.join();
    if (!chosen) Object.assign(own, { picks: null, marks: [] }); // edges are forbidden in the chosen one
    const part = head ? store.heads.part(head, message.view === "picture" ? null : store.zoom) : {};
    figure.root.classList.toggle("hw-chosen", count > 1 && chosen);
    figure.update({ ...message, ...part, ...own, view: message.view }, (event) => this.sent(event));
  }

  arrange(count) {
    while (this.figures.length > count) this.figures.pop().unmount();
    while (this.figures.length < count) {
      const figure = new Figure(this.root, this.views);
      figure.looked = (target) => this.looked(figure, target);
      this.figures.push(figure);
    }
    this.root.dataset.count = count;
  }

  /** What a figure wants said. What was picked is said at once: only Python can do it. */
  sent(event) {
    if ("token" in event) this.store.pin(event.token, event.key);
    else if ("zoom" in event) this.store.enlarge(event.zoom);
    else this.speak(event);
  }

  pin() {
    for (const figure of this.figures) {
      [figure.pins.pinned, figure.pins.key] = [this.store.pinned, this.store.key];
      figure.refresh();
    }
  }

  /** What the hand is at in one figure: the token, for the text; and the same place in the others. */
  looked(from, target) {
    if (this.following || !from.view.matrix) return;
    const [axis, index] = target?.axis ? [target.axis, target.index] : ["query", target?.q];
    this.alike(() => {
      for (const figure of this.figures) if (figure !== from && figure.size) figure.look(figure.view.keep(target));
      this.store.point(target ? { axis, index: from.view.matrix.span(axis, index)[0] } : null, this);
    });
  }

  /** What the hand is at elsewhere, in the text. */
  look() {
    const { look } = this.store;
    this.alike(() => {
      for (const figure of this.figures) {
        const index = look ? (figure.view.matrix?.indexOf(look.axis, look.index) ?? -1) : -1;
        figure.look(index < 0 ? null : figure.view.keep({ axis: look.axis, index }));
      }
    });
  }

  /** Let figures follow, without hearing of it from each. */
  alike(act) {
    if (this.following) return;
    this.following = true;
    act();
    this.following = false;
  }
}
