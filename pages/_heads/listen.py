"""What a score sounds like, and how the model went on."""

from __future__ import annotations

import streamlit as st

from headwise.interp.attention.axes import Score
from headwise.interp.drawing.played import RATE, played
from headwise.pages._heads.choices import HeadsChoices, state
from headwise.pages._shared.bar import Run
from headwise.pages._shared.shelf import server

PARTS = {"whole": "All of it", "written": "The continuation"}


def listen(run: Run) -> None:
    """A player under the answer, where the input is a score."""
    score = next((axis.track for axis in run.inputs.axes.values() if isinstance(axis.track, Score)), None)
    if score is None:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="listen"):
        first = 0
        if score.written is not None:
            st.segmented_control(
                "Listen to",
                list(PARTS),
                format_func=PARTS.get,
                required=True,
                label_visibility="collapsed",
                width="content",
                **HeadsChoices.heard.widget,
            )
            first = score.written if state.heard == "written" else 0
        samples = server().made("played", (run.key, first), lambda: played(score, first))
        st.audio(samples, sample_rate=RATE)
