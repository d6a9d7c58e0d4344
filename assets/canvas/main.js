// Streamlit calls this once per mount and again on each new message or theme; what is drawn stays, so nothing flickers.

import { Bipartite } from "./bipartite.js";
import { Figure } from "./figure.js";
import { Grid } from "./grid.js";
import { Heatmap } from "./heatmap.js";
import { same, unpack } from "./pack.js";
import { Panel } from "./panel.js";
import { PictureView } from "./picture.js";
import { Arrival } from "./store.js";
import { Words } from "./words.js";

export const VIEWS = { grid: Grid, heatmap: Heatmap, bipartite: Bipartite, picture: PictureView };
const mounts = new WeakMap();

function kind({ view, explorer }) {
  if (view === "heads") return Arrival;
  if (view === "words") return Words;
  return explorer && view !== "grid" ? Panel : Figure;
}

/** Take no room on the page, not even that of a gap. */
function hide(parent) {
  const place = parent.getRootNode().host?.closest("[data-testid=stElementContainer]");
  if (place) place.style.position = "absolute";
}

export default function ({ data, parentElement, setTriggerValue }) {
  if (!data) return hide(parentElement); // it only brought the modules
  const mount = mounts.get(parentElement) ?? {};
  mounts.set(parentElement, mount);
  if (!same(data, mount.bytes)) [mount.bytes, mount.message] = [data, unpack(data)];
  const Kind = kind(mount.message);
  if (!(mount.drawn instanceof Kind)) {
    mount.drawn?.unmount();
    mount.drawn = new Kind(parentElement, VIEWS);
  }
  if (Kind === Arrival) hide(parentElement);
  mount.drawn.update(mount.message, (value) => setTriggerValue("event", value));
  return () => {
    mount.drawn.unmount();
    mounts.delete(parentElement);
  };
}
