// A table of small cells, each coloured by a number and some with a token in them. A click or an arrow key chooses one;
// where cells lead somewhere, a click or Enter goes there.

import { address, element, follow, plain } from "./parts.js";
import { visible } from "./text.js";

const NARROW = 16; // columns whose tokens may be cut so that all are in sight
const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

export class Cells {
  constructor(holder) {
    this.holder = holder;
    this.head = element("div.head");
    this.box = element("div.box");
    holder.root.append(this.head, this.box);
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.box.addEventListener("click", (event) => this.click(event));
  }

  take(message) {
    this.message = message;
    this.names = message.columns.map(visible);
  }

  draw(theme) {
    const { rows, columns, texts, title } = this.message;
    const { scrollLeft, scrollTop } = this.box;
    const table = element("table", { role: "grid", "aria-label": title });
    table.classList.toggle("bare", !texts);
    table.style.setProperty("--row", `${this.message.height}px`);
    table.style.setProperty("--cell", `${texts ? (columns.length <= NARROW ? 30 : 44) : 20}px`);
    const heads = this.names.map((name, c) =>
      element("th", { scope: "col", title: `${this.place(c)}${name}`, "aria-current": this.marked(c) }, name),
    );
    table.append(element("thead", {}, element("tr", {}, element("th", {}), ...heads)));
    this.cells = rows.map((_, r) => columns.map((_, c) => this.cell(theme, r, c)));
    const lines = rows.map((name, r) =>
      element("tr", {}, element("th", { scope: "row", title: name }, name), ...this.cells[r]),
    );
    table.append(element("tbody", {}, ...lines));
    this.box.replaceChildren(table);
    this.box.scrollTo(scrollLeft, scrollTop);
    this.outlined = null;
    this.legend(theme);
  }

  cell(theme, r, c) {
    const { shades, texts, signed, links, base } = this.message;
    const shade = shades[r][c];
    const td = element("td", { role: "gridcell", tabindex: "-1", title: this.describe(r, c) });
    const { css, dark } = signed ? theme.diverging : theme.sequential;
    if (shade === null) td.className = "none";
    else {
      td.style.background = css[shade];
      td.style.color = dark[shade] ? "#fff" : "#000";
    }
    [td.dataset.r, td.dataset.c] = [r, c];
    const text = texts ? visible(texts[r][c]) : "";
    const go = links?.[r][c];
    if (go) td.append(element("a", { href: address(base, go), tabindex: "-1", "aria-label": td.title }, text));
    else td.append(text);
    return td;
  }

  /** Before a column's name: its position, where the columns are positions. */
  place(c) {
    return this.message.first === null ? "" : `${this.message.first + c} `;
  }

  marked(c) {
    return this.message.first !== null && this.message.first + c === this.message.marked ? "true" : null;
  }

  describe(r, c) {
    const { rows, texts, values, quantity } = this.message;
    const said = texts && this.message.tokens ? [visible(texts[r][c])] : [];
    const value = values[r][c] === null ? [] : [`${quantity} ${values[r][c]}`];
    return [`${rows[r]} · ${this.place(c)}${this.names[c]}`, ...said, ...value].join(" · ");
  }

  legend(theme) {
    const { quantity, low, high, signed, pages, rest } = this.message;
    const bar = element("i.bar");
    const { css } = signed ? theme.diverging : theme.sequential;
    bar.style.background = `linear-gradient(90deg, ${[0, 51, 102, 153, 204, 255].map((i) => css[i]).join()})`;
    const ends = [element("span", {}, low), bar, element("span", {}, high)];
    this.head.replaceChildren(element("span.legend", {}, quantity, ...ends));
    if (rest)
      this.head.prepend(
        element("span.pages", {}, rest.said, this.button(rest.word, `${rest.word} states`, () => ({ every: !rest.every }))),
      );
    if (!pages) return;
    const turn = (text, label, position) => {
      const button = this.button(text, label, () => ({ row: this.message.places[this.at[0]], position }));
      button.disabled = position === null;
      return button;
    };
    const [before, after] = [turn("‹", "Earlier", pages.before), turn("›", "Later", pages.after)];
    this.head.prepend(element("span.pages", {}, before, pages.said, after));
  }

  button(text, label, event) {
    const button = element("button", { type: "button", "aria-label": label }, text);
    button.addEventListener("click", () => this.holder.send(event()));
    return button;
  }

  choose(selected) {
    const { places, first } = this.message;
    const r = places.indexOf(selected[0]);
    const c = first === null ? selected[1] : selected[1] - first;
    const moved = this.at?.join() !== [r, c].join();
    this.at = [r, c];
    const cell = this.cells[r]?.[c];
    if (cell === this.outlined) return;
    const focused = this.box.contains(this.box.getRootNode().activeElement);
    if (this.outlined) this.outlined.tabIndex = -1;
    this.outlined?.removeAttribute("aria-selected");
    this.outlined = cell ?? null;
    if (!cell) {
      this.cells[0][0].tabIndex = 0; // the keyboard can still come in
      const marked = this.cells[0][this.message.marked - first]; // where nothing is chosen one begins there
      if (!this.shown && first !== null && this.message.marked !== null && marked) this.reveal(marked);
      this.shown = true;
      return;
    }
    cell.setAttribute("aria-selected", "true");
    cell.tabIndex = 0;
    if (focused) cell.focus({ preventScroll: true });
    if (moved || !this.shown) this.reveal(cell);
    this.shown = true;
  }

  /** Scroll the box, never the page. */
  reveal(cell) {
    const { box } = this;
    const [left, top] = [cell.offsetLeft, cell.offsetTop];
    const [side, above] = [box.querySelector("th").offsetWidth, box.querySelector("th").offsetHeight];
    if (left - side < box.scrollLeft) box.scrollLeft = left - side - 4;
    if (left + cell.offsetWidth > box.scrollLeft + box.clientWidth)
      box.scrollLeft = left + cell.offsetWidth - box.clientWidth + 4;
    if (top - above < box.scrollTop) box.scrollTop = top - above;
    if (top + cell.offsetHeight > box.scrollTop + box.clientHeight)
      box.scrollTop = top + cell.offsetHeight - box.clientHeight;
  }

  click(event) {
    const cell = event.target.closest("td");
    if (!cell || !plain(event)) return;
    const [r, c] = [Number(cell.dataset.r), Number(cell.dataset.c)];
    if (this.message.links) {
      event.preventDefault();
      this.look(r, c);
      this.open(r, c);
    } else this.tell(r, c, 0);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.at) return;
    const [r, c] = [Math.max(0, this.at[0]), Math.max(0, this.at[1])];
    const [rows, columns] = [this.cells.length, this.cells[0].length];
    if (event.key in MOVES) {
      const [down, right] = MOVES[event.key];
      const to = [r + down, c + right];
      const page = to[1] < 0 ? "before" : to[1] >= columns ? "after" : null;
      if (page && this.message.pages?.[page] !== undefined && this.message.pages[page] !== null)
        this.holder.send({ row: this.message.places[r], position: this.message.pages[page] });
      else if (to[0] >= 0 && to[0] < rows && !page) this.tell(...to, 140);
    } else if (event.key === "Home") this.tell(r, 0, 140);
    else if (event.key === "End") this.tell(r, columns - 1, 140);
    else if (event.key === "Enter" && this.message.links) this.open(r, c);
    else return;
    event.preventDefault();
    event.stopPropagation(); // Streamlit listens for single letters
  }

  look(r, c) {
    this.choose([this.message.places[r], this.message.first === null ? c : this.message.first + c]);
  }

  tell(r, c, wait) {
    this.look(r, c);
    this.outlined.focus({ preventScroll: true });
    if (!this.message.links) this.holder.send({ row: this.message.places[r], position: this.message.first + c }, wait);
  }

  open(r, c) {
    const go = this.message.links[r][c];
    if (go) follow(this.holder, this.message.base, go);
  }
}
