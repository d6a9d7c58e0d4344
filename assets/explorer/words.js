// What the model read and wrote, as text that runs on. It is coloured by what one token looks at in the chosen head:
// the one under the hand, else the pinned one, else the last. Two texts where queries and keys are not the same.

import { readTheme } from "./colour.js";
import { Store } from "./store.js";
import { visible } from "./text.js";

const FAINT = 0.012; // of the scale: less is not coloured
const HINT = "point: look from a word · click: pin it";
const MOVES = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -8, ArrowDown: 8, Home: -Infinity, End: Infinity };
const other = { query: "key", key: "query" };

export class Words {
  constructor(parent) {
    this.root = document.createElement("div");
    this.root.className = "hw hw-words";
    this.root.dataset.testid = "headwise-text";
    parent.append(this.root);
    const stop = (this.stopper = new AbortController()).signal;
    const on = (type, act) => this.root.addEventListener(type, act, { signal: stop });
    on("pointerover", ({ target }) => this.store.point(this.token(target), this));
    on("pointerleave", () => this.store.point(null, this));
    on("focusout", () => this.store.point(null, this));
    on("click", ({ target }) => this.token(target) && this.pin(this.token(target)));
    on("keydown", (event) => this.key(event));
  }

  update(message, send) {
    this.theme = readTheme(this.root);
    if (message !== this.message) this.take(message);
    this.paint();
  }

  take(message) {
    this.message = message;
    this.store?.leave(this);
    this.store = Store.of(message.explorer);
    this.store.watch(this);
    this.words = { query: [], key: [] };
    const texts = ["key", "query"].filter((axis) => message[axis]); // what was read first stands first
    this.root.replaceChildren(...texts.map((axis) => this.text(axis, message[axis], texts.length > 1)));
    this.root.lastChild.dataset.hint = HINT;
    if (!message.key) this.words.key = this.words.query; // one text that looks at itself
  }

  text(axis, { words, special, written }, named) {
    const paragraph = document.createElement("div");
    paragraph.className = "hw-text";
    paragraph.tabIndex = 0;
    paragraph.dataset.axis = axis;
    paragraph.setAttribute("role", "application");
    const name = this.message.names[axis].replace(/ \w+$/, ""); // "source keys" are a source
    const label = `Text, ${words.length} ${this.message.names[axis]}. Arrow keys look from word to word, Enter pins.`;
    paragraph.setAttribute("aria-label", label);
    if (named) {
      const shown = document.createElement("span");
      shown.className = "hw-hint";
      shown.textContent = `${name} `;
      paragraph.append(shown);
    }
    const quiet = new Set(special);
    words.forEach((word, position) => {
      const span = document.createElement("span");
      span.className = "hw-word";
      span.dataset.position = position;
      if (quiet.has(position)) span.dataset.special = "";
      if (written !== null && position >= written) span.dataset.written = "";
      const [, gap, rest] = word.match(/^(\s*)([^]*)$/); // a word is coloured, the space before it is not
      span.textContent = visible(rest || gap.slice(1) || "") || "·";
      this.words[axis].push(span);
      const apart = (gap && rest) || quiet.has(position) || quiet.has(position - 1);
      paragraph.append(/\n/.test(gap) ? document.createElement("br") : apart ? " " : "", span);
    });
    return paragraph;
  }

  unmount() {
    this.stopper.abort();
    this.store?.leave(this);
    this.root.remove();
  }

  changed(what) {
    if (what === "look" || what === "pin" || what === "matrix") this.paint();
  }

  /** The token that an element is, in positions of the full sequence. */
  token(element) {
    const position = element.dataset?.position;
    if (position === undefined) return null;
    return { axis: element.parentElement.dataset.axis, index: Number(position) };
  }

  /** From where the text is coloured. */
  get from() {
    const { look, pinned } = this.store;
    const words = this.words.query;
    const last = words.findLastIndex((word) => !("special" in word.dataset));
    return look ?? pinned ?? { axis: "query", index: last < 0 ? words.length - 1 : last };
  }

  paint() {
    const { matrix, pinned } = this.store;
    const { axis, index } = this.from;
    for (const side of ["query", "key"])
      this.words[side].forEach((word, position) => {
        const [from, fixed] = [side === axis && position === index, pinned?.axis === side && position === pinned.index];
        if (side === "key" && !this.message.key && !from && !fixed) return; // the same elements
        word.classList.toggle("hw-from", from);
        word.classList.toggle("hw-pinned", fixed);
      });
    const row = matrix ? matrix.indexOf(axis, index) : -1;
    const lit = other[axis];
    for (const [side, words] of Object.entries(this.words)) {
      if (side !== lit && this.message.key) for (const word of words) this.colour(word, null);
      if (side === lit) words.forEach((word, position) => this.colour(word, this.seen(axis, row, lit, position)));
    }
  }

  /** The cell by which a position is looked at; null where there is none. */
  seen(axis, row, lit, position) {
    const { matrix } = this.store;
    const column = row < 0 ? -1 : matrix.indexOf(lit, position);
    return column < 0 ? null : matrix.cell(axis, row, column);
  }

  colour({ style }, cell) {
    const { matrix } = this.store;
    const value = cell === null ? NaN : matrix.data[cell];
    const alarm = cell !== null && matrix.alarming(cell);
    const shown = Number.isFinite(value) && !matrix.forbids(cell) && matrix.strength(value) > FAINT;
    if (!shown && !alarm) {
      style.background = style.color = "";
      return;
    }
    const table = matrix.table(this.theme);
    const place = (matrix.place(value) * 255 + 0.5) | 0;
    style.background = alarm ? this.theme.alarm : table.css[place];
    style.color = alarm || table.dark[place] ? "#ffffff" : "#0a0e1e";
  }

  pin(token) {
    const { pinned } = this.store;
    const again = pinned?.axis === token.axis && pinned.index === token.index;
    this.store.pin(again ? null : token);
  }

  key(event) {
    const axis = event.target.dataset.axis;
    if (!axis || event.ctrlKey || event.metaKey || event.altKey) return;
    const { look } = this.store;
    const now = look?.axis === axis ? look.index : this.from.axis === axis ? this.from.index : -1;
    if (event.key in MOVES) {
      const index = Math.min(this.words[axis].length - 1, Math.max(0, now + MOVES[event.key]));
      this.store.point({ axis, index }, this);
      this.words[axis][index].scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter" || event.key === " ") this.pin({ axis, index: now });
    else if (event.key === "Escape") this.store.pin(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
