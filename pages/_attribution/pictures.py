"""The page's pictures: one Streamlit component (`assets/attribution`, plain JavaScript) that draws maps and curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import streamlit as st

from headwise.assets import ASSETS
from headwise.interp.analysis.attribution import Attribution
from headwise.interp.drawing import attributions as drawing
from headwise.interp.drawing.canvas import CANVAS, script
from headwise.interp.drawing.faithful import Chart
from headwise.interp.drawing.paper.text import visible

HERE = ASSETS / "attribution"
FILES = (
    *(CANVAS / f"{name}.js" for name in ("colour", "text")),
    ASSETS / "stream" / "parts.js",
    *(HERE / f"{name}.js" for name in ("maps", "curves", "main")),
)
_component = st.components.v2.component(
    "headwise_attribution", js=script(FILES), css=(HERE / "attribution.css").read_text("utf-8")
)


@dataclass(frozen=True)
class Side:
    """One half of the maps: an attribution, or why there is none."""

    name: str
    found: Attribution | None = None
    why: str = ""


def maps(sides: Sequence[Side], *, key: str) -> None:
    """Draw what the answer rests on, by each method; one attribution at least is there."""
    one = next(side.found for side in sides if side.found is not None)
    features, target = one.features, one.target
    fixed = features.fixed.tolist()
    blocks = drawing.blocks(features)
    drawn = [asdict(drawing.shown(side.found)) if side.found else asdict(side) for side in sides]
    message = {
        "view": "maps",
        "of": key,
        "blocks": [_block(block) for block in blocks],
        "labels": drawing.labels(blocks),
        "units": len(fixed) - sum(fixed),
        "answered": _answered(blocks, target.position),
        "answer": visible(target.names[0]).strip() or str(target.token),
        "sides": drawn,
    }
    _component(key=key, data=message)


def _block(block: drawing.Block) -> dict[str, Any]:
    told = {"kind": block.kind, "name": block.name, "first": block.first}
    told |= {"texts": list(block.texts), "before": list(block.before)}
    axis = block.axis
    if block.kind == "picture":
        height, width = axis.picture.pixels.shape[:2]
        told |= {"grid": list(axis.grid), "box": list(map(float, axis.picture.box)), "size": [width, height]}
        told["src"], told["strokes"] = drawing.picture_of(axis)
    elif block.kind == "sound":
        told |= {"step": float(axis.sound.step), "seconds": float(axis.sound.seconds)}
        told["src"] = drawing.spectrogram_of(axis)
    return told


def _answered(blocks: Sequence[drawing.Block], position: int | None) -> int | None:
    """The unit at which the answer is read, where that is a token."""
    last = blocks[-1]  # of an encoder-decoder the target
    if position is None or last.kind != "text" or position >= len(last.texts):
        return None
    return last.first + position


def curves(charts: Sequence[Chart], names: Sequence[str], *, key: str, of: str = "") -> None:
    """Draw charts side by side, whose lines are called ``names``. ``of``: the maps that show what is taken away."""
    drawn = [asdict(chart) for chart in charts]
    _component(key=key, data={"view": "curves", "of": of, "keys": list(names), "charts": drawn})
