"""Work that takes more than a moment: it says how far it is and can be cancelled, and what is cancelled is not begun
again until somebody asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.scriptrunner_utils.script_requests import ScriptRequestType

from headwise.pages._shared.choices import AnswerChoices
from headwise.pages._shared.shelf import server

state = AnswerChoices()

PATIENCE = 0.8  # seconds before a bar is worth drawing

Made = TypeVar("Made")


@dataclass(frozen=True)
class Work:
    """A result of the shelf ``kind``, and what making it is called."""

    kind: str
    key: Hashable
    name: str

    @property
    def title(self) -> str:
        return f"{self.name[:1].upper()}{self.name[1:]}"

    @property
    def token(self) -> Hashable:
        return self.kind, self.key


def worked(work: Work, make: Callable[[Callable[[float], None]], Made]) -> Made | None:
    """The result, made now if it is not there; ``make`` is given whom to tell the fraction done. None where it was
    cancelled, and a button to go on."""
    if work.token in state.halted:
        st.button(f"Go on with {work.name}", icon=":material/play_arrow:", on_click=_resume, args=(work.token,))
        return None
    place = st.empty()
    try:
        return server().made(work.kind, work.key, lambda: make(_Telling(work, place)))
    finally:
        place.empty()


def give_way() -> None:
    """End this run where somebody has clicked meanwhile, and begin the one that was asked for.

    Streamlit lets what runs go on to its end when the click came from a fragment (its
    ``ScriptRequests.on_scriptrunner_yield``), so that Cancel would be heard when there is nothing left to cancel.
    """
    ctx = get_script_run_ctx()
    if ctx is None or ctx.script_requests is None or ctx.script_requests._state is not ScriptRequestType.RERUN:
        return
    st.rerun(scope="fragment" if ctx.fragment_ids_this_run else "app")


class _Telling:
    """Draws how far the work is, once it has lasted a moment. Each drawing is where a cancelled script ends."""

    def __init__(self, work: Work, place: Any):
        self.work, self.place = work, place
        self.began = time.monotonic()
        self.bar: Any = None

    def __call__(self, fraction: float) -> None:
        if self.bar is None:
            if time.monotonic() - self.began < PATIENCE:
                return
            with self.place.container(horizontal=True, vertical_alignment="center"):
                name = f"cancel-{self.work.kind}-{self.work.name}"
                st.button("Cancel", key=name, on_click=_halt, args=(self.work.token,))
                self.bar = st.progress(0.0)  # to its right, so that Cancel stays where it is
        give_way()
        self.bar.progress(min(max(fraction, 0.0), 1.0), text=f"{self.work.title} … {fraction:.0%}")


def _halt(token: Hashable) -> None:
    state.halted |= {token}


def _resume(token: Hashable) -> None:
    state.halted -= {token}
