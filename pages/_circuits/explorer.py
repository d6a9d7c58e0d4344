"""The question, the graph of its answer, one part of it, and how heads are wired by their weights alone. A click runs
only this."""

from __future__ import annotations

import streamlit as st

from headwise.interp.analysis.circuits.graph import Circuit
from headwise.interp.analysis.effects import answers_at_all
from headwise.interp.analysis.targets import Target
from headwise.interp.drawing import circuits as drawing
from headwise.pages._circuits.about import about
from headwise.pages._circuits.choices import state
from headwise.pages._circuits.code import code
from headwise.pages._circuits.head import SIDES, WAY, head_words
from headwise.pages._circuits.path import MOVED, path
from headwise.pages._circuits.wiring import PAIRS, WIRED, take_cell, wiring
from headwise.pages._circuits.words import words
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared.bar import Run, share
from headwise.pages._shared.defence import fragment
from headwise.pages._shared.leading import to_head
from headwise.pages._shared.markdown import plain
from headwise.pages._shared.question import ask

NO_ANSWER = "{name} gives no answer, a token or a class, so there is none whose circuit could be drawn."
STYLE = """<style>
@media (max-width: 1100px) {
.st-key-circuits [data-testid=stHorizontalBlock]:has(> [data-testid=stColumn]) { flex-wrap: wrap }
.st-key-circuits [data-testid=stColumn] { min-width: 100% }
}
.st-key-circuits button { min-height: 1.75rem; padding-block: 0 }
.st-key-circuits button p { font-size: .82rem }
.st-key-circuits [data-testid=stVerticalBlock] { gap: .55rem }
.st-key-circuits hr { margin: .4rem 0 }
</style>"""


@fragment
def explorer(run: Run) -> None:
    _take_events(run)
    st.html(STYLE)
    aim = None
    with st.container(key="circuits"):
        if answers_at_all(run.capture):
            aim = ask(run).aim
        else:
            st.info(NO_ANSWER.format(name=plain(run.subject.name)), icon=":material/visibility_off:")
        _drawn(run, aim)
    if not share(run, state):
        st.caption(
            "A long text or a file of your own does not travel in a link; the link carries the rest of the view."
        )


def _drawn(run: Run, aim: Target | None) -> None:
    cap = run.capture
    if not cap.anatomy.streams:
        st.info(" ".join(cap.anatomy.refused) or "No residual stream was proven.", icon=":material/visibility_off:")
        return
    circuit, beside = path(run, aim) if aim is not None else (None, None)
    head = _head(run, circuit)
    st.divider()
    head_words(run, circuit, aim, head)
    st.divider()
    wiring(run, head)
    st.divider()
    words(run, aim)
    about()
    code(run, aim, head, beside)


def _take_events(run: Run) -> None:
    """What the pictures say the person just did, before anything is drawn."""
    if "part" in (acted := _canvas.event(MOVED)):
        state.part = acted["part"]
        found = next((head for head in heads_of(run) if drawing.head_key(*head) == state.part), None)
        if found is not None:
            state.look_at(*found)
    if "position" in (acted := _canvas.event(WIRED)):
        take_cell(run, int(acted["row"]), int(acted["position"]))
    for key in (WAY, PAIRS, *SIDES.values()):
        if "go" in (acted := _canvas.event(key)):
            to_head(run.capture, acted["go"])


def heads_of(run: Run) -> list[drawing.Head]:
    """All heads of the run."""
    return [(call.stack, call.layer, head) for call in run.capture.calls for head in range(call.heads)]


def _head(run: Run, circuit: Circuit | None) -> drawing.Head:
    """The head that is looked at: the one chosen, else the one whose edge carries most, else the last layer's first."""
    cap = run.capture
    stack = state.stack if state.stack in cap.stacks else cap.stacks[0]
    calls = {call.layer: call for call in cap.stack(stack)}
    if state.layer in calls and 0 <= state.head < calls[state.layer].heads:
        return stack, state.layer, state.head
    for edge in circuit.edges if circuit is not None else ():
        if edge.sender.kind == "head":
            return edge.sender.stack, edge.sender.layer, edge.sender.head
    last = cap.stack()[-1]
    return last.stack, last.layer, 0
