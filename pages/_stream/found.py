"""What is computed of a run, made once for all sessions."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from headwise.interp.analysis.lens import Lens, lens, norms
from headwise.interp.analysis.logits import by_position, logit_attribution
from headwise.interp.analysis.targets import Target
from headwise.interp.run.anatomy import Anatomy
from headwise.pages._shared.bar import Run
from headwise.pages._shared.shelf import server

WAIT = {"show_time": True}


def anatomy_of(run: Run) -> Anatomy:
    """The streams of the model, found and proven."""
    with st.spinner("Finding the residual stream, and proving it …", **WAIT):
        return server().made("anatomy", run.key, lambda: run.capture.anatomy)


def lens_of(run: Run, stream: str, tuned: bool) -> Lens:
    """Every state read early. Raises InputError where there is no direct readout, or no tuned lens."""
    with st.spinner("Reading every state …", **WAIT):
        return server().made("lens", (run.key, stream, tuned), lambda: _read(run, stream, tuned))


def _read(run: Run, stream: str, tuned: bool) -> Lens:
    found = lens(run.capture, tuned=tuned, stream=stream or None)
    found.best_labels  # noqa: B018 -- what takes long is done here, in a slot, and not when somebody draws
    return found


def norms_of(run: Run, stream: str) -> pd.DataFrame:
    """How long the states are, and how far each block turns them."""
    with st.spinner("Measuring every state …", **WAIT):
        return server().made("norms", (run.key, stream), lambda: norms(run.capture, stream=stream or None))


def parts_of(run: Run, aim: Target) -> pd.DataFrame:
    """What each part puts onto the answer. Raises InputError where that cannot be told."""
    with st.spinner("Taking the answer apart …", **WAIT):
        return server().made("parts", (run.key, aim), lambda: logit_attribution(run.capture, aim))


def positions_of(run: Run, aim: Target) -> pd.DataFrame:
    """What reached the answer from each position through heads."""
    with st.spinner("Following the heads back …", **WAIT):
        return server().made("sources", (run.key, aim), lambda: by_position(run.capture, aim))
