"""A first visit: three things worth seeing, and a short tour of the page that can be left at any time."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from headwise.pages._heads.choices import state
from headwise.pages._shared.bar import FIRST
from headwise.pages._shared.choices import asks
from headwise.pages._shared.defence import fragment
from headwise.pages._shared.ways import page


@dataclass(frozen=True)
class Try:
    """Something to see: what it is called, why it is worth a look, and its address on a page."""

    name: str
    why: str
    page: str
    address: dict[str, str]


TRIES = (
    Try(
        "An induction head",
        "The second “Congress” looks at what came after the first one.",
        "heads",
        {"layer": "1", "head": "6", "role": "induction", "pin": "query-28"},
    ),
    Try(
        "A leak",
        "A decoder that sees the future, caught: every orange cell is one that it may not see.",
        "masks",
        {"section": "zoo"},
    ),
    Try(
        "A cross-attention that spells",
        "Each sound looks at the letters that it is written with.",
        "heads",
        {"model": "tiny-encoder-decoder", "stack": "cross", "layer": "2", "head": "1"},
    ),
)
TOUR = (  # what is outlined, and what is said of it
    ("bar", "A <b>model</b> and what it reads. Type your own text, take an example, or let the model write on."),
    ("part-grid", "<b>All heads at once</b>, a thumbnail each. The chips say in words what heads do, and leave those."),
    ("part-one", "<b>One head.</b> Each row is a token that looks, each column one looked at; hatched it may not see."),
    ("part-does", "<b>What it does</b>, and the figures that say so. Point at one to read what it means."),
    ("part-whatif", "<b>What if</b> it were not there? Remove it, and see what the model would have answered."),
    (
        "part-measures",
        "<b>Which heads matter here</b>: what the answer loses when each is removed. A click leads there.",
    ),
)
OUTLINE = "<style>.st-key-{}{{outline:3px solid #e0a030;outline-offset:4px;border-radius:6px}}</style>"


@fragment
def welcome() -> None:
    """Draw it, until it is sent away; not for those who came by a link to something."""
    if state.greeted is None:
        state.greeted = asks()
    if state.tour >= 0:
        _tour()
    elif not state.greeted:
        _tries()


def _tries() -> None:
    with st.container(key="welcome", horizontal=True, vertical_alignment="center", gap="xsmall"):
        st.markdown("**New here?** Try", width="content")
        for number, each in enumerate(TRIES):
            if st.button(each.name, key=f"try-{number}", help=each.why):
                _go(each)
        st.button("Take the tour", key="tour-start", type="tertiary", on_click=_step, args=(0,))
        st.button(
            "", key="welcome-close", icon=":material/close:", type="tertiary", help="Send this away.", on_click=_greet
        )


def _tour() -> None:
    place, said = TOUR[state.tour]
    last = state.tour == len(TOUR) - 1
    with st.container(key="tour"):
        st.html(f"{OUTLINE.format(place)}<div>{said} <small>{state.tour + 1} of {len(TOUR)}</small></div>")
        with st.container(horizontal=True, gap="xsmall"):
            name, then = ("Done", -1) if last else ("Next", state.tour + 1)
            st.button(name, key="tour-next", type="primary", on_click=_step, args=(then,))
            if not last:
                st.button("Skip", key="tour-skip", on_click=_step, args=(-1,))


def _go(chosen: Try) -> None:
    state.greeted = True
    if chosen.page == "heads":
        state.another_model()
        state.open(chosen.address, text=FIRST)
        st.rerun()
    st.switch_page(page(chosen.page), query_params=chosen.address)


def _step(number: int) -> None:
    state.tour = number
    if number < 0:
        state.greeted = True


def _greet() -> None:
    state.greeted = True
