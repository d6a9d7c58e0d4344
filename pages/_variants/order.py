"""XLNet's idea: the same text, predicted in an order that the visitor chooses. What may each position see?"""

from __future__ import annotations

import html
from statistics import mean

import streamlit as st

from headwise import Capture, capture
from headwise.interp.analysis.targets import name_of
from headwise.interp.drawing.edges import mask_given
from headwise.interp.drawing.matrix import head_view
from headwise.interp.errors import InputError
from headwise.interp.masks import Bidirectional
from headwise.interp.subject import Inputs, Subject
from headwise.models.variants.orders import ORDERS, in_order, own_order, surprises
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared import input as _input
from headwise.pages._shared.about import about_card
from headwise.pages._shared.bar import Run, share
from headwise.pages._shared.buttons import choice
from headwise.pages._shared.code import show_code
from headwise.pages._shared.defence import fragment
from headwise.pages._shared.markdown import plain
from headwise.pages._shared.shelf import server
from headwise.pages._shared.words import heading, note
from headwise.pages._variants.choices import OWN, VariantsChoices, state
from headwise.pages._variants.downloads import files

MODEL = "tiny-xlnet"
LONGEST = 128  # tokens: beyond, nobody sees single cells
PICTURES = {"content": "variants-order-content", "query": "variants-order-query"}
TOLD = {
    "content": "what others look at: it knows its own token",
    "query": "what predicts: it knows where it stands, not what stands there",
}
STYLE = """<style>
.order-text { line-height: 2.1; font-size: .95rem }
.order-text span { white-space: pre-wrap; padding: .12rem .1rem; border-radius: 3px }
.order-text .seen { background: color-mix(in srgb, var(--st-primary-color, #0b6e99) 26%, transparent) }
.order-text .unseen { opacity: .55 }
.order-text .asked { outline: 2px solid var(--st-primary-color, #0b6e99) }
.order-text sup { font-size: .6rem; opacity: .7; font-variant-numeric: tabular-nums }
.order-said b { font-variant-numeric: tabular-nums }
</style>"""
PARAGRAPHS = (
    (
        "A model that predicts from left to right never learns to use what comes after; one that fills in masked "
        "tokens never sees the mask again once it is used. XLNet predicts the tokens one by one like the first, but in "
        "an order drawn anew for each text, so that every token learns to be told from any others.",
        (("Yang et al. 2019", "https://arxiv.org/abs/1906.08237"),),
    ),
    (
        "One stream cannot do that: what predicts a token must not see it, and what others look at must. So two "
        "streams run through the same weights, and their masks differ only in the diagonal.",
        (),
    ),
)


@fragment
def order(run: Run) -> None:
    """The part of the page."""
    st.html(STYLE)
    try:
        subject, text = _read(run)
        inputs = subject.encode(text, truncate=True)
        axis = inputs.axes["input"]
        if len(axis) > LONGEST:
            raise InputError(f"An order is shown of up to {LONGEST} tokens, and this text has {len(axis)}; shorten it.")
        z = _chosen(len(axis))
    except InputError as error:
        st.error(plain(str(error)))
        share(run, state)
        return
    cap, plainly = (_captured(subject, inputs, text, each) for each in (z, tuple(range(len(axis)))))
    costs = _costs(cap)
    _hear([before - now for before, now in zip(_costs(plainly), costs, strict=True)])
    st.html(_text(cap, z))
    st.html(_said(cap, z, (mean(costs), mean(_costs(plainly)))))
    layer, head = _head(cap)
    for column, stream in zip(st.columns(2, gap="medium"), PICTURES, strict=True):
        with column:
            st.html(heading(f"{stream.capitalize()} stream", TOLD[stream]))
            own = cap.find(layer, stream)
            view = (
                mask_given(cap, own, promise=Bidirectional()) if state.drawn == "masks" else head_view(cap, own, head)
            )
            _canvas.head(view, key=PICTURES[stream], height=330, selected={"axis": "query", "index": state.asked})
            files(run, view, f"{stream} stream", PICTURES[stream])
    about_card(PARAGRAPHS)
    _code(subject, text, z)
    share(run, state)


def _read(run: Run) -> tuple[Subject, str]:
    """XLNet, and the page's text, where what the page's model reads is one."""
    given = run.given.read() if _input.kind_of(run.subject) in ("decoder", "encoder", "single") else None
    text = given if isinstance(given, str) else _input.default_text("decoder")
    if run.subject.name == MODEL:
        return run.subject, text
    note(f"Read by {MODEL}, whatever model is chosen: only XLNet can be asked in any order.")
    return server().subject(MODEL, "cpu", "float32"), text


def _captured(subject: Subject, inputs: Inputs, text: str, z: tuple[int, ...]) -> Capture:
    return server().made("capture", ("order", subject.name, text, z), lambda: capture(subject, in_order(inputs, z)))


def _chosen(length: int) -> tuple[int, ...]:
    """The order that the visitor wants. Raises InputError for one that is none."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        choice("Order", VariantsChoices.way)
        if state.way == OWN:
            st.text_input(
                "First these positions, then the rest",
                placeholder="such as 3 0 2",
                help="Positions as the pictures number them, from 0.",
                width=260,
                **VariantsChoices.order.widget,
            )
        if state.way == "shuffled":
            st.slider("Draw", width=160, help="Another draw of the order.", **VariantsChoices.shuffle.bounded(0, 9))
    if state.way == OWN:
        return tuple(own_order(state.order, length))
    return tuple(ORDERS[state.way](length, state.shuffle))


def _costs(cap: Capture) -> list[float]:
    """What each token costs, in nats."""
    return surprises(cap.logits[0], cap.inputs.kwargs["input_ids"][0]).tolist()


def _hear(gains: list[float]) -> None:
    """Which position is asked for: the row that was clicked last, at first the one that this order helps most."""
    for key in PICTURES.values():
        acted = _canvas.event(key).get("token")
        if acted:
            state.asked = acted["index"]
    if not 0 <= state.asked < len(gains):
        state.asked = gains.index(max(gains))


def _head(cap: Capture) -> tuple[int, int]:
    """Masks, which all layers and heads have alike, or the weights of one head, which is chosen then."""
    calls = {call.layer: call for call in cap.stack("query")}
    layer, head = next(iter(calls)), 0
    with st.container(horizontal=True, vertical_alignment="bottom"):
        choice("Drawn", VariantsChoices.drawn)
        if state.drawn == "weights":
            layer = st.selectbox("Layer", list(calls), width=100, **VariantsChoices.order_layer.widget)
            head = st.selectbox("Head", range(calls[layer].heads), width=100, **VariantsChoices.order_head.widget)
        note("Click a row to ask for another position.")
    return layer, head


def _text(cap: Capture, z: tuple[int, ...]) -> str:
    """The text, each token with its place in the order; what the asked position sees is set off."""
    rank = {at: number for number, at in enumerate(z, 1)}
    told = []
    for at, label in enumerate(cap.axes["input"].labels):
        look = "asked" if at == state.asked else "seen" if rank[at] < rank[state.asked] else "unseen"
        told.append(f"<span class='{look}'>{html.escape(label)}<sup>{rank[at]}</sup></span>")
    return f"<div class='order-text' data-testid='order-text'>{''.join(told)}</div>"


def _said(cap: Capture, z: tuple[int, ...], costs: tuple[float, float]) -> str:
    """What the model makes of the asked position, and of the whole text in this order."""
    ids, at = cap.inputs.kwargs["input_ids"][0], state.asked
    label = html.escape(cap.axes["input"].labels[at].strip() or "·")
    place = z.index(at)
    later = sum(other > at for other in z[:place])
    row = cap.logits[0, at].float().softmax(-1)
    best = " · ".join(
        f"“{html.escape(name_of(cap.subject, int(i), at).strip() or '·')}” {p:.0%}".replace("%", " %")
        for p, i in zip(*(t.tolist() for t in row.topk(3)), strict=True)
    )
    return (
        f"<div class='order-said' data-testid='order-said'><b>“{label}”</b> is told as number <b>{place + 1}</b> of "
        f"{len(z)}, from {place} tokens, <b>{later}</b> of which stand after it: {best}; itself "
        f"<b>{float(row[ids[at]]):.1%}</b>.".replace("%", " %")
        + f"<br>In this order the text costs <b>{costs[0]:.2f}</b> nats a token; left to right {costs[1]:.2f}.</div>"
    )


def _code(subject: Subject, text: str, z: tuple[int, ...]) -> None:
    show_code(
        [
            "from headwise import capture, load",
            "from headwise.models.variants.orders import in_order",
            "",
            f"subject = load({subject.name!r})",
            f"inputs = subject.encode({text!r})",
            f"cap = capture(subject, in_order(inputs, {list(z)}))",
            f'print(cap.find({state.order_layer}, "query").weights({state.order_head}))',
        ]
    )
