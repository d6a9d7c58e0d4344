"""What is computed of two runs, made once for all sessions."""

from __future__ import annotations

import streamlit as st

from headwise.interp.analysis.comparing.compare import Comparison, compare
from headwise.interp.analysis.comparing.likeness import HeadMap, head_map
from headwise.pages._compare.beside import Other
from headwise.pages._compare.choices import state
from headwise.pages._shared.shelf import server
from headwise.pages._shared.sidebar import Run

SLOW = 0.7  # seconds from which on it shows how far it is


def comparison(run: Run, other: Other) -> Comparison:
    """The two held against each other. Raises InputError where they share nothing."""
    place, bar = st.empty(), None
    if 2 * run.cost.survey_seconds > SLOW:
        with place.container(horizontal=True, vertical_alignment="center"):
            bar = st.progress(0.0, text="Comparing all heads …")
            st.button("Cancel", key="compare-cancel", on_click=lambda: setattr(state, "by", "input"))

    def progress(part: float) -> None:
        if bar is not None:
            bar.progress(min(part, 1.0), text=f"Comparing all heads … {part:.0%}")

    match = state.match if state.by == "model" else "number"
    try:
        key = (run.key, other.key, match)
        return server().made("compared", key, lambda: compare(run.capture, other.capture, match, progress=progress))
    finally:
        place.empty()


def likeness(run: Run, other: Other, found: Comparison) -> HeadMap:
    """All heads of both runs on one map. Raises InputError for too few of them."""
    key = (run.key, other.key, found.match, state.stack, state.groups)
    with st.spinner("Laying out the heads …", show_time=True):
        return server().made("likeness", key, lambda: head_map(found, state.stack, state.groups or None))
