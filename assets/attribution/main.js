// What an answer rests on: maps of an input, and curves that test them. Streamlit calls this once per mount and again on
// each new message or theme.

import { readTheme } from "./colour.js";
import { Curves } from "./curves.js";
import { Maps } from "./maps.js";

const VIEWS = { curves: Curves, maps: Maps };
const holders = new WeakMap();

class Holder {
  constructor(parent, view) {
    this.root = document.createElement("div");
    this.root.className = `at ${view}`;
    this.root.dataset.testid = `attribution-${view}`;
    parent.append(this.root);
    this.view = new VIEWS[view](this);
  }

  update(message) {
    const theme = readTheme(this.root);
    this.root.classList.toggle("dark", theme.dark);
    const said = JSON.stringify(message);
    if (said === this.said && theme.id === this.theme) return;
    this.view.take(message);
    this.view.draw(theme);
    [this.said, this.theme] = [said, theme.id];
  }
}

export default function ({ data, parentElement }) {
  if (!data) return;
  let holder = holders.get(parentElement);
  if (!holder) holders.set(parentElement, (holder = new Holder(parentElement, data.view)));
  holder.update(data);
  return () => {
    holder.view.end();
    holder.root.remove();
    holders.delete(parentElement);
  };
}
