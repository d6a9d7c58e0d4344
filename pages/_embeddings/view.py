"""One model's view of some texts: read, clustered, projected and measured once for all sessions."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st

from headwise.interp.analysis.embeddings import Reading, Texts, accuracy, clusters, contrast, matched, project, read
from headwise.interp.errors import InputError, LoadError
from headwise.interp.subject import Subject
from headwise.pages._shared.shelf import server

FIGURES = {
    "Silhouette": "How well the clusters keep apart: 1 is far apart, 0 is overlapping, below 0 is mixed up.",
    "… of labels": "The same for the groups that the given labels make: does this layer keep the labels apart?",
    "Rand, labels": "Adjusted Rand index of clusters and labels: 1 is the same grouping, 0 is agreement by chance.",
    "Rand, answers": "Adjusted Rand index of clusters and the classifier's answers: do clusters follow its decisions?",
    "Accuracy": "The fraction of labelled texts whose label the classifier says.",
}


@dataclass(frozen=True)
class EmbeddingView:
    """One model's view of the texts: ``found`` (N,) clusters, ``place`` (N, 2), ``figures`` by the names above."""

    subject: Subject
    reading: Reading
    found: np.ndarray
    place: np.ndarray
    figures: dict[str, float]


def view_of(name: str, given: Texts, options: dict, beside: EmbeddingView | None) -> EmbeddingView | None:
    """Everything about one model, or None and one sentence. Clusters are numbered like those ``beside``."""
    made = server().made
    key = (name, options["device"], given.texts, options["pooling"], options["cut"])
    bar = st.empty()
    try:
        with st.spinner("Loading the model …", show_time=True):
            subject = server().subject(name, options["device"], "float32")
        started = time.monotonic()

        def progress(fraction: float) -> None:
            if time.monotonic() - started > 0.5:
                bar.progress(fraction, text=f"Reading {len(given.texts):,} texts … {fraction:.0%}")

        def make() -> Reading:
            return read(subject, given.texts, options["pooling"], progress, options["cut"])

        reading = made("reading", key, make)
        vectors, k, seed, method = reading.vectors, options["k"], options["seed"], options["projection"]
        with st.spinner("Clusters and projection …", show_time=True):
            found = made("clusters", (*key, k, seed), lambda: clusters(vectors, k, seed))
            place = made("projection", (*key, method, seed), lambda: project(vectors, method, seed))
    except (InputError, LoadError) as error:
        st.error(str(error))
        return None
    finally:
        bar.empty()
    figures = made("contrast", (*key, k, seed, given.labels), lambda: _figures(subject, reading, found, given))
    if beside is not None:
        found = matched(found, beside.found)
    return EmbeddingView(subject, reading, found, place, figures)


def _figures(subject: Subject, reading: Reading, found: np.ndarray, given: Texts) -> dict[str, float]:
    held = contrast(reading.vectors, found, given.labels)
    figures = dict(zip(FIGURES, (held.silhouette, held.label_silhouette, held.adjusted_rand), strict=False))
    if reading.answers:
        figures["Rand, answers"] = contrast(reading.vectors, found, reading.answers).adjusted_rand
        figures["Accuracy"] = accuracy(subject, reading.answers, given.labels)
    return figures


def csv_of(given: Texts, sides: list[EmbeddingView | None]) -> bytes:
    """Texts, labels, and what each model makes of them, a text a row."""
    table = pd.DataFrame({"text": given.texts, "label": given.labels})
    for which, side in zip(("before", "after"), sides, strict=False):
        if side:
            table[f"{which}_model"] = side.subject.name
            table[f"{which}_cluster"] = side.found + 1
            table[f"{which}_x"], table[f"{which}_y"] = side.place.T
            if side.reading.answers:
                table[f"{which}_answer"] = side.reading.answers
    return table.to_csv(index=False).encode()
