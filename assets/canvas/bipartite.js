// One head as two columns of tokens with an edge for each weight: width and opacity grow with it.
// Only rows in sight are drawn, and at most MOST edges: the strongest ones.

import { drawLegend, edgeColour } from "./legend.js";
import { Matrix } from "./matrix.js";
import { brief, drawToken, fit } from "./text.js";

const ROW = 20;
const HEAD = 26; // the headings stay while the rows scroll
const GUTTER = 50; // positions, or the weights of the token under the pointer
const MOST = 4000;
const FAINT = 0.008; // of the strongest: an edge below this is invisible anyway
const MOVES = { ArrowUp: -1, ArrowDown: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };

const short = (value) => (Math.abs(value) >= 0.001 && Math.abs(value) < 100 ? value.toFixed(3) : brief(value));

export class Bipartite {
  scrolls = true; // Figure: redraw when the stage scrolls

  constructor(figure) {
    this.figure = figure;
    this.pins = figure.pins;
  }

  take(message) {
    this.matrix = new Matrix(message);
    this.height = message.height ?? 560;
    this.pins.take(message);
    this.figure.out.hidden = !this.matrix.zoomed;
    this.edges = this.strongest();
  }

  unmount() {
    this.figure.base.style.opacity = 1;
  }

  keep(target) {
    return target && target.index < this.matrix.axes[target.axis]?.count ? target : null;
  }

  /** Up to MOST edges, weakest first so that strong ones are drawn over them; alarms last of all. */
  strongest() {
    const { matrix } = this;
    const { data, K } = matrix;
    const strengths = new Float32Array(data.length);
    const bins = new Uint32Array(1024); // a histogram finds the cut without sorting every cell
    for (let i = 0; i < data.length; i++) {
      if (!Number.isFinite(data[i]) || matrix.forbids(i)) continue;
      strengths[i] = matrix.strength(data[i]);
      bins[(strengths[i] * 1023) | 0]++;
    }
    let bin = 1023;
    for (let room = MOST - bins[bin]; bin > 0 && room - bins[bin - 1] >= 0; bin--) room -= bins[bin - 1];
    const cut = Math.max(FAINT, bin / 1023);
    const edges = [];
    for (let i = 0; i < data.length; i++)
      if (strengths[i] >= cut) edges.push({ q: Math.floor(i / K), k: i % K, i, strength: strengths[i] });
    edges.sort((a, b) => a.strength - b.strength);
    const alarms = matrix.alarms.slice(0, MOST).map((i) => this.edge(i));
    return [...edges.slice(-MOST), ...alarms];
  }

  edge(i) {
    const { matrix } = this;
    const alarm = matrix.alarming(i);
    return { q: Math.floor(i / matrix.K), k: i % matrix.K, i, alarm, strength: matrix.strength(matrix.data[i]) };
  }

  layout(width) {
    const { matrix, figure } = this;
    const pen = figure.base.getContext("2d");
    pen.font = this.font = figure.theme.type(12);
    const widest = (axis) => {
      const labels = [...matrix.axes[axis].labels].sort((a, b) => b.length - a.length).slice(0, 20);
      return Math.min(
        Math.max(40, ...labels.map((label) => Math.ceil(pen.measureText(label).width))),
        150,
        0.28 * width,
      );
    };
    [this.queryRoom, this.keyRoom] = [widest("query"), widest("key")];
    const middle = Math.min(440, Math.max(60, width - 2 * GUTTER - this.queryRoom - this.keyRoom - 16));
    this.left = GUTTER + this.queryRoom + 8; // where edges start
    this.right = this.left + middle; // and end
    const content = HEAD + Math.max(matrix.Q, matrix.K) * ROW + 6;
    const height = Math.min(content, this.height);
    return {
      width,
      height,
      content,
      canvas: height,
      used: this.right + this.keyRoom + GUTTER,
      plot: [this.left, this.right, HEAD, ROW],
    };
  }

  legend() {
    drawLegend(this.figure, this.matrix, true);
  }

  y(index) {
    return HEAD + (index + 0.5) * ROW - this.figure.stage.scrollTop;
  }

  /** First and last row in sight. */
  sight(axis) {
    const { stage, size } = this.figure;
    const first = Math.max(0, Math.floor(stage.scrollTop / ROW) - 1);
    return [first, Math.min(this.matrix.axes[axis].count - 1, first + Math.ceil(size.height / ROW) + 1)];
  }

  clip(pen) {
    const { size } = this.figure;
    pen.save();
    pen.beginPath();
    pen.rect(0, HEAD, size.width, size.height - HEAD);
    pen.clip();
  }

  draw(pen) {
    const { size } = this.figure;
    this.clip(pen);
    for (const edge of this.edges) {
      const [from, to] = [this.y(edge.q), this.y(edge.k)];
      if ((from < 0 && to < 0) || (from > size.height && to > size.height)) continue;
      this.drawEdge(pen, edge, from, to);
    }
    pen.restore();
  }

  drawEdge(pen, { i, strength, alarm }, from, to) {
    const { matrix, figure } = this;
    pen.strokeStyle = alarm ? figure.theme.alarm : edgeColour(matrix, figure.theme, matrix.place(matrix.data[i]));
    pen.globalAlpha = alarm ? 0.9 : 0.05 + 0.85 * strength;
    pen.lineWidth = (alarm ? 1.5 : 0.5) + 3.5 * strength;
    const bend = (this.right - this.left) * 0.42;
    pen.beginPath();
    pen.moveTo(this.left, from);
    pen.bezierCurveTo(this.left + bend, from, this.right - bend, to, this.right, to);
    pen.stroke();
    pen.globalAlpha = 1;
  }

  overlay(pen, target) {
    const { matrix, figure } = this;
    const { theme } = figure;
    const pinned = this.pins.target(matrix);
    const shown = target ?? pinned;
    figure.base.style.opacity = shown ? 0.1 : 1;
    const partners = new Map();
    this.clip(pen);
    if (shown)
      for (const { other, value, strength, i } of matrix.partners(shown.axis, shown.index).reverse()) {
        partners.set(other, { value, strength, alarm: matrix.alarming(i) });
        const edge = { ...this.edge(i), strength };
        if (strength >= FAINT || edge.alarm) this.drawEdge(pen, edge, this.y(edge.q), this.y(edge.k));
      }
    for (const axis of ["query", "key"]) {
      const [first, last] = this.sight(axis);
      for (let index = first; index <= last; index++) {
        const isPinned = pinned?.axis === axis && pinned.index === index;
        const isShown = shown?.axis === axis && shown.index === index;
        this.drawLabel(pen, axis, index, {
          isPinned,
          isShown,
          other: shown && shown.axis !== axis,
          partner: partners.get(index),
        });
      }
    }
    pen.restore();
    pen.font = theme.type(11);
    pen.fillStyle = theme.ink(0.5);
    pen.textAlign = "right";
    pen.fillText("queries", this.left - 8, HEAD / 2);
    pen.textAlign = "left";
    pen.fillText("keys", this.right + 8, HEAD / 2);
  }

  drawLabel(pen, axis, index, { isPinned, isShown, other, partner }) {
    const { matrix, figure } = this;
    const { theme } = figure;
    const y = this.y(index);
    const query = axis === "query";
    const room = query ? this.queryRoom : this.keyRoom;
    const x = query ? this.left - 8 : this.right + 8;
    const edge = query ? x - room - 4 : x + room + 4; // where the gutter begins
    const lit = other && partner;
    if (lit || isShown) {
      pen.fillStyle = isShown
        ? theme.ink(0.1)
        : partner.alarm
          ? theme.alarm
          : edgeColour(matrix, theme, matrix.place(partner.value));
      pen.globalAlpha = isShown ? 1 : 0.06 + 0.4 * partner.strength;
      pen.fillRect(query ? edge : x - 4, y - ROW / 2 + 1, room + 8, ROW - 2);
      pen.globalAlpha = 1;
    }
    pen.font = isShown || isPinned ? `600 ${this.font}` : this.font;
    const ink = isPinned ? theme.accent : theme.ink(isShown || lit ? 1 : other ? 0.4 : 0.8);
    const label = matrix.axes[axis].labels[index];
    const side = query ? "right" : "left";
    if (label) drawToken(pen, fit(pen, label, room), x, y, side, ink, theme.ink(0.35));
    pen.textAlign = side;
    const beside = query ? edge - 2 : edge + 2;
    if (lit) {
      pen.font = `${partner.strength > 0.25 ? "600 " : ""}${theme.type(11)}`;
      pen.fillStyle = partner.alarm ? theme.alarm : theme.ink(0.35 + 0.65 * Math.sqrt(partner.strength));
      pen.fillText(short(partner.value), beside, y);
    } else if (!other) {
      pen.font = theme.type(10);
      pen.fillStyle = theme.ink(0.35);
      pen.fillText(matrix.position(axis, index), beside, y);
    }
  }

  describe(target) {
    const shown = target ?? this.pins.target(this.matrix);
    if (!shown) return ["Point at a token to see its edges · click to pin it"];
    return this.matrix.describeToken(shown.axis, shown.index);
  }

  at(x, y) {
    const index = Math.floor((y - HEAD + this.figure.stage.scrollTop) / ROW);
    const axis = x < this.left ? "query" : x > this.right ? "key" : null;
    if (!axis || y < HEAD || index < 0 || index >= this.matrix.axes[axis].count) return null;
    return x < this.left - this.queryRoom - GUTTER || x > this.right + this.keyRoom + GUTTER ? null : { axis, index };
  }

  pointer() {
    return "pointer";
  }

  click(target) {
    this.figure.cursor = null;
    this.pins.toggle(this.matrix, target);
  }

  visit(i) {
    const index = Math.floor(i / this.matrix.K);
    this.reveal(index);
    return { axis: "query", index };
  }

  key(event) {
    const { figure, matrix } = this;
    const now = figure.target ?? this.pins.target(matrix);
    if (event.key === "Escape") {
      if (this.pins.any) this.pins.clear();
      else if (matrix.zoomed) figure.send({ zoom: null });
      figure.cursor = null;
      figure.refresh();
      return true;
    }
    if (event.key === "Enter" || event.key === " ") {
      if (now) this.pins.toggle(matrix, now);
      return true;
    }
    let { axis, index } = now ?? { axis: "query", index: -1 };
    if (event.key in MOVES) index += MOVES[event.key];
    else if (event.key === "ArrowLeft") axis = "query";
    else if (event.key === "ArrowRight") axis = "key";
    else return false;
    index = Math.min(matrix.axes[axis].count - 1, Math.max(0, index));
    this.reveal(index);
    figure.look({ axis, index });
    return true;
  }

  reveal(index) {
    const { stage } = this.figure;
    const top = index * ROW;
    if (top < stage.scrollTop) stage.scrollTop = top;
    if (top + ROW + HEAD > stage.scrollTop + stage.clientHeight)
      stage.scrollTop = top + ROW + HEAD - stage.clientHeight;
  }
}
