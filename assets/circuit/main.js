// The circuit of one answer as a graph. Streamlit calls this once per mount and again on each new message or theme.
// Of a message {selected, turn, …} only `selected` changes from one click to the next.

import { readTheme } from "./colour.js";
import { Graph } from "./graph.js";

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
    const theme = readTheme(this.root);
    const said = JSON.stringify(message);
    if (said !== this.said || theme.id !== this.theme) this.graph.draw(message, theme);
    [this.said, this.theme] = [said, theme.id];
    this.graph.choose(selected);
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
