// What the views share. Text of users reaches the DOM by textContent only, never as HTML.

/** element("td.cell", {title: "…"}, child, "text") */
export function element(kind, attributes = {}, ...children) {
  const [tag, ...classes] = kind.split(".");
  const node = document.createElement(tag);
  node.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const SHAPES = "http://www.w3.org/2000/svg";

export function shape(tag, attributes, text = "") {
  const node = document.createElementNS(SHAPES, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  return node;
}

/** The address of a head: the page's own, and which one. */
export const address = (base, go) => `${base}${new URLSearchParams(go)}`;

/** Go to a head as a link would: the browser has the address at once, and one step back leads here again. */
export function follow(holder, base, go) {
  history.pushState({}, "", address(base, go));
  holder.send({ go });
}

/** A click that stays in this window; others are the browser's. */
export const plain = (event) =>
  event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
