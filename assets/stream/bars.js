// One bar a line, from zero to both sides, and under a rule the sums. A line may lead to a head.

import { address, element, follow, plain } from "./parts.js";

export class Bars {
  constructor(holder) {
    this.holder = holder;
    holder.root.addEventListener("click", (event) => this.click(event));
  }

  take(message) {
    this.message = message;
  }

  draw(theme) {
    const { rows, sums, title, signed } = this.message;
    const low = Math.min(0, ...rows.map((row) => row.value));
    const high = Math.max(signed ? low + 1e-9 : 1e-9, ...rows.map((row) => row.value));
    const at = (value) => (100 * (value - low)) / (high - low);
    const lines = rows.map((row) => {
      const bar = element("i", { class: row.value < 0 ? "against" : "for" });
      const [from, to] = [at(Math.min(0, row.value)), at(Math.max(0, row.value))];
      bar.style.cssText = `left:${from}%;width:${to - from}%`;
      bar.style.background = signed ? theme.diverging.css[row.value < 0 ? 26 : 229] : theme.accent;
      const inside = [element("b", {}, row.name), element("span.track", {}, bar), element("em", {}, row.text)];
      const about = { title: `${row.name} ${row.text}` };
      if (!row.go) return element("div.line", about, ...inside);
      const link = element("a.line", { ...about, href: address(this.message.base, row.go) }, ...inside);
      link.go = row.go;
      return link;
    });
    const below = sums.map(({ name, text, strong }) =>
      element(strong ? "div.line.strong" : "div.line", {}, element("b", {}, name), element("em", {}, text)),
    );
    const box = element("div.bars", { role: "group", "aria-label": title }, ...lines);
    const widest = Math.max(0, ...[...rows, ...sums].map(({ text }) => text.length));
    this.holder.root.style.setProperty("--figures", `${widest}ch`); // every line's are as wide, so that bars can be compared
    box.style.maxHeight = this.message.height ? `${this.message.height}px` : "";
    this.holder.root.replaceChildren(box, ...(below.length ? [element("div.sums", {}, ...below)] : []));
  }

  choose() {}

  click(event) {
    const link = event.target.closest("a");
    if (!link || !plain(event)) return;
    event.preventDefault();
    follow(this.holder, this.message.base, link.go);
  }
}
