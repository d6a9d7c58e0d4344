"""Which models, which texts, and how they are grouped and drawn."""

from __future__ import annotations

import streamlit as st

from headwise.interp.analysis.embeddings import Texts, parse_texts, read_texts
from headwise.interp.errors import InputError
from headwise.pages._embeddings.choices import NO_MODEL, POOLINGS, PROJECTIONS, EmbeddingsChoices, state
from headwise.pages._shared.bar import model_name, models_here
from headwise.pages._shared.choices import Choice


def controls() -> tuple[list[str], dict]:
    """The bar → the models to look at, and how."""
    with st.container(key="bar", horizontal=True, vertical_alignment="bottom", gap="small"):
        before = _model("Before", EmbeddingsChoices.before, models_here())
        after = _model("After", EmbeddingsChoices.after, [NO_MODEL, *models_here()])
        count = st.slider("Clusters", width=110, **EmbeddingsChoices.clusters.bounded(2, 8))
        pooling = st.segmented_control(
            "Pooling",
            list(POOLINGS),
            required=True,
            format_func=POOLINGS.get,
            help="How a text's tokens become one vector; the first token is [CLS] in models like BERT.",
            width="content",
            **EmbeddingsChoices.pooling.widget,
        )
        projection = st.segmented_control(
            "Projection",
            list(PROJECTIONS),
            required=True,
            format_func=PROJECTIONS.get,
            help="PCA shows the two directions of largest variance; t-SNE keeps neighbours, and no other distance.",
            width="content",
            **EmbeddingsChoices.projection.widget,
        )
        seed = st.number_input(
            "Seed", help="Where k-means starts.", width=100, **EmbeddingsChoices.embedding_seed.bounded(0, 9_999)
        )
    cut = st.toggle("Cut texts that are too long", **EmbeddingsChoices.embedding_cut.widget)
    options = {"k": count, "pooling": pooling, "projection": projection, "seed": seed, "cut": cut}
    return [before, *([after] if after != NO_MODEL else [])], options | {"device": state.device}


def _model(label: str, choice: Choice, names: list[str]) -> str:
    chosen = getattr(state, choice.key)
    names = names if chosen in names else [*names, chosen]
    return st.selectbox(label, names, format_func=model_name, accept_new_options=True, width="stretch", **choice.widget)


def given_texts() -> Texts:
    """The texts to look at. Ends the script with one sentence where there are none."""
    with st.expander("Texts and labels", icon=":material/notes:"):
        left, right = st.columns([3, 1], gap="medium")
        text = left.text_area(
            "One text a line, a label behind or before it with a tab between",
            height=220,
            **EmbeddingsChoices.embedding_texts.widget,
        )
        file = right.file_uploader(
            "Or a file", type=["txt", "tsv"], key="embedding_file", help="UTF-8, at most 2,000 lines of the same kind."
        )
    try:
        return read_texts(file.getvalue()) if file is not None else parse_texts(text)
    except InputError as error:
        st.error(str(error))
        st.stop()
