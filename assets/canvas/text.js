// Tokens and numbers as text. User text reaches the DOM by textContent only, never as HTML.

const MARKS = /([·⏎⇥◌]+)/;

/** A token with its whitespace made visible; characters that would reorder or hide text become ◌. */
export function visible(token) {
  return token
    .slice(0, 200)
    .replace(/ /g, "·")
    .replace(/\r?\n|\r/g, "⏎")
    .replace(/\t/g, "⇥")
    .replace(/[\u0000-\u001f\u007f-\u009f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g, "◌");
}

export function shorten(text, length) {
  const letters = Array.from(text);
  return letters.length > length ? letters.slice(0, length - 1).join("") + "…" : text;
}

/** The longest start of `text` that fits `width` pixels in the context's font, with an ellipsis if cut. */
export function fit(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  const letters = Array.from(text);
  let low = 0;
  let high = letters.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (context.measureText(letters.slice(0, middle).join("") + "…").width <= width) low = middle;
    else high = middle - 1;
  }
  return letters.slice(0, low).join("") + "…";
}

/** Draw a token with its whitespace marks lighter than its letters. align: "left" | "right". */
export function drawToken(context, text, x, y, align, ink, faint) {
  const runs = text.split(MARKS).filter(Boolean);
  const widths = runs.map((run) => context.measureText(run).width);
  let at = align === "right" ? x - widths.reduce((a, b) => a + b, 0) : x;
  context.textAlign = "left";
  runs.forEach((run, i) => {
    context.fillStyle = MARKS.test(run) ? faint : ink;
    context.fillText(run, at, y);
    at += widths[i];
  });
}

/** A value for reading: as many significant digits as it is true to, 4 of a float32. */
export const exact = (value, digits = 4) => (value === 0 ? "0" : value.toPrecision(digits).replace("e+", "e"));

/** A value for a crowded place: 2 significant digits, no trailing zeros. */
export function brief(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e5) return value.toExponential(0).replace("e+", "e");
  return String(Number(value.toPrecision(size >= 100 ? 3 : 2)));
}

/** Make an element say strings and {token} parts; a token is isolated from the direction of the text around it. */
export function say(element, parts) {
  const text = parts.map((part) => part.token ?? part).join("");
  if (text === element.textContent) return; // a screen reader would hear it again
  element.title = text;
  element.replaceChildren(
    ...parts.map((part) => {
      if (typeof part === "string") return part;
      const token = document.createElement("bdi");
      token.textContent = part.token;
      return token;
    }),
  );
}
