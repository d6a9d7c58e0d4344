"""Pictures, figures and tables of texts in one or two models. A click runs only this."""

from __future__ import annotations

import html

import numpy as np
import streamlit as st

from headwise.interp.analysis.embeddings import Texts, contingency
from headwise.pages._embeddings import scatter as _scatter
from headwise.pages._embeddings.choices import COLOURS, EmbeddingsChoices, state
from headwise.pages._embeddings.view import FIGURES, EmbeddingView, csv_of
from headwise.pages._shared.defence import fragment


@fragment
def explorer(given: Texts, sides: list[EmbeddingView | None], projection: str) -> None:
    """Pictures, figures and tables. A click runs only this."""
    shown = [side for side in sides if side]
    colours = [name for name in COLOURS if name != "answer" or any(side.reading.answers for side in shown)]
    EmbeddingsChoices.colour.one_of(colours)
    with st.container(horizontal=True, vertical_alignment="center"):
        by = st.segmented_control(
            "Colour by",
            colours,
            required=True,
            format_func=COLOURS.get,
            label_visibility="collapsed",
            **EmbeddingsChoices.colour.widget,
        )
        st.download_button(
            "CSV",
            csv_of(given, sides),
            "embeddings.csv",
            "text/csv",
            key="download-embeddings",
            icon=":material/download:",
            on_click="ignore",
        )
        colours, shapes = _meaning(given, shown, by)
        st.html(_scatter.legend(by, colours, shapes))
    chosen = _chosen(given, len(sides))
    columns = st.columns(len(sides), gap="medium")
    for number, (column, side) in enumerate(zip(columns, sides, strict=True)):
        if side:
            with column:
                st.html(_title(side))
                picture = _scatter.figure(
                    side.place,
                    [_scatter.hover(text, _facts(given, side, index)) for index, text in enumerate(given.texts)],
                    [colours.get(name, _scatter.GREY) for name in _named(given, side, by)],
                    [shapes.get(label, _scatter.OPEN) for label in given.labels],
                    chosen,
                    (f"{projection} 1", f"{projection} 2"),
                )
                st.plotly_chart(picture, key=f"embedding_chart_{number}", on_select="rerun", selection_mode="points")
    st.html(_story(given, sides, chosen))
    columns = st.columns(len(sides), gap="medium")
    for column, side in zip(columns, sides, strict=True):
        if side:
            with column:
                _figures(side, shown)
                _tables(given, side)


def _chosen(given: Texts, count: int) -> int | None:
    """The text whose point was clicked last, in any picture."""
    for number in range(count):
        picked = state.news(f"embedding_chart_{number}")
        if picked is not None:
            state.embedding_chosen = (picked[0], given.texts[picked[0]]) if picked else None
    index, text = state.embedding_chosen or (None, "")
    return index if index is not None and given.texts[index : index + 1] == (text,) else None


def _named(given: Texts, side: EmbeddingView, by: str) -> tuple[str, ...]:
    """What the colour of each text stands for, "" for nothing."""
    if by == "cluster":
        return tuple(str(number + 1) for number in side.found)
    return given.labels if by == "label" else side.reading.answers or ("",) * len(given.texts)


def _meaning(given: Texts, shown: list[EmbeddingView], by: str) -> tuple[dict[str, str], dict[str, str]]:
    """Colours and shapes by name, the same in both pictures; a label and the answer of that name share a colour."""
    labels = _scatter.ranked(given.labels)
    answers = _scatter.ranked(answer for side in shown for answer in side.reading.answers)
    if by == "cluster":
        names = [str(number + 1) for number in range(max(side.found.max() for side in shown) + 1)]
    else:
        names = [*labels, *(answer for answer in answers if answer not in labels)]
        present = set(labels if by == "label" else answers)
        return {k: v for k, v in _scatter.colours(names).items() if k in present}, _scatter.shapes(labels)
    return _scatter.colours(names), _scatter.shapes(labels)


def _facts(given: Texts, side: EmbeddingView, index: int) -> list[str]:
    """Lines about one text in one model."""
    label, answers = given.labels[index], side.reading.answers
    facts = [f"cluster {side.found[index] + 1}", *([f"label: {label}"] if label else [])]
    return [" · ".join([*facts, *([f"answer: {answers[index]}"] if answers else [])])]


def _title(side: EmbeddingView) -> str:
    subject, reading = side.subject, side.reading
    kind = f"{subject.family}, a classifier" if reading.answers else subject.family
    width = reading.vectors.shape[1]
    return f"<div style='font-size:.9rem'><b>{html.escape(subject.name)}</b> · {kind} · {width} wide</div>"


def _story(given: Texts, sides: list[EmbeddingView | None], chosen: int | None) -> str:
    """The chosen text, as HTML; all of it escaped."""
    style = "font-size:.88rem;line-height:1.5;min-height:3rem"
    if chosen is None:
        return f"<div style='{style};opacity:.7'>Click a point to read its text and to find it in both pictures.</div>"
    facts = " — ".join(html.escape(f"{side.subject.name}: {_facts(given, side, chosen)[0]}") for side in sides if side)
    text = html.escape(given.texts[chosen])
    return f"<div style='{style}' data-testid='embedding-text'>{text}<br><span style='opacity:.7'>{facts}</span></div>"


def _figures(side: EmbeddingView, shown: list[EmbeddingView]) -> None:
    names = [name for name in FIGURES if any(name in other.figures for other in shown)]
    with st.container(horizontal=True, gap="small"):
        for name in names:
            value = side.figures.get(name, np.nan)
            shown_as = "–" if np.isnan(value) else f"{round(value, 2) + 0.0:.2f}".replace("-", "−")  # no −0.00
            st.metric(name, shown_as, help=FIGURES[name], width="content")


def _tables(given: Texts, side: EmbeddingView) -> None:
    """How many texts of each cluster have each label."""
    if given.labelled:
        table = contingency(side.found, given.labels)
        table.index = [f"cluster {number + 1}" for number in table.index]
        st.dataframe(table, height="content")
