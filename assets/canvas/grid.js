// All heads of a model as one picture: a thumbnail for each, layers down, heads across (or sorted and wrapped).

import { emptyPixel } from "./colour.js";
import { Store } from "./store.js";
import { fit } from "./text.js";

const APART = 5; // more, before the means
const GAP = 4; // between thumbnails
const LINE = 17; // height of a caption or heading
const LARGEST = 84; // a thumbnail's side, at most
const NARROW = 1460; // pixels of a window that has no room beside grid and head: there a compact grid leaves some below
const LEAST = 28; // and a thumbnail's side in it, at least
const EMPTY = 255; // the byte that stands for NaN: forbidden or not computed
const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

export class Grid {
  constructor(figure) {
    this.figure = figure;
    this.chosen = null; // "layer,head"
    this.beside = []; // places of heads that are pinned beside each other
    this.turn = 0; // counts the choices made here
  }

  take(message) {
    this.message = message;
    [this.L, this.H, this.t] = message.thumbs.shape; // (L, H, t, t)
    this.places();
    this.figure.out.hidden = true;
    this.marks();
    if (message.explorer) return this.join(Store.of(message.explorer));
    // Python's word counts when it changes. But a key held down sends many turns, and the answer to an early one must
    // not pull the outline back.
    const said = message.selected.join();
    this.waiting &&= message.turn !== this.turn && performance.now() - this.asked < 3000;
    if (!this.waiting && said !== this.said) this.chosen = said;
    this.said = said;
    this.select();
  }

  /** Which heads stand where; by layer, their means stand beside and below them, where all heads have travelled. */
  places() {
    const { message, store, L, H } = this;
    const travelled = message.means && !message.order && store?.whole && store.heads.of === "weight";
    this.means = Boolean(travelled) && store.heads.has([-1, 0]) && store.heads.has([0, -1]);
    this.meansOf = this.means ? store.heads : null;
    const [rows, columns] = this.means ? [L + 1, H + 1] : [L, H];
    const place = (i) => [Math.floor(i / columns), i % columns];
    const mean = ([row, head]) => [row === L ? -1 : row, head === H ? -1 : head];
    this.heads = message.order ?? Array.from({ length: rows * columns }, (_, i) => mean(place(i)));
  }

  /** In an explorer, what is chosen is the store's. */
  join(store) {
    this.store = store;
    store.watch(this);
    this.places();
    this.follow();
  }

  follow() {
    const { chosen, beside } = this.store;
    this.chosen = chosen?.join() ?? null;
    this.beside = beside.map((pinned) => this.heads.findIndex((head) => head.join() === pinned.join()));
    this.select();
  }

  changed(what) {
    if (what === "heads" || what === "matrix") this.arrived();
    if (what !== "head" && what !== "beside") return;
    this.follow();
    this.figure.refresh();
  }

  /** All heads may come after the grid, and with them their means. */
  arrived() {
    const before = this.meansOf;
    this.places();
    if (this.meansOf === before || !this.figure.size) return;
    this.follow();
    this.recolour();
    this.figure.paint();
  }

  select() {
    this.selected = this.heads.findIndex((head) => head.join() === this.chosen);
    this.name();
  }

  name() {
    this.figure.root.dataset.head = this.heads[this.selected]?.join(".") ?? "";
  }

  /** Labels name heads, not their places: a model may have attention only in some layers. */
  title([layer, head]) {
    if (layer < 0 || head < 0) return `${this.store.heads.whole([layer, head]).title} · click to see it beside`;
    const named = (noun, label) => (/^\d/.test(label) ? `${noun} ${label}` : label);
    return `${named("layer", this.message.rows[layer])} · ${named("head", this.message.columns[head])}`;
  }

  caption([layer, head]) {
    const number = (label) => label.match(/\d+$/)?.[0] ?? label;
    return `${number(this.message.rows[layer])}.${number(this.message.columns[head])}`;
  }

  keep(index) {
    return index !== null && index < this.heads.length ? index : null;
  }

  marks() {
    this.figure.side.replaceChildren();
    if (this.message.order) return;
    this.tags = Object.entries(this.message.marks).map(([layer, [text, tip]]) => {
      const tag = document.createElement("span");
      tag.className = "hw-mark";
      tag.textContent = text;
      tag.title = tip;
      this.figure.side.append(tag);
      return [Number(layer), tag];
    });
  }

  unmount() {
    this.store?.leave(this);
    clearTimeout(this.timer);
  }

  recolour() {
    // One sprite of all thumbnails: (L·t) × (H·t) pixels, coloured once per message and theme.
    const { L, H, t, message } = this;
    const table = this.figure.theme.sequential.pixels;
    const empty = emptyPixel(this.figure.theme);
    this.sprite ??= document.createElement("canvas");
    const [down, across] = this.means ? [L + 1, H + 1] : [L, H];
    this.sprite.width = across * t;
    this.sprite.height = down * t;
    const image = new ImageData(across * t, down * t);
    const pixels = new Uint32Array(image.data.buffer);
    const bytes = message.thumbs.data;
    for (let layer = 0, i = 0; layer < L; layer++)
      for (let head = 0; head < H; head++)
        for (let row = 0; row < t; row++) {
          let at = ((layer * t + row) * across + head) * t;
          for (let column = 0; column < t; column++, i++, at++)
            pixels[at] = bytes[i] === EMPTY ? empty : table[bytes[i]];
        }
    for (const place of this.means ? this.heads : []) {
      if ((place[0] >= 0 && place[1] >= 0) || !this.store.heads.has(place)) continue; // the new run's come in a moment
      const [layer, head] = [place[0] < 0 ? L : place[0], place[1] < 0 ? H : place[1]];
      this.store.heads.thumbnail(place, t).forEach((byte, i) => {
        pixels[(layer * t + Math.floor(i / t)) * across * t + head * t + (i % t)] = byte === EMPTY ? empty : table[byte];
      });
    }
    this.sprite.getContext("2d").putImageData(image, 0, 0);
  }

  layout(width) {
    const { message, figure } = this;
    const pen = figure.base.getContext("2d");
    pen.font = this.font = figure.theme.type(11);
    const sorted = Boolean(message.order);
    const names = this.means ? [...message.rows, "mean"] : message.rows;
    const widest = Math.max(0, ...names.map((label) => pen.measureText(label).width));
    this.left = sorted ? 2 : Math.ceil(Math.min(widest, 90)) + 10;
    this.top = sorted ? 2 : LINE + 4;
    const tags = sorted ? [] : this.tags;
    const right = Math.max(2, ...tags.map(([, tag]) => tag.offsetWidth + 8));
    const room = width - this.left - right;
    const compact = message.compact && innerWidth <= NARROW;
    const largest = compact ? Math.max(LEAST, Math.min(LARGEST, (0.26 * innerHeight) / this.L - GAP)) : LARGEST;
    const device = (x) => Math.max(8, Math.floor(x * figure.ratio) / figure.ratio); // whole device pixels stay crisp
    if (sorted) {
      const wanted = Math.max(44, Math.min(72, Math.sqrt((room * 420) / this.heads.length) - LINE));
      this.columns = Math.max(1, Math.min(this.heads.length, Math.floor((room + GAP) / (wanted + GAP))));
      this.size = device(Math.min(LARGEST, (room + GAP) / this.columns - GAP));
    } else {
      this.columns = this.H + this.means;
      this.size = device(Math.min(largest, (room - APART * this.means + GAP) / this.columns - GAP));
    }
    this.stepX = this.size + GAP;
    this.stepY = this.size + (sorted ? LINE : GAP);
    const rows = Math.ceil(this.heads.length / this.columns);
    const content = Math.ceil(this.top + rows * this.stepY + APART * this.means + 2);
    this.edge = this.left + this.columns * this.stepX + APART * this.means;
    for (const [layer, tag] of tags) {
      tag.style.left = `${this.edge + 4}px`;
      tag.style.top = `${this.top + layer * this.stepY + this.size / 2}px`;
    }
    const height = Math.min(content, message.height ?? content, compact ? 0.42 * innerHeight : content);
    const plot = [this.left, this.top, this.stepX, this.stepY];
    return { width: Math.max(width, this.edge + right), height, content, canvas: content, used: width, plot };
  }

  box(index) {
    const row = Math.floor(index / this.columns);
    const column = index % this.columns;
    const [right, down] = this.means ? [column === this.H, row === this.L] : [false, false];
    return [this.left + column * this.stepX + APART * right, this.top + row * this.stepY + APART * down];
  }

  draw(pen) {
    const { t, size, message, figure } = this;
    const { theme } = figure;
    pen.imageSmoothingEnabled = size * figure.ratio < t; // shrinking by nearest pixel would drop thin lines
    pen.imageSmoothingQuality = "high";
    this.heads.forEach((place, index) => {
      const [layer, head] = [place[0] < 0 ? this.L : place[0], place[1] < 0 ? this.H : place[1]];
      const [x, y] = this.box(index);
      pen.drawImage(this.sprite, head * t, layer * t, t, t, x, y, size, size);
    });
    pen.font = this.font;
    pen.fillStyle = theme.ink(0.62);
    if (message.order) {
      pen.textAlign = "center";
      this.heads.forEach((head, index) => {
        const [x, y] = this.box(index);
        pen.fillText(this.caption(head), x + size / 2, y + size + LINE / 2 + 1);
      });
      return;
    }
    const every = (labels, room) => Math.ceil((Math.max(...labels.map((l) => pen.measureText(l).width)) + 4) / room);
    const skip = every(message.columns, this.stepX);
    pen.textAlign = "center";
    message.columns.forEach((label, head) => {
      if (head % skip === 0) pen.fillText(label, this.left + head * this.stepX + size / 2, this.top - LINE / 2 - 2);
    });
    if (this.means) pen.fillText("mean", this.left + this.H * this.stepX + APART + size / 2, this.top - LINE / 2 - 2);
    const skipRows = Math.ceil(12 / this.stepY);
    pen.textAlign = "right";
    message.rows.forEach((label, layer) => {
      if (layer % skipRows) return;
      pen.fillText(fit(pen, label, 90), this.left - 7, this.top + layer * this.stepY + size / 2);
    });
    if (this.means) pen.fillText("mean", this.left - 7, this.top + this.L * this.stepY + APART + size / 2);
  }

  overlay(pen, target) {
    const { theme } = this.figure;
    const frame = (index, colour, line) => {
      const [x, y] = this.box(index);
      pen.strokeStyle = colour;
      pen.lineWidth = line;
      const out = line / 2;
      pen.strokeRect(x - out, y - out, this.size + line, this.size + line);
    };
    for (const index of this.beside) if (index >= 0) frame(index, theme.text, 2);
    if (target !== null && target !== this.selected) frame(target, theme.ink(0.45), 1.5);
    if (this.selected >= 0) frame(this.selected, theme.accent, 3);
  }

  at(x, y) {
    const column = Math.floor((x - this.left + GAP / 2) / this.stepX);
    const row = Math.floor((y - this.top + (this.message.order ? 0 : GAP / 2)) / this.stepY);
    const index = row * this.columns + column;
    return column >= 0 && column < this.columns && row >= 0 && index < this.heads.length ? index : null;
  }

  pointer() {
    return "pointer";
  }

  describe(target) {
    const index = target ?? this.selected;
    if (index < 0) return ["Click a head to see it"];
    const [layer, head] = this.heads[index];
    const caption = this.message.captions[`${layer}.${head}`];
    const mark = this.message.marks[layer];
    return [[this.title([layer, head]), caption, mark?.[0]].filter(Boolean).join(" · ")];
  }

  mean(index) {
    return this.heads[index].some((part) => part < 0);
  }

  choose(index, wait) {
    if (index === this.selected) return;
    if (this.mean(index)) return this.store.toggle(this.heads[index]); // it is no head: it stands beside one
    if (this.store) return this.store.choose(this.heads[index], wait);
    const [layer, head] = this.heads[index];
    this.selected = index;
    this.chosen = `${layer},${head}`;
    this.waiting = true;
    this.asked = performance.now();
    const turn = ++this.turn;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.figure.send({ layer, head, turn }), wait);
    this.name();
    this.figure.refresh();
  }

  click(index, { shiftKey }) {
    if (shiftKey && this.store) this.store.toggle(this.heads[index]);
    else this.choose(index, 0);
  }

  key(event) {
    const last = this.heads.length - 1;
    const from = Math.max(0, this.selected);
    const row = Math.floor(from / this.columns);
    const column = from % this.columns;
    let to;
    if (event.key in MOVES) {
      const [down, right] = MOVES[event.key];
      if (column + right < 0 || column + right >= this.columns) return true;
      to = from + down * this.columns + right;
    } else if (event.key === "Home") to = event.shiftKey ? 0 : row * this.columns;
    else if (event.key === "End") to = event.shiftKey ? last : Math.min(last, (row + 1) * this.columns - 1);
    else return false;
    if (to < 0 || to > last || this.mean(to)) return true;
    this.figure.hover = null; // the keyboard speaks now
    this.choose(to, 140);
    this.reveal(to);
    return true;
  }

  reveal(index) {
    const { stage } = this.figure;
    const y = this.box(index)[1];
    if (y - this.top < stage.scrollTop) stage.scrollTop = y - this.top;
    if (y + this.stepY > stage.scrollTop + stage.clientHeight) stage.scrollTop = y + this.stepY - stage.clientHeight;
  }
}
