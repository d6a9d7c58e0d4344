"""The corrupted input: proposed, or one's own; and both laid beside each other."""

from __future__ import annotations

import html
from collections.abc import Hashable
from typing import Any

import streamlit as st

from headwise.interp.analysis.patching import Alignment, align
from headwise.interp.analysis.targets import Target
from headwise.interp.attention.axes import Axis
from headwise.interp.drawing import patched as drawing
from headwise.interp.drawing.paper.text import visible
from headwise.interp.errors import InputError
from headwise.pages._patching.choices import PatchingChoices, state
from headwise.pages._patching.found import Two, proposals_of, telling_of, two_of
from headwise.pages._shared.bar import Run
from headwise.pages._shared.markdown import plain
from headwise.pages._shared.words import heading, note

TEXTLESS = ("vision", "audio")
OWN = "own"
SIDES = ("clean", "corrupted")
NOTHING = "No corrupted input is proposed for this one; type one, such as the same text with one word changed."
MANY = 26  # columns of two prompts; of longer ones what surrounds the differences is shown
AROUND = 6  # columns on either side of a difference


def prompts(run: Run, aim: Target) -> Two | None:
    """Draw the choice and both prompts → the two runs; None where there are none yet, which is said."""
    proposals = {one.kind: one for one in proposals_of(run)}
    kind = state.corruption if state.corruption in proposals else telling_of(run, aim)
    _choose(run, list(proposals), "" if state.instead.strip() else kind)
    raw, name = _chosen(proposals, kind)
    if raw is None:
        st.info(NOTHING, icon=":material/edit:")
        return None
    try:
        two = two_of(run, raw, name)
        pairs = align(run.capture, two.other)
    except InputError as error:
        st.error(plain(str(error)))
        return None
    _beside(pairs)
    told = "" if name[0] == OWN else f"{proposals[name[1]].sentence} "
    note(f"{told}{pairs.sentence}")
    return two


def _choose(run: Run, kinds: list[str], now: str) -> None:
    """Proposals as buttons, and a field for a text of one's own."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="patching-corrupted"):
        st.html(heading("Corrupted by"), width="content")
        for kind in kinds:
            look = "primary" if kind == now else "secondary"
            st.button(kind.capitalize(), key=f"corruption-{kind}", type=look, on_click=state.take, args=(kind,))
        if run.subject.family not in TEXTLESS and "input_ids" in run.inputs.kwargs:
            st.text_input(
                "Corrupted text",
                placeholder="or a text of your own",
                label_visibility="collapsed",
                width="stretch",
                help="Best cut into as many tokens as the clean one, with one thing changed: what differs in the "
                "model is then what that thing does.",
                **PatchingChoices.instead.widget,
            )


def _chosen(proposals: dict, kind: str) -> tuple[Any, Hashable]:
    """What is run, and what tells it from others."""
    if state.instead.strip():
        return state.instead, (OWN, state.instead)
    return (proposals[kind].raw, ("proposal", kind)) if kind else (None, None)


def _beside(pairs: Alignment) -> None:
    """The clean input above the corrupted one; what differs is marked."""
    if pairs.clean.grid is not None:
        _pictures(pairs.clean, pairs.corrupted)
        return
    if pairs.clean.sound is not None:
        return
    columns = drawing.columns(pairs)
    shown = _near(columns) if len(columns) > MANY else range(len(columns))
    drawn, last = [f"<div class=names>{''.join(f'<span>{name}</span>' for name in SIDES)}</div>"], -1
    for index in shown:
        if index != last + 1:
            drawn.append("<div class=gap>…</div>")
        drawn.append(_pair(columns[index]))
        last = index
    st.html(f"<div class='prompts' data-testid='prompts'>{''.join(drawn)}</div>")


def _near(columns: tuple[drawing.Column, ...]) -> list[int]:
    """The columns around the differences."""
    at = [index for index, column in enumerate(columns) if column.differs] + [len(columns) - 1]
    near = {index for place in at for index in range(place - AROUND, place + AROUND + 1)}
    return sorted(near & set(range(len(columns))))[: 2 * MANY]


def _pair(column: drawing.Column) -> str:
    """A token of the clean input above that of the corrupted one."""
    found = []
    for name, label, position in zip(SIDES, (column.clean, column.corrupted), column.places, strict=True):
        kind = f"{name} none" if label is None else f"{name} differs" if column.differs else name
        told = f"{name}: no partner" if label is None else f"{name}: position {position}"
        found.append(f"<span class='{kind}' title='{told}'>{html.escape(visible(label or ''))}</span>")
    return f"<div>{''.join(found)}</div>"


def _pictures(clean: Axis, corrupted: Axis) -> None:
    with st.container(horizontal=True, gap="small"):
        for axis, name in zip((clean, corrupted), SIDES, strict=True):
            if axis.picture is not None:
                st.image(axis.picture.pixels, caption=name, width=150)
