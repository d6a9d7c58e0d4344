"""The way from a page to a head on the Heads page."""

from __future__ import annotations

from typing import Any, NoReturn
from urllib.parse import urlencode

import streamlit as st

from headwise import Capture
from headwise.interp.analysis.firstlook import first_stack
from headwise.pages._shared.choices import HeadChoices, InputChoices
from headwise.pages._shared.input import default_text
from headwise.pages._shared.ways import page

state = HeadChoices()


def heads_address(family: str) -> str:
    """The address of the Heads page on this input, up to where a head is named."""
    wanted, _ = InputChoices().address(text=default_text(family))
    return f"./?{urlencode(wanted)}{'&' if wanted else ''}"


def named(cap: Capture, head: tuple[str, int, int]) -> dict[str, Any]:
    """The rest of that address, for a head by stack, layer and number: the first stack goes without saying."""
    stack, layer, number = head
    return {**({} if stack == first_stack(cap) else {"stack": stack}), "layer": layer, "head": number}


def to_head(cap: Capture, go: dict[str, Any]) -> NoReturn:
    """Leave for a head ``named`` so, with all that was chosen and uploaded. The browser has its address already."""
    state.stack, state.layer, state.head = go.get("stack", first_stack(cap)), int(go["layer"]), int(go["head"])
    state.other_positions()
    wanted, _ = InputChoices().address(text=default_text(cap.subject.family))
    st.switch_page(page("heads"), query_params={**wanted, **{name: str(value) for name, value in go.items()}})
