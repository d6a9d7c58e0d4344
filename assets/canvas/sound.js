// An axis that is a recording: positions are told as times, and the spectrogram stands over the columns it belongs to.

export const STRIP = 72; // the spectrogram's height
export const AXIS = 26; // the seconds' under it

const round = (step) => {
  const power = 10 ** Math.floor(Math.log10(step) + 1e-9);
  return [1, 2, 5, 10].map((m) => m * power).find((s) => s >= step * (1 - 1e-9));
};

/** The time of one axis: cells (rows or columns of the matrix, fractions too) ↔ seconds. */
export class Timeline {
  constructor({ step, seconds }, { origin, factor, count, full }) {
    Object.assign(this, { step, seconds, count });
    this.start = origin * step;
    this.cell = factor * step;
    this.end = Math.min(origin + count * factor, full) * step;
    this.digits = [0, 1, 2].find((d) => Math.abs(step * 10 ** d - Math.round(step * 10 ** d)) < 1e-6) ?? 3;
  }

  /** Positions first … last, inclusive, as "1.24–1.28 s". */
  span(first, last) {
    return `${(first * this.step).toFixed(this.digits)}–${((last + 1) * this.step).toFixed(this.digits)} s`;
  }

  /** Does position `first`, and so all after it, lie behind the end of the recording? */
  pads(first) {
    return this.seconds - first * this.step < 1e-6;
  }

  /** Seconds → cells from the first one's edge. */
  place(time) {
    return (time - this.start) / this.cell;
  }

  /** Round times at least `room` pixels apart, as [{at (in cells), text}], where a cell has `size` pixels. */
  ticks(size, room) {
    const every = round((room / size) * this.cell);
    const digits = Math.max(0, -Math.floor(Math.log10(every) + 1e-9));
    const list = [];
    for (let n = Math.ceil(this.start / every - 1e-6); n * every <= this.end + 1e-6; n++)
      list.push({ at: this.place(n * every), text: (n * every).toFixed(digits) });
    return list;
  }

  /** Where the recording ends, in cells, if that is in sight; else null. */
  get stop() {
    const at = this.place(this.seconds);
    return at > 1e-6 && this.seconds < this.end - 1e-6 ? at : null;
  }
}

/** The spectrogram as a picture in the theme's greys: what is loud stands out from the page. */
export function paintStrip({ shape: [bins, columns], data }, theme) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [columns, bins];
  const pen = canvas.getContext("2d");
  pen.fillStyle = theme.background;
  pen.fillRect(0, 0, columns, bins);
  const image = pen.getImageData(0, 0, columns, bins);
  const [loud, strength] = theme.dark ? [255, 0.88] : [0, 0.82];
  for (let bin = 0; bin < bins; bin++)
    for (let column = 0; column < columns; column++) {
      const at = 4 * ((bins - 1 - bin) * columns + column); // low pitches at the bottom
      const part = (strength * data[bin * columns + column]) / 255;
      for (let c = at; c < at + 3; c++) image.data[c] += part * (loud - image.data[c]);
    }
  pen.putImageData(image, 0, 0);
  return canvas;
}

/** Draw it over columns from `left` to `right`; x: cells → pixels. */
export function drawStrip(pen, image, { start, hop }, timeline, { left, right, x, theme, ratio }) {
  pen.save();
  pen.beginPath();
  pen.rect(left, 0, right - left, STRIP);
  pen.clip();
  pen.fillStyle = theme.empty;
  pen.fillRect(left, 0, right - left, STRIP);
  if (image) {
    const [from, to] = [start, start + image.width * hop].map((time) => x(timeline.place(time)));
    pen.imageSmoothingEnabled = (to - from) * ratio < image.width; // enlarged, a column keeps its sharp edges
    pen.imageSmoothingQuality = "high";
    pen.drawImage(image, from, 0, to - from, STRIP);
  }
  if (timeline.stop !== null) {
    pen.fillStyle = theme.background;
    pen.globalAlpha = 0.5;
    pen.fillRect(x(timeline.stop), 0, right, STRIP);
  }
  pen.restore();
  pen.strokeStyle = theme.ink(0.22);
  pen.lineWidth = 1;
  pen.strokeRect(left - 0.5, 0.5, right - left + 1, STRIP - 1);
}

/** Seconds along one edge of the matrix. marks: [{text, at, ink}], which quiet ticks make way for. */
export function drawTimes(pen, across, ticks, marks, { place, edge, from, to, theme }) {
  pen.textAlign = across ? "center" : "right";
  const taken = [];
  const write = ({ text, at }, ink, weight) => {
    pen.font = `${weight}${theme.type(11)}`;
    const half = across ? pen.measureText(text).width / 2 : 6;
    const spot = place(at);
    const middle = Math.max(from + (across ? half : 0), Math.min(to - (across ? half : 0), spot)); // stay over the cells
    if (taken.some(([a, b]) => middle - half < b + 6 && middle + half > a - 6)) return false;
    taken.push([middle - half, middle + half]);
    pen.fillStyle = ink;
    if (across) pen.fillText(text, middle, edge - 14);
    else pen.fillText(text, edge - 7, middle);
    return true;
  };
  for (const mark of marks) write(mark, mark.ink, "600 ");
  for (const tick of ticks) {
    write(tick, theme.ink(0.72), "");
    pen.fillStyle = theme.ink(0.35);
    if (across) pen.fillRect(place(tick.at) - 0.5, edge - 6, 1, 5);
    else pen.fillRect(edge - 5, place(tick.at) - 0.5, 4, 1);
  }
}
