"""The graph of one answer, and the way to a head: a Streamlit component (`assets/circuit`, plain JavaScript)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import streamlit as st

from headwise.assets import ASSETS
from headwise.interp.drawing import circuits as drawing
from headwise.interp.drawing.canvas import CANVAS, script
from headwise.pages._shared import canvas as _canvas

HERE = ASSETS / "circuit"
FILES = (CANVAS / "colour.js", ASSETS / "stream" / "parts.js", *(HERE / f"{n}.js" for n in ("graph", "main")))
_component = st.components.v2.component(
    "headwise_circuit", js=script(FILES), css=(HERE / "circuit.css").read_text("utf-8")
)


def graph(drawn: drawing.Drawn, *, key: str, title: str, selected: str) -> None:
    """Draw it. Its event (``canvas.event``) is {"part"}, the key of a part that was clicked."""
    message = {
        "title": title,
        "rows": [{"first": first, "count": count, "label": label} for first, count, label in drawn.rows],
        "columns": list(drawn.columns),
        "places": [asdict(place) for place in drawn.places],
        "wires": [asdict(wire) for wire in drawn.wires],
        "legend": drawing.legend(),
    }
    data = {**message, "selected": selected, "turn": _canvas.turn(key)}
    _component(key=key, data=data, on_event_change=lambda: None)


def way(title: str, go: Mapping[str, Any], *, key: str, base: str) -> None:
    """Draw a link to a head on the Heads page. Its event is {"go"} when it was followed."""
    data = {"title": title, "go": dict(go), "base": base, "selected": "", "turn": _canvas.turn(key)}
    _component(key=key, data=data, on_event_change=lambda: None)
