"""The line that is always true: which model, and what of its stream is proven."""

from __future__ import annotations

import html

import streamlit as st

from headwise.interp.drawing.streams import error
from headwise.interp.run.anatomy import Anatomy
from headwise.pages._shared.bar import Run
from headwise.pages._shared.headline import line, shape, sizes

READOUTS = {
    "direct": ("readout direct: norm, then unembedding", ""),
    "nonlinear": ("readout not direct", ""),
    "none": ("no readout", ""),
}


def header_line(run: Run, found: Anatomy | None) -> str:
    """The line as HTML; all of it escaped. ``found`` is the anatomy, None while it is looked for."""
    cap = run.capture
    start = [f"<b>{html.escape(run.subject.name)}</b>", *([shape(cap)] if cap.calls else []), sizes(cap)]
    if found is None:
        return line([*start, "finding the stream …"])
    return line([*start, *(_marked(*words) for words in _proof(found))])


def refusals(found: Anatomy) -> None:
    """What of the anatomy could not be proven, and why."""
    for sentence in found.refused:
        st.html(
            f"<div class='headline' data-testid='refused'><span class='alarm'>!</span> {html.escape(sentence)}</div>"
        )


def _proof(found: Anatomy) -> list[tuple[str, str, str]]:
    """(words, class, hover)."""
    proof, parts = found.proof, []
    if found.streams:
        writes = len(found.streams[0].writes)
        told = "largest difference, relative to the largest value of the stream"
        parts.append((f"embedding + {writes} writes = stream to {error(proof.total)}", _alarm(proof.total), told))
    if proof.heads is not None:
        told = "the heads of each attention and its bias add up to what it writes: largest relative difference"
        parts.append((f"heads add up to {error(proof.heads)}", _alarm(proof.heads), told))
    if found.readout is not None:
        parts.append((*READOUTS[found.readout.kind], found.readout.why_not or ""))
    return parts


def _alarm(value: float | None) -> str:
    return "alarm" if value is not None and value > 1e-2 else ""


def _marked(words: str, style: str, hover: str) -> str:
    return f"<span class='{style}' title='{html.escape(hover)}'>{html.escape(words)}</span>"
