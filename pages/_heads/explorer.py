"""All heads, one of them large, and what if it were different. A click runs only this."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from headwise import Capture
from headwise.interp.analysis.firstlook import first_head, first_stack
from headwise.interp.drawing.survey import Survey, survey
from headwise.pages._heads.acts import take_acts
from headwise.pages._heads.answer import caution, whatif
from headwise.pages._heads.choices import HeadsChoices, state
from headwise.pages._heads.downloads import downloads
from headwise.pages._heads.grid import grid
from headwise.pages._heads.head import head
from headwise.pages._heads.measures import chart, figures, measured
from headwise.pages._heads.neuron import neuron_view, take_neuron_events
from headwise.pages._heads.removal import removal, take_choice
from headwise.pages._heads.roles import does, filters, told
from headwise.pages._heads.text import text
from headwise.pages._heads.whatif import Edited, banner, edited, picking, take_picks
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared.bar import Run, share
from headwise.pages._shared.buttons import choice
from headwise.pages._shared.defence import fragment
from headwise.pages._shared.shelf import server

MEASURES = {"map": "Effects", "table": "Table", "scatter": "Two metrics"}
PARTS = {"left": ("grid", "measures"), "head": ("one",), "right": ("does", "whatif", "files")}


def surveyed(run: Run) -> Survey:
    """Every head, looked at once for all sessions; of a long text from some of its queries, unless all are wanted."""
    exact = state.exact
    bar = st.progress(0.0, text="Looking at every head …") if run.cost.survey_seconds > 0.5 else None

    def progress(fraction: float) -> None:
        if bar is not None:
            bar.progress(min(fraction, 1.0), text=f"Looking at every head … {fraction:.0%}")

    key = (run.key, "exact") if exact else run.key
    found = server().made("survey", key, lambda: survey(run.capture, progress, exact=exact))
    if bar is not None:
        bar.empty()
    return found


@fragment
def explorer(run: Run, found: Survey) -> None:
    cap = run.capture
    if state.stack not in cap.stacks:
        state.stack = first_stack(cap)
    with st.container(key="above"):  # what comes and goes moves nothing below: a click may meet a half-drawn page
        table = measured(run, found)
        _take_events(cap, table)
        now = edited(run)
        banner(run, now)
        shown, before = run if state.side == "before" else now.run, found
        if shown is not run:
            found = surveyed(shown)
            table = measured(shown, found)
    text(shown, shown.capture.find(state.layer, state.stack))
    parts = _places()
    words = told(shown, table)
    with parts["grid"]:
        _stacks(cap)
        only = filters(shown, table, words)
        grid(shown, found, table, before if shown is not run and state.side == "change" else None, only)
        _looked(found)
    call = shown.capture.find(state.layer, state.stack)
    with parts["one"]:
        compared = now.run.capture if now.made and state.side == "change" else None
        drawn = head(run if compared else shown, call, picking(call, now), compared)
        neuron_view(shown, call)
    with parts["files"]:
        downloads(run if compared else shown, call, drawn, now.run)
        caution()
    with parts["does"]:
        does(shown, call, table, words)
    with parts["whatif"]:
        whatif(run, call, now)
    if not share(run, state, stack=first_stack(cap), view=state.views[0]):
        st.caption(
            "A long text or a file of your own does not travel in a link; the link carries the rest of the view."
        )
    with parts["measures"]:  # last: the rest stands while this counts
        _measures(run, table, now)


def _looked(found: Survey) -> None:
    """Of a long text: from how many of its queries the figures are, and the switch that asks for all of them."""
    if not found.sampled and not state.exact:
        return
    figures = f"Figures {found.sampled}; ± is two standard errors." if found.sampled else "Figures from every query."
    st.caption(figures)
    st.toggle(
        "Look at every query",
        help="Exact figures and thumbnails; of a long text this takes longer than the run.",
        **HeadsChoices.exact.widget,
    )
    if state.exact == bool(found.sampled):
        st.rerun()


def _stacks(cap: Capture) -> None:
    if len(cap.stacks) > 1:
        st.segmented_control(
            "Stack",
            cap.stacks,
            format_func=str.capitalize,
            required=True,
            label_visibility="collapsed",
            on_change=state.other_positions,
            **HeadsChoices.stack.widget,
        )


def _measures(run: Run, table: pd.DataFrame, now: Edited) -> None:
    """What is measured of all heads: as a map of effects, as a table, as points."""
    above, below = st.container(), st.container(horizontal=True, vertical_alignment="center")
    with below:
        choice("Metrics as", HeadsChoices.metrics, MEASURES.get)
        if run.subject.family == "decoder" and run.subject.reads == "text" and "induction" not in table:
            st.toggle(
                "Induction scores",
                help="Runs the model on random tokens said twice.",
                **HeadsChoices.induction.widget,
            )
        st.download_button(
            "CSV",
            lambda: table.to_csv(index=False).encode(),
            "head-metrics.csv",
            "text/csv",
            key="download-metrics",
            icon=":material/download:",
            on_click="ignore",
        )
    with above:
        if state.metrics == "map":
            removal(run, now)
        else:
            (figures if state.metrics == "table" else chart)(table)


def _places() -> dict[str, Any]:
    """The parts of the page by name, in their columns."""
    places = {}
    with st.container(key="room"), st.container(key="explorer"):
        for column, parts in PARTS.items():
            with st.container(key=f"part-{column}"):
                places |= {part: st.container(key=f"part-{part}") for part in parts}
    return places


def _take_events(cap: Capture, table: pd.DataFrame) -> None:
    """What the pictures and the table say the person just did, before anything is drawn."""
    take_acts(cap)
    take_choice(cap)
    take_picks(cap, _canvas.event("one"))
    for widget, part in (("table", "rows"), ("scatter", "point_indices")):
        picked = state.news(widget, part)
        if picked:
            state.layer, state.head = int(table.layer[picked[0]]), int(table["head"][picked[0]])
    if min(state.layer, state.head) < 0:
        state.layer, state.head = first_head(cap, table, state.stack)
    layers = {c.layer: c for c in cap.stack(state.stack)}
    if state.layer not in layers:
        state.layer = min(layers)
    state.head = min(state.head, layers[state.layer].heads - 1)
    take_neuron_events(layers[state.layer])
