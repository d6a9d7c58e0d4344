// All heads of a stack, as they travelled: from them the message that a view of one head takes.

import { widen } from "./pack.js";

export class Heads {
  constructor(message) {
    this.message = message;
    this.id = message.id;
    this.entries = new Map(message.entries.map(([row, head, ...rest]) => [`${row},${head}`, rest]));
    this.latest = new Map(); // messages already made; few heads are looked at again and again
  }

  has(head) {
    return this.entries.has(head.join());
  }

  /** The whole of one head. */
  whole(head) {
    const name = head.join();
    if (!this.latest.has(name)) {
      if (this.latest.size > 16) this.latest.clear();
      this.latest.set(name, this.made(name));
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
