"""The last defence around every page: whatever goes wrong inside becomes one sentence, and the log has the rest.

Streamlit draws an exception as a box with its traceback and links to search engines. Here a page, and a fragment, which
reruns without its page, end with a sentence instead, and what was drawn before, such as the bar, stays.
"""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec

import streamlit as st
from streamlit.errors import FragmentHandledException

from headwise.interp.errors import InputError, LoadError
from headwise.pages._shared.markdown import plain

LOG = logging.getLogger(__name__)
LONGEST = 300  # characters of a message
Given = ParamSpec("Given")


def sentence(error: Exception, place: str) -> str:
    """What went wrong, where, and what to do."""
    frames = [frame.f_globals.get("__name__", "?") for frame, _ in traceback.walk_tb(error.__traceback__)]
    where = frames[-1] if frames else "?"
    own = next((name for name in reversed(frames) if name.startswith("headwise.")), where)
    through = where if own == where else f"{where}, called by {own}"
    message = " ".join(str(error).split())
    said = f" “{message[:LONGEST]}{'…' if len(message) > LONGEST else ''}”" if message else ""
    return (
        f"{place} could not be drawn: {type(error).__name__}{said} in {through}; "
        "try another model or another input (the server's log has the details)."
    )


@contextmanager
def defended(place: str) -> Iterator[None]:
    """Nothing but one sentence comes out of this block. Streamlit's own signals, to stop and to rerun, pass: they are
    no Exceptions."""
    try:
        yield
    except FragmentHandledException:
        raise
    except (InputError, LoadError) as error:
        st.error(plain(str(error)))
    except Exception as error:
        LOG.exception("%s could not be drawn", place)
        st.error(plain(sentence(error, place)), icon=":material/error:")


def page(draw: Callable[[], None]) -> Callable[[], None]:
    """A page, defended."""

    @functools.wraps(draw)
    def drawn() -> None:
        with defended(f"The page {draw.__name__.capitalize()}"):
            draw()

    return drawn


def fragment(draw: Callable[Given, None]) -> Callable[Given, None]:
    """``st.fragment``, defended. Put it in the place of that."""

    @functools.wraps(draw)
    def drawn(*args: Given.args, **kwargs: Given.kwargs) -> None:
        with defended("This part of the page"):
            draw(*args, **kwargs)

    return st.fragment(drawn)
