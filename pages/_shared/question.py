"""The question of a page: why this answer, rather than that one?"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import streamlit as st

from headwise.interp.analysis.targets import Target, target
from headwise.interp.drawing import streams
from headwise.interp.drawing.paper.text import visible
from headwise.interp.errors import InputError
from headwise.pages._shared.bar import Run
from headwise.pages._shared.choices import ALONE, AnswerChoices, Choice
from headwise.pages._shared.shelf import server
from headwise.pages._shared.words import note

state = AnswerChoices()

WIDTH = 190  # pixels of a field


@dataclass(frozen=True)
class Question:
    """``aim`` is what is asked, None where that is no question, and ``problem`` says why. ``own`` is the answer alone,
    None where the model gives none."""

    own: Target | None
    aim: Target | None
    problem: str = ""
    rather: str = ""  # what a person types for the alternative


def asked_at(run: Run, place: int | None = None) -> tuple[tuple[streams.Suggestion, ...], Question]:
    """What the model itself would say there (None: where it gives its answer), and what the person asks about it."""
    found = server().made("suggestions", (run.key, place), lambda: streams.suggestions(run.capture, place))
    return found, _understood(run, found, place)


def ask(run: Run) -> Question:
    """Draw the question with its fields, and understand what stands in them. A problem is said, in a sentence."""
    found, asked = asked_at(run)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="question"):
        title(asked)
        if found:
            fields(found, asked)
    shortened(asked)
    if asked.problem:
        st.info(asked.problem, icon=":material/visibility_off:")
    return asked


def title(asked: Question, otherwise: str = "What does the model answer?") -> None:
    """The question in large letters; ``otherwise`` where the model gives no answer."""
    said = streams.question(asked.aim or asked.own) if asked.own else otherwise
    st.html(f"<div data-testid='question' style='font-size:1.12rem;font-weight:600'>{html.escape(said)}</div>")


def shortened(asked: Question) -> None:
    """Say where only the first of a word's tokens is looked at."""
    if asked.own is not None:
        for text, name in zip((state.answer, state.against), (asked.aim or asked.own).names, strict=True):
            if name and text != ALONE:
                note(streams.shortened(text, name))


def fields(found: tuple[streams.Suggestion, ...], asked: Question) -> None:
    """The fields of the answer and its alternative."""
    likely = {s.asked: f"{visible(s.name)}  {s.probability:.0%}" for s in found}
    next_one = next((visible(s.name) for s in found if asked.own is None or s.token != asked.own.token), "nothing")
    fixed = {"": f"answer {visible(found[0].name)} (its own)"}
    with st.container(horizontal=True, gap="small", width="content"):  # where the question is long, both go below it
        _field("Answer", AnswerChoices.answer, "answer", fixed, likely)
        fixed = {"": f"rather than {next_one} (next)", ALONE: "rather than nothing"}
        _field("Rather than", AnswerChoices.against, "rather than", fixed, likely)


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
