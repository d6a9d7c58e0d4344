"""The map of what removing each head does: layers down, heads across, a click leads to the head."""

from __future__ import annotations

import html

import streamlit as st

from headwise.interp.analysis.effects import answers_at_all, asked, removals
from headwise.interp.drawing.matrix import Matrix, Span
from headwise.interp.drawing.paper.text import visible
from headwise.interp.drawing.quantities import Quantity
from headwise.interp.errors import InputError
from headwise.pages._heads.choices import state
from headwise.pages._heads.whatif import SLOW, Edited
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared.bar import Run
from headwise.pages._shared.changes import HOWS
from headwise.pages._shared.markdown import plain
from headwise.pages._shared.shelf import server
from headwise.pages._shared.work import give_way

SWEPT = 0.5  # of a run's time, for each of many that are made in one
TITLE = "Effect of removing each head"


def removal(run: Run, now: Edited) -> None:
    """Draw the map, at once where that is quick, else when it is asked for."""
    cap, stack = run.capture, state.stack
    calls = cap.stack(stack)
    heads = sum(call.heads for call in calls)
    seconds = run.cost.run_seconds * heads * SWEPT
    key = (run.key, stack, state.how, state.answer, state.rather)
    answered = answers_at_all(cap)
    try:
        targets = asked(cap, state.answer or None, state.rather or None) if answered else ()
    except InputError:
        return  # said beside the answer
    what = "on the output"
    if targets:
        names = "".join(map(str, targets)).split(" − ")
        what = f"on “{html.escape(' − '.join(visible(name)[:20] for name in names))}”"
    st.html(
        f"<div class='wi-title' title='Each head of the unedited run removed in turn, and how far the answer moves'>"
        f"{TITLE}<span>{what}, {state.how} · {heads} runs</span></div>"
    )
    if seconds > SLOW and not state.mapped:
        st.button(f"Measure (≈ {max(1, round(seconds))} s)", key="map", icon=":material/grid_on:", on_click=_measure)
        return
    bar = cancel = None
    if seconds > SLOW:
        with st.container(horizontal=True, vertical_alignment="center"):
            cancel = st.empty()
            cancel.button("Cancel", key="map-cancel", on_click=_cancel)
            bar = st.progress(0.0, text="Removing each head …")

    def progress(part: float) -> None:
        if bar is not None:
            give_way()
            bar.progress(min(part, 1.0), text=f"Removing each head … {part:.0%}")

    try:
        values = server().made("removals", key, lambda: removals(cap, stack, state.how, targets, progress))
    except InputError as error:
        st.info(plain(str(error)))
        return
    finally:
        for widget in (bar, cancel):
            if widget is not None:
                widget.empty()
    _draw(run, now, values, "Δ " + targets[0].measure if targets else "output moved")


def take_choice(cap) -> None:
    """A click on a head of the map."""
    cell = _canvas.event("removals").get("cell")
    if cell:
        calls = cap.stack(state.stack)
        row = min(cell[0], len(calls) - 1)
        state.layer, state.head = calls[row].layer, min(cell[1], calls[row].heads - 1)


def _draw(run: Run, now: Edited, values, measure: str) -> None:
    calls = run.capture.stack(state.stack)
    rows = {call.layer: row for row, call in enumerate(calls)}
    matrix = Matrix(
        values,
        Span(tuple(str(call.layer) for call in calls), "layers"),
        Span(tuple(map(str, range(values.shape[1]))), "heads"),
        Quantity(measure, "signed"),
    )
    gone = [c for c in now.made if c.kind in HOWS and c.stack in ("", state.stack) and c.layer in rows]
    _canvas.numbers(
        matrix,
        key="removals",
        height=240,
        picking=_canvas.Picking(
            "look at this head", [(rows[c.layer], c.head) for c in gone], "Click a head to look at it"
        ),
    )


def _measure() -> None:
    state.mapped = True


def _cancel() -> None:
    state.mapped = False
