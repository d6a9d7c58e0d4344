// The explorer in a notebook (https://anywidget.dev): text, grid, large head and a row of switches in one place. Python
// sends each picture's message as bytes; what is done here it hears as `act`, once the hand has rested.

import { Bipartite } from "./bipartite.js";
import { Figure } from "./figure.js";
import { Grid } from "./grid.js";
import { Heatmap } from "./heatmap.js";
import { unpack } from "./pack.js";
import { Panel } from "./panel.js";
import { PictureView } from "./picture.js";
import { save } from "./save.js";
import { Arrival, Store } from "./store.js";
import { Words } from "./words.js";

const VIEWS = { grid: Grid, heatmap: Heatmap, bipartite: Bipartite, picture: PictureView };
const NAMES = { heatmap: "Heatmap", bipartite: "Bipartite", picture: "Picture", linear: "Linear", log: "Log" };

function element(tag, className, parent, text = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  parent.append(node);
  return node;
}

class Notebook {
  constructor(model, parent) {
    this.model = model;
    this.root = element("div", "hw-notebook", parent);
    this.bar = element("div", "hw-tools", this.root);
    const places = ["words", "grid", "one"].map((name) => [name, element("div", `hw-at-${name}`, this.root)]);
    const kinds = { words: Words, grid: Figure, one: Panel };
    this.parts = Object.fromEntries(places.map(([name, place]) => [name, new kinds[name](place, VIEWS)]));
    this.parts.all_heads = new Arrival();
    this.messages = {};
  }

  /** Draw what one of the traits says now. */
  show(name) {
    const view = this.model.get(name);
    if (!view?.byteLength) return this.parts[name].root?.parentElement.toggleAttribute("hidden", true);
    const message = (this.messages[name] = unpack(new Uint8Array(view.buffer, view.byteOffset, view.byteLength)));
    this.parts[name].root?.parentElement.toggleAttribute("hidden", false);
    this.parts[name].update(message, (event) => this.tell({ act: event }));
    if (name === "one") this.tools(message);
  }

  tell(news) {
    for (const [name, value] of Object.entries(news)) this.model.set(name, value);
    this.model.save_changes();
  }

  tools({ view, scale }) {
    this.bar.replaceChildren();
    const stacks = this.model.get("stacks");
    if (stacks.length > 1) this.choice(stacks, this.model.get("stack"), (stack) => this.tell({ stack }));
    this.choice(this.model.get("views"), view, (chosen) => this.tell({ view: chosen }));
    this.choice(["linear", "log"], scale, (chosen) => this.tell({ scale: chosen }));
    const group = element("span", "hw-choice", this.bar);
    for (const kind of ["png", "csv"]) {
      const button = element("button", "", group, kind.toUpperCase());
      button.type = "button";
      button.title = `Save the large head as ${kind.toUpperCase()}`;
      button.onclick = () => save(this.parts.one.figures[0], kind);
    }
  }

  choice(options, now, choose) {
    const group = element("span", "hw-choice", this.bar);
    for (const option of options) {
      const button = element("button", "", group, NAMES[option] ?? option);
      button.type = "button";
      button.setAttribute("aria-pressed", option === now);
      button.onclick = () => choose(option);
    }
  }

  unmount() {
    for (const part of Object.values(this.parts)) part.unmount();
    Store.forget(this.model.get("explorer"));
    this.root.remove();
  }
}

function render({ model, el }) {
  const notebook = new Notebook(model, el);
  // JupyterLab renders before it attaches: only then are there a width and the page's colours.
  const attached = new ResizeObserver(() => {
    attached.disconnect();
    for (const name of ["all_heads", "words", "grid", "one"]) {
      notebook.show(name);
      model.on(`change:${name}`, () => notebook.show(name));
    }
  });
  attached.observe(notebook.root);
  return () => {
    attached.disconnect();
    notebook.unmount();
  };
}

export default { render };
