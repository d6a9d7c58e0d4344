// The frame that every view stands in: DOM, sizes, theme, pointer and keyboard. A view measures, draws and names:
//   take(message) · layout(width) → sizes · draw(pen) · overlay(pen, target) · describe(target) → text parts
//   at(x, y, inside) → target | null · keep(target) → it, if still there · pointer(target) → CSS cursor
//   click(target) · key(event) → handled
// and, if it wants them: recolour(), legend(), drags(target), drop(from, to), double(target), unmount(), scrolls.
// looked(target), where somebody set it, hears what is looked at.
// Two canvases lie on top of each other: `base` holds the data, `over` what follows the pointer, so moving the mouse
// never redraws the data.

import { readTheme } from "./colour.js";
import { Pins } from "./pins.js";
import { say } from "./text.js";

const HOW = "Arrow keys read it, Enter pins, Escape goes back.";

function element(tag, className, parent, attributes = {}) {
  const node = document.createElement(tag);
  node.className = className;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  parent.append(node);
  return node;
}

export class Figure {
  constructor(parent, views) {
    this.views = views;
    this.hover = null; // under the mouse
    this.cursor = null; // moved by the keyboard
    this.drawn = 0;
    this.pins = new Pins(this);
    this.root = element("div", "hw", parent);
    const head = (this.head = element("div", "hw-head", this.root));
    this.title = element("span", "hw-title", head);
    this.out = element("button", "hw-out", head, { type: "button", "data-testid": "headwise-zoom-out" });
    this.out.textContent = "zoom out";
    this.legend = element("span", "hw-legend", head, { "data-testid": "headwise-legend" });
    this.readout = element("div", "hw-readout", this.root, {
      "aria-live": "polite",
      "data-testid": "headwise-readout",
    });
    this.stage = element("div", "hw-stage", this.root, { tabindex: "0", role: "application" });
    this.sheet = element("div", "hw-sheet", this.stage);
    const pair = element("div", "hw-pair", this.sheet);
    this.base = element("canvas", "hw-base", pair, { role: "img", "data-testid": "headwise-canvas" });
    this.over = element("canvas", "hw-over", pair, { "aria-hidden": "true" });
    this.side = element("div", "hw-side", pair);
    this.listen();
  }

  listen() {
    const stop = (this.stopper = new AbortController()).signal;
    const on = (node, type, handler, options) => node.addEventListener(type, handler, { signal: stop, ...options });
    on(this.over, "pointermove", (event) => this.move(event));
    on(this.over, "pointerdown", (event) => this.press(event));
    on(this.over, "pointerup", (event) => this.release(event));
    on(this.over, "pointercancel", () => this.endDrag());
    on(this.over, "pointerleave", () => this.point(null));
    on(this.over, "dblclick", () => this.hover && this.view.double?.(this.hover));
    on(this.stage, "scroll", () => this.soon(true), { passive: true });
    on(this.stage, "keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !this.view?.key(event)) return;
      event.preventDefault();
      event.stopPropagation(); // Streamlit listens for single letters
    });
    on(this.root, "focusout", (event) => !this.root.contains(event.relatedTarget) && this.look(null));
    on(this.out, "click", () => this.send({ zoom: null }));
    on(window, "resize", () => this.fitWidth());
    this.resizes = new ResizeObserver(() => this.fitWidth());
    this.resizes.observe(this.root);
    // Labels are measured, so a web font that comes late asks for one more drawing.
    if (document.fonts.status !== "loaded") document.fonts.ready.then(() => !stop.aborted && this.paint());
  }

  unmount() {
    this.stopper.abort();
    this.resizes.disconnect();
    this.view?.unmount?.();
    cancelAnimationFrame(this.frame);
    this.root.remove();
  }

  /** A new message, or the same one in a new theme. Pointer, cursor, focus and scroll stay where they are. */
  update(message, send) {
    this.send = send;
    const theme = readTheme(this.root);
    const news = message !== this.message;
    if (!news && theme.id === this.theme.id) return;
    this.theme = theme;
    this.message = message;
    const start = performance.now();
    if (news) this.take(message);
    this.view.recolour?.();
    this.paint(start);
  }

  take(message) {
    if (this.root.dataset.view !== message.view) {
      this.view?.unmount?.();
      this.side.replaceChildren();
      this.legend.replaceChildren();
      this.hover = this.cursor = null;
      this.stage.scrollTop = 0;
      this.size = null;
      this.view = new this.views[message.view](this);
    }
    this.endDrag();
    const { dataset } = this.root;
    dataset.view = message.view;
    dataset.testid = message.name ?? (message.view === "grid" ? "headwise-grid" : "headwise-head");
    dataset.head = message.title;
    this.title.textContent = message.title;
    this.view.take(message);
    this.hover = this.view.keep(this.hover);
    this.cursor = this.view.keep(this.cursor);
    const label = message.label ?? `${message.title || "attention head"}: ${message.value_name} of ${message.extent}, ${message.view}. ${HOW}`;
    this.stage.setAttribute("aria-label", label);
    this.base.setAttribute("aria-label", label);
  }

  fitWidth() {
    const width = this.root.clientWidth;
    if (!this.view || (width === this.width && devicePixelRatio === this.ratio)) return;
    // Our height can make the page's scroll bar come, its width then make us small and the bar go, for ever.
    if (width === this.before && Math.abs(width - this.width) < 24 && performance.now() - this.resized < 300) return;
    this.before = this.width;
    this.resized = performance.now();
    this.paint();
  }

  /** Draw everything. */
  paint(start = performance.now()) {
    if (!this.view || !this.root.clientWidth) return; // a hidden tab has no width; the observer calls again
    this.width = this.root.clientWidth;
    this.ratio = devicePixelRatio || 1;
    let size = this.view.layout(this.width);
    if (size.content > size.height) size = this.view.layout(this.width - 14); // room for the scroll bar
    this.stage.style.height = `${size.height}px`;
    this.sheet.style.height = `${size.content}px`;
    for (const canvas of [this.base, this.over]) {
      const [width, height] = [Math.round(size.width * this.ratio), Math.round(size.canvas * this.ratio)];
      if (canvas.width !== width) canvas.width = width; // assigning clears, so only when it changed
      if (canvas.height !== height) canvas.height = height;
      canvas.style.width = `${size.width}px`;
      canvas.style.height = `${size.canvas}px`;
    }
    this.size = size;
    this.head.style.maxWidth = `${Math.max(size.used, 520)}px`; // the legend ends where the picture does
    this.base.dataset.plot = size.plot; // where cells or rows lie, for tests
    this.view.legend?.();
    this.redraw(start);
  }

  /** Draw the data again at the present size. */
  redraw(start = performance.now()) {
    if (this.hover !== null && this.spot) this.hover = this.view.at(...this.spot); // the mouse stayed, the data moved
    this.view.draw(this.pen(this.base));
    this.base.dataset.drawMs = (performance.now() - start).toFixed(2);
    this.base.dataset.drawn = ++this.drawn;
    this.refresh();
  }

  pen(canvas) {
    const pen = canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    pen.textBaseline = "middle";
    return pen;
  }

  /** Redraw only what follows the pointer, and say it. */
  refresh() {
    if (!this.size) return;
    const target = this.target;
    this.view.overlay(this.pen(this.over), target);
    this.looked?.(target);
    say(this.readout, this.view.describe(target));
    this.readout.classList.toggle("hw-idle", !target);
  }

  soon(all = false) {
    this.whole ||= all;
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      if (this.whole && this.view.scrolls) this.redraw();
      else this.refresh();
      this.whole = false;
    });
  }

  /** What is being looked at: the mouse wins over the keyboard. */
  get target() {
    return this.hover ?? this.cursor;
  }

  /** Put the keyboard's cursor somewhere; the mouse is silent until it moves again. */
  look(target) {
    if (target !== null) this.hover = null;
    this.cursor = target;
    this.refresh();
  }

  point(target) {
    if (target === null ? this.hover === null : JSON.stringify(target) === JSON.stringify(this.hover)) return;
    this.hover = target;
    this.soon();
  }

  place(event) {
    const box = this.over.getBoundingClientRect();
    return (this.spot = [event.clientX - box.left, event.clientY - box.top]);
  }

  move(event) {
    const [x, y] = this.place(event);
    const target = this.view.at(x, y, Boolean(this.from));
    if (this.from) {
      this.to = target;
      this.dragging ||= Math.hypot(x - this.start[0], y - this.start[1]) > 4;
    }
    this.over.style.cursor = target === null ? "default" : this.view.pointer(target);
    this.point(target);
  }

  press(event) {
    if (event.button !== 0) return;
    this.start = this.place(event);
    this.point(this.view.at(...this.start));
    if (event.pointerType === "touch" || !this.view.drags?.(this.hover)) return; // a finger scrolls
    this.from = this.to = this.hover;
    this.over.setPointerCapture(event.pointerId);
  }

  release(event) {
    if (event.button !== 0) return;
    const { from, to, dragging } = this;
    this.endDrag();
    const target = this.view.at(...this.place(event));
    if (dragging) this.view.drop(from, to);
    else if (target !== null && this.start) this.view.click(target, event);
    this.start = null;
    this.hover = target;
    this.soon();
  }

  endDrag() {
    this.from = this.to = null;
    this.dragging = false;
  }
}
