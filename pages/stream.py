"""Stream: why this answer rather than that one? When it appears in the residual stream, and who puts it there."""

from __future__ import annotations

import streamlit as st

from headwise.pages._shared.bar import bar
from headwise.pages._shared.defence import page
from headwise.pages._stream.choices import state
from headwise.pages._stream.explorer import explorer
from headwise.pages._stream.found import anatomy_of
from headwise.pages._stream.headline import header_line, refusals


@page
def stream() -> None:
    """The page."""
    run = bar(state)
    header = st.empty()
    header.html(header_line(run, None))
    found = anatomy_of(run)
    header.html(header_line(run, found))
    refusals(found)
    explorer(run, found)


if __name__ == "__main__":  # the first visitor of a server came here
    from headwise.pages import navigate

    navigate()
