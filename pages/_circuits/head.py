"""One part of the graph: what it hears and who hears it; of a head also what it looks for and what it writes."""

from __future__ import annotations

import html

import streamlit as st

from headwise.interp.analysis.circuits.graph import Circuit
from headwise.interp.analysis.circuits.reading import Found, ReadsAndWrites
from headwise.interp.analysis.targets import Target
from headwise.interp.drawing import circuits as drawing
from headwise.interp.drawing.paper.text import visible
from headwise.interp.drawing.streams import signed_number
from headwise.interp.errors import InputError
from headwise.pages._circuits import pictures as own
from headwise.pages._circuits.choices import CircuitsChoices, state
from headwise.pages._circuits.found import reading_of
from headwise.pages._shared import pictures
from headwise.pages._shared.bar import Run
from headwise.pages._shared.buttons import choice
from headwise.pages._shared.leading import heads_address
from headwise.pages._shared.leading import named as at_head
from headwise.pages._shared.words import heading, note

TOP = 8
LAST = -1
LOOKS = "attention score before the softmax, positions left out"
WRITES = "logits above the mean, when all weight is on that token"
WAY = "circuit-way"
SIDES = {"Hears": "circuit-heard", "Is heard by": "circuit-told"}  # and the pictures' keys
THROUGH = {"run": "In this run", "embedding": "By embeddings alone"}
STYLE = """<style>
.tokens{display:flex;flex-wrap:wrap;gap:.28rem;font-size:.82rem;line-height:1.5}
.tokens span{padding:.02rem .42rem;border-radius:5px;white-space:pre;
border:1px solid color-mix(in srgb,currentColor 14%,transparent)}
.tokens i{font-style:normal;opacity:.75;font-size:.75rem;margin-left:.35rem;font-variant-numeric:tabular-nums}
.asks{font-size:.82rem;line-height:1.4;margin:.1rem 0 .2rem}.asks em{font-style:normal;opacity:.66}
</style>"""


def head_words(run: Run, circuit: Circuit | None, aim: Target | None, head: drawing.Head) -> None:
    """Draw it. ``head`` is the one that is looked at, unless another part of the graph is."""
    node = drawing.find(circuit, state.part) if circuit is not None and state.part else None
    if node is not None and node.kind != "head":
        st.html(heading(str(node).capitalize(), "what it hears, and who hears it"))
        _edges(run, circuit, drawing.key_of(node), beside=True)
        return
    name, key = drawing.named(run.capture, head), drawing.head_key(*head)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.html(heading(name.capitalize(), "" if circuit is None else _in_graph(circuit, key)))
        base = heads_address(run.subject)
        own.way("Look at this head", at_head(run.capture, head), key=WAY, base=base)
    inside = circuit is not None and drawing.find(circuit, key) is not None
    if not inside:
        _reading(run, head)
        return
    left, right = st.columns([12, 16], gap="medium")
    with left:
        _edges(run, circuit, key)
    with right:
        _reading(run, head)


def _in_graph(circuit: Circuit, key: str) -> str:
    return "" if drawing.find(circuit, key) else "not in the graph"


def _edges(run: Run, circuit: Circuit, key: str, beside: bool = False) -> None:
    """Bars of what a part hears and of who hears it; each leads to its head."""
    places = st.columns(2, gap="medium") if beside else (st.container(), st.container())
    both = drawing.about_edges(circuit, drawing.find(circuit, key))
    for place, (title, name), rows in zip(places, SIDES.items(), both, strict=True):
        with place:
            if rows:
                st.html(heading(title, "what the answer loses without"))
                ways = [row | {"go": row["head"] and at_head(run.capture, row["head"])} for row in rows[:TOP]]
                pictures.bars(ways, key=name, title=title, base=heads_address(run.subject))


def _reading(run: Run, head: drawing.Head) -> None:
    try:
        found = reading_of(run, head)
    except InputError as error:
        st.info(str(error), icon=":material/visibility_off:")
        return
    queries = found.call.query_axis.labels
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        choice("Through", CircuitsChoices.through, THROUGH.get)
        _token(queries)
    st.html(STYLE)
    token = state.token % len(queries)
    _looks(found, token)
    _writes(found, token)
    _summary(found)


def _token(labels: tuple[str, ...]) -> None:
    places = [*range(len(labels) - 1), LAST]
    CircuitsChoices.token.one_of([LAST, *places])
    st.selectbox(
        "Token",
        places,
        format_func=lambda at: f"at {visible(labels[at])}  ({at % len(labels)})",
        label_visibility="collapsed",
        width=170,
        **CircuitsChoices.token.widget,
    )


def _looks(found: ReadsAndWrites, token: int) -> None:
    if found.no_looks:
        note(f"What it looks for cannot be told: {found.no_looks}.")
        return
    label = visible(found.call.query_axis.labels[token])
    for among, where in (("vocabulary", "in the vocabulary"), ("input", "in this input")):
        try:
            tokens = found.looks_for(token, TOP, among=among, through=state.through)
        except InputError:
            continue
        _chips(f"From {label} it looks for", where, tokens, LOOKS)


def _writes(found: ReadsAndWrites, token: int) -> None:
    """What it writes when it looks where it looks most from the token."""
    if found.no_writes:
        note(f"What it writes cannot be read as tokens: {found.no_writes}.")
        return
    key, weight = found.looks_at(token)
    title = (
        f"In this run it looks most at {visible(found.call.key_axis.labels[key])} ({weight:.0%}), and there it writes"
    )
    for small, least in (("for", False), ("against", True)):
        tokens = found.writes(key, TOP, least=least, through=state.through)
        _chips(title if not least else "It writes there", small, tokens, WRITES)


def _chips(title: str, small: str, tokens: Found, unit: str) -> None:
    told = "".join(
        f"<span title='{html.escape(visible(name))} {signed_number(score)} {unit}'>{html.escape(visible(name))}"
        f"<i>{signed_number(score)}</i></span>"
        for _, name, score in tokens
    )
    st.html(
        f"<div data-testid='chips'><div class='asks'>{html.escape(title)} <em>{small}</em></div>"
        f"<div class='tokens'>{told}</div></div>"
    )


def _summary(found: ReadsAndWrites) -> None:
    note(" ".join(drawing.over_all(found.copying, found.matching)) + (f" Here {found.note}." if found.note else ""))
