"""One of the three pictures: what a mechanism does with the head's queries and keys, and what can be turned on it."""

from __future__ import annotations

import html
from collections.abc import Mapping

import streamlit as st

from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.report import Mechanism
from headwise.interp.drawing.matrix import head_view
from headwise.interp.errors import InputError
from headwise.interp.masks import PerHead
from headwise.models.variants.beside import Beside, beside, looks_back, reached
from headwise.models.variants.offered import OFFERED, Head
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared.bar import Run
from headwise.pages._shared.shelf import server
from headwise.pages._shared.words import SMALL, heading, note
from headwise.pages._variants.choices import VariantsChoices, state
from headwise.pages._variants.downloads import files

HEIGHT = 260  # pixels of a picture
LONGEST = 1024  # tokens whose reach is counted
FACTS = {
    "computes": "What is computed, counted in pairs of query and key, as a share of those the head itself looks at.",
    "keeps": "The share of the head’s own weight that lies on keys this mechanism sees.",
    "is off by": "How far the head’s output moves: ‖o − o′‖ / ‖o‖ with o the output under full attention.",
    "reaches": "How many tokens the last one may depend on after that many layers of this mechanism.",
}
STYLE = """<style>
.variant-name { height: 2.5rem; display: flex; align-items: center }
.variant-idea { min-height: 3.4rem }
.variant-idea a, .variant-idea a:visited { color: inherit }
@media (max-width: 1180px) { .variant-idea { min-height: 4.6rem } }
[class*=st-key-variant-options] { display: grid !important; grid-template-columns: 1fr 1fr; gap: 0 1rem }
[class*=st-key-variant-options] > * { min-width: 0; width: 100% }
[class*=st-key-variant-options] label p { font-size: .78rem }
.variant-facts { display: grid; grid-template-columns: auto 1fr; gap: .1rem .7rem; font-size: .82rem; line-height: 1.4 }
.variant-facts span { opacity: .68 }
.variant-facts b { font-variant-numeric: tabular-nums }
</style>"""


def put_through(run: Run, call: AttentionCall, head: int, side: str) -> Beside:
    """The head under the mechanism of a side. Raises InputError where it cannot be put through one."""
    return through(run, call, head, getattr(state, side), turned())


def through(run: Run, call: AttentionCall, head: int, name: str, options: Mapping[str, int]) -> Beside:
    """The head under a mechanism, its figures once for all who look."""
    own = tuple((option.name, options[option.name]) for option in OFFERED[name].options)
    key = (run.key, call.name, head, name, own)
    return server().made("mechanisms", key, lambda: beside(call, head, made(call, name, options)))


def made(call: AttentionCall, name: str, options: Mapping[str, int]) -> Mechanism:
    """A mechanism for this call."""
    shape = Head(call.query_width or 1, call.heads, looks_back(call))
    if OFFERED[name].only == "decoder" and not shape.causal:
        raise InputError(f"{OFFERED[name].title} reads from left to right, and this head looks both ways.")
    return OFFERED[name].make(options, shape)


def turned() -> dict[str, int]:
    """The value of every option."""
    return {option.name: getattr(state, option.name) for each in OFFERED.values() for option in each.options}


def as_it_is(run: Run, call: AttentionCall, head: int) -> None:
    """The head under its own attention."""
    st.html(f"<div class='variant-name'>{heading('Full attention', 'as this model has it')}</div>")
    st.html(f"<div class='variant-idea' style='{SMALL}'>Every token weighs all that it may see.</div>")
    view = head_view(run.capture, call, head)
    _canvas.head(view, key="variant-picture-full", height=HEIGHT)
    _facts([("looks at", f"{_pairs(call)} pairs of query and key"), ("time grows with", "n · n")])
    files(run, view, "full attention", "variants-full")


def picked(run: Run, side: str, found: Beside) -> None:
    """The head under another mechanism, and its options."""
    offered = OFFERED[getattr(state, side)]
    st.selectbox(
        "Mechanism",
        list(OFFERED),
        format_func=lambda name: OFFERED[name].title,
        label_visibility="collapsed",
        **getattr(VariantsChoices, side).widget,
    )
    title, address = offered.paper
    link = f"<a href='{html.escape(address)}' target='_blank' rel='noopener'>{html.escape(title)}</a>"
    st.html(f"<div class='variant-idea' style='{SMALL}'>{html.escape(offered.idea)} {link}</div>")
    view = head_view(run.capture, found.call, found.head)
    _canvas.head(view, key=f"variant-picture-{side}", height=HEIGHT)
    _options(side)
    _facts(
        [
            ("computes", f"as much as {per_cent(work(found, getattr(state, side), turned()))} of the pairs"),
            ("keeps", f"{per_cent(found.held)} of the head’s weight"),
            ("is off by", f"{per_cent(found.error)} of its output"),
            ("reaches", _reach(found)),
            ("time grows with", offered.cost),
            ("its weights", offered.weights),
            *([("compared with", offered.compared)] if offered.compared else []),
        ]
    )
    st.code(repr(expression(found)), language="python", wrap_lines=True)
    files(run, view, offered.title, f"variants-{side}")


def _options(side: str) -> None:
    """The sliders of a side. What both mechanisms have is one choice, and stands on the left."""
    offered, left = OFFERED[getattr(state, side)].options, OFFERED[state.left].options
    own = [option for option in offered if side == "left" or option not in left]
    with st.container(key=f"variant-options-{side}"):
        for option in own:
            choice = getattr(VariantsChoices, option.name)
            st.slider(option.label, help=option.told, **choice.bounded(option.low, option.high))
    if shared := [option.label for option in offered if option not in own]:
        note(f"On the left, for both: {', '.join(shared)}.")


def per_cent(value: float) -> str:
    """A share in per cent, small ones with a digit that counts.

    >>> per_cent(0.634), per_cent(0.0042), per_cent(0.0), per_cent(0.9996)
    ('63 %', '0.42 %', '0 %', '99.96 %')
    """
    if value <= 0 or value >= 1 or 0.01 <= value <= 0.99:
        return f"{value:.0%}".replace("%", " %")
    return f"{value:.2%}".replace("%", " %") if value >= 1e-4 else "< 0.01 %"


def expression(found: Beside):
    """The mask of this very head."""
    return found.mask.masks[found.head] if isinstance(found.mask, PerHead) else found.mask


def work(found: Beside, name: str, options: Mapping[str, int]) -> float:
    """What a mechanism computes, counted in pairs of query and key, as a share of the head's own."""
    own = OFFERED[name].work
    return found.seen if own is None else own(options, found.call.queries) / found.own_pairs


def _pairs(call: AttentionCall) -> str:
    n = call.queries
    return f"{n * (n + 1) // 2 if looks_back(call) else n * n:,}"


def _reach(found: Beside) -> str:
    length = found.call.queries
    if length > LONGEST:
        return f"not counted beyond {LONGEST:,} tokens"
    count = int(reached(found.mask, length, state.layers, found.call.heads)[-1, -1])
    return f"{count} of {length} tokens in {state.layers} layer{'s' * (state.layers > 1)}"


def _facts(rows: list[tuple[str, str]]) -> None:
    told = "".join(
        f"<span title='{html.escape(FACTS.get(name, ''))}'>{html.escape(name)}</span><b>{html.escape(text)}</b>"
        for name, text in rows
    )
    st.html(f"{STYLE}<div class='variant-facts' data-testid='variant-facts'>{told}</div>")
