"""The question of the page: why this answer, rather than that one?"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import streamlit as st

from headwise.interp.analysis.targets import Target, target
from headwise.interp.drawing import streams
from headwise.interp.drawing.paper.text import visible
from headwise.interp.errors import InputError
from headwise.interp.run.anatomy import Anatomy
from headwise.pages._shared.choices import Choice
from headwise.pages._shared.sidebar import Run
from headwise.pages._stream.choices import ALONE, StreamChoices, state
from headwise.pages._stream.found import suggestions_of
from headwise.pages._stream.words import note

WIDTH = 190  # pixels of a field


@dataclass(frozen=True)
class Question:
    """``aim`` is what is asked, None where that is no question, and ``problem`` says why. ``own`` is the answer alone,
    None where the model gives none."""

    own: Target | None
    aim: Target | None
    problem: str = ""
    rather: str = ""  # what a person types for the alternative


def ask(run: Run, anatomy: Anatomy) -> Question:
    """Draw the fields, and understand what stands in them."""
    names = tuple(stream.name for stream in anatomy.streams)
    why_not = streams.no_answer(run.subject.name, anatomy) if names else ""  # without any, the left side says why
    if why_not or not names:
        found, asked = (), Question(None, None, why_not)
    else:
        place = streams.place_asked(run.capture, state.asked)
        found = suggestions_of(run, place)
        asked = _understood(run, found, place)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="question"):
        said = streams.question(asked.aim or asked.own) if asked.own else "What stands in the stream?"
        st.html(f"<div data-testid='question' style='font-size:1.12rem;font-weight:600'>{html.escape(said)}</div>")
        if found:
            _fields(found, asked)
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
    if asked.own is not None:
        names = (asked.aim or asked.own).names
        for text, name in zip((state.answer, state.against), names, strict=True):
            if name and text != ALONE:
                note(streams.shortened(text, name))
    return asked


def _fields(found: tuple[streams.Suggestion, ...], asked: Question) -> None:
    likely = {s.asked: f"{visible(s.name)}  {s.probability:.0%}" for s in found}
    next_one = next((visible(s.name) for s in found if asked.own is None or s.token != asked.own.token), "nothing")
    fixed = {"": f"answer {visible(found[0].name)} (its own)"}
    _field("Answer", StreamChoices.answer, "answer", fixed, likely)
    fixed = {"": f"rather than {next_one} (next)", ALONE: "rather than nothing"}
    _field("Rather than", StreamChoices.against, "rather than", fixed, likely)


def _field(label: str, choice: Choice, lead: str, fixed: dict[str, str], likely: dict[str, str]) -> None:
    """A field whose options are the ``fixed`` and the ``likely`` answers, and where any other can be typed."""
    names = {key: f"{lead} {told}" for key, told in likely.items()} | fixed
    value = getattr(state, choice.key)
    st.selectbox(
        label,
        [*fixed, *likely, *([value] if value not in names else [])],
        format_func=lambda key: names.get(key, f"{lead} {visible(key)}"),
        accept_new_options=True,
        label_visibility="collapsed",
        width=WIDTH,
        **choice.widget,
    )


def _understood(run: Run, found: tuple[streams.Suggestion, ...], place: int | None) -> Question:
    cap = run.capture
    try:
        own = target(cap, streams.wanted(state.answer), position=place)
    except InputError as error:
        try:
            return Question(target(cap, position=place), None, str(error))
        except InputError as none:
            return Question(None, None, str(none))
    other: Any = streams.wanted(state.against)
    if other is None:
        other = next((s.token for s in found if s.token != own.token), None)
    if other is None or state.against == ALONE:
        return Question(own, own)
    try:
        typed = state.against or next((s.asked for s in found if s.token == other), "")
        return Question(own, target(cap, own.token, other, place), rather="" if typed.startswith("#") else typed)
    except InputError as error:
        return Question(own, None, str(error))
