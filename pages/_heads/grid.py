"""All heads of a stack as one picture of thumbnails."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from headwise import Capture
from headwise.interp.drawing.survey import Survey, change_pictures, grid_pictures, layer_marks, patch_pictures
from headwise.pages._heads.choices import HeadsChoices, state
from headwise.pages._heads.head import EXPLORER
from headwise.pages._heads.measures import METRIC_LABELS
from headwise.pages._shared import canvas as _canvas


def grid(
    cap: Capture,
    surveyed: Survey,
    table: pd.DataFrame,
    before: Survey | None = None,
    only: set[tuple[int, int]] | None = None,
) -> None:
    """Draw the grid, or how far each head is from ``before``, where that is given, and ``only`` those (layer, head)."""
    calls = cap.stack(state.stack)
    metrics = [c for c in table.columns if c not in ("layer", "head")]
    orders = ["layer", *metrics]
    HeadsChoices.order.one_of(orders)
    st.selectbox(
        "Order",
        orders,
        format_func=lambda name: "By layer" if name == "layer" else f"By {METRIC_LABELS[name]}, highest first",
        label_visibility="collapsed",
        **HeadsChoices.order.widget,
    )
    place = {call.layer: row for row, call in enumerate(calls)}
    ordered = None
    if state.order != "layer" or only is not None:
        ranked = table if state.order == "layer" else table.sort_values(state.order, ascending=False, kind="stable")
        every = zip(ranked.layer, ranked["head"], strict=True)
        ordered = [(place[layer], head) for layer, head in every if only is None or (layer, head) in only]
    shown = state.order if state.order != "layer" else "entropy"
    captions = {
        (place[layer], head): f"{METRIC_LABELS[shown]} {value:.3g}"
        for layer, head, value in zip(table.layer, table["head"], table[shown], strict=True)
    }
    pictured = calls[0].key_axis.picture is not None and state.view in ("", "picture")
    if before is not None:
        pictures = change_pictures(before, surveyed, cap, state.stack)
    elif pictured:
        query = state.pin["index"] if state.pin and state.pin["axis"] == "query" else 0
        pictures = patch_pictures(cap, state.stack, min(query, calls[0].queries - 1))
    else:
        pictures = grid_pictures(cap, surveyed, state.stack)
    heads = _canvas.Heads(
        pictures,
        rows=[str(c.layer) for c in calls],
        columns=[str(h) for h in range(max(c.heads for c in calls))],
        marks={place[k]: v for k, v in layer_marks(cap, surveyed, state.stack).items()},
        captions=captions,
    )
    _canvas.grid(heads, selected=EXPLORER, key="grid", order=ordered, compact=True)
