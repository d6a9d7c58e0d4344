"""The page's pictures: one Streamlit component (`assets/stream`, plain JavaScript) that draws cells, bars and lines.

Python packs strings and small numbers; colours, hovering and the outline of a choice are the browser's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from headwise.assets import ASSETS
from headwise.interp.drawing.canvas import CANVAS, script
from headwise.interp.drawing.paper.text import brief
from headwise.interp.drawing.streams import FEW, Cells, Window
from headwise.pages._shared import canvas as _canvas

HERE = ASSETS / "stream"
FILES = (
    *(CANVAS / f"{name}.js" for name in ("colour", "text")),
    *(HERE / f"{name}.js" for name in ("parts", "cells", "bars", "lines", "main")),
)
HEIGHTS = ((10, 25), (15, 22), (20, 18), (1000, 16))  # rows at most → pixels of each

_component = st.components.v2.component(
    "headwise_stream", js=script(FILES), css=(HERE / "stream.css").read_text("utf-8")
)


@dataclass(frozen=True)
class Leads:
    """Where each cell leads to: the address of the Heads page up to where a head is named, and that name."""

    base: str
    heads: Sequence[Sequence[Mapping[str, Any] | None]]


def cells(
    shown: Cells,
    *,
    key: str,
    title: str,
    selected: tuple[int, int] | None = None,
    window: Window | None = None,
    marked: int | None = None,
    leads: Leads | None = None,
) -> None:
    """Draw a table of cells. Its events (``_canvas.event``) are {"row", "position"} of a choice, {"every"}, whether
    all rows are wanted, and {"go"}, where a cell leads.

    selected: (row's number, position), outlined · window: from which the table was cut, with pages before or after it ·
    marked: the position whose name is set bold · leads: where each cell leads to.
    """
    pages = None
    if window is not None and (window.before is not None or window.after is not None):
        said = f"positions {window.first:,}–{window.end - 1:,} of {window.count:,}"
        pages = {"before": window.before, "after": window.after, "said": said}
    rest = None
    if window is not None and window.states > FEW + 2:
        said = f"{len(window.rows)} of {window.states} states"
        every = len(window.rows) == window.states
        rest = {"said": said, "every": every, "word": "fewer" if every else "all"}
    known = np.isfinite(shown.shades)
    steps = np.rint(np.clip(np.where(known, shown.shades, 0), 0, 1) * 255).astype(int).astype(object)
    message = {
        "view": "cells",
        "title": title,
        "rows": list(shown.rows),
        "columns": list(shown.columns),
        "texts": shown.texts and [list(row) for row in shown.texts],
        "tokens": shown.tokens,
        "values": [[_value(value) for value in row] for row in shown.values],
        "shades": [
            [int(s) if k else None for s, k in zip(*row, strict=True)] for row in zip(steps, known, strict=True)
        ],
        "signed": shown.signed,
        "quantity": shown.quantity,
        "low": shown.low,
        "high": shown.high,
        "places": list(shown.places),
        "first": shown.first,
        "marked": marked,
        "pages": pages,
        "rest": rest,
        "height": next(height for most, height in HEIGHTS if len(shown.rows) <= most),
        "links": leads and [list(row) for row in leads.heads],
        "base": leads and leads.base,
    }
    _mount(key, message, selected or (-1, -1))


def bars(
    rows: Sequence[Mapping[str, Any]],
    *,
    key: str,
    title: str,
    sums: Sequence[tuple[str, str, bool]] = (),
    signed: bool = True,
    height: int | None = None,
    base: str = "",
) -> None:
    """Draw a list of bars. Its event is {"go"} when one that leads to a head was clicked.

    rows: each {"name", "value", "text"}, and "go", the rest of an address, where it leads to a head · sums: (name,
    text, strong) under a rule.
    """
    message = {
        "view": "bars",
        "title": title,
        "rows": list(rows),
        "sums": [{"name": name, "text": text, "strong": strong} for name, text, strong in sums],
        "signed": signed,
        "height": height,
        "base": base,
    }
    _mount(key, message, (-1, -1))


def lines(ranks: Sequence[tuple[str, Sequence[int]]], labels: Sequence[str], *, key: str, title: str, row: int) -> None:
    """Draw ranks through the layers. Its event is {"row"} when one was clicked. ranks: (whose, its ranks), the first in
    the accent colour."""
    drawn = [{"name": name, "ranks": list(map(int, values))} for name, values in ranks]
    message = {"view": "lines", "title": title, "lines": drawn, "labels": list(labels)}
    _mount(key, message, (row, -1))


def _value(value: float) -> str | None:
    return brief(float(value)).replace("-", "−") if np.isfinite(value) else None


def _mount(key: str, message: dict[str, Any], selected: tuple[int, int]) -> None:
    data = {**message, "selected": list(selected), "turn": _canvas.turn(key)}
    _component(key=key, data=data, on_event_change=lambda: None)
