"""Heads: the grid of all heads, one of them large, and the table that measures them."""

from __future__ import annotations

import html

import streamlit as st

from headwise.pages._heads.choices import state
from headwise.pages._heads.explorer import explorer, surveyed
from headwise.pages._heads.headline import header_line, proven_line
from headwise.pages._heads.listen import listen
from headwise.pages._heads.output import output
from headwise.pages._heads.welcome import welcome
from headwise.pages._shared.bar import bar, written_target
from headwise.pages._shared.defence import page
from headwise.pages._shared.frame import SHELL
from headwise.pages._shared.shelf import server


@page
def heads() -> None:
    """The page."""
    run = bar(state)
    cap = run.capture
    if not cap.calls:
        st.error(
            f"{cap.subject.name} gave no attention to look at: "
            f"{'; '.join(map(str, cap.unseen[:3])) or 'it has no attention module'}."
        )
        st.stop()
    st.html(SHELL / "heads.css")
    welcome()
    measured = server().has("headline", run.key)
    with st.container(key="facts", horizontal=True, vertical_alignment="center"):
        with st.container(key="facts-line", width="content"):
            header = st.empty()
        header.html(proven_line(run) if measured else header_line(run, "measuring …"))
        output(run)
    for warning in cap.subject.warnings:
        st.warning(warning[:1].upper() + warning[1:] + ".", icon=":material/info:")
    told = [*cap.inputs.notes, *([f"target: {written}"] if (written := written_target(cap.inputs)) else [])]
    if told:
        st.html(f"<div class='headline' data-testid='notes'>{html.escape(' · '.join(told))}</div>")
    listen(run)
    explorer(run, surveyed(run))
    if not measured:
        header.html(proven_line(run))


if __name__ == "__main__":  # the first visitor of a server came here
    from headwise.pages import navigate

    navigate()
