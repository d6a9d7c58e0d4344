// All heads of a stack, as they travelled: from them the message that a view of one head takes. A place is [row, head];
// −1 for either is the mean over these, which is made here.

import { widen } from "./pack.js";

export class Heads {
  constructor(message) {
    this.message = message;
    this.id = message.id;
    this.of = message.axes[0].value_name;
    this.entries = new Map(message.entries.map(([row, head, ...rest]) => [`${row},${head}`, rest]));
    this.latest = new Map(); // messages already made; few heads are looked at again and again
  }

  has(head) {
    return this.entries.has(head.join()) || this.members(head).length > 1;
  }

  /** The places that a mean is over; none where they do not stand on the same positions. */
  members([row, head]) {
    if (row >= 0 && head >= 0) return [];
    const all = this.message.entries.filter(([r, h]) => (row < 0 || r === row) && (head < 0 || h === head));
    const alike = all.every(([, , number]) => number === all[0][2]);
    const full = head < 0 || all.length === this.message.layers.length; // each layer has that head
    return alike && full ? all.map(([r, h]) => [r, h]) : [];
  }

  /** The mean of heads, forbidden where all of them are. */
  mean([row, head]) {
    const members = this.members([row, head]).map((place) => this.made(place.join()));
    const [rows, columns] = members[0].cells;
    const data = new Float32Array(rows * columns);
    const masks = members.map(({ forbidden }) => forbidden?.data);
    const all = (i) => Number(masks.every((mask) => mask[i] === 1));
    const forbidden = masks.every(Boolean) ? Uint8Array.from(masks[0], (_, i) => all(i)) : null;
    for (const { matrix } of members) for (let i = 0; i < data.length; i++) data[i] += matrix.data[i] / members.length;
    const heads = head < 0 ? `mean of ${members.length} heads` : `head ${head} · mean of ${members.length} layers`;
    const title = row < 0 ? heads : `layer ${this.message.layers[row]} · ${heads}`;
    const shape = members[0].matrix.shape;
    return { ...members[0], title, matrix: { shape, data }, forbidden: forbidden && { shape, data: forbidden } };
  }

  /** The whole of one head. */
  whole(head) {
    const name = head.join();
    if (!this.latest.has(name)) {
      if (this.latest.size > 16) this.latest.clear();
      this.latest.set(name, this.entries.has(name) ? this.made(name) : this.mean(head));
    }
    return this.latest.get(name);
  }

  made(name) {
    const { message } = this;
    const [number, mask, first, title] = this.entries.get(name);
    const axes = message.axes[number];
    const [rows, columns] = axes.cells;
    const cells = message.values.data.subarray(first, first + rows * columns);
    const own = { ...axes, title, digits: message.exact ? 4 : 3 };
    for (const array of message.arrays)
      if (array.name.startsWith(`${number}.`)) own[array.name.slice(`${number}.`.length)] = message[array.name];
    own.matrix = { shape: axes.cells, data: message.exact ? cells : widen(cells) };
    if (mask >= 0) own.forbidden = message[`mask.${mask}`];
    return own;
  }

  /** A head as a thumbnail of `size` × `size` bytes, as they travel for single heads: the largest of each cell, its
   * square root, 255 for nothing. */
  thumbnail(head, size) {
    const { matrix, forbidden, cells } = this.whole(head);
    const [rows, columns] = cells;
    const [high, wide] = [Math.ceil(rows / size), Math.ceil(columns / size)]; // positions a cell holds
    const [down, across] = [Math.ceil(rows / high), Math.ceil(columns / wide)];
    const small = new Float32Array(down * across).fill(-1);
    for (let q = 0, i = 0; q < rows; q++)
      for (let k = 0; k < columns; k++, i++) {
        const at = Math.floor(q / high) * across + Math.floor(k / wide);
        if (forbidden?.data[i] !== 1 && matrix.data[i] > small[at]) small[at] = matrix.data[i];
      }
    const stretched = (i, count) => Math.floor((i * count) / size);
    const place = (i) => stretched(Math.floor(i / size), down) * across + stretched(i % size, across);
    return Uint8Array.from({ length: size * size }, (_, i) => {
      const value = small[place(i)];
      return value < 0 ? 255 : Math.round(254 * Math.sqrt(Math.min(1, value)));
    });
  }

  /** The same, cropped to a region [q0, q1, k0, k1] in positions where one is given. */
  part(head, region) {
    const whole = this.whole(head);
    if (!region) return whole;
    const [rows, columns] = whole.cells;
    const cut = (first, end, origin, count) => [Math.max(0, first - origin), Math.min(count, end - origin)];
    const [q0, q1] = cut(region[0], region[1], whole.origin[0], rows);
    const [k0, k1] = cut(region[2], region[3], whole.origin[1], columns);
    if (q0 >= q1 || k0 >= k1) return whole;
    const shape = [q1 - q0, k1 - k0];
    const crop = ({ data }) => {
      const part = new data.constructor(shape[0] * shape[1]);
      for (let q = q0; q < q1; q++) part.set(data.subarray(q * columns + k0, q * columns + k1), (q - q0) * shape[1]);
      return { shape, data: part };
    };
    return {
      ...whole,
      matrix: crop(whole.matrix),
      forbidden: whole.forbidden && crop(whole.forbidden),
      origin: [whole.origin[0] + q0, whole.origin[1] + k0],
      query_labels: whole.query_labels.slice(q0, q1),
      key_labels: whole.key_labels.slice(k0, k1),
    };
  }
}
