"""What is computed of two runs, made once for all sessions."""

from __future__ import annotations

import streamlit as st

from headwise.interp.analysis.comparing.compare import Comparison, compare
from headwise.interp.analysis.comparing.likeness import HeadMap, head_map
from headwise.pages._compare.beside import Other
from headwise.pages._compare.choices import state
from headwise.pages._shared.bar import Run
from headwise.pages._shared.shelf import server
from headwise.pages._shared.work import Work, worked


def comparison(run: Run, other: Other) -> Comparison | None:
    """The two held against each other; None where it was cancelled. Raises InputError where they share nothing."""
    match = state.match if state.by == "model" else "number"
    work = Work("compared", (run.key, other.key, match), "comparing all heads")
    return worked(work, lambda told: compare(run.capture, other.capture, match, progress=told))


def likeness(run: Run, other: Other, found: Comparison) -> HeadMap:
    """All heads of both runs on one map. Raises InputError for too few of them."""
    key = (run.key, other.key, found.match, state.stack, state.groups)
    with st.spinner("Laying out the heads …", show_time=True):
        return server().made("likeness", key, lambda: head_map(found, state.stack, state.groups or None))
