"""The way from a page to a head on the Heads page."""

from __future__ import annotations

from typing import Any, NoReturn
from urllib.parse import urlencode

import streamlit as st

from headwise import Capture
from headwise.interp.analysis.firstlook import first_stack
from headwise.interp.subject import Subject
from headwise.pages._shared.choices import POSITIONS, HeadChoices
from headwise.pages._shared.input import default_text, kind_of
from headwise.pages._shared.ways import page

state = HeadChoices()
NUMBER = "#"  # so begins an answer that is given by its number
NAMED = ("stack", "layer", "head", "rather")  # what a way says of where it leads


def heads_address(subject: Subject) -> str:
    """The address of the Heads page on this input, up to where a head is named."""
    wanted = _kept(subject)
    return f"./?{urlencode(wanted)}{'&' if wanted else ''}"


def named(cap: Capture, head: tuple[str, int, int], rather: str = "") -> dict[str, Any]:
    """The rest of that address, for a head by stack, layer and number, and the alternative that an answer is held
    against; the first stack goes without saying."""
    stack, layer, number = head
    first = {} if stack == first_stack(cap) else {"stack": stack}
    return {**first, "layer": layer, "head": number, **({"rather": rather} if rather else {})}


def to_head(cap: Capture, go: dict[str, Any]) -> NoReturn:
    """Leave for a head ``named`` so, with all that was chosen and uploaded. The browser has its address already."""
    state.stack, state.layer, state.head = go.get("stack", first_stack(cap)), int(go["layer"]), int(go["head"])
    state.rather = go.get("rather", "")
    state.answer = "" if state.answer.startswith(NUMBER) else state.answer
    state.other_positions()
    named = {name: str(value) for name, value in go.items()}
    st.switch_page(page("heads"), query_params={**_kept(cap.subject), **named})


def _kept(subject: Subject) -> dict[str, str]:
    """What that page will write into its address beside the head: all that stays chosen there, if anybody has opened
    it."""
    there = next(iter(HeadChoices.__subclasses__()), HeadChoices)()
    view = next(iter(getattr(there, "views", ())), "")
    wanted, _ = there.address(text=default_text(kind_of(subject)), view=view)
    ended = {choice.key for choice in there.each() if choice.until == POSITIONS} | set(NAMED)
    if state.answer.startswith(NUMBER):  # that page would take it for a word
        ended.add(HeadChoices.answer.key)
    return {key: text for key, text in wanted.items() if key not in ended}
