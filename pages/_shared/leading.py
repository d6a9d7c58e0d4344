"""The way from a page to a head on the Heads page."""

from __future__ import annotations

from typing import NoReturn
from urllib.parse import urlencode

import streamlit as st

from headwise.pages._shared.choices import HeadChoices, InputChoices
from headwise.pages._shared.input import default_text
from headwise.pages._shared.ways import page

state = HeadChoices()


def heads_address(family: str) -> str:
    """The address of the Heads page on this input, up to where a head is named: for a link that opens elsewhere."""
    wanted, _ = InputChoices().address(text=default_text(family))
    return f"./?{urlencode(wanted)}{'&' if wanted else ''}"


def to_head(stack: str, layer: int, head: int) -> NoReturn:
    """Leave for a head, with all that was chosen and uploaded."""
    state.stack, state.layer, state.head = stack, layer, head
    state.other_positions()
    st.switch_page(page("heads"))
