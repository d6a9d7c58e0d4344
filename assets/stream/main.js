// What stands in the residual stream, drawn as plain elements: a table of small cells, bars, or lines over the layers.
// Streamlit calls this once per mount and again on each new message or theme; the view stays, so nothing flickers.
//   view.take(message) · view.draw(theme) · view.choose(selected), which costs no new drawing
// Of a message {view, selected, turn, …} only `selected` changes from one click to the next.

import { Bars } from "./bars.js";
import { Cells } from "./cells.js";
import { readTheme } from "./colour.js";
import { Lines } from "./lines.js";

const VIEWS = { bars: Bars, cells: Cells, lines: Lines };
const holders = new WeakMap();

class Holder {
  constructor(parent) {
    this.root = document.createElement("div");
    this.root.className = "st";
    parent.append(this.root);
    this.turn = 0; // counts the choices made here
  }

  update({ selected, turn, ...message }, send) {
    this.dispatch = send;
    const theme = readTheme(this.root);
    const said = JSON.stringify(message);
    if (said !== this.said || theme.id !== this.theme) {
      if (this.root.dataset.view !== message.view) {
        this.root.replaceChildren();
        this.root.dataset.view = message.view;
        this.root.dataset.testid = `stream-${message.view}`;
        this.view = new VIEWS[message.view](this);
      }
      this.view.take(message);
      this.view.draw(theme);
    }
    [this.said, this.theme] = [said, theme.id];
    // A key held down sends many turns, and the answer to an early one must not pull the outline back.
    this.waiting &&= turn !== this.turn && performance.now() - this.asked < 3000;
    if (!this.waiting) this.view.choose(selected);
  }

  /** Tell Python, after `wait` milliseconds without another word. */
  send(event, wait = 0) {
    this.waiting = true;
    this.asked = performance.now();
    const turn = ++this.turn;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.dispatch({ ...event, turn }), wait);
  }

  unmount() {
    clearTimeout(this.timer);
    this.root.remove();
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  if (!data) return;
  let holder = holders.get(parentElement);
  if (!holder) holders.set(parentElement, (holder = new Holder(parentElement)));
  holder.update(data, (value) => setTriggerValue("event", value));
  return () => {
    holder.unmount();
    holders.delete(parentElement);
  };
}
