"""What stands around every page: the logo, the tools at the right of the menu, large type for a room, and a place that
waits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import streamlit as st

from headwise.assets import ASSETS
from headwise.pages._shared import canvas
from headwise.pages._shared.choices import Choice, InputChoices
from headwise.pages._shared.terms import TERMS

SHELL = ASSETS / "shell"

_shell = st.components.v2.component("headwise_shell", js=(SHELL / "shell.js").read_text("utf-8"))

state = InputChoices()


def frame(**settings: Choice) -> None:
    """Draw it. ``settings``: what this page uses of them, by their names."""
    st.logo(ASSETS / "logo.svg", size="large")
    st.html(SHELL / "shell.css")
    with st.container(key="tools", horizontal=True, gap="xsmall", width="content"):
        canvas.modules()
        _shell(key="copy-link", data={"terms": TERMS}, width="content")
        name, key = ("Leave", "leave") if state.present else ("Present", "enlarge")  # shell.css looks for the key
        st.button(name, key=key, shortcut="p", on_click=_present, help="Large type, for a room.")
        if settings:
            _settings(settings)


@contextmanager
def waiting(place: Any, text: str, there: bool = False) -> Iterator[None]:
    """Say in the page what it waits for, unless that is ``there`` or takes a moment only; shell.css puts grey blocks
    below."""
    with place, nullcontext() if there else st.spinner(text, show_time=True):
        yield


def _settings(settings: Mapping[str, Choice]) -> None:
    told = "Where the model runs, and how exactly."
    place = st.popover("", icon=":material/settings:", help=told, key="settings", on_change="rerun")
    if place.open:  # a field costs time in every run
        with place:
            for name, of in settings.items():
                st.selectbox(name, of.among, **of.widget)


def _present() -> None:
    state.present = not state.present
