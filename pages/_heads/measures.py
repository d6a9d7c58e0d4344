"""The table that measures every head, and the same as points."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from headwise.interp.analysis.in_words import DEFINITIONS
from headwise.interp.analysis.metrics import induction
from headwise.interp.drawing.survey import Survey
from headwise.pages._heads.choices import HeadsChoices, state
from headwise.pages._shared.bar import Run
from headwise.pages._shared.frame import waiting
from headwise.pages._shared.shelf import server

CHEAP_PARAMETERS = 20_000_000  # below it, induction scores are simply there
METRIC_LABELS = {  # in the order of the table's columns
    "period": "period",
    "next_period": "next period",
    "next_in_voice": "next in voice",
    "follows": "follows",
    "previous": "previous",
    "next": "next",
    "first": "first",
    "self": "self",
    "special": "special",
    "same": "same",
    "induction": "induction",
    "duplicate": "duplicate",
    "entropy": "entropy",
    "entropy_normalised": "entropy 0–1",
    "distance": "distance",
    "information": "information",
    "forbidden": "forbidden",
}


def measured(run: Run, surveyed: Survey) -> pd.DataFrame:
    """The table of the chosen stack, with induction scores where they are cheap or wanted."""
    scores, stack = _induction(run), state.stack

    def made() -> pd.DataFrame:
        table = surveyed.table
        if scores is not None:
            table = table.merge(scores, on=["stack", "layer", "head"], how="left")
        own = table[table["stack"] == stack].drop(columns="stack")
        return own.dropna(axis=1, how="all").reset_index(drop=True)  # what means nothing in this stack

    return server().made("measured", (run.key, stack, surveyed.looked, scores is not None), made)


def _induction(run: Run) -> pd.DataFrame | None:
    """Scores of a subject that reads text and writes it, None where they are neither cheap nor wanted."""
    subject, key = run.subject, run.key[:3]
    told = subject.family == "decoder" and subject.reads == "text" and subject.vocab_size
    if not told or not (state.induction or subject.parameters <= CHEAP_PARAMETERS):
        return None
    with waiting(st.empty(), "Repeated random tokens …", there=server().has("induction", key)):
        return server().made("induction", key, lambda: induction(subject))


def figures(table: pd.DataFrame) -> None:
    columns = {name: st.column_config.NumberColumn(width=44) for name in ("layer", "head")}
    for name in table.columns[2:]:
        top = float(np.nanmax([1.0, table[name].max()]))
        columns[name] = st.column_config.ProgressColumn(
            METRIC_LABELS[name], help=DEFINITIONS[name], format="%.2f", min_value=0.0, max_value=top, width=82
        )
    st.dataframe(
        table,
        column_config=columns,
        hide_index=True,
        height=320,
        key="table",
        on_select="rerun",
        selection_mode="single-row",
        column_order=["layer", "head", *by_importance(table)],
    )


def chart(table: pd.DataFrame) -> None:
    """Two metrics against each other: heads that do something particular stand apart."""
    import plotly.express as px  # half a second, for those who ask for it

    names = by_importance(table)
    HeadsChoices.across.one_of(names)
    HeadsChoices.up.one_of(["induction" if "induction" in names else "entropy", *names])
    with st.container(horizontal=True):
        options = {"format_func": METRIC_LABELS.get, "label_visibility": "collapsed"}
        x = st.selectbox("Across", names, **options, **HeadsChoices.across.widget)
        y = st.selectbox("Up", names, **options, **HeadsChoices.up.widget)
    named = table.assign(name=[f"{layer}.{head}" for layer, head in zip(table.layer, table["head"], strict=True)])
    figure = px.scatter(
        named,
        x=x,
        y=y,
        color="layer",
        hover_name="name",
        color_continuous_scale="Viridis",
        labels=METRIC_LABELS,
        height=320,
        hover_data={"layer": False},
    )
    figure.update_layout(margin={"l": 0, "r": 0, "t": 8, "b": 0})
    st.plotly_chart(figure, key="scatter", on_select="rerun", selection_mode="points")


def by_importance(table: pd.DataFrame) -> list[str]:
    return sorted(table.columns[2:], key=list(METRIC_LABELS).index)
