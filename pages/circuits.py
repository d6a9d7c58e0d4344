"""Circuits: which parts hand what to whom such that the model says this, and what its heads are wired to do."""

from __future__ import annotations

import html

import streamlit as st

from headwise.pages._circuits.choices import state
from headwise.pages._circuits.explorer import explorer
from headwise.pages._shared.bar import bar
from headwise.pages._shared.defence import page
from headwise.pages._shared.headline import line, shape, sizes


@page
def circuits() -> None:
    """The page."""
    run = bar(state)
    cap = run.capture
    st.html(line([f"<b>{html.escape(run.subject.name)}</b>", *([shape(cap)] if cap.calls else []), sizes(cap)]))
    explorer(run)


if __name__ == "__main__":  # the first visitor of a server came here
    from headwise.pages import navigate

    navigate()
