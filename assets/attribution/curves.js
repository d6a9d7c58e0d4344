// Curves from 0 to 1 on both axes or in steps, over a band that chance would give. Pointing at one tells the values there
// and, where units are taken away, tells the maps (maps.js) which.

import { element, shape } from "./parts.js";

const [LEFT, RIGHT, TOP, HEIGHT, FOOT] = [36, 10, 8, 148, 18];

export class Curves {
  constructor(holder) {
    this.root = holder.root;
    this.resizes = new ResizeObserver(() => this.theme && this.root.clientWidth !== this.width && this.draw(this.theme));
    this.resizes.observe(this.root);
  }

  end() {
    this.resizes.disconnect();
  }

  take(message) {
    this.message = message;
  }

  draw(theme) {
    this.theme = theme;
    this.width = this.root.clientWidth || 400;
    const { charts } = this.message;
    const across = this.width < 400 ? 1 : charts.length;
    const boxes = charts.map((chart) => this.chart(chart, Math.floor((this.width - 18 * (across - 1)) / across)));
    const keys = this.message.keys.map((name, i) => element("span", {}, this.dash(i), name));
    if (charts.some((chart) => chart.band)) keys.push(element("span", {}, element("i.floor"), "random orders"));
    if (this.message.of) keys.push(element("span.hint", {}, "point at a curve to see what is gone"));
    this.root.replaceChildren(element(across > 1 ? "div.charts" : "div", {}, ...boxes), element("div.keys", {}, ...keys));
  }

  dash(i) {
    const dash = element(i ? "i.second" : "i");
    dash.style.borderColor = this.colour(i);
    return dash;
  }

  colour(i) {
    return i ? this.theme.ink(0.8) : this.theme.accent;
  }

  chart(chart, width) {
    const x = (at) => LEFT + (width - LEFT - RIGHT) * at;
    const y = (value) => TOP + ((HEIGHT - TOP) * (chart.high - value)) / (chart.high - chart.low);
    const svg = shape("svg", { width, height: HEIGHT + FOOT, role: "img", "aria-label": chart.title });
    for (const [value, text] of chart.levels) {
      svg.append(shape("line", { x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value), class: value === 0 ? "rule zero" : "rule" }));
      svg.append(shape("text", { x: LEFT - 6, y: y(value) + 3.5, "text-anchor": "end" }, text));
    }
    for (const [at, text, anchor] of chart.ticks)
      svg.append(shape("text", { x: x(at), y: HEIGHT + 14, "text-anchor": anchor }, text));
    const points = (values) => values.map((value, i) => `${x(chart.places[i])},${y(value)}`);
    if (chart.band) {
      const { low, high, mean } = chart.band;
      svg.append(shape("polygon", { points: [...points(low), ...points(high).reverse()].join(" "), class: "band" }));
      svg.append(shape("polyline", { points: points(mean).join(" "), class: "floor" }));
    }
    chart.lines.forEach((values, i) => {
      if (values) svg.append(shape("polyline", { points: points(values).join(" "), class: i ? "second" : "first", stroke: this.colour(i) }));
    });
    const mark = shape("line", { y1: TOP, y2: HEIGHT, class: "mark" });
    const dots = chart.lines.map((_, i) => shape("circle", { r: 3.2, fill: this.colour(i), class: "dot" }));
    svg.append(mark, ...dots);
    const title = element("div.title", {}, element("b", {}, chart.title), element("span", {}, chart.small));
    const said = element("div.said", {}, chart.said[chart.rest] ?? "");
    const box = element("div.chart", { "data-kind": chart.kind }, title, svg, said);
    box.style.width = `${width}px`;
    const show = (step) => {
      const on = step !== null;
      for (const node of [mark, ...dots]) node.classList.toggle("on", on);
      said.textContent = chart.said[on ? step : chart.rest] ?? "";
      if (on) {
        mark.setAttribute("x1", x(chart.places[step]));
        mark.setAttribute("x2", x(chart.places[step]));
        dots.forEach((dot, i) => {
          dot.classList.toggle("on", Boolean(chart.lines[i]));
          if (!chart.lines[i]) return;
          dot.setAttribute("cx", x(chart.places[step]));
          dot.setAttribute("cy", y(chart.lines[i][step]));
        });
      }
      if (!chart.counts) return;
      const detail = on ? { count: chart.counts[step], kind: chart.kind, of: this.message.of } : null;
      document.dispatchEvent(new CustomEvent("headwise-taken", { detail }));
    };
    svg.addEventListener("pointermove", (event) => {
      const at = (event.clientX - svg.getBoundingClientRect().left - LEFT) / (width - LEFT - RIGHT);
      const gaps = chart.places.map((place) => Math.abs(place - at));
      show(gaps.indexOf(Math.min(...gaps)));
    });
    svg.addEventListener("pointerleave", () => show(null));
    return box;
  }

  choose() {}
}
