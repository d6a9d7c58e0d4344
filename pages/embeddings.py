"""Embeddings: what the last hidden layer groups together, against labels and a classifier's answers, in two models."""

from __future__ import annotations

import streamlit as st

from headwise.pages._embeddings.choices import PROJECTIONS, EmbeddingsChoices, state
from headwise.pages._embeddings.controls import controls, given_texts
from headwise.pages._embeddings.explorer import explorer
from headwise.pages._embeddings.view import EmbeddingView, view_of
from headwise.pages._shared.defence import page
from headwise.pages._shared.frame import frame


@page
def embeddings() -> None:
    """The page."""
    state.restore()
    frame(Device=EmbeddingsChoices.device)
    small = "[data-testid=stMetricValue]{font-size:1.3rem}[data-testid=stMetricLabel] p{font-size:.78rem}"
    st.html(f"<style>{small}</style>")  # five figures fit in half a page
    st.caption(
        "Each text as one vector of the last hidden layer, grouped by k-means in all its dimensions and drawn in two. "
        "Do the groups follow the labels, before and after fine-tuning?"
    )
    names, options = controls()
    state.publish()
    given = given_texts()
    columns = st.columns(len(names), gap="medium")
    sides: list[EmbeddingView | None] = []
    for name, column in zip(names, columns, strict=True):
        with column:
            sides.append(view_of(name, given, options, next((s for s in sides if s), None)))
    if any(sides):
        explorer(given, sides, PROJECTIONS[options["projection"]])


if __name__ == "__main__":  # the first visitor of a server came here
    from headwise.pages import navigate

    navigate()
