"""Variants: a head's queries and keys through cheaper attention. What does it see, and what does it miss?"""

from __future__ import annotations

import html

import streamlit as st

from headwise.pages._shared.bar import FIRST, bar
from headwise.pages._shared.buttons import choice
from headwise.pages._shared.defence import page
from headwise.pages._shared.frame import frame
from headwise.pages._shared.headline import line, shape, sizes
from headwise.pages._shared.markdown import plain
from headwise.pages._variants.choices import PARTS, VariantsChoices, state
from headwise.pages._variants.explorer import explorer
from headwise.pages._variants.order import order
from headwise.pages._variants.trained import trained


@page
def variants() -> None:
    """The page."""
    state.restore(text=FIRST)
    if state.part == "trained":  # looks at no model of one's own
        frame()
        _parts()
        trained()
        state.publish(text=state.text)
        return
    run = bar(state, above=_parts)
    cap = run.capture
    if state.part == "order":
        order(run)
        return
    if not any(call.kind == "self" for call in cap.calls):
        st.error(f"{plain(cap.subject.name)} gave no self-attention, so there is nothing to put through a variant.")
        st.stop()
    st.html(line([f"<b>{html.escape(cap.subject.name)}</b>", shape(cap), sizes(cap)]))
    explorer(run)


def _parts() -> None:
    choice("Part", VariantsChoices.part, PARTS.get)


if __name__ == "__main__":  # the first visitor of a server came here
    from headwise.pages import navigate

    navigate()
