"""Masks: what a model's masks let through, masks built by hand, a lint for mask tensors, and a zoo of real bugs."""

from __future__ import annotations

import streamlit as st

from headwise.pages._masks.choices import MasksChoices, state
from headwise.pages._masks.compose import compose
from headwise.pages._masks.lint import lint
from headwise.pages._masks.look import look
from headwise.pages._masks.zoo import zoo
from headwise.pages._shared.defence import page
from headwise.pages._shared.sidebar import share, sidebar


@page
def masks() -> None:
    """The page."""
    run = sidebar(state)
    st.segmented_control(
        "Section",
        MasksChoices.section.among,
        format_func=str.capitalize,
        required=True,
        label_visibility="collapsed",
        **MasksChoices.section.widget,
    )
    share(run, state)
    {"look": lambda: look(run), "compose": compose, "lint": lint, "zoo": zoo}[state.section]()


if __name__ == "__main__":  # the first visitor of a server came here
    from headwise.pages import navigate

    navigate()
