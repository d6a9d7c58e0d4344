// One query of a head over the picture its keys lie on. Where there is width, two panels: the picture as it is, to
// choose the query, and the picture in faint grey under the weights, to read them. In a narrow place only the second.
// The colours span the weights of the query shown: beside the strongest of all queries most would be too faint to see.
// Positions before the patches (CLS, registers) have no place in the picture: they are chips above it.

import { hatch } from "./colour.js";
import { drawLegend, writeNumbers } from "./legend.js";
import { Matrix } from "./matrix.js";
import { brief, exact, fit, shorten } from "./text.js";

const WIDE = 560; // two panels from here on
const GAP = 20;
const CHIP = 20; // a chip's height
const LEAST = 160; // of the picture's height, however little room there is
const CHROME = 96; // of the room, for title, readout and chips
const EDGE = 3; // room for an outline around what lies at the edge
const ENLARGED = 4; // from here on a picture's own pixels are shown as squares
const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

export class PictureView {
  constructor(figure) {
    this.figure = figure;
    this.pins = figure.pins;
  }

  take(message) {
    this.matrix = new Matrix(message);
    [this.rows, this.columns] = message.grid;
    this.special = this.matrix.Q - this.rows * this.columns; // positions before the first patch
    this.box = message.box; // left, top, right, bottom of the patches, in pixels of a picture
    this.own = message.size; // so wide and so high
    this.height = message.room ? Math.max(LEAST, message.room - CHROME) : (message.height ?? 520);
    this.pins.take(message);
    this.figure.out.hidden = true;
    this.plain = paint(message.pixels, false);
    this.grey = paint(message.pixels, true);
  }

  keep(target) {
    return target && target.index < this.matrix.Q ? target : null;
  }

  // --- sizes ---------------------------------------------------------------------------------------------

  layout(width) {
    const { box, own, figure } = this;
    const [left, top] = [Math.min(0, box[0]), Math.min(0, box[1])];
    const [wide, high] = [Math.max(own[0], box[2]) - left, Math.max(own[1], box[3]) - top];
    this.two = width >= WIDE;
    const room = this.two ? (width - GAP) / 2 : width;
    this.scale = Math.min((room - 2) / wide, this.height / high);
    this.size = [wide * this.scale, high * this.scale];
    // Chips may need more width than a tall, thin picture has.
    const panel = this.special ? Math.min(room, Math.max(this.size[0], 220)) : this.size[0];
    const second = this.two ? 1 + panel + GAP : 1;
    const pen = figure.base.getContext("2d");
    this.chips = { query: [], key: [] };
    const below = [this.flow(pen, "query", 1, panel), this.flow(pen, "key", second, panel)];
    this.top = 1 + Math.max(...below);
    this.offset = [-left * this.scale, this.top - top * this.scale]; // the picture's own corner in a panel
    this.panels = { query: 1, key: second };
    [this.w, this.h] = [
      ((box[2] - box[0]) * this.scale) / this.columns,
      ((box[3] - box[1]) * this.scale) / this.rows,
    ];
    const height = Math.ceil(this.top + this.size[1] + 2);
    const chips = this.chips[this.two ? "query" : "key"].map(({ x, y, w, h }) => [x + w / 2, y + h / 2]);
    figure.base.dataset.chips = chips.flat().join(); // their middles, for tests
    figure.base.dataset.queryLeft = this.x(this.two ? "query" : "key", 0); // where patches to choose from begin
    return {
      width,
      height,
      content: height,
      canvas: height,
      used: second + this.size[0],
      plot: [this.x("key", 0), this.y(0), this.w, this.h],
    };
  }

  /** Place one panel's word and chips in lines; returns where the picture may begin. */
  flow(pen, axis, left, room) {
    const { matrix, special, figure } = this;
    if (!this.two && axis === "query") return 0;
    pen.font = figure.theme.type(11);
    let x = left + pen.measureText(this.word(axis)).width + 10;
    let y = EDGE;
    for (let index = 0; index < special; index++) {
      pen.font = figure.theme.type(12);
      const text = fit(pen, matrix.axes[axis].labels[index] || `special ${index}`, 100);
      const numbers = axis === "key" ? 46 : 0; // the widest value, so that chips keep their places
      const w = Math.min(room, Math.ceil(pen.measureText(text).width) + 16 + numbers);
      if (x + w > left + room && x > left) [x, y] = [left, y + CHIP + 5];
      this.chips[axis].push({ index, text, x, y, w, h: CHIP });
      x += w + 6;
    }
    return y + CHIP + 7;
  }

  word(axis) {
    return axis === "query" ? "query" : this.two ? "keys" : "query and keys";
  }

  legend() {
    drawLegend(this.figure, this.matrix, false);
  }

  x(axis, column) {
    return this.panels[axis] + this.offset[0] + this.box[0] * this.scale + column * this.w;
  }

  y(row) {
    return this.offset[1] + this.box[1] * this.scale + row * this.h;
  }

  /** [x, y, width, height] of a patch, on whole device pixels, so that neighbours meet. */
  patch(axis, index) {
    const { ratio } = this.figure;
    const snap = (value) => Math.round(value * ratio) / ratio;
    const [row, column] = this.place(index);
    const [x, y] = [snap(this.x(axis, column)), snap(this.y(row))];
    return [x, y, snap(this.x(axis, column + 1)) - x, snap(this.y(row + 1)) - y];
  }

  place(index) {
    return [Math.floor((index - this.special) / this.columns), (index - this.special) % this.columns];
  }

  /** The query whose weights are drawn: under the pointer, else pinned, else the first position. */
  get shown() {
    const { target } = this.figure;
    if (target?.axis === "query") return target.index;
    const pinned = this.pins.target(this.matrix);
    return pinned?.axis === "query" ? pinned.index : 0;
  }

  // --- drawing ---------------------------------------------------------------------------------------------

  draw(pen) {
    this.choose(this.shown);
    if (this.two) this.drawPicture(pen, "query", this.plain);
    this.drawPicture(pen, "key", this.grey);
    for (let index = this.special; index < this.matrix.K; index++) this.fill(pen, index, this.patch("key", index));
    if (this.two) this.drawFrame(pen, "query");
    this.drawFrame(pen, "key");
    pen.font = this.figure.theme.type(11);
    pen.textAlign = "left";
    for (const axis of this.two ? ["query", "key"] : ["key"]) {
      pen.fillStyle = this.figure.theme.ink(0.5);
      pen.fillText(this.word(axis), this.panels[axis], EDGE + CHIP / 2 + 0.5);
    }
    for (const chip of this.chips.key) this.drawKeyChip(pen, chip);
  }

  choose(query) {
    const { matrix, figure, special } = this;
    this.drawn = figure.base.dataset.query = query;
    const first = query * matrix.K;
    matrix.limit(first + special, first + matrix.K);
    const apart = [...matrix.data.subarray(first, first + special)].filter((_, k) => !matrix.forbids(first + k));
    matrix.above = apart.some((value) => value > matrix.high); // a chip's number tells by how much
    matrix.below ||= matrix.kind !== "weight" && apart.some((value) => value < matrix.low);
    writeNumbers(figure, matrix);
  }

  drawPicture(pen, axis, image) {
    const { theme, ratio } = this.figure;
    const left = this.panels[axis];
    pen.fillStyle = theme.empty; // patches may reach beyond the picture
    pen.fillRect(left, this.top, ...this.size);
    pen.imageSmoothingEnabled = (this.scale * this.own[0]) / image.width < ENLARGED;
    pen.imageSmoothingQuality = "high";
    const corner = [left + this.offset[0], this.offset[1]];
    pen.drawImage(image, ...corner, this.own[0] * this.scale, this.own[1] * this.scale);
    if (axis === "query") return;
    pen.fillStyle = theme.background; // fade: colours on it should be read against the page
    pen.globalAlpha = 0.7;
    pen.fillRect(left, this.top, ...this.size);
    pen.globalAlpha = 1;
  }

  /** A patch in the scale's colour, like ink on paper or light in the dark: what is weak leaves the picture as it is. */
  fill(pen, index, rectangle) {
    const { matrix, figure } = this;
    const { theme } = figure;
    const i = this.drawn * matrix.K + index;
    const value = matrix.data[i];
    if (matrix.alarming(i)) pen.fillStyle = theme.alarm;
    else if (matrix.forbids(i)) return this.hatched(pen, () => pen.rect(...rectangle));
    else if (!Number.isFinite(value)) return;
    else {
      pen.fillStyle = matrix.table(theme).css[(matrix.place(value) * 255 + 0.5) | 0];
      pen.globalCompositeOperation = theme.dark ? "screen" : "multiply";
    }
    pen.fillRect(...rectangle);
    pen.globalCompositeOperation = "source-over";
  }

  hatched(pen, path) {
    const { theme, ratio } = this.figure;
    pen.save();
    pen.beginPath();
    path();
    pen.clip("evenodd");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.fillStyle = hatch(pen, theme, ratio);
    pen.fillRect(0, 0, pen.canvas.width, pen.canvas.height);
    pen.restore();
  }

  /** Veil what no patch covers, and outline what they do. */
  drawFrame(pen, axis) {
    const { theme } = this.figure;
    const all = [this.panels[axis], this.top, ...this.size];
    const covered = [this.x(axis, 0), this.y(0), this.w * this.columns, this.h * this.rows];
    const path = () => (pen.rect(...all), pen.rect(...covered));
    pen.beginPath();
    path();
    pen.fillStyle = theme.background;
    pen.globalAlpha = 0.66;
    pen.fill("evenodd");
    pen.globalAlpha = 1;
    this.hatched(pen, path);
    pen.lineWidth = 1;
    pen.strokeStyle = theme.ink(0.22);
    pen.strokeRect(...all);
    pen.strokeStyle = theme.ink(0.4);
    pen.strokeRect(...covered);
  }

  drawKeyChip(pen, chip) {
    const { matrix, figure } = this;
    const { theme } = figure;
    const i = this.drawn * matrix.K + chip.index;
    const value = matrix.data[i];
    const at = Number.isFinite(value) ? (matrix.place(value) * 255 + 0.5) | 0 : 0;
    const bare = !Number.isFinite(value) || (matrix.forbids(i) && !matrix.alarming(i));
    pen.beginPath();
    pen.roundRect(chip.x, chip.y, chip.w, chip.h, CHIP / 2);
    pen.fillStyle = matrix.alarming(i) ? theme.alarm : bare ? theme.empty : matrix.table(theme).css[at];
    pen.fill();
    pen.strokeStyle = theme.ink(0.3);
    pen.lineWidth = 1;
    pen.stroke();
    const dark = bare ? theme.dark : matrix.alarming(i) || matrix.table(theme).dark[at];
    pen.fillStyle = dark ? "rgba(255,255,255,.94)" : "rgba(10,14,30,.94)";
    const middle = chip.y + CHIP / 2 + 0.5;
    pen.textAlign = "left";
    pen.font = theme.type(12);
    pen.fillText(chip.text, chip.x + 8, middle);
    pen.textAlign = "right";
    pen.font = `600 ${theme.type(11)}`;
    pen.fillText(bare ? "–" : brief(value), chip.x + chip.w - 8, middle);
  }

  overlay(pen, target) {
    if (this.shown !== this.drawn) this.draw(this.figure.pen(this.figure.base)); // cheap: some hundred rectangles
    const { theme } = this.figure;
    const pinned = this.pins.target(this.matrix);
    const kept = pinned?.axis === "query" ? pinned.index : -1;
    const choose = this.two ? "query" : "key"; // the panel in which a query is chosen
    if (this.two) for (const chip of this.chips.query) this.drawQueryChip(pen, chip);
    if (kept >= 0 && kept !== this.drawn) this.outline(pen, choose, kept, theme.accent, 1.5);
    const ink = kept === this.drawn ? theme.accent : theme.text;
    this.outline(pen, choose, this.drawn, ink, 2.5);
    if (this.two && this.drawn >= this.special) this.outline(pen, "key", this.drawn, ink, 1.5);
    if (target?.axis !== "key") return;
    this.outline(pen, "key", target.index, theme.text, 2);
    if (target.index >= this.special) this.outline(pen, "query", target.index, theme.text, 1);
  }

  drawQueryChip(pen, { text, x, y, w, h }) {
    const { theme } = this.figure;
    pen.beginPath();
    pen.roundRect(x, y, w, h, CHIP / 2);
    pen.fillStyle = theme.ink(0.07);
    pen.fill();
    pen.font = theme.type(12);
    pen.textAlign = "left";
    pen.fillStyle = theme.ink(0.9);
    pen.fillText(text, x + 8, y + h / 2 + 0.5);
  }

  /** A line around a patch or a chip, with a halo that keeps it apart from any picture. */
  outline(pen, axis, index, colour, line) {
    const chip = this.chips[axis][index];
    const draw = () => {
      pen.beginPath();
      if (index >= this.special) pen.rect(...this.patch(axis, index));
      else pen.roundRect(chip.x, chip.y, chip.w, chip.h, CHIP / 2);
      pen.stroke();
    };
    pen.save();
    pen.beginPath();
    pen.rect(0, 0, this.figure.size.width, this.figure.size.canvas);
    pen.clip();
    for (const [style, width] of [
      [this.figure.theme.background, line + 2],
      [colour, line],
    ]) {
      [pen.strokeStyle, pen.lineWidth] = [style, width];
      draw();
    }
    pen.restore();
  }

  // --- words ---------------------------------------------------------------------------------------------

  name(index, short = false) {
    if (index < this.special) {
      const label = this.matrix.axes.query.labels[index];
      return label ? ["‘", { token: shorten(label, 24) }, "’"] : [`special ${index}`];
    }
    const [row, column] = this.place(index);
    return [`${short ? "" : "patch "}row ${row}, column ${column}`];
  }

  describe(target) {
    const { matrix } = this;
    if (target?.axis === "key") {
      const value = matrix.value(this.drawn * matrix.K + target.index);
      return [...this.name(this.drawn), " → ", ...this.name(target.index), " · " + value];
    }
    if (!target && this.pins.target(matrix)?.axis !== "query")
      return [
        this.two
          ? "Point at a patch on the left to see what it attends to, on the right to read a weight · click to keep it"
          : "Point at a patch to see what it attends to · click to keep it",
      ];
    return this.describeQuery(this.drawn);
  }

  /** A query's strongest patches, after what it gives to positions outside the picture. */
  describeQuery(query) {
    const { matrix, special } = this;
    const parts = [...this.name(query), " → "];
    const found = matrix.partners("query", query);
    const outside = found.filter(({ other }) => other < special);
    const list = [];
    if (outside.length && matrix.kind === "weight") {
      const sum = outside.reduce((total, { value }) => total + value, 0);
      list.push([...(special === 1 ? this.name(0) : ["special tokens"]), ` ${exact(sum)}`]);
    }
    const patches = found.filter(({ other }) => other >= special).slice(0, 4);
    for (const { other, value } of patches) list.push([...this.name(other, true), `: ${exact(value)}`]);
    list.forEach((item, i) => parts.push(...(i ? [" · "] : []), ...item));
    return list.length ? parts : [...parts, "nothing"];
  }

  // --- choosing ---------------------------------------------------------------------------------------------

  at(x, y) {
    const role = (axis) => (this.two ? axis : "query");
    for (const axis of this.two ? ["query", "key"] : ["key"]) {
      for (const chip of this.chips[axis])
        if (x >= chip.x && x < chip.x + chip.w && y >= chip.y && y < chip.y + chip.h)
          return { axis: role(axis), index: chip.index };
      const column = Math.floor((x - this.x(axis, 0)) / this.w);
      const row = Math.floor((y - this.y(0)) / this.h);
      if (column >= 0 && column < this.columns && row >= 0 && row < this.rows)
        return { axis: role(axis), index: this.special + row * this.columns + column };
    }
    return null;
  }

  pointer() {
    return "pointer";
  }

  click({ index }) {
    this.figure.cursor = null;
    this.pins.toggle(this.matrix, { axis: "query", index });
  }

  visit(i) {
    return { axis: "query", index: Math.floor(i / this.matrix.K) };
  }

  key(event) {
    const { figure, matrix } = this;
    if (event.key === "Escape") {
      if (this.pins.any) this.pins.clear();
      figure.cursor = null;
      figure.refresh();
      return true;
    }
    const now = figure.target?.index ?? this.shown;
    if (event.key === "Enter" || event.key === " ") this.pins.toggle(matrix, { axis: "query", index: now });
    else if (event.key === "Home") figure.look({ axis: "query", index: 0 });
    else if (event.key === "End") figure.look({ axis: "query", index: matrix.Q - 1 });
    else if (event.key in MOVES) figure.look({ axis: "query", index: this.step(now, MOVES[event.key]) });
    else return false;
    return true;
  }

  /** Over the patches by rows and columns; above the first row lie the special positions, side by side. */
  step(index, [down, right]) {
    const { special, rows, columns } = this;
    if (index < special) {
      if (down) return down > 0 ? special : index;
      return Math.min(special, Math.max(0, index + right));
    }
    const [row, column] = this.place(index);
    if (row + down < 0) return special ? special - 1 : index;
    const [newRow, newColumn] = [Math.min(rows - 1, row + down), Math.min(columns - 1, Math.max(0, column + right))];
    return special + newRow * columns + newColumn;
  }
}

/** Packed RGB bytes as a canvas, in colour or in grey. */
function paint({ shape: [height, width], data }, grey) {
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer); // RGBA bytes, little-endian
  for (let i = 0, at = 0; at < pixels.length; i += 3, at++) {
    const [r, g, b] = [data[i], data[i + 1], data[i + 2]];
    const luma = (0.299 * r + 0.587 * g + 0.114 * b) | 0;
    pixels[at] = (255 << 24) | (grey ? luma * 0x10101 : (b << 16) | (g << 8) | r);
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
