"""One head as it is, and the same head through two other mechanisms. What is turned runs only this."""

from __future__ import annotations

from typing import Any

import streamlit as st

from headwise.interp.analysis.firstlook import furthest_head
from headwise.interp.attention.call import AttentionCall
from headwise.interp.drawing.survey import survey
from headwise.interp.errors import InputError
from headwise.pages._shared.bar import Run, share
from headwise.pages._shared.defence import fragment
from headwise.pages._shared.markdown import plain
from headwise.pages._shared.shelf import server
from headwise.pages._variants.about import about
from headwise.pages._variants.charts import charts
from headwise.pages._variants.choices import SIDES, VariantsChoices, state
from headwise.pages._variants.code import code
from headwise.pages._variants.side import as_it_is, picked, put_through

STYLE = """<style>
.st-key-variants { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 1rem 1.25rem;
  align-items: start }
@media (max-width: 800px) { .st-key-variants { grid-template-columns: 1fr } }
.st-key-variants > * { min-width: 0; width: 100% }
.st-key-variants [data-testid=stVerticalBlock] { gap: .45rem }
.st-key-variants code { font-size: .74rem }
</style>"""


@fragment
def explorer(run: Run) -> None:
    st.html(STYLE)
    first = _first(run)
    call, head = _head(run, first)
    try:
        sides = [put_through(run, call, head, name) for name in SIDES]
    except InputError as error:
        st.error(plain(str(error)))
        share(run, state, **first)
        return
    with st.container(key="variants"):
        columns = [st.container(key=f"variant-{name}") for name in ("full", *SIDES)]
    with columns[0]:
        as_it_is(run, call, head)
    for column, name, side in zip(columns[1:], SIDES, sides, strict=True):
        with column:
            picked(run, name, side)
    charts(run, call, head, sides)
    about()
    code(run, call, head)
    share(run, state, **first)


def _first(run: Run) -> dict[str, Any]:
    """The head that is looked at until somebody chooses: the one that looks furthest."""
    cap = run.capture
    stack = state.stack if state.stack in cap.stacks else next(c.stack for c in cap.calls if c.kind == "self")
    layers = [call.layer for call in cap.stack(stack) if call.kind == "self"]

    def furthest() -> tuple[int, int]:
        table = server().made("survey", run.key, lambda: survey(cap)).table
        return furthest_head(table[(table["stack"] == stack) & table.layer.isin(layers)])

    layer, head = server().made("furthest", (run.key, stack), furthest)
    return {"stack": stack, "layer": layer, "head": head}


def _head(run: Run, first: dict[str, Any]) -> tuple[AttentionCall, int]:
    """The head that is looked at, and the fields that choose another."""
    cap = run.capture
    stacks = [name for name in cap.stacks if any(call.kind == "self" for call in cap.stack(name))]
    if state.stack not in stacks:
        state.stack = stacks[0]
    calls = {call.layer: call for call in cap.stack(state.stack) if call.kind == "self"}
    if state.layer not in calls or not 0 <= state.head < calls[state.layer].heads:
        state.layer, state.head = first["layer"], first["head"]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if len(stacks) > 1:
            st.selectbox("Stack", stacks, format_func=str.capitalize, width=130, **VariantsChoices.stack.widget)
        st.selectbox("Layer", list(calls), width=100, **VariantsChoices.layer.widget)
        st.selectbox("Head", list(range(calls[state.layer].heads)), width=100, **VariantsChoices.head.widget)
        st.slider(
            "Layers of reach",
            help="How many layers of this mechanism stand on each other when it is asked what the last token reaches.",
            width=220,
            **VariantsChoices.layers.bounded(1, 12),
        )
    return calls[state.layer], state.head
