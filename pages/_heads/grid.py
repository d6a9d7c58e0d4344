"""All heads of a stack as one picture of thumbnails."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st

from headwise import Capture
from headwise.interp.drawing.survey import Survey, change_pictures, grid_pictures, layer_marks, patch_pictures
from headwise.pages._heads.choices import HeadsChoices, state
from headwise.pages._heads.head import EXPLORER
from headwise.pages._heads.measures import METRIC_LABELS
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared.bar import Run
from headwise.pages._shared.shelf import server


def grid(
    run: Run,
    surveyed: Survey,
    table: pd.DataFrame,
    before: Survey | None = None,
    only: set[tuple[int, int]] | None = None,
) -> None:
    """Draw the grid, or how far each head is from ``before``, where that is given, and ``only`` those (layer, head)."""
    orders = ["layer", *(c for c in table.columns if c not in ("layer", "head"))]
    HeadsChoices.order.one_of(orders)
    st.selectbox(
        "Order",
        orders,
        format_func=lambda name: "By layer" if name == "layer" else f"By {METRIC_LABELS[name]}, highest first",
        label_visibility="collapsed",
        **HeadsChoices.order.widget,
    )
    calls = run.capture.stack(state.stack)
    pictured = before is None and calls[0].key_axis.picture is not None and state.view in ("", "picture")
    query = state.pin["index"] if pictured and state.pin and state.pin["axis"] == "query" else 0
    query = min(query, calls[0].queries - 1) if pictured else None
    shown = _Shown(run.capture, state.stack, state.order, query)
    key = (run.key, *shown.choices, before is None, surveyed.looked, only and frozenset(only))
    message = server().made("grid", key, lambda: shown.message(surveyed, table, before, only))
    _canvas.send("grid", message)


@dataclass(frozen=True)
class _Shown:
    """Which heads are drawn, by which metric; over a picture, what ``query`` looks at."""

    cap: Capture
    stack: str
    order: str
    query: int | None

    @property
    def choices(self) -> tuple:
        return self.stack, self.order, self.query

    def message(self, surveyed: Survey, table: pd.DataFrame, before: Survey | None, only: set | None) -> bytes:
        """All of it as it travels."""
        calls = self.cap.stack(self.stack)
        place = {call.layer: row for row, call in enumerate(calls)}
        ordered = None
        if self.order != "layer" or only is not None:
            ranked = table if self.order == "layer" else table.sort_values(self.order, ascending=False, kind="stable")
            every = zip(ranked.layer, ranked["head"], strict=True)
            ordered = [(place[layer], head) for layer, head in every if only is None or (layer, head) in only]
        metric = self.order if self.order != "layer" else "entropy"
        captions = {
            (
                place[layer],
                head,
            ): f"{METRIC_LABELS[metric]} {value:.3g}{surveyed.beside(self.stack, layer, head, metric)}"
            for layer, head, value in zip(table.layer, table["head"], table[metric], strict=True)
        }
        heads = _canvas.Heads(
            self._pictures(surveyed, before),
            rows=[str(c.layer) for c in calls],
            columns=[str(h) for h in range(max(c.heads for c in calls))],
            marks={place[k]: v for k, v in layer_marks(self.cap, surveyed, self.stack).items()},
            captions=captions,
        )
        means = before is None and self.query is None
        return _canvas.packed_grid(heads, key="grid", selected=EXPLORER, order=ordered, compact=True, means=means)

    def _pictures(self, surveyed: Survey, before: Survey | None) -> np.ndarray:
        if before is not None:
            return change_pictures(before, surveyed, self.cap, self.stack)
        if self.query is not None:
            return patch_pictures(self.cap, self.stack, self.query)
        return grid_pictures(self.cap, surveyed, self.stack)
