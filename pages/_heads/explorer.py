"""All heads on the left, one of them large on the right. A click runs only this."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from headwise import Capture
from headwise.interp.analysis.firstlook import first_head, first_stack
from headwise.interp.drawing.survey import Survey, survey
from headwise.pages._heads.choices import HeadsChoices, state
from headwise.pages._heads.downloads import downloads
from headwise.pages._heads.grid import grid
from headwise.pages._heads.head import head
from headwise.pages._heads.measures import chart, figures, measured
from headwise.pages._heads.neuron import neuron_view, take_neuron_events
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared.buttons import choice
from headwise.pages._shared.defence import fragment
from headwise.pages._shared.shelf import server
from headwise.pages._shared.sidebar import Run, share

NARROW = """<style>@media (max-width: 1000px) {
.st-key-halves > [data-testid=stLayoutWrapper] > [data-testid=stHorizontalBlock] { flex-wrap: wrap }
.st-key-halves > [data-testid=stLayoutWrapper] > [data-testid=stHorizontalBlock] > [data-testid=stColumn] {
  min-width: 100% }
}</style>"""  # Streamlit itself puts columns below each other at 640 pixels only


def surveyed(run: Run) -> Survey:
    """Every head, looked at once for all sessions."""
    bar = st.progress(0.0, text="Looking at every head …") if run.cost.survey_seconds > 0.5 else None

    def progress(fraction: float) -> None:
        if bar is not None:
            bar.progress(min(fraction, 1.0), text=f"Looking at every head … {fraction:.0%}")

    found = server().made("survey", run.key, lambda: survey(run.capture, progress))
    if bar is not None:
        bar.empty()
    return found


@fragment
def explorer(run: Run, found: Survey) -> None:
    cap = run.capture
    if state.stack not in cap.stacks:
        state.stack = first_stack(cap)
    st.html(NARROW)
    with st.container(key="halves"):
        left, right = st.columns([6, 8], gap="medium")
    with left:
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
        table = measured(run, found)
        _take_events(cap, table)
        grid(cap, found, table)
        with st.container(horizontal=True):
            choice("Metrics as", HeadsChoices.metrics)
            st.download_button(
                "CSV",
                table.to_csv(index=False).encode(),
                "head-metrics.csv",
                "text/csv",
                key="download-metrics",
                icon=":material/download:",
                on_click="ignore",
            )
            if run.subject.family == "decoder" and "induction" not in table:
                st.toggle(
                    "Induction scores",
                    help="Runs the model on random tokens said twice.",
                    **HeadsChoices.induction.widget,
                )
        (figures if state.metrics == "table" else chart)(table)
    with right:
        call = cap.find(state.layer, state.stack)
        downloads(run, call, head(run, call))
        neuron_view(run, call)
    if not share(run, state, stack=first_stack(cap), view=state.views[0]):
        st.caption(
            "A long text or a file of your own does not travel in a link; the link carries the rest of the view."
        )


def _take_events(cap: Capture, table: pd.DataFrame) -> None:
    """What the pictures and the table say the person just did, before anything is drawn."""
    chosen = _canvas.event("grid")
    if "layer" in chosen:  # the canvas counts rows, the model counts layers
        state.layer, state.head = cap.stack(state.stack)[chosen["layer"]].layer, chosen["head"]
    acted = _canvas.event("one")
    if "zoom" in acted:
        state.zoom = tuple(acted["zoom"]) if acted["zoom"] else None
    if "token" in acted:
        state.pin = acted["token"]
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
