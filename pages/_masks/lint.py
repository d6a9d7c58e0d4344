"""A mask tensor pasted or uploaded: what it says, for whom it is right, and what is wrong with it."""

from __future__ import annotations

import streamlit as st

from headwise import check_mask
from headwise.interp.check import CheckError, Edges
from headwise.interp.errors import InputError
from headwise.interp.masks.read import parse_mask, read_mask
from headwise.pages._masks.choices import PROMISES, TAKEN, MasksChoices
from headwise.pages._masks.edges import WIDEST, draw_edges
from headwise.pages._shared.markdown import plain


def lint() -> None:
    st.caption(
        "Paste a mask tensor as Python, numpy or torch write it, or upload one: what it says, for whom it is right, "
        "and what is wrong with it."
    )
    left, right = st.columns([5, 6], gap="large")
    with left:
        text = st.text_area(
            "Rows or nested lists of numbers, True/False or ■⬚", height=220, **MasksChoices.lint_text.widget
        )
        file = st.file_uploader("Or a file", type=["npy", "pt", "pth", "csv", "txt"], key="lint_file")
        taken = st.selectbox("It is given to", TAKEN, **MasksChoices.lint_convention.widget)
        promise = st.selectbox("It should be", PROMISES, **MasksChoices.lint_expect.widget)
    with right:
        try:
            mask = read_mask(file.name, file.getvalue()) if file is not None else parse_mask(text)
            report = check_mask(
                mask,
                convention=None if taken == TAKEN[0] else taken,
                expect=None if promise == PROMISES[0] else promise,
            )
        except (CheckError, InputError) as error:
            st.error(str(error))
            return
        st.markdown(f"**{plain(report.sentence)}**")
        st.code(repr(report.mask), language="python")
        for problem in report.problems:
            st.error(f"**{problem.cls}** – {plain(problem.sentence)} Fix: {plain(problem.fix)}.")
        if report.ok:
            st.success("Nothing wrong with it.")
        draw_edges(
            Edges(report.picture.observed[:WIDEST, :WIDEST], report.picture.expected[:WIDEST, :WIDEST], "mask"),
            "lint",
        )
