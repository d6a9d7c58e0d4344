// Tokens down the side, depth to the right: each part stands in the row of the position where it writes, and an edge
// that leaves its row is information that moves to another position. Pointing at a part lights its edges alone.

import { element, shape } from "./parts.js";

const [TOP, FOOT, LINE, GAP, TALL] = [24, 8, 27, 9, 19]; // pixels: above and below, a line, between rows, a part
const [LEAST, MOST] = [46, 124]; // of a column

export class Graph {
  constructor(root, send) {
    this.root = root;
    this.send = send;
    this.resizes = new ResizeObserver(() => this.message && root.clientWidth !== this.wide && this.draw(this.message, this.theme));
    this.resizes.observe(root);
  }

  unmount() {
    this.resizes.disconnect();
  }

  draw(message, theme) {
    [this.message, this.theme] = [message, theme];
    this.wide = this.root.clientWidth || 800;
    const { rows, columns, places, wires, title } = message;
    const letters = Math.max(4, ...rows.map((row) => [...row.label].length));
    this.left = Math.min(132, 26 + 7.2 * letters);
    const answer = places.find((place) => place.kind === "logits");
    const right = Math.min(150, 26 + 6.6 * [...(answer?.label ?? "")].length);
    const free = this.wide - this.left - right;
    this.column = Math.max(LEAST, Math.min(MOST, free / Math.max(1, columns.length - 1.5)));
    const width = Math.max(this.wide, this.left + right + this.column * (columns.length - 1.5));
    const last = rows.at(-1);
    const height = TOP + (last.first + last.count) * LINE + (rows.length - 1) * GAP + FOOT;
    const svg = shape("svg", { width, height, role: "group", "aria-label": title });
    rows.forEach((row, i) => this.row(svg, row, i, width));
    columns.forEach((name, i) => {
      if (name) svg.append(shape("text", { x: this.x(i), y: 13, "text-anchor": "middle", class: "over" }, name));
    });
    svg.append(shape("text", { x: this.left - 10, y: 13, "text-anchor": "end", class: "over" }, "block"));
    this.at = new Map(places.map((place) => [place.key, place]));
    this.edges = wires
      .map((wire) => ({ ...wire, node: this.edge(wire) }))
      .sort((one, other) => one.size - other.size);
    svg.append(...this.edges.map((edge) => edge.node));
    this.parts = places.filter((place) => place.kind !== "embedding").map((place) => [place, this.part(place)]);
    svg.append(...this.parts.map(([, node]) => node));
    const box = element("div.sheet", {}, svg);
    this.root.replaceChildren(box, this.legend());
    svg.addEventListener("pointerover", (event) => this.light(event.target.closest("[data-key]")?.dataset.key ?? this.chosen));
    svg.addEventListener("pointerleave", () => this.light(this.chosen));
    if (this.chosen !== undefined) this.light(this.chosen);
  }

  x(column) {
    return this.left + (column - 0.5) * this.column;
  }

  y(line) {
    const row = this.message.rows.findLastIndex((one) => one.first <= line);
    return TOP + (line + 0.5) * LINE + Math.max(0, row) * GAP;
  }

  half(place) {
    if (place.kind === "embedding") return 0;
    return Math.min(place.kind === "logits" ? 70 : this.column / 2 - 4, 5 + 3.5 * [...place.label].length);
  }

  row(svg, { first, count, label }, i, width) {
    const top = this.y(first) - LINE / 2;
    const band = { x: 0, y: top - GAP / 2, width, height: count * LINE + GAP, class: i % 2 ? "band odd" : "band" };
    const name = shape("text", { x: this.left - 12, y: top + (count * LINE) / 2 + 4, "text-anchor": "end", class: "token" }, label);
    svg.append(shape("rect", band), name);
  }

  edge(wire) {
    const [from, to] = [this.at.get(wire.start), this.at.get(wire.end)];
    const [x0, y0] = [from.kind === "embedding" ? this.left - 6 : this.x(from.column) + this.half(from), this.y(from.line)];
    const [x1, y1] = [to.kind === "logits" ? this.x(to.column) - this.column / 2 + 4 : this.x(to.column) - this.half(to), this.y(to.line)];
    const bend = Math.max(14, (x1 - x0) * 0.42);
    const over = Math.abs(y1 - y0) < 2 && to.column - from.column > 1 ? -Math.min(19, 5 + 2.4 * (to.column - from.column)) : 0;
    const path = `M${x0} ${y0}C${x0 + bend} ${y0 + over} ${x1 - bend} ${y1 + over} ${x1} ${y1}`;
    const group = shape("g", { class: wire.effect < 0 ? "wire against" : "wire" });
    const ink = this.theme.dark ? "dark" : "light";
    const colour = this.message.legend.find((way) => way.into === wire.into)[ink];
    const line = { d: path, stroke: colour, "stroke-width": 1 + 5 * Math.sqrt(wire.size) };
    group.append(shape("path", line), shape("path", { d: path, class: "near" }), shape("title", {}, wire.told));
    return group;
  }

  part(place) {
    const answer = place.kind === "logits";
    const half = this.half(place);
    const left = answer ? this.x(place.column) - this.column / 2 + 4 : this.x(place.column) - half;
    const group = shape("g", { class: `part ${place.kind}`, "data-key": place.key, tabindex: 0, role: "button" });
    group.setAttribute("aria-label", place.name);
    const y = this.y(place.line);
    const tint = Math.round(8 + 44 * Math.sqrt(place.weight));
    const fill = `color-mix(in srgb, ${this.theme.accent} ${tint}%, ${this.theme.background})`;
    const width = answer ? 12 + 6.6 * [...place.label].length : 2 * half;
    const round = place.kind === "head" ? TALL / 2 : 4;
    group.append(
      shape("rect", { x: left, y: y - TALL / 2, width, height: TALL, rx: round, style: `fill:${fill}` }),
      shape("text", { x: left + width / 2, y: y + 4, "text-anchor": "middle" }, place.label),
      shape("title", {}, place.name),
    );
    const choose = () => this.send({ part: place.key });
    group.addEventListener("click", choose);
    group.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choose();
    });
    group.addEventListener("focus", () => this.light(place.key));
    group.addEventListener("blur", () => this.light(this.chosen));
    return group;
  }

  legend() {
    const ink = this.theme.dark ? "dark" : "light";
    const used = new Set(this.message.wires.map((wire) => wire.into));
    const ways = this.message.legend.filter((way) => used.has(way.into));
    const keys = ways.map((way) => {
      const line = element("i");
      line.style.borderColor = way[ink];
      return element("span", {}, line, way.told);
    });
    return element("div.keys", {}, ...keys, element("span.thick", {}, "thicker: the answer loses more without it"));
  }

  /** Its edges, and the parts at their ends; all of them where it is no part of the graph. */
  light(key) {
    const near = new Set([key]);
    const known = key && this.at?.has(key);
    for (const edge of this.edges ?? []) {
      const own = edge.start === key || edge.end === key;
      edge.node.classList.toggle("off", Boolean(known && !own && key !== this.chosen));
      edge.node.classList.toggle("back", Boolean(known && !own && key === this.chosen));
      if (own) near.add(edge.start).add(edge.end);
    }
    for (const [place, node] of this.parts ?? []) {
      node.classList.toggle("off", Boolean(known && !near.has(place.key) && key !== this.chosen));
      node.toggleAttribute("aria-pressed", place.key === this.chosen);
    }
  }

  choose(selected) {
    this.chosen = selected ?? "";
    this.light(this.chosen);
  }
}
