// Ranks through the layers: the best on top, one decade a rule. A click chooses a layer.

import { element, shape } from "./parts.js";

const [LEFT, RIGHT, TOP, HEIGHT, FOOT] = [34, 8, 8, 84, 16];

export class Lines {
  constructor(holder) {
    this.holder = holder;
    this.resizes = new ResizeObserver(() => this.theme && holder.root.clientWidth !== this.width && this.draw(this.theme));
    this.resizes.observe(holder.root);
  }

  take(message) {
    this.message = message;
  }

  draw(theme) {
    this.theme = theme;
    this.width = this.holder.root.clientWidth || 300;
    const { lines, labels, title } = this.message;
    const last = Math.max(1, labels.length - 1);
    const decades = Math.max(1, Math.ceil(Math.log10(Math.max(2, ...lines.flatMap((line) => line.ranks)))));
    this.x = (row) => LEFT + ((this.width - LEFT - RIGHT) * row) / last;
    this.y = (rank) => TOP + ((HEIGHT - TOP) * Math.log10(rank)) / decades;
    const svg = shape("svg", { width: this.width, height: HEIGHT + FOOT, role: "img", "aria-label": title });
    const step = Math.ceil(decades / 4);
    for (let d = 0; d <= decades; d += step) {
      const y = this.y(10 ** d);
      svg.append(shape("line", { x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y, class: "rule" }));
      svg.append(shape("text", { x: LEFT - 6, y: y + 3.5, "text-anchor": "end" }, d < 3 ? String(10 ** d) : `${10 ** (d - 3)}k`));
    }
    const ends = [[0, "start"], [last, "end"]];
    for (const [row, anchor] of ends)
      svg.append(shape("text", { x: this.x(row), y: HEIGHT + 13, "text-anchor": anchor }, labels[row] ?? ""));
    this.mark = shape("line", { y1: TOP - 4, y2: HEIGHT, class: "mark", stroke: theme.accent });
    svg.append(this.mark);
    lines.forEach((line, i) => this.line(svg, line, i, theme));
    for (let row = 0; row <= last && labels[row] !== undefined; row++) this.target(svg, row);
    const keys = lines.map((line, i) => {
      const dash = element("i", { class: i ? "dashed" : "" });
      dash.style.borderColor = i ? theme.ink(0.55) : theme.accent;
      return element("span", {}, dash, line.name);
    });
    this.holder.root.replaceChildren(svg, ...(lines.length > 1 ? [element("div.keys", {}, ...keys)] : []));
    if (this.selected) this.choose(this.selected);
  }

  line(svg, { ranks }, i, theme) {
    const points = ranks.map((rank, row) => `${this.x(row)},${this.y(rank)}`).join(" ");
    const stroke = i ? theme.ink(0.55) : theme.accent;
    svg.append(shape("polyline", { points, class: i ? "second" : "first", stroke }));
  }

  /** A strip to hover over and to click. */
  target(svg, row) {
    const { lines, labels } = this.message;
    const half = (this.x(1) - this.x(0)) / 2;
    const strip = shape("rect", { x: this.x(row) - half, y: 0, width: 2 * half, height: HEIGHT, class: "strip" });
    const said = lines.map((line) => `${line.name} rank ${line.ranks[row].toLocaleString("en")}`);
    strip.append(shape("title", {}, `${labels[row]} · ${said.join(" · ")}`));
    strip.addEventListener("click", () => {
      this.choose([row]);
      this.holder.send({ row });
    });
    svg.append(strip);
  }

  choose(selected) {
    this.selected = selected;
    this.mark.setAttribute("x1", this.x(selected[0]));
    this.mark.setAttribute("x2", this.x(selected[0]));
  }
}
