"""How heads are wired by their weights alone: compositions of one head with all others, and the strongest pairs."""

from __future__ import annotations

import streamlit as st

from headwise.interp.drawing import circuits as drawing
from headwise.interp.errors import InputError
from headwise.pages._circuits.choices import CircuitsChoices, state
from headwise.pages._circuits.downloads import wiring_files
from headwise.pages._circuits.found import compositions_of
from headwise.pages._shared import pictures
from headwise.pages._shared.bar import Run
from headwise.pages._shared.buttons import choice
from headwise.pages._shared.leading import heads_address
from headwise.pages._shared.leading import named as at_head
from headwise.pages._shared.words import heading, note

WIRED, PAIRS = "circuit-wired", "circuit-pairs"
TOP = 10
MANY = 100  # heads from which on the weights are multiplied when somebody asks
WORDS = {"Q": "Queries", "K": "Keys", "V": "Values"}


def wiring(run: Run, head: drawing.Head) -> None:
    """Draw it."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.html(heading("Wired by their weights", "composition, more than random matrices would"))
        choice("Kind", CircuitsChoices.kind, WORDS.get)
    if sum(call.heads for call in run.capture.calls) > MANY and not state.wired:
        st.button("Multiply all pairs of heads", icon=":material/cable:", on_click=_wire)
        return
    try:
        table = compositions_of(run)
    except InputError as error:
        st.info(str(error), icon=":material/visibility_off:")
        return
    if table is None:
        return
    calls = [(call.stack, call.layer, call.heads) for call in run.capture.calls]
    cells = drawing.wiring(table, head, state.kind, calls)
    pairs = drawing.strongest(table, state.kind, TOP)
    left, right = st.columns([17, 11], gap="medium")
    with left:
        at = drawing.layers_shown([call[:2] for call in calls]).index(head[:2]), head[2]
        name = drawing.named(run.capture, head)
        st.html(heading(f"{name.capitalize()} with all others", "earlier heads below, later heads above"))
        pictures.cells(cells, key=WIRED, title=f"{WORDS[state.kind]} of {name}", selected=at)
        note(drawing.wiring_sentence(table, head, state.kind))
    with right:
        st.html(heading("The strongest pairs", "an earlier head → who reads it"))
        rows = [row | {"go": at_head(run.capture, row["head"])} for row in pairs]
        pictures.bars(rows, key=PAIRS, title="The strongest pairs", base=heads_address(run.subject))
    wiring_files(run, cells, table, name)
    if missing := table.attrs["missing"]:
        note(f"Not all could be read: {'; '.join(missing[:3])}.")


def take_cell(run: Run, row: int, column: int) -> None:
    """A click on a cell of the map is another head."""
    layers = drawing.layers_shown([(call.stack, call.layer) for call in run.capture.calls])
    if 0 <= row < len(layers):
        stack, layer = layers[row]
        heads = run.capture.find(layer, stack).heads
        if column < heads:
            state.look_at(stack, layer, column)


def _wire() -> None:
    state.wired = True
