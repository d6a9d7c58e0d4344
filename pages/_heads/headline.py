"""The line that is always true: which model, how large, how it was seen."""

from __future__ import annotations

import html

from headwise.interp.drawing.streams import error
from headwise.interp.run.anatomy import Anatomy
from headwise.pages._shared.bar import Run
from headwise.pages._shared.headline import line, shape, sizes


def header_line(run: Run, fidelity: str, proof: str = "") -> str:
    """The line that is always true, as HTML; all of it escaped."""
    cap, subject = run.capture, run.capture.subject
    unseen = "; ".join(map(str, cap.unseen))
    parts = [
        f"<b>{html.escape(subject.name)}</b>",
        f"{_count(subject.parameters)} parameters",
        shape(cap),
        sizes(cap),
        f"attention {html.escape(subject.implementation)}",
        html.escape(subject.precision),
        "<span title='largest change of any logit between the captured run and the same run without "
        f"capture'>max |Δlogit| {fidelity}</span>",
        *([proof] if proof else []),
        f"<span class='alarm' title='{html.escape(unseen)}'>{len(cap.unseen)} modules unseen</span>"
        if cap.unseen
        else "nothing unseen",
    ]
    return line(parts)


def proof_words(anatomy: Anatomy) -> str:
    """How far the model's parts add up, as HTML; where they could not be proven to, why."""
    if not anatomy.streams:
        return f"<span title='{html.escape(' '.join(anatomy.refused))}'>its parts are not proven</span>"
    return (
        "<span title='embedding + all writes = residual stream; last norm and unembedding of it = logits; heads + bias "
        "= what attention writes: the largest error of these sums, relative to the largest value'>"
        f"parts add up to {error(anatomy.proof.worst)}</span>"
    )


def fidelity_words(fidelity: float | None) -> str:
    return "not measured" if fidelity is None else f"{fidelity:.1e}" if fidelity else "0"


def _count(n: int) -> str:
    return f"{n / 1e9:.1f} B" if n >= 1e9 else f"{n / 1e6:.1f} M" if n >= 1e6 else f"{n:,}"
