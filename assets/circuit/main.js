// The circuit of one answer as a graph, or a way to a head. Streamlit calls this once per mount and again on each new message or theme.
// Of a message {selected, turn, …} only `selected` changes from one click to the next.

import { readTheme } from "./colour.js";
import { Graph } from "./graph.js";
import { address, element, follow, plain } from "./parts.js";

const graphs = new WeakMap();

class Holder {
  constructor(parent) {
    this.root = document.createElement("div");
    this.root.className = "circuit";
    this.root.dataset.testid = "circuit-graph";
    parent.append(this.root);
    this.graph = new Graph(this.root, (event) => this.dispatch({ ...event, turn: (this.turn = (this.turn ?? 0) + 1) }));
  }

  update({ selected, turn, ...message }, send) {
    this.dispatch = send;
    if (message.go) return this.way(message);
    const theme = readTheme(this.root);
    const said = JSON.stringify(message);
    if (said !== this.said || theme.id !== this.theme) this.graph.draw(message, theme);
    [this.said, this.theme] = [said, theme.id];
    this.graph.choose(selected);
  }

  way({ title, go, base }) {
    const link = element("a.way", { href: address(base, go) }, title);
    link.addEventListener("click", (event) => {
      if (!plain(event)) return;
      event.preventDefault();
      follow({ send: (told) => this.dispatch({ ...told, turn: (this.turn = (this.turn ?? 0) + 1) }) }, base, go);
    });
    this.root.dataset.testid = "circuit-way";
    this.root.replaceChildren(link);
  }

  unmount() {
    this.graph.unmount();
    this.root.remove();
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  if (!data) return;
  let holder = graphs.get(parentElement);
  if (!holder) graphs.set(parentElement, (holder = new Holder(parentElement)));
  holder.update(data, (value) => setTriggerValue("event", value));
  return () => {
    holder.unmount();
    graphs.delete(parentElement);
  };
}
