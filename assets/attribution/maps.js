// Attributions of one input side by side: its text with coloured tokens, its picture with coloured patches, its
// spectrogram with coloured strips. What is pointed at on one side is outlined on both; what a curve takes away at the
// mouse is struck out (the event "headwise-taken", from curves.js).

import { element, shape } from "./parts.js";
import { visible } from "./text.js";

const TOLD = 4; // units whose score is written under them, where there is room
const LANE = 26; // pixels of the bars under a spectrogram
const STRIP = 84; // and of itself
const ORDINALS = { 1: "st", 2: "nd", 3: "rd" };

const ordinal = (n) => `${n}${n % 100 > 10 && n % 100 < 14 ? "th" : (ORDINALS[n % 10] ?? "th")}`;

export class Maps {
  constructor(holder) {
    this.root = holder.root;
    this.root.addEventListener("pointerover", (event) => this.point(event.target.closest("[data-u]")));
    this.root.addEventListener("pointerleave", () => this.point(null));
    this.root.addEventListener("focusin", (event) => this.point(event.target.closest("[data-u]")));
    this.hear = (event) => this.taken(event.detail);
    document.addEventListener("headwise-taken", this.hear);
  }

  end() {
    document.removeEventListener("headwise-taken", this.hear);
  }

  take(message) {
    this.message = message;
  }

  draw(theme) {
    this.theme = theme;
    this.spots = [];
    const sides = this.message.sides.map((side, s) => this.side(side, s));
    this.root.replaceChildren(element("div.sides", {}, ...sides));
    this.point(null);
  }

  side(side, s) {
    this.spots.push(new Map());
    if (side.why) return element("section.side", { "data-side": s }, element("div.why", {}, side.why));
    const blocks = this.message.blocks.flatMap((block) => [
      ...(this.message.blocks.length > 1 ? [element("div.name", {}, block.name)] : []),
      this[block.kind](block, side, s),
    ]);
    const said = element("div.said", { "aria-live": "polite" });
    const map = element("div.map", { role: "group", "aria-label": `What the answer rests on, by ${side.name}` }, ...blocks);
    const box = element("section.side", { "data-side": s }, map, element("div.foot", {}, said, this.legend(side)));
    box.said = said;
    return box;
  }

  /** A scale, with what its ends mean. */
  legend(side) {
    const { css } = side.signed ? this.theme.diverging : this.theme.sequential;
    const bar = element("i.bar");
    bar.style.background = `linear-gradient(90deg, ${[0, 51, 102, 153, 204, 255].map((i) => css[i]).join()})`;
    return element("span.legend", {}, element("span", {}, side.low), bar, element("span", {}, side.high));
  }

  spot(node, s, u) {
    node.dataset.u = u;
    this.spots[s].set(u, node);
    return node;
  }

  // --- kinds of input ------------------------------------------------------------------------------------

  text(block, side, s) {
    const { css, dark } = side.signed ? this.theme.diverging : this.theme.sequential;
    const told = this.told(side);
    const parts = block.texts.flatMap((text, i) => {
      const u = block.first + i;
      const shade = side.shades[u];
      const chip = this.spot(element("span.chip", { title: this.title(side, u), tabindex: "-1" }), s, u);
      const shown = text.trim() ? text : visible(text);
      chip.append(element("bdi", {}, shown.replace(/\r?\n|\r/g, "⏎")));
      if (shade === null) chip.classList.add("fixed");
      else {
        chip.style.background = css[shade];
        chip.style.color = dark[shade] ? "#fff" : "#000";
        if (told.has(u)) chip.dataset.value = side.scores[u];
      }
      if (i === 0 || block.before[i]) chip.classList.add("starts");
      if (i === block.texts.length - 1 || block.before[i + 1]) chip.classList.add("ends");
      if (u === this.message.answered) chip.classList.add("answered");
      const answer =
        u === this.message.answered && i === block.texts.length - 1
          ? [" ", element("span.answer", { title: "The answer that is explained" }, this.message.answer)]
          : [];
      return [block.before[i].replace(/\r?\n|\r/g, " "), chip, ...answer];
    });
    return element("div.text", { dir: "auto" }, ...parts);
  }

  /** The units whose scores are written: the first, and of a method with a sign the one most against the answer; not
   * two side by side. */
  told(side) {
    const order = side.places.map((place, u) => [place, u]).filter(([place]) => place !== null);
    order.sort((a, b) => a[0] - b[0]);
    const last = order.at(-1);
    const wanted = order.slice(0, TOLD);
    if (side.signed && last && side.values[last[1]] < 0) wanted.unshift(last);
    const found = new Set();
    for (const [, u] of wanted) if (!found.has(u - 1) && !found.has(u + 1)) found.add(u);
    return found;
  }

  picture(block, side, s) {
    const [rows, columns] = block.grid;
    const [left, top, right, bottom] = block.box;
    const [wide, high] = block.size;
    const view = [Math.min(0, left), Math.min(0, top), Math.max(wide, right), Math.max(high, bottom)];
    const box = `${view[0]} ${view[1]} ${view[2] - view[0]} ${view[3] - view[1]}`;
    const svg = shape("svg", { viewBox: box, class: "picture", role: "img", "aria-label": side.name });
    svg.style.aspectRatio = `${view[2] - view[0]} / ${view[3] - view[1]}`;
    const { css } = side.signed ? this.theme.diverging : this.theme.sequential;
    const [w, h] = [(right - left) / columns, (bottom - top) / rows];
    const spots = [];
    for (let i = 0; i < rows * columns; i++) {
      const [r, c] = [Math.floor(i / columns), i % columns];
      const u = block.first + i;
      const at = { x: left + c * w, y: top + r * h, width: w, height: h };
      svg.append(shape("rect", { ...at, fill: side.shades[u] === null ? "none" : css[side.shades[u]] }));
      const spot = this.spot(shape("rect", { ...at, class: "patch" }), s, u);
      spot.append(shape("title", {}, this.title(side, u)));
      spots.push(spot);
    }
    const image = shape("image", { href: block.src, width: wide, height: high, preserveAspectRatio: "none" });
    image.classList.add(block.strokes ? "strokes" : "faint");
    if (wide < 100) image.style.imageRendering = "pixelated";
    svg.append(image, ...spots);
    return svg;
  }

  sound(block, side, s) {
    const { step, seconds, src } = block;
    const count = block.texts.length;
    const svg = shape("svg", { viewBox: `0 0 ${seconds} ${STRIP + LANE}`, preserveAspectRatio: "none", class: "sound" });
    svg.style.height = `${STRIP + LANE}px`;
    const image = shape("image", { href: src, width: seconds, height: STRIP, preserveAspectRatio: "none", class: "ink" });
    svg.append(image, shape("line", { x1: 0, x2: seconds, y1: STRIP + LANE / 2, y2: STRIP + LANE / 2, class: "rule" }));
    for (let i = 0; i < count; i++) {
      const u = block.first + i;
      const [from, to] = [i * step, Math.min((i + 1) * step, seconds)];
      if (side.shades[u] === null || to <= from) continue;
      const size = this.size(side, u);
      const middle = STRIP + (side.signed ? LANE / 2 : LANE);
      const length = Math.abs(size) * (side.signed ? LANE / 2 : LANE);
      const bar = shape("rect", { x: from, width: (to - from) * 0.86, y: size < 0 ? middle : middle - length, height: length });
      bar.setAttribute("fill", this.ink(side, size));
      const strip = shape("rect", { x: from, width: to - from, y: 0, height: STRIP, class: "patch" });
      this.wash(strip, side, u, 0.6);
      svg.append(bar, this.spot(strip, s, u));
    }
    const scale = element("div.seconds", {}, element("span", {}, "0 s"), element("span", {}, `${seconds.toFixed(2)} s`));
    return element("div.recording", {}, svg, scale);
  }

  /** −1 … 1: a score beside the largest. */
  size(side, u) {
    return side.signed ? side.shades[u] / 127.5 - 1 : side.shades[u] / 255;
  }

  ink(side, size) {
    const css = this.theme[side.signed ? "diverging" : "sequential"].css;
    return side.signed ? css[size < 0 ? 18 : 237] : css[this.theme.dark ? 215 : 200];
  }

  wash(node, side, u, most) {
    const size = side.shades[u] === null ? 0 : this.size(side, u);
    node.setAttribute("fill", this.ink(side, size));
    node.setAttribute("fill-opacity", (most * Math.abs(size)).toFixed(3));
    node.append(shape("title", {}, this.title(side, u)));
  }

  // --- pointing ------------------------------------------------------------------------------------------

  title(side, u) {
    const place = side.places[u];
    const rank = place === null ? "never taken away" : `${ordinal(place + 1)} of ${this.message.units}`;
    return `${this.message.labels[u]} · ${side.scores[u]} · ${rank}`;
  }

  /** Say what is pointed at on both sides; else what each side puts first. */
  point(node) {
    const u = node ? Number(node.dataset.u) : null;
    if (u === this.at && node) return;
    this.at = u;
    this.message.sides.forEach((side, s) => {
      if (side.why) return;
      for (const [unit, spot] of this.spots[s]) spot.classList.toggle("pointed", unit === u);
      const box = this.root.querySelector(`[data-side="${s}"]`);
      box.said.replaceChildren(...(u === null ? this.first(side) : [this.title(side, u)]));
    });
  }

  first(side) {
    const order = side.places.map((place, u) => [place, u]).filter(([place]) => place !== null && place < 3);
    const names = order.sort((a, b) => a[0] - b[0]).map(([, u]) => `${this.message.labels[u]} ${side.scores[u]}`);
    return ["first: ", element("bdi", {}, names.join(", "))];
  }

  /** {count, kind, of}: how many units a curve has dealt with where the mouse is; null when it has left. */
  taken(detail) {
    if (detail && detail.of !== this.message.of) return;
    this.message.sides.forEach((side, s) => {
      for (const [u, spot] of this.spots[s]) {
        const place = side.places[u];
        const gone = detail && place !== null && (detail.kind === "deletion") === place < detail.count;
        spot.classList.toggle("gone", Boolean(gone));
      }
    });
  }

  choose() {}
}
