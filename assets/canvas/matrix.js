// One head's numbers: what a cell is worth on the colour scale, and what it is called.

import { Timeline } from "./sound.js";
import { Track } from "./track.js";
import { brief, exact, shorten, visible } from "./text.js";

const FORBIDDEN = 1; // 0 allowed · 1 forbidden · 2 mixed (a pooled cell holding both) · 3 mixed, with weight where forbidden
const LEAK = 1e-6; // a smaller weight on a forbidden position is rounding; as in interp/drawing/matrix.py

/** "target queries" → ["query", "queries"]: what one position is called, and several. */
const noun = (name) => {
  const many = name.split(" ").at(-1);
  return [many.replace(/ies$/, "y").replace(/s$/, ""), many];
};

export class Matrix {
  constructor(message) {
    Object.assign(this, { kind: message.kind, log: message.scale === "log", valueName: message.value_name });
    this.no = message.no ?? ""; // what 0 is called, where there are only 0 and 1
    this.digits = message.digits ?? 4; // that the numbers travelled with
    this.early = message.early ?? 0; // rows of the first cycle of a series, which may go beyond the scale of colours
    this.named = message.named ?? false; // do labels name rows and columns, whatever their places are?
    [this.Q, this.K] = message.matrix.shape;
    this.data = message.matrix.data; // (Q, K)
    this.forbidden = message.forbidden?.data ?? null; // (Q, K)
    this.axes = {
      query: { count: this.Q, labels: message.query_labels.map(visible) },
      key: { count: this.K, labels: message.key_labels.map(visible) },
    };
    ["query", "key"].forEach((axis, i) =>
      Object.assign(this.axes[axis], { noun: noun(message.axis_names[i]), origin: message.origin[i], factor: message.factor[i], full: message.shape[i] }),
    );
    for (const [axis, sound] of [
      ["query", message.query_sound],
      ["key", message.key_sound],
    ]) {
      if (!sound) continue;
      this.axes[axis].time = new Timeline(sound, this.axes[axis]);
      this.axes[axis].labels = Array.from({ length: this.axes[axis].count }, (_, i) => this.times(axis, i));
    }
    for (const axis of ["query", "key"])
      if (message[`${axis}_track`])
        Object.assign(this.axes[axis], {
          track: new Track(message[`${axis}_track`], message[`${axis}_values`], this.axes[axis]),
          labels: message[`${axis}_labels`],
        });
    this.pooled = message.factor[0] > 1 || message.factor[1] > 1;
    this.zoomed = Object.values(this.axes).some((a) => a.origin > 0 || a.origin + a.count * a.factor < a.full);
    this.measure();
  }

  measure() {
    this.alarms = [];
    this.hasForbidden = false;
    for (let i = 0; i < this.data.length; i++) {
      if (this.forbids(i)) this.hasForbidden = true;
      if (this.alarming(i)) this.alarms.push(i);
    }
    this.limit(this.early * this.K, this.data.length);
    this.above = this.data.some((value, i) => i < this.early * this.K && value > this.high && !this.forbids(i));
  }

  /** Let the colour scale span the values of cells `from` … `to` − 1. */
  limit(from, to) {
    let low = Infinity;
    let high = -Infinity;
    for (let i = from; i < to; i++) {
      const value = this.data[i];
      if (!Number.isFinite(value) || this.forbids(i)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (low > high) [low, high] = [0, 1]; // nothing to show: keep a scale that reads as empty
    if (this.kind === "weight") [low, high] = [0, high > 0 ? high : 1];
    if (this.kind === "signed") high = Math.max(Math.abs(low), Math.abs(high)) || 1;
    if (this.kind === "signed") low = -high;
    if (high === low) high = low + 1;
    this.low = this.kind === "weight" && this.log ? high * 1e-5 : low; // five decades
    this.high = high;
    this.below = this.kind === "weight" && this.log; // are there values beyond the ends?
    this.above = false;
  }

  forbids(i) {
    return this.forbidden !== null && this.forbidden[i] === FORBIDDEN;
  }

  alarming(i) {
    if (!this.forbidden || this.kind !== "weight") return false;
    return this.forbidden[i] === 3 || (this.forbidden[i] === FORBIDDEN && this.data[i] > LEAK);
  }

  /** Place on the colour scale, 0 … 1 (signed: 0.5 is zero). */
  place(value) {
    let t;
    if (this.kind === "signed") {
      const part = value / this.high;
      t = 0.5 + 0.5 * (this.log ? (Math.sign(part) * Math.log1p(Math.abs(part) * 1e3)) / Math.log1p(1e3) : part);
    } else if (this.kind === "weight" && this.log) {
      t = Math.log(Math.max(value, this.low) / this.low) / Math.log(this.high / this.low);
    } else {
      t = (value - this.low) / (this.high - this.low);
    }
    return t < 0 ? 0 : t > 1 ? 1 : t;
  }

  /** The inverse of `place`, for the numbers of the colour bar. */
  valueAt(t) {
    if (this.kind === "signed") {
      const part = 2 * t - 1;
      return this.high * (this.log ? (Math.sign(part) * Math.expm1(Math.abs(part) * Math.log1p(1e3))) / 1e3 : part);
    }
    if (this.kind === "weight" && this.log) return this.low * (this.high / this.low) ** t;
    return this.low + t * (this.high - this.low);
  }

  /** How much an edge deserves to be seen, 0 … 1. */
  strength(value) {
    const t = this.place(value);
    return this.kind === "signed" ? Math.abs(2 * t - 1) : t;
  }

  /** First and last (inclusive) position in the full sequence that row or column `index` stands for. */
  span(axis, index) {
    const { origin, factor, full } = this.axes[axis];
    const first = origin + index * factor;
    return [first, Math.min(first + factor, full) - 1];
  }

  position(axis, index) {
    const [first, last] = this.span(axis, index);
    return first === last ? String(first) : `${first}–${last}`;
  }

  /** The time that row or column `index` of a recording stands for. */
  times(axis, index) {
    return this.axes[axis].time.span(...this.span(axis, index));
  }

  /** Row or column that shows position `full`, or −1. */
  indexOf(axis, full) {
    const { origin, factor, count } = this.axes[axis];
    const index = Math.floor((full - origin) / factor);
    return index >= 0 && index < count ? index : -1;
  }

  name(axis, index) {
    const [first, last] = this.span(axis, index);
    const label = this.axes[axis].labels[index];
    if (this.axes[axis].time) return [this.axes[axis].time.pads(first) ? `${label} (padding)` : label];
    const head = `${this.axes[axis].noun[first === last ? 0 : 1]} ${this.position(axis, index)}`;
    if (this.named) return [`${this.axes[axis].noun[0]} ${label}`];
    return label ? [head + " ‘", { token: shorten(label, 24) }, "’"] : [head];
  }

  tick(axis, index, withPosition) {
    const label = this.axes[axis].labels[index];
    if (!label) return this.position(axis, index);
    if (this.axes[axis].time) return label;
    const [position] = this.span(axis, index);
    return withPosition && label !== `${position}` ? `${position} ${label}` : label;
  }

  value(i) {
    const value = this.data[i];
    if (!Number.isFinite(value)) return this.forbids(i) ? "forbidden" : "no value";
    const text = `${this.valueName} ${exact(value, this.digits)}`;
    if (this.alarming(i)) return `${text} · ${this.forbids(i) ? "" : "some "}on a forbidden position`;
    if (this.forbids(i)) return Math.abs(value) > LEAK ? `${text} · forbidden` : "forbidden";
    return this.forbidden && this.forbidden[i] === 2 ? `${text} · partly forbidden` : text;
  }

  describe(query, key) {
    return [...this.name("query", query), " → ", ...this.name("key", key), " · " + this.value(query * this.K + key)];
  }

  cell(axis, index, other) {
    return axis === "query" ? index * this.K + other : other * this.K + index;
  }

  /** The strongest partners of one token, best first: [{other, value, strength, i}]. */
  partners(axis, index) {
    const list = [];
    const count = axis === "query" ? this.K : this.Q;
    for (let other = 0; other < count; other++) {
      const i = this.cell(axis, index, other);
      const value = this.data[i];
      if (!Number.isFinite(value) || value === 0 || (this.forbids(i) && !this.alarming(i))) continue;
      list.push({ other, value, strength: this.strength(value), i });
    }
    return list.sort((a, b) => b.strength - a.strength);
  }

  describeToken(axis, index) {
    const other = axis === "query" ? "key" : "query";
    const parts = [...this.name(axis, index), axis === "query" ? " → " : " ← "];
    const best = this.partners(axis, index).slice(0, 5);
    if (!best.length) return [...parts, "nothing"];
    best.forEach((p, rank) => {
      const { time, labels } = this.axes[other];
      const label = labels[p.other];
      if (rank) parts.push(" · ");
      if (time) parts.push(label + " ");
      else parts.push(...(label ? ["‘", { token: shorten(label, 16) }, "’ "] : [this.position(other, p.other) + " "]));
      parts.push(exact(p.value, this.digits));
    });
    return parts;
  }

  /** Numbers under the colour bar: low end, middle, high end. */
  barNumbers() {
    const [low, middle, high] = [0, 0.5, 1].map((t) => brief(this.valueAt(t)));
    return [(this.below ? "≤" : "") + low, middle, (this.above ? "≥" : "") + high];
  }

  get scaleName() {
    return this.valueName + (this.log && this.kind !== "score" ? ", log" : "");
  }

  table(theme) {
    return this.kind === "signed" ? theme.diverging : theme.sequential;
  }
}
