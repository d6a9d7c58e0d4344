"""The question of the page: why this answer, rather than that one?"""

from __future__ import annotations

import streamlit as st

from headwise.interp.drawing import streams
from headwise.interp.run.anatomy import Anatomy
from headwise.pages._shared.bar import Run
from headwise.pages._shared.question import Question, asked_at, fields, shortened, title
from headwise.pages._stream.choices import StreamChoices, state


def ask(run: Run, anatomy: Anatomy) -> Question:
    """Draw the fields, and understand what stands in them."""
    names = tuple(stream.name for stream in anatomy.streams)
    why_not = streams.no_answer(run.subject.name, anatomy) if names else ""  # without any, the left side says why
    if why_not or not names:
        found, asked = (), Question(None, None, why_not)
    else:
        found, asked = asked_at(run, streams.place_asked(run.capture, state.asked))
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="question"):
        title(asked, "What stands in the stream?")
        if found:
            fields(found, asked)
        if len(names) > 1:
            st.segmented_control(
                "Stream",
                names,
                format_func=lambda name: f"{name.capitalize()} stream",
                required=True,
                label_visibility="collapsed",
                on_change=state.other_positions,
                **StreamChoices.stream.widget,
            )
    shortened(asked)
    return asked
