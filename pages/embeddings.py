"""Embeddings: what the last hidden layer groups together, against labels and a classifier's answers, in two models."""

from __future__ import annotations

import html

import numpy as np
import streamlit as st

from headwise.assets import ASSETS
from headwise.interp.analysis.embeddings import Texts, contingency, parse_texts, read_texts
from headwise.interp.errors import InputError
from headwise.pages._embeddings import scatter as _scatter
from headwise.pages._embeddings.side import FIGURES, Side, csv_of, side_of
from headwise.pages._shared.sidebar import models_here, page_frame

EXAMPLE = ASSETS / "examples" / "reviews.tsv"
NO_MODEL = "(no second model)"
PROJECTIONS = {"pca": "PCA", "tsne": "t-SNE"}
COLOURS = {"cluster": "Cluster", "label": "Label", "said": "Classifier's answer"}


def embeddings() -> None:
    """The page."""
    page_frame()
    small = "[data-testid=stMetricValue]{font-size:1.3rem}[data-testid=stMetricLabel] p{font-size:.78rem}"
    st.html(f"<style>{small}</style>")  # five figures fit in half a page
    st.caption(
        "Each text as one vector of the last hidden layer, grouped by k-means in all its dimensions and drawn in two. "
        "Do the groups follow the labels, before and after fine-tuning?"
    )
    names, options = _controls()
    given = _texts()
    columns = st.columns(len(names), gap="medium")
    sides: list[Side | None] = []
    for name, column in zip(names, columns, strict=True):
        with column:
            sides.append(side_of(name, given, options, next((s for s in sides if s), None)))
    if any(sides):
        _explorer(given, sides, PROJECTIONS[options["projection"]])


def _controls() -> tuple[list[str], dict]:
    kept = {"persist_state": "session", "bind": "query-params"}
    names = models_here()
    state = st.session_state
    first, second = ("tiny-encoder", "tiny-classifier")
    with st.sidebar:
        before = st.selectbox("Before", names, names.index(first), key="before", accept_new_options=True, **kept)
        others = [NO_MODEL, *names]
        after = st.selectbox("After", others, others.index(second), key="after", accept_new_options=True, **kept)
        count = st.slider("Clusters", 2, 8, 2, key="clusters", **kept)
        pooling = st.segmented_control(
            "Pooling",
            ["mean", "cls"],
            default="mean",
            required=True,
            key="pooling",
            format_func={"mean": "Mean of tokens", "cls": "First token"}.get,
            help="The first token is [CLS] in models like BERT.",
            **kept,
        )
        projection = st.segmented_control(
            "Projection",
            list(PROJECTIONS),
            default="pca",
            required=True,
            key="projection",
            format_func=PROJECTIONS.get,
            help="PCA shows the two directions of largest variance; t-SNE keeps neighbours, and no other distance.",
            **kept,
        )
        seed = st.number_input("Seed", 0, 9_999, 0, key="embedding_seed", help="Where k-means starts.", **kept)
        cut = st.toggle("Cut texts that are too long", key="embedding_cut", **kept)
    options = {"k": count, "pooling": pooling, "projection": projection, "seed": seed, "cut": cut}
    return [before, *([after] if after != NO_MODEL else [])], options | {"device": state.get("device", "cpu")}


def _texts() -> Texts:
    """The texts to look at. Ends the script with one sentence where there are none."""
    with st.expander("Texts and labels", icon=":material/notes:"):
        left, right = st.columns([3, 1], gap="medium")
        text = left.text_area(
            "One text a line, a label behind or before it with a tab between",
            EXAMPLE.read_text(encoding="utf-8"),
            height=220,
            key="embedding_texts",
            persist_state="session",
        )
        file = right.file_uploader(
            "Or a file", type=["txt", "tsv"], key="embedding_file", help="UTF-8, at most 2,000 lines of the same kind."
        )
    try:
        return read_texts(file.getvalue()) if file is not None else parse_texts(text)
    except InputError as error:
        st.error(str(error))
        st.stop()


@st.fragment
def _explorer(given: Texts, sides: list[Side | None], projection: str) -> None:
    """Pictures, figures and tables. A click runs only this."""
    shown = [side for side in sides if side]
    colours = [name for name in COLOURS if name != "said" or any(side.reading.said for side in shown)]
    if st.session_state.get("colour") not in colours:
        st.session_state.colour = "cluster"
    with st.container(horizontal=True, vertical_alignment="center"):
        by = st.segmented_control(
            "Colour by",
            colours,
            required=True,
            key="colour",
            format_func=COLOURS.get,
            persist_state="session",
            label_visibility="collapsed",
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
        st.html(_scatter.legend("answer" if by == "said" else by, colours, shapes))
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
    """The text whose point was clicked last, in any picture. A selection stays; only a new one is an act."""
    state = st.session_state
    for number in range(count):
        key = f"embedding_chart_{number}"
        picked = [point["point_index"] for point in (state.get(key) or {}).get("selection", {}).get("points", [])]
        if picked != state.get(f"{key}_seen", []):
            state[f"{key}_seen"] = picked
            state.embedding_chosen = (picked[0], given.texts[picked[0]]) if picked else None
    index, text = state.get("embedding_chosen") or (None, "")
    return index if index is not None and given.texts[index : index + 1] == (text,) else None


def _named(given: Texts, side: Side, by: str) -> tuple[str, ...]:
    """What the colour of each text stands for, "" for nothing."""
    if by == "cluster":
        return tuple(str(number + 1) for number in side.found)
    return given.labels if by == "label" else side.reading.said or ("",) * len(given.texts)


def _meaning(given: Texts, shown: list[Side], by: str) -> tuple[dict[str, str], dict[str, str]]:
    """Colours and shapes by name, the same in both pictures; a label and the answer of that name share a colour."""
    labels = _scatter.ranked(given.labels)
    said = _scatter.ranked(answer for side in shown for answer in side.reading.said)
    if by == "cluster":
        names = [str(number + 1) for number in range(max(side.found.max() for side in shown) + 1)]
    else:
        names = [*labels, *(answer for answer in said if answer not in labels)]
        present = set(labels if by == "label" else said)
        return {k: v for k, v in _scatter.colours(names).items() if k in present}, _scatter.shapes(labels)
    return _scatter.colours(names), _scatter.shapes(labels)


def _facts(given: Texts, side: Side, index: int) -> list[str]:
    """Lines about one text in one model."""
    label, said = given.labels[index], side.reading.said
    facts = [f"cluster {side.found[index] + 1}", *([f"label: {label}"] if label else [])]
    return [" · ".join([*facts, *([f"answer: {said[index]}"] if said else [])])]


def _title(side: Side) -> str:
    subject, reading = side.subject, side.reading
    kind = f"{subject.family}, a classifier" if reading.said else subject.family
    width = reading.vectors.shape[1]
    return f"<div style='font-size:.9rem'><b>{html.escape(subject.name)}</b> · {kind} · {width} wide</div>"


def _story(given: Texts, sides: list[Side | None], chosen: int | None) -> str:
    """The chosen text, as HTML; all of it escaped."""
    style = "font-size:.88rem;line-height:1.5;min-height:3rem"
    if chosen is None:
        return f"<div style='{style};opacity:.7'>Click a point to read its text and to find it in both pictures.</div>"
    facts = " — ".join(html.escape(f"{side.subject.name}: {_facts(given, side, chosen)[0]}") for side in sides if side)
    text = html.escape(given.texts[chosen])
    return f"<div style='{style}' data-testid='embedding-text'>{text}<br><span style='opacity:.7'>{facts}</span></div>"


def _figures(side: Side, shown: list[Side]) -> None:
    names = [name for name in FIGURES if any(name in other.figures for other in shown)]
    with st.container(horizontal=True, gap="small"):
        for name in names:
            value = side.figures.get(name, np.nan)
            shown_as = "–" if np.isnan(value) else f"{round(value, 2) + 0.0:.2f}".replace("-", "−")  # no −0.00
            st.metric(name, shown_as, help=FIGURES[name], width="content")


def _tables(given: Texts, side: Side) -> None:
    """How many texts of each cluster have each label."""
    if given.labelled:
        table = contingency(side.found, given.labels)
        table.index = [f"cluster {number + 1}" for number in table.index]
        st.dataframe(table, height="content")


if __name__ == "__main__":  # the first visitor of a server came here
    from headwise.pages import navigate

    navigate()
