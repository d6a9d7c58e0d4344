"""The graph of one answer: what it is held against, the drawing, and what it restores."""

from __future__ import annotations

import html

import streamlit as st

from headwise.interp.analysis.circuits.graph import Circuit
from headwise.interp.analysis.targets import Target
from headwise.interp.drawing import circuits as drawing
from headwise.interp.drawing.streams import signed_number
from headwise.interp.errors import InputError
from headwise.pages._circuits import pictures
from headwise.pages._circuits.choices import MEAN, SHARES, CircuitsChoices, state
from headwise.pages._circuits.downloads import circuit_files
from headwise.pages._circuits.found import Beside, beside_of, chosen, circuit_of, proposals_of
from headwise.pages._shared.bar import Run
from headwise.pages._shared.buttons import choice
from headwise.pages._shared.markdown import plain
from headwise.pages._shared.words import heading, note

MOVED = "circuit-graph"
QUICK = 6.0  # seconds of a search that begins by itself
RUNS = 60  # plain runs of the input that a search takes as long as, for each head of a layer
TEXTLESS = ("vision", "audio")
STYLE = """<style>
.restored{display:flex;align-items:baseline;gap:.55rem;flex-wrap:wrap;font-size:.86rem;line-height:1.45}
.restored b{font-size:1.5rem;font-weight:650;line-height:1.2;font-variant-numeric:tabular-nums}
.restored span{opacity:.75}
</style>"""


def path(run: Run, aim: Target) -> tuple[Circuit | None, Beside | None]:
    """Draw it → the circuit, None where there is none yet, and what the run was compared with."""
    beside = None
    try:
        kind = chosen(run, aim)
        _settings(run, kind)
        beside = beside_of(run, kind)
        circuit = _sought(run, beside, aim)
    except InputError as error:
        st.info(plain(str(error)), icon=":material/visibility_off:")
        return None, beside
    if circuit is None:
        return None, beside
    shown = drawing.drawn(circuit)
    st.html(_restored(circuit, beside))
    pictures.graph(shown, key=MOVED, title=drawing.sentence(circuit), selected=_selected(run))
    note(
        "Each part stands in the row of the position at which it writes; an edge that changes rows moves information "
        "from one to another. Point at a part to see its edges, click it to look closer."
    )
    circuit_files(run, circuit, shown)
    return circuit, beside


def _settings(run: Run, now: str) -> None:
    """What the run is compared with, and how much of the difference the graph must restore."""
    typed = run.subject.family not in TEXTLESS and "input_ids" in run.inputs.kwargs
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="circuit-settings"):
        st.html(heading("Compared with"))
        for kind in (*(one.kind for one in proposals_of(run)), MEAN):
            look = "primary" if kind == now else "secondary"
            help = "What each part says on average over this input." if kind == MEAN else None
            st.button(kind, key=f"circuit-{kind}", type=look, help=help, on_click=state.take, args=(kind,))
        if typed:
            st.text_input(
                "Compared with",
                placeholder="or a text of your own",
                label_visibility="collapsed",
                width=210,
                help="Cut into as many tokens, with one thing changed: the circuit is then how that one thing reaches "
                "the answer.",
                **CircuitsChoices.instead.widget,
            )
        choice("Restores", CircuitsChoices.goal, "≥ {} %".format, SHARES)


def _sought(run: Run, beside: Beside, aim: Target) -> Circuit | None:
    """The circuit, found at once where that is quick, else when it is asked for."""
    calls = run.capture.stack()
    seconds = run.cost.run_seconds * RUNS * (1 + max(call.heads for call in calls) / 4)
    if seconds > QUICK and not state.sought:
        note(beside.sentence)
        st.button(f"Find the circuit (≈ {round(seconds)} s)", icon=":material/account_tree:", on_click=_seek)
        return None
    return circuit_of(run, beside, aim)


def _seek() -> None:
    state.sought = True


def _selected(run: Run) -> str:
    """The key of the part that is looked at, "" where nobody has chosen."""
    stack = state.stack or run.capture.stacks[0]
    return state.part or (drawing.head_key(stack, state.layer, state.head) if state.layer >= 0 else "")


def _restored(circuit: Circuit, beside: Beside) -> str:
    """The large number, and what it is a share of; all of it escaped."""
    figures = (
        f"{circuit.target}: {signed_number(circuit.clean)} in this run, {signed_number(circuit.base)} with "
        f"{circuit.against}, {signed_number(circuit.value)} with the graph alone"
    )
    count = f"restored by {len(circuit.edges)} of {circuit.possible:,} edges, run alone"
    return (
        f"{STYLE}<div class='restored' data-testid='restored'><b>{circuit.restored:.0%}</b> {html.escape(count)} "
        f"<span>{html.escape(figures)}</span></div>"
        f"<div class='restored'><span>{html.escape(beside.sentence)}</span></div>"
    )
