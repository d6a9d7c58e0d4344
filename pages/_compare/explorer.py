"""All heads by how far they look elsewhere, one of them large, what both say, and a map. A click runs only this."""

from __future__ import annotations

import streamlit as st

from headwise.interp.analysis.comparing.compare import Comparison
from headwise.interp.drawing import comparing
from headwise.interp.errors import InputError
from headwise.pages._compare.about import about
from headwise.pages._compare.beside import Other, beside
from headwise.pages._compare.choices import CompareChoices, state
from headwise.pages._compare.downloads import code
from headwise.pages._compare.found import comparison
from headwise.pages._compare.head import head, texts
from headwise.pages._compare.heads import heads, table
from headwise.pages._compare.mapped import mapped
from headwise.pages._compare.says import says
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared.bar import Run, share
from headwise.pages._shared.defence import fragment
from headwise.pages._shared.leading import to_head
from headwise.pages._shared.markdown import plain
from headwise.pages._shared.words import note

STYLE = """<style>
.st-key-compared { display: grid; gap: .8rem 1.5rem; align-items: start;
  grid-template: "heads head answer" auto "rest rest rest" auto / 5fr 7fr 5fr }
@media (max-width: 1380px) {
  .st-key-compared { grid-template: "heads head" auto "answer answer" auto "rest rest" auto / 6fr 7fr }
  .st-key-compared .st-key-part-answer.st-key-part-answer {
    display: grid; grid-template-columns: 6fr 7fr; gap: 1.5rem; align-items: start } }
@media (max-width: 800px) {
  .st-key-compared { grid-template: "heads" auto "head" auto "answer" auto "rest" auto / 1fr }
  .st-key-compared .st-key-part-answer.st-key-part-answer { grid-template-columns: 1fr } }
.st-key-compared > * { min-width: 0; width: 100% }
.st-key-compared [data-testid=stVerticalBlock] { gap: .5rem }
.st-key-compared button:not([role=slider]) { min-height: 1.75rem; padding-block: 0 }
.st-key-compared button p { font-size: .82rem }
.st-key-compared > :has(> .st-key-part-heads) { grid-area: heads }
.st-key-compared > :has(> .st-key-part-head) { grid-area: head }
.st-key-compared > :has(> .st-key-part-answer) { grid-area: answer }
.st-key-part-answer > * { min-width: 0; width: 100% }
.st-key-compared > :has(> .st-key-part-rest) { grid-area: rest }
</style>"""
TALL = 8  # layers, from which on the map of heads is taller than a head
PARTS = ("heads", "head", "answer", "rest")


@fragment
def explorer(run: Run) -> None:
    st.html(STYLE)
    other = beside(run)
    found = None
    if other is not None:
        try:
            found = comparison(run, other)
        except InputError as error:
            st.error(plain(str(error)))
    if other is not None and found is not None:
        _compared(run, other, found)
    if not share(run, state):
        st.caption(
            "A long text or a file of your own does not travel in a link; the link carries the rest of the view."
        )


def _compared(run: Run, other: Other, found: Comparison) -> None:
    stacks = tuple(found.pairs)
    if state.stack not in stacks:
        state.stack = max(stacks, key=lambda name: found.table[found.table["stack"] == name]["divergence"].max())
    _take_events(run, found)
    chosen = _chosen(found)
    for sentence in found.notes:
        note(sentence)
    move = found.moved(*chosen, state.query if _there(found, chosen) else None)
    texts(found, chosen, move)
    with st.container(key="compared"):
        parts = {name: st.container(key=f"part-{name}") for name in PARTS}
    with parts["heads"]:
        if len(stacks) > 1:
            st.segmented_control(
                "Stack",
                stacks,
                format_func=str.capitalize,
                required=True,
                label_visibility="collapsed",
                on_change=state.another_pair,
                **CompareChoices.stack.widget,
            )
        heads(run, found, chosen)
    with parts["head"]:
        head(run, found, chosen, move)
    with parts["head" if len(found.one.stack(state.stack)) > TALL else "heads"]:  # where there is room
        about()
    with parts["answer"]:
        left, right = st.container(), st.container()
    with left:
        says(run, found)
    with parts["rest"]:
        table(found)
        code(run, other, found)
    with right:  # last, because of many heads it takes longest
        mapped(run, other, found, chosen)


def _chosen(found: Comparison) -> comparing.Head:
    """The head that is looked at."""
    if (state.layer, state.head) in found.pairs[state.stack]:
        return state.stack, state.layer, state.head
    return state.stack, *comparing.furthest_head(found, state.stack)


def _there(found: Comparison, chosen: comparing.Head) -> bool:
    """Whether the query that was chosen has a partner."""
    return state.query >= 0 and any(mine == state.query for mine, _ in found.rows(*chosen).queries)


def _take_events(run: Run, found: Comparison) -> None:
    """What the pictures say the person just did, before anything is drawn."""
    cell = _canvas.event("compare-map").get("cell")
    if cell:
        calls = found.one.stack(state.stack)
        call = calls[min(cell[0], len(calls) - 1)]
        _look(call.layer, min(cell[1], call.heads - 1))
    acted = _canvas.event("compare-head")
    if "token" in acted:
        token = acted["token"]
        row = token["index"] if token and token["axis"] == "query" else (token or {}).get("key", -1)
        queries = found.rows(*_chosen(found)).queries
        state.query = queries[row][0] if 0 <= row < len(queries) else -1
    acted = _canvas.event("compare-ranked")
    if "go" in acted:
        to_head(run.capture, acted["go"])
    picked = state.news("compare-table", "rows")
    if picked:
        row = comparing.table_lines(found, state.stack).iloc[picked[0]]
        _look(int(row["layer"]), int(row["head"]))


def _look(layer: int, head: int) -> None:
    state.layer, state.head, state.query = layer, head, -1
