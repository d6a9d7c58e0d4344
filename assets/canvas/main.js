// Streamlit calls this once per mount and again on each new message or theme; the figure stays, so nothing flickers.

import { Bipartite } from "./bipartite.js";
import { Figure } from "./figure.js";
import { Grid } from "./grid.js";
import { Heatmap } from "./heatmap.js";
import { PictureView } from "./picture.js";

const figures = new WeakMap();

export default function ({ data, parentElement, setTriggerValue }) {
  if (!data) return;
  let figure = figures.get(parentElement);
  if (!figure) {
    figure = new Figure(parentElement, { grid: Grid, heatmap: Heatmap, bipartite: Bipartite, picture: PictureView });
    figures.set(parentElement, figure);
  }
  figure.update(data, (value) => setTriggerValue("event", value));
  return () => {
    figure.unmount();
    figures.delete(parentElement);
  };
}
