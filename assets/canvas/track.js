// An axis that is a series or a score: it is drawn along its edge of the matrix, with the names of years or bars between.
// Where a query is looked at, what it weighs is marked on it.

export const SIDE = 58; // room for names beside the rows
const DEPTH = { series: [66, 54], score: [96, 76] }; // of the drawing, over the columns and beside the rows
const VOICES = {
  light: ["#0b6e99", "#8a4fb5", "#a8690a", "#3f7d3a"],
  dark: ["#5bb8e0", "#c490e8", "#e5b060", "#8cc982"],
};
const voices = (theme) => VOICES[theme.dark ? "dark" : "light"];
const MARGIN = 6;
const EVERY = [1, 2, 4, 5, 10, 20, 50, 100];

export class Track {
  constructor({ kind, marks, written, unit, voices = "" }, { shape: [count, wide], data }, axis) {
    Object.assign(this, { kind, marks, written: written ?? Infinity, unit, data, axis });
    Object.assign(this, { letters: voices, voices: voices.length }); // what voices are called, and how many there are
    if (kind === "series") [this.low, this.high] = this.span(data.slice(axis.origin, this.end));
    else {
      this.notes = Array.from({ length: count }, (_, n) => [...data.slice(n * wide, (n + 1) * wide)]);
      [this.low, this.high] = this.span(this.notes.map(([, , pitch]) => pitch));
    }
  }

  /** The position after the last that is shown. */
  get end() {
    const { origin, factor, count, full } = this.axis;
    return Math.min(origin + count * factor, full);
  }

  span(values) {
    let [low, high] = [Infinity, -Infinity];
    for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
    return low > high ? [0, 1] : low === high ? [low - 1, high + 1] : [low, high];
  }

  depth(across, width) {
    const [over, beside] = DEPTH[this.kind];
    return across ? over : Math.round(Math.min(beside, 0.12 * width));
  }

  /** A position (a fraction too) → cells from the first one's edge. */
  cell(position) {
    return (position - this.axis.origin) / this.axis.factor;
  }

  /** Names of years or bars at least `room` pixels apart where a cell has `size`, as [{at (in cells), text}]. */
  ticks(size, room) {
    const shown = this.marks.filter(([position]) => position >= this.axis.origin && position < this.end);
    const gaps = shown.slice(1).map(([position], i) => this.cell(position) - this.cell(shown[i][0]));
    const gap = Math.max(1e-9, Math.min(...gaps, 1e9) * size);
    const every = EVERY.find((n) => n * gap >= room) ?? Math.ceil(room / gap);
    const number = ([, text], i) => Number(/\d+$/.exec(text)?.[0] ?? i);
    return shown
      .filter((mark, i) => number(mark, i) % every === 0 || (every > 1 && shown.length <= every && i === 0))
      .map(([position, text]) => ({ at: this.cell(position), text }));
  }

  /** What a row or a column is called where there is little room. */
  short(label) {
    return this.kind === "series" ? label.split(":")[0] : label;
  }

  // --- drawing: `view` says where: {across, start (of the depth), depth, place (cells → pixels), theme} ------------------

  /** A box from position `a` to `b` and from height `low` to `high` (0 … 1 of the depth). */
  box(view, a, b, low, high) {
    const [from, to] = [Math.max(a, this.axis.origin), Math.min(b, this.end)].map((p) => view.place(this.cell(p)));
    const room = view.depth - 2 * MARGIN;
    const lift = (height) => view.start + MARGIN + (view.across ? 1 - height : height) * room;
    const [near, far] = [lift(low), lift(high)].sort((one, other) => one - other);
    return view.across ? [from, near, to - from, far - near] : [near, from, far - near, to - from];
  }

  point(view, position, height) {
    const [x, y] = this.box(view, position, position, height, height);
    return [x, y];
  }

  height(value) {
    return (value - this.low) / (this.high - this.low);
  }

  draw(pen, view) {
    const { theme, across, start, depth, place } = view;
    const [from, to] = [place(0), place(this.cell(this.end))];
    const frame = across ? [from, start, to - from, depth] : [start, from, depth, to - from];
    pen.save();
    pen.beginPath();
    pen.rect(...frame);
    pen.clip();
    pen.fillStyle = theme.ink(0.03);
    pen.fillRect(...frame);
    pen.fillStyle = theme.ink(0.14);
    for (const [position] of this.marks) {
      const at = place(this.cell(position));
      if (across) pen.fillRect(at - 0.5, start, 1, depth);
      else pen.fillRect(start, at - 0.5, depth, 1);
    }
    if (this.kind === "series") this.drawLine(pen, view);
    else this.drawNotes(pen, view);
    pen.restore();
    pen.strokeStyle = theme.ink(0.22);
    pen.lineWidth = 1;
    const [x, y, w, h] = frame;
    pen.strokeRect(x - 0.5, y + 0.5, w + 1, h - 1);
  }

  drawLine(pen, view) {
    const { theme } = view;
    const first = this.axis.origin;
    const stroke = (begin, end, colour) => {
      pen.beginPath();
      for (let p = begin; p < end; p++) pen.lineTo(...this.point(view, p + 0.5, this.height(this.data[p])));
      pen.strokeStyle = colour;
      pen.lineWidth = 1.5;
      pen.lineJoin = "round";
      pen.stroke();
    };
    const turn = Math.min(this.written, this.end);
    stroke(first, turn, theme.ink(0.8));
    if (turn < this.end) stroke(Math.max(first, turn - 1), this.end, theme.accent);
  }

  drawNotes(pen, view) {
    const colours = voices(view.theme);
    for (const note of this.notes) {
      const [a, b, , voice] = note;
      if (b <= this.axis.origin || a >= this.end) continue;
      pen.fillStyle = colours[voice % colours.length];
      pen.globalAlpha = a >= this.written ? 1 : 0.72;
      const [x, y, w, h] = this.noteBox(view, note);
      pen.fillRect(x, y, Math.max(1, view.across ? w - 0.75 : w), Math.max(1, view.across ? h : h - 0.75));
    }
    pen.globalAlpha = 1;
    if (this.written < this.end) {
      const at = view.place(this.cell(this.written));
      pen.fillStyle = view.theme.accent;
      if (view.across) pen.fillRect(at - 1, view.start, 2, view.depth);
      else pen.fillRect(view.start, at - 1, view.depth, 2);
    }
  }

  noteBox(view, [a, b, pitch], thick = 1) {
    const steps = this.high - this.low;
    const half = Math.max(0.5 / steps, 1.5 / (view.depth - 2 * MARGIN)) * 0.9 * thick;
    const middle = this.height(pitch);
    return this.box(view, a, b, middle - half, middle + half);
  }

  /** The note at a position, cut to its place: [first, end, pitch, voice], or null in a silence. */
  noteAt(position) {
    if (position < 1) return null;
    const voice = (position - 1) % this.voices;
    const note = this.notes.find(([a, b, , own]) => own === voice && a <= position && position < b);
    return note ? [position - voice, position - voice + this.voices, note[2], voice] : null;
  }

  /** The points at the keys of one query, as large as their weight: strengths, 0 … 1, one a cell. */
  drawWeights(pen, view, strengths) {
    const { theme } = view;
    const colour = this.kind === "series" ? theme.accent : theme.text; // a voice may be of the accent's colour
    for (const [cell, strength] of strengths.entries()) {
      if (strength < (this.kind === "series" ? 0.04 : 0.12)) continue;
      const position = this.axis.origin + cell * this.axis.factor;
      pen.globalAlpha = 0.25 + 0.75 * strength;
      this.spot(pen, view, position, colour, 1.5 + 4 * Math.sqrt(strength), 1 + strength);
    }
    pen.globalAlpha = 1;
  }

  /** Where one position is. */
  drawSpot(pen, view, position, colour) {
    this.spot(pen, view, position, view.theme.background, 5.5, 2);
    this.spot(pen, view, position, colour, 4, 1.6);
  }

  spot(pen, view, position, colour, radius, thick) {
    pen.fillStyle = colour;
    if (this.kind === "series") {
      pen.beginPath();
      pen.arc(...this.point(view, position + 0.5, this.height(this.data[position])), radius, 0, 2 * Math.PI);
      pen.fill();
      return;
    }
    const note = this.noteAt(position);
    if (note) pen.fillRect(...this.noteBox(view, note, thick));
  }

  /** Its ends in words, at the left of the drawing over the columns. */
  drawEnds(pen, view, right) {
    pen.font = view.theme.type(10);
    pen.fillStyle = view.theme.ink(0.5);
    pen.textAlign = "right";
    if (this.kind === "score") {
      pen.fillText("pitch ↑", right, view.start + view.depth / 2 + 8);
      [...this.letters].reverse().forEach((letter, i) => {
        pen.fillStyle = voices(view.theme)[this.letters.length - 1 - i];
        pen.font = `600 ${view.theme.type(11)}`;
        pen.fillText(letter, right - 12 * i, view.start + view.depth / 2 - 8);
      });
      return;
    }
    const digits = this.high - this.low >= 20 ? 0 : this.high - this.low >= 2 ? 1 : 2;
    const unit = this.unit ? ` ${this.unit}` : "";
    pen.fillText(this.high.toFixed(digits) + unit, right, view.start + MARGIN + 2);
    pen.fillText(this.low.toFixed(digits), right, view.start + view.depth - 3 * MARGIN);
  }
}
