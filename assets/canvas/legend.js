// What the colours mean: a bar with numbers, and a swatch for each special kind of cell that is really there.

import { hatch } from "./colour.js";

const WIDTH = 120;
const HEIGHT = 9;

function swatch({ legend, ratio }, tag, text, paint) {
  const item = document.createElement(tag);
  item.className = "hw-item";
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 12 * ratio;
  paint(canvas.getContext("2d"), canvas.width);
  item.append(canvas, text);
  legend.append(item);
  return item;
}

/** wedge: edges grow in width with the value (bipartite), so the bar does too. */
export function drawLegend(figure, matrix, wedge) {
  const { legend, theme, ratio } = figure;
  legend.replaceChildren();
  const { alarms } = matrix;
  if (alarms.length) {
    const text = `weight on forbidden positions (${alarms.length.toLocaleString("en")})`;
    const button = swatch(figure, "button", text, (pen, size) => {
      pen.fillStyle = theme.alarm;
      pen.fillRect(0, 0, size, size);
    });
    button.type = "button";
    button.title = "Show the next one";
    let next = 0;
    button.onclick = () => figure.look(figure.view.visit(alarms[next++ % alarms.length]));
  }
  if (matrix.hasForbidden && !wedge)
    swatch(figure, "span", "forbidden", (pen, size) => {
      pen.fillStyle = hatch(pen, theme, ratio);
      pen.fillRect(0, 0, size, size);
      pen.strokeStyle = theme.ink(0.35);
      pen.lineWidth = ratio;
      pen.strokeRect(ratio / 2, ratio / 2, size - ratio, size - ratio);
    });

  if (matrix.no) return drawTwo(figure, matrix);
  const bar = document.createElement("span");
  bar.className = "hw-bar";
  const name = document.createElement("span");
  name.textContent = matrix.scaleName;
  const scale = document.createElement("span");
  const canvas = document.createElement("canvas");
  canvas.width = WIDTH * ratio;
  canvas.height = HEIGHT * ratio;
  const pen = canvas.getContext("2d");
  const { css } = matrix.table(theme);
  for (let x = 0; x < canvas.width; x++) {
    const t = x / (canvas.width - 1);
    const part = wedge ? 0.1 + 0.9 * (matrix.kind === "signed" ? Math.abs(2 * t - 1) : t) : 1;
    pen.fillStyle = wedge ? edgeColour(matrix, theme, t) : css[Math.round(t * 255)];
    pen.globalAlpha = wedge ? 0.15 + 0.85 * part : 1;
    pen.fillRect(x, (canvas.height * (1 - part)) / 2, 1, canvas.height * part);
  }
  const numbers = document.createElement("span");
  numbers.className = "hw-numbers";
  scale.append(canvas, numbers);
  bar.append(name, scale);
  legend.append(bar);
  writeNumbers(figure, matrix);
}

/** Of yes and no, each has its colour; no is not told where every such cell is hatched as forbidden. */
function drawTwo(figure, matrix) {
  const { css } = matrix.table(figure.theme);
  const plainNo = matrix.data.some((value, i) => value === 0 && !matrix.forbids(i));
  for (const [name, colour] of [[matrix.valueName, css[255]], ...(plainNo ? [[matrix.no, css[0]]] : [])])
    swatch(figure, "span", name, (pen, size) => {
      pen.fillStyle = colour;
      pen.fillRect(0, 0, size, size);
      pen.strokeStyle = figure.theme.ink(0.35);
      pen.lineWidth = figure.ratio;
      pen.strokeRect(figure.ratio / 2, figure.ratio / 2, size - figure.ratio, size - figure.ratio);
    });
}

/** The numbers alone, where the scale's range has changed and its colours have not. */
export function writeNumbers({ legend }, matrix) {
  const span = (text) => Object.assign(document.createElement("span"), { textContent: text });
  legend.querySelector(".hw-numbers")?.replaceChildren(...matrix.barNumbers().map(span));
}

export function edgeColour(matrix, theme, t) {
  const { css } = matrix.table(theme);
  return matrix.kind === "signed" ? css[t < 0.5 ? 20 : 235] : css[theme.dark ? 185 : 175];
}
