// One head as a matrix: queries are rows, keys are columns. It draws the mask it is given and assumes none.

import { alarmPixel, emptyPixel, hatch } from "./colour.js";
import { drawLegend } from "./legend.js";
import { Matrix } from "./matrix.js";
import { AXIS, STRIP, drawStrip, drawTimes, paintStrip } from "./sound.js";
import { brief, drawToken, fit } from "./text.js";
import { SIDE } from "./track.js";

const SLANT = (50 * Math.PI) / 180; // key labels
const LINE = 15; // room a label needs to be read at ease,
const TIGHT = 11; // and, if then every row can have one
const LARGEST = 34; // a cell's side, at most
const LEAST = 160; // of the cells together, however little room there is
const MOST_LINES = 20000; // a speckled mask has no outline to draw
const STEPS = [1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 50, 64, 100, 128, 200, 256, 512];
const MOVES = {
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  PageUp: [-10, 0],
  PageDown: [10, 0],
};

export class Heatmap {
  constructor(figure) {
    this.figure = figure;
    this.pins = figure.pins;
  }

  take(message) {
    this.matrix = new Matrix(message);
    this.sound = message.key_sound; // where its spectrogram's columns are in time
    this.spectrogram = message.spectrogram;
    this.height = message.height ?? 600;
    this.room = message.room; // pixels for all of it, if the page says so
    this.names = message.axis_names;
    this.picks = message.picks ?? null; // what a click on a cell does, in a word, instead of pinning its row
    this.undoes = message.undoes || this.picks; // the same on a cell that has a cross
    this.hint = message.hint;
    this.marks = message.marks ?? []; // cells that carry a cross, as positions [query, key]
    this.anchor = null;
    this.zooms = message.zooms ?? true;
    this.pins.take(message);
    this.figure.out.hidden = !(this.zooms && this.matrix.zoomed);
  }

  keep(target) {
    const { Q, K, axes } = this.matrix;
    if (!target) return null;
    return (target.axis ? target.index < axes[target.axis].count : target.q < Q && target.k < K) ? target : null;
  }

  unmount() {
    clearTimeout(this.timer);
  }

  recolour() {
    this.image = this.strip = null;
  }

  // --- sizes ---------------------------------------------------------------------------------------------

  layout(width) {
    const { matrix, figure } = this;
    const { Q, K } = matrix;
    const pen = figure.base.getContext("2d");
    pen.font = figure.theme.type(12);
    const longest = (axis, cap, from = 0) => {
      const { labels, count } = matrix.axes[axis];
      const ticks = labels.map((_, i) => matrix.tick(axis, i, count > 24)).slice(from);
      ticks.sort((a, b) => b.length - a.length); // measuring all of 1,024 labels takes longer than drawing
      return Math.min(cap, Math.ceil(Math.max(...ticks.slice(0, 20).map((text) => pen.measureText(text).width))));
    };
    const { query, key } = matrix.axes;
    this.rowRoom = query.track ? SIDE : longest("query", Math.min(120, 0.25 * width));
    const straight = key.time || key.track; // names that do not slant
    this.columnRoom = straight ? 0 : longest("key", 100);
    const lastRoom = straight ? 0 : longest("key", 100, K - Math.max(3, K >> 3)); // only the last lean out on the right
    const snap = (x) => Math.round(x * figure.ratio) / figure.ratio;
    const corner = Math.max(...this.names.map((name) => pen.measureText(name).width)); // the words there
    const words = corner + (query.time || key.time ? 22 : 4);
    this.beside = query.track?.depth(false, width) ?? 0; // the drawing beside the rows, and over the columns
    this.over = key.track?.depth(true, width) ?? (key.time ? STRIP : 0);
    this.left = snap(this.beside + Math.max(this.rowRoom, words - this.beside) + 10);
    this.top = straight ? this.over + AXIS : snap(Math.max(this.columnRoom * Math.sin(SLANT) + 14, 36));
    const roomX = Math.max(40, width - this.left - Math.max(8, lastRoom * Math.cos(SLANT)));
    const above = figure.stage.getBoundingClientRect().top - figure.root.getBoundingClientRect().top;
    const roomY = this.room ? Math.max(LEAST, this.room - this.top - above - 8) : this.height;
    let [w, h] = [Math.min(LARGEST, roomX / K), Math.min(LARGEST, roomY / Q)];
    const alike = Q < 3 * K && K < 3 * Q;
    if (alike && Boolean(query.time) === Boolean(key.time))
      w = h = Math.min(w, h); // a diagonal should look like one
    else if (query.time || key.time) w = Math.min(3 * LARGEST, roomX / K); // time is as long as the page is wide
    else [w, h] = [Math.min(w, 3 * h), Math.min(h, 3 * w)];
    const crisp = query.time || key.time || query.track || key.track ? 16 : 4; // equal cells, where that costs time little of the page's width
    const device = (x) => (x * figure.ratio >= crisp ? Math.floor(x * figure.ratio) / figure.ratio : x);
    [this.w, this.h] = [device(w), device(h)];
    const [line, tight] = [LINE * figure.theme.unit, TIGHT * figure.theme.unit];
    const step = (size) => STEPS.find((s) => s * size >= line) ?? Math.ceil(line / size);
    [this.stepQ, this.stepK] = [this.h >= tight ? 1 : step(this.h), step(this.w)];
    this.font = figure.theme.type(this.h < 13 ? 11 : 12);
    const height = Math.ceil(this.top + Q * this.h + 6);
    return {
      width,
      height,
      content: height,
      canvas: height,
      used: this.x(K),
      plot: [this.left, this.top, this.w, this.h],
    };
  }

  legend() {
    drawLegend(this.figure, this.matrix, false);
  }

  x(k) {
    return this.left + k * this.w;
  }

  y(q) {
    return this.top + q * this.h;
  }

  // --- the data, drawn once per message, theme and size -----------------------------------------------------

  /** The matrix as pixels. Cells smaller than a device pixel share one: the strongest shows, an alarm always. */
  paintImage() {
    const { matrix, figure } = this;
    const { Q, K, data } = matrix;
    const columns = Math.max(1, Math.min(K, Math.round(K * this.w * figure.ratio)));
    const rows = Math.max(1, Math.min(Q, Math.round(Q * this.h * figure.ratio)));
    if (this.image?.width === columns && this.image?.height === rows) return;
    const shared = columns < K || rows < Q;
    const { pixels: table } = matrix.table(figure.theme);
    const [alarm, empty] = [alarmPixel(figure.theme), emptyPixel(figure.theme)];
    const image = new ImageData(columns, rows);
    const pixels = new Uint32Array(image.data.buffer);
    const best = shared ? new Float32Array(columns * rows).fill(-2) : null;
    const column = Uint16Array.from({ length: K }, (_, k) => Math.floor((k * columns) / K));
    for (let q = 0, i = 0; q < Q; q++) {
      const start = Math.floor((q * rows) / Q) * columns;
      for (let k = 0; k < K; k++, i++) {
        const at = start + column[k];
        const value = data[i];
        const forbidden = matrix.forbids(i); // stays transparent: the hatch under it shows
        const place = forbidden || !Number.isFinite(value) ? 0 : matrix.place(value);
        if (shared) {
          const rank = forbidden ? -1 : matrix.kind === "signed" ? Math.abs(2 * place - 1) : place;
          if (rank <= best[at]) continue;
          best[at] = rank;
        }
        pixels[at] = forbidden ? 0 : Number.isFinite(value) ? table[(place * 255 + 0.5) | 0] : empty;
      }
    }
    for (const i of matrix.alarms) pixels[Math.floor((Math.floor(i / K) * rows) / Q) * columns + column[i % K]] = alarm;
    this.image = document.createElement("canvas");
    this.image.width = columns;
    this.image.height = rows;
    this.image.getContext("2d").putImageData(image, 0, 0);
  }

  draw(pen) {
    const { matrix, figure } = this;
    const { theme } = figure;
    const [width, height] = [matrix.K * this.w, matrix.Q * this.h];
    this.paintImage();
    if (matrix.hasForbidden) {
      pen.save();
      pen.setTransform(1, 0, 0, 1, 0, 0);
      pen.fillStyle = hatch(pen, theme, figure.ratio);
      pen.fillRect(...[this.left, this.top, width, height].map((x) => Math.round(x * figure.ratio)));
      pen.restore();
    }
    pen.imageSmoothingEnabled = false;
    pen.drawImage(this.image, this.left, this.top, width, height);
    this.drawSound(pen);
    for (const axis of ["query", "key"]) matrix.axes[axis].track?.draw(pen, this.along(axis));
    this.drawBorder(pen);
    pen.strokeStyle = theme.ink(0.22);
    pen.lineWidth = 1;
    pen.strokeRect(this.left - 0.5, this.top - 0.5, width + 1, height + 1);
    this.drawNumbers(pen);
    this.drawAlarmMarks(pen);
    for (const [q, k] of this.marks)
      this.cross(pen, matrix.indexOf("query", q), matrix.indexOf("key", k), theme.text, theme.background);
  }

  /** A cross over a cell, readable on any colour; nothing where the cell is not shown. */
  cross(pen, q, k, colour, rim) {
    if (q < 0 || k < 0) return;
    const half = Math.max(3, Math.min(7, 0.3 * Math.min(this.w, this.h)));
    const [x, y] = [this.x(k + 0.5), this.y(q + 0.5)];
    pen.save();
    pen.lineCap = "round";
    for (const [style, line] of [
      [rim, 4],
      [colour, 2],
    ]) {
      pen.strokeStyle = style;
      pen.lineWidth = line;
      pen.beginPath();
      pen.moveTo(x - half, y - half);
      pen.lineTo(x + half, y + half);
      pen.moveTo(x + half, y - half);
      pen.lineTo(x - half, y + half);
      pen.stroke();
    }
    pen.restore();
  }

  /** The one edge that a cell stands for, as positions [query, key]; null where it stands for several, or for none. */
  edge({ q, k }) {
    const { matrix } = this;
    const spans = [matrix.span("query", q), matrix.span("key", k)];
    return spans.every(([first, last]) => first === last) ? spans.map(([first]) => first) : null;
  }

  pick(target) {
    const cell = this.edge(target);
    if (cell) this.figure.send({ cell });
  }

  /** Where an axis' series or score is drawn. */
  along(axis) {
    const across = axis === "key";
    const place = (cells) => (across ? this.x(cells) : this.y(cells));
    return { across, start: across ? 0 : 1, depth: across ? this.over : this.beside, place, theme: this.figure.theme };
  }

  /** The spectrogram over its columns, and a line where a recording ends. */
  drawSound(pen) {
    const { matrix, figure } = this;
    const { query, key } = matrix.axes;
    const { theme, ratio } = figure;
    const right = this.x(matrix.K);
    if (key.time) {
      if (this.spectrogram) this.strip ??= paintStrip(this.spectrogram, theme);
      const view = { left: this.left, right, x: (k) => this.x(k), theme, ratio };
      drawStrip(pen, this.strip, this.sound, key.time, view);
    }
    pen.strokeStyle = theme.ink(0.75);
    pen.lineWidth = 1;
    pen.setLineDash([4, 3]);
    pen.beginPath();
    for (const [from, to] of [
      [0, STRIP],
      [this.top, this.y(matrix.Q)],
    ])
      if (typeof key.time?.stop === "number") {
        pen.moveTo(this.x(key.time.stop), from);
        pen.lineTo(this.x(key.time.stop), to);
      }
    if (typeof query.time?.stop === "number") {
      pen.moveTo(this.left, this.y(query.time.stop));
      pen.lineTo(right, this.y(query.time.stop));
    }
    pen.stroke();
    pen.setLineDash([]);
  }

  /** The mask's edge: a thin stepped line between allowed and forbidden cells. Runs are merged into one stroke. */
  drawBorder(pen) {
    const { matrix, figure } = this;
    if (!matrix.hasForbidden) return;
    const { Q, K, forbidden } = matrix;
    const snap = (x) => (Math.round(x * figure.ratio) + 0.5) / figure.ratio;
    let lines = 0;
    const walk = (across, along, stepAcross, stepAlong, line) => {
      for (let a = 1; a < across; a++)
        for (let b = 0, start = -1; b <= along; b++) {
          const i = a * stepAcross + b * stepAlong;
          const edge = b < along && (forbidden[i] === 1) !== (forbidden[i - stepAcross] === 1);
          if (edge && start < 0) start = b;
          if (edge || start < 0) continue;
          line(a, start, b);
          start = -1;
          if (++lines > MOST_LINES) return;
        }
    };
    pen.beginPath();
    walk(K, Q, 1, K, (k, from, to) => {
      pen.moveTo(snap(this.x(k)), snap(this.y(from)));
      pen.lineTo(snap(this.x(k)), snap(this.y(to)));
    });
    walk(Q, K, K, 1, (q, from, to) => {
      pen.moveTo(snap(this.x(from)), snap(this.y(q)));
      pen.lineTo(snap(this.x(to)), snap(this.y(q)));
    });
    if (lines > MOST_LINES) return;
    pen.strokeStyle = figure.theme.ink(0.6);
    pen.lineWidth = 1;
    pen.stroke();
  }

  /** In a small matrix there is room for the numbers themselves. */
  drawNumbers(pen) {
    const { matrix, figure } = this;
    if (this.w < 28 || this.h < 16) return;
    const { dark } = matrix.table(figure.theme);
    pen.font = figure.theme.type(10);
    pen.textAlign = "center";
    for (let i = 0; i < matrix.data.length; i++) {
      const value = matrix.data[i];
      if (!Number.isFinite(value) || (matrix.forbids(i) && !matrix.alarming(i))) continue;
      const at = (matrix.place(value) * 255 + 0.5) | 0;
      if (Math.abs(value) < 0.005) continue;
      const text = Math.abs(value) < 10 ? value.toFixed(2).replace(/^(-?)0\./, "$1.") : brief(value);
      pen.fillStyle = matrix.alarming(i) || dark[at] ? "rgba(255,255,255,.92)" : "rgba(10,14,30,.92)";
      pen.fillText(text, this.x((i % matrix.K) + 0.5), this.y(Math.floor(i / matrix.K) + 0.5) + 0.5);
    }
  }

  // --- labels: on the upper canvas, so that those beside the pointer's row and column can make way ------------

  drawTicks(pen, marks) {
    const { matrix } = this;
    for (const [axis, step, size] of [
      ["query", this.stepQ, this.h],
      ["key", this.stepK, this.w],
    ]) {
      const loud = marks.filter((mark) => mark.axis === axis);
      if (matrix.axes[axis].time) {
        this.drawSeconds(pen, axis, loud);
        continue;
      }
      if (matrix.axes[axis].track) {
        this.drawMarks(pen, axis, loud);
        continue;
      }
      const near = step === 1 ? 1 : (LINE * this.figure.theme.unit) / size;
      for (let i = 0; i < matrix.axes[axis].count; i += step)
        if (!loud.some(({ index }) => Math.abs(index - i) < near)) this.label(pen, axis, i, "quiet");
      for (const { index, how } of loud) this.label(pen, axis, index, how);
    }
    pen.font = this.figure.theme.type(11);
    pen.fillStyle = this.figure.theme.ink(0.5);
    pen.textAlign = "right";
    const seconds = (axis) => (matrix.axes[axis].time ? " (s)" : "");
    const [queries, keys] = this.names;
    pen.fillText(`${keys}${seconds("key")} →`, this.left - 8, this.top - 28);
    pen.fillText(`${queries}${seconds("query")} ↓`, this.left - 8, this.top - 14);
    if (matrix.axes.key.time) pen.fillText("pitch ↑", this.left - 8, STRIP / 2 - 8);
    matrix.axes.key.track?.drawEnds(pen, this.along("key"), this.left - 8);
  }

  /** The names of years or bars between a series or a score and the matrix. */
  drawMarks(pen, axis, loud) {
    const { matrix, figure } = this;
    const { theme } = figure;
    const { track, labels, count } = matrix.axes[axis];
    const { across, place } = this.along(axis);
    const ticks = track.ticks(across ? this.w : this.h, across ? 40 : 18);
    const marks = loud.map(({ index, how }) => ({
      text: across ? labels[index] : track.short(labels[index]),
      at: index + 0.5,
      ink: how === "pinned" ? theme.accent : theme.ink(1),
    }));
    const edge = across ? this.top : this.left;
    drawTimes(pen, across, ticks, marks, { place, edge, from: place(0), to: place(count), theme });
    figure.base.dataset[`${axis}Ticks`] = ticks.map(({ at, text }) => `${text}@${place(at).toFixed(2)}`); // for tests
  }

  /** What the query that is looked at weighs, on the series or the score of the keys; and where the two are. */
  drawWeighed(pen, marks) {
    const { matrix, figure } = this;
    const { key, query } = matrix.axes;
    const row = marks.findLast(({ axis }) => axis === "query");
    if (key.track && row) {
      const cells = Array.from({ length: matrix.K }, (_, k) => row.index * matrix.K + k);
      const worth = (i) => (Number.isFinite(matrix.data[i]) && !matrix.forbids(i) ? matrix.strength(matrix.data[i]) : 0);
      const most = Math.max(...cells.map(worth), 1e-9);
      key.track.drawWeights(pen, this.along("key"), cells.map((i) => worth(i) / most));
    }
    for (const { axis, index, how } of marks) {
      const { track, origin, factor } = axis === "query" ? query : key;
      const colour = how === "pinned" ? figure.theme.accent : figure.theme.text;
      track?.drawSpot(pen, this.along(axis), origin + index * factor, colour);
    }
  }

  drawSeconds(pen, axis, loud) {
    const { matrix, figure } = this;
    const { theme } = figure;
    const { time, count } = matrix.axes[axis];
    const across = axis === "key";
    const place = (cells) => (across ? this.x(cells) : this.y(cells));
    const ticks = time.ticks(across ? this.w : this.h, across ? 56 : 22);
    const marks = loud.map(({ index, how }) => ({
      text: matrix.times(axis, index),
      at: index + 0.5,
      ink: how === "pinned" ? theme.accent : theme.ink(1),
    }));
    const edge = across ? this.top : this.left;
    drawTimes(pen, across, ticks, marks, { place, edge, from: place(0), to: place(count), theme });
    figure.base.dataset[`${axis}Ticks`] = ticks.map(({ at, text }) => `${text}@${place(at).toFixed(2)}`); // for tests
  }

  /** how: "quiet" | "loud" (under the pointer) | "pinned". */
  label(pen, axis, index, how) {
    const { theme } = this.figure;
    const [step, room] = axis === "query" ? [this.stepQ, this.rowRoom] : [this.stepK, this.columnRoom];
    const loud = how !== "quiet";
    pen.font = loud ? `600 ${this.font}` : this.font;
    const text = fit(pen, this.matrix.tick(axis, index, step > 1), room + (loud ? 8 : 1));
    const ink = how === "pinned" ? theme.accent : theme.ink(loud ? 1 : 0.72);
    pen.save();
    pen.translate(...(axis === "query" ? [this.left - 7, this.y(index + 0.5)] : [this.x(index + 0.5), this.top - 6]));
    if (axis === "key") pen.rotate(-SLANT);
    drawToken(
      pen,
      text,
      axis === "key" ? 1 : 0,
      axis === "key" ? -1 : 0,
      axis === "key" ? "left" : "right",
      ink,
      theme.ink(loud ? 0.5 : 0.35),
    );
    pen.restore();
  }

  /** When cells are tiny, ticks beside the rows and columns that hold an alarm, and rings around a few, keep them findable. */
  drawAlarmMarks(pen) {
    const { matrix, figure } = this;
    if (!matrix.alarms.length || this.w > 6) return;
    const cells = matrix.alarms.map((i) => ({ q: Math.floor(i / matrix.K), k: i % matrix.K }));
    pen.fillStyle = figure.theme.alarm;
    for (const q of new Set(cells.map((cell) => cell.q)))
      pen.fillRect(this.left - 6, this.y(q), 5, Math.max(1.5, this.h));
    for (const k of new Set(cells.map((cell) => cell.k)))
      pen.fillRect(this.x(k), this.top - 6, Math.max(1.5, this.w), 5);
    if (cells.length > 24) return;
    pen.strokeStyle = figure.theme.ink(0.75);
    pen.lineWidth = 1;
    for (const { q, k } of cells) {
      pen.beginPath();
      pen.arc(this.x(k + 0.5), this.y(q + 0.5), 7, 0, 2 * Math.PI);
      pen.stroke();
    }
  }

  // --- what follows the pointer -------------------------------------------------------------------------------

  overlay(pen, target) {
    const { theme } = this.figure;
    const pinned = this.pins.target(this.matrix);
    const corners = this.corners(target);
    const marks = [];
    const mark = (axis, index, how = "loud") => marks.push({ axis, index, how });
    if (pinned) {
      this.band(pen, pinned.axis, pinned.index, theme.accent, 2);
      mark(pinned.axis, pinned.index, "pinned");
    }
    if (corners) {
      const [q0, q1, k0, k1] = this.rectangle(...corners);
      this.drawRectangle(pen, q0, q1, k0, k1);
      (mark("query", q0), mark("query", q1 - 1), mark("key", k0), mark("key", k1 - 1));
    } else if (target) {
      if (target.axis) mark(target.axis, target.index);
      else (mark("query", target.q), mark("key", target.k));
      for (const { axis, index, how } of marks) if (how === "loud") this.band(pen, axis, index, theme.ink(0.4), 1);
    }
    const last = marks.filter((m, i) => !marks.some((n, j) => n.axis === m.axis && n.index === m.index && j < i));
    this.drawTicks(pen, last);
    if (!corners) this.drawWeighed(pen, last);
    if (corners || !target || target.axis) return;
    const [w, h] = [Math.max(4, this.w), Math.max(4, this.h)];
    const box = [this.x(target.k + 0.5) - w / 2, this.y(target.q + 0.5) - h / 2, w, h];
    for (const [colour, line] of [
      [theme.background, 4],
      [theme.text, 2],
    ]) {
      pen.strokeStyle = colour;
      pen.lineWidth = line;
      pen.strokeRect(...box);
    }
    if (this.picks && this.edge(target)) this.cross(pen, target.q, target.k, theme.text, theme.background);
  }

  /** The two cells that span a zoom rectangle, being dragged or grown with Shift and the arrows; else null. */
  corners(target) {
    const { from, to, dragging } = this.figure;
    return dragging ? [from, to] : this.anchor && target && !target.axis ? [this.anchor, target] : null;
  }

  /** Outline a row or a column; where it is too thin for an outline, a line through it. */
  band(pen, axis, index, colour, line) {
    const { Q, K } = this.matrix;
    const thin = (axis === "query" ? this.h : this.w) < 4;
    const middle = thin ? 0.5 : 0;
    const [width, height] = axis === "query" ? [K * this.w, thin ? 0 : this.h] : [thin ? 0 : this.w, Q * this.h];
    pen.strokeStyle = colour;
    pen.lineWidth = line;
    const strip = axis === "key" && this.matrix.axes.key.time;
    if (axis === "query") pen.strokeRect(this.left, this.y(index + middle), width, height);
    else pen.strokeRect(this.x(index + middle), this.top, width, height);
    if (strip) pen.strokeRect(this.x(index + middle), 1, width, STRIP - 2);
  }

  rectangle(a, b) {
    return [Math.min(a.q, b.q), Math.max(a.q, b.q) + 1, Math.min(a.k, b.k), Math.max(a.k, b.k) + 1];
  }

  drawRectangle(pen, q0, q1, k0, k1) {
    const { theme } = this.figure;
    const { Q, K } = this.matrix;
    const box = [this.x(k0), this.y(q0), (k1 - k0) * this.w, (q1 - q0) * this.h];
    pen.globalAlpha = 0.55;
    pen.fillStyle = theme.background;
    pen.beginPath();
    pen.rect(this.left, this.top, K * this.w, Q * this.h);
    pen.rect(...box);
    pen.fill("evenodd");
    pen.globalAlpha = 1;
    pen.strokeStyle = theme.accent;
    pen.lineWidth = 2;
    pen.strokeRect(...box);
  }

  describe(target) {
    const { matrix } = this;
    const corners = this.corners(target);
    if (corners) {
      const [q0, q1, k0, k1] = this.full(this.rectangle(...corners));
      const span = (axis, first, last) => matrix.axes[axis].time?.span(first, last) ?? `${first}–${last}`;
      return [`zoom to queries ${span("query", q0, q1 - 1)} × keys ${span("key", k0, k1 - 1)}`];
    }
    const shown = target ?? this.pins.target(matrix);
    if (!shown && this.picks) return [this.hint || `Click a cell to ${this.picks}`];
    if (!shown) return [`Point at a cell to read it${this.zooms ? " · drag to zoom" : ""} · click a row or a label to pin it`];
    if (shown.axis) return matrix.describeToken(shown.axis, shown.index);
    const said = matrix.describe(shown.q, shown.k);
    if (!this.picks) return said;
    const edge = this.edge(shown);
    if (!edge) return ["drag over a region to see single positions · ", ...said];
    const marked = this.marks.some((mark) => mark.join() === edge.join());
    return [`click to ${marked ? this.undoes : this.picks}: `, ...said];
  }

  // --- choosing ---------------------------------------------------------------------------------------------

  at(x, y, inside = false) {
    const { Q, K } = this.matrix;
    const clamp = (value, count) => Math.min(count - 1, Math.max(0, value));
    let q = Math.floor((y - this.top) / this.h);
    let k = Math.floor((x - this.left) / this.w);
    if (inside) [q, k] = [clamp(q, Q), clamp(k, K)];
    if (q >= 0 && q < Q && k >= 0 && k < K) return { q, k };
    if (x < this.left && q >= 0 && q < Q) return { axis: "query", index: q };
    if (y >= this.top) return null;
    const lean = this.matrix.axes.key.time ? 0 : (this.top - y) / Math.tan(SLANT); // along the slanted label
    const slid = Math.floor((x - lean - this.left) / this.w);
    return slid >= 0 && slid < K ? { axis: "key", index: slid } : null;
  }

  pointer(target) {
    return target.axis ? "pointer" : this.picks ? "cell" : "crosshair";
  }

  drags(target) {
    return this.zooms && Boolean(target) && !target.axis;
  }

  /** Rows and columns shown → [q0, q1, k0, k1] in the full sequence, ends not included. */
  full([q0, q1, k0, k1]) {
    const { matrix } = this;
    const first = (axis, index) => matrix.span(axis, index)[0];
    const end = (axis, index) => matrix.span(axis, index - 1)[1] + 1;
    return [first("query", q0), end("query", q1), first("key", k0), end("key", k1)];
  }

  drop(from, to) {
    this.figure.send({ zoom: this.full(this.rectangle(from, to)) });
  }

  /** Twice on a pooled cell: as many positions around it as there are cells now, so the next picture is exact. */
  double(target) {
    const { matrix } = this;
    if (!matrix.pooled || target.axis) return;
    clearTimeout(this.timer);
    const around = (axis, index) => {
      const { count, full } = matrix.axes[axis];
      const size = Math.min(count, full);
      const first = Math.max(0, Math.min(full - size, matrix.span(axis, index)[0] - (size >> 1)));
      return [first, first + size];
    };
    this.figure.send({ zoom: [...around("query", target.q), ...around("key", target.k)] });
  }

  click(target) {
    clearTimeout(this.timer);
    this.figure.cursor = target.axis ? this.figure.cursor : target;
    this.anchor = null;
    if (this.picks && !target.axis) return this.pick(target);
    // On a pooled picture a second click may follow and mean zoom: wait for it.
    const wait = this.matrix.pooled && !target.axis ? 280 : 0;
    this.timer = setTimeout(() => this.pin(target), wait);
  }

  /** A token by its label, or by a cell its query; then the cell's key is told too. */
  pin(target) {
    if (target.axis) this.pins.toggle(this.matrix, target);
    else this.pins.toggle(this.matrix, { axis: "query", index: target.q }, this.matrix.span("key", target.k)[0]);
  }

  visit(i) {
    return { q: Math.floor(i / this.matrix.K), k: i % this.matrix.K };
  }

  key(event) {
    const { figure, matrix } = this;
    const { Q, K } = matrix;
    const target = figure.target;
    const cell = target && !target.axis ? target : null;
    if (event.key === "Escape") return this.escape();
    if (event.key === "Enter" || event.key === " ") {
      if (this.anchor && cell) this.drop(this.anchor, cell);
      else if (this.picks && cell) this.pick(cell);
      else if (target) this.pin(target);
      this.anchor = null;
      figure.refresh();
      return true;
    }
    const pinned = this.pins.target(matrix);
    let { q, k } = cell ?? {
      q: pinned?.axis === "query" ? pinned.index : 0,
      k: pinned?.axis === "key" ? pinned.index : 0,
    };
    const before = { q, k };
    if (event.key in MOVES) {
      const [down, right] = MOVES[event.key];
      if (cell) [q, k] = [Math.min(Q - 1, Math.max(0, q + down)), Math.min(K - 1, Math.max(0, k + right))];
    } else if (event.key === "Home") k = 0;
    else if (event.key === "End") k = K - 1;
    else return false;
    this.anchor = event.shiftKey && this.zooms ? (this.anchor ?? before) : null;
    figure.look({ q, k });
    return true;
  }

  escape() {
    const { figure } = this;
    if (figure.dragging || this.anchor) {
      figure.endDrag();
      this.anchor = null;
    } else if (this.picks) figure.send({ done: true });
    else if (this.pins.any) this.pins.clear();
    else if (this.zooms && this.matrix.zoomed) figure.send({ zoom: null });
    figure.cursor = null;
    figure.refresh();
    return true;
  }
}
