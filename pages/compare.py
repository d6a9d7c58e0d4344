"""Compare: two prompts, two models, before and after an edit: which heads look elsewhere, and what comes of it?"""

from __future__ import annotations

import html

import streamlit as st

from headwise.pages._compare.choices import state
from headwise.pages._compare.explorer import explorer
from headwise.pages._shared.bar import bar
from headwise.pages._shared.defence import page
from headwise.pages._shared.headline import line, shape, sizes
from headwise.pages._shared.markdown import plain


@page
def compare() -> None:
    """The page."""
    run = bar(state)
    cap = run.capture
    if not cap.calls:
        st.error(f"{plain(cap.subject.name)} gave no attention to look at, so there is nothing to compare.")
        st.stop()
    st.html(line([f"<b>{html.escape(cap.subject.name)}</b>", shape(cap), sizes(cap)]))
    explorer(run)


if __name__ == "__main__":  # the first visitor of a server came here
    from headwise.pages import navigate

    navigate()
