"""The line that is always true: which model, how large, how it was seen."""

from __future__ import annotations

import html

from headwise import Capture
from headwise.interp.drawing.streams import error
from headwise.interp.run.anatomy import Anatomy
from headwise.pages._shared.bar import Run, cost_line
from headwise.pages._shared.headline import line, shape, sizes
from headwise.pages._shared.shelf import server

LONGEST = 40  # letters of a mask


def header_line(run: Run, fidelity: str, proof: str = "") -> str:
    """The line that is always true, as HTML; all of it escaped."""
    cap, subject = run.capture, run.capture.subject
    unseen = "; ".join(map(str, cap.unseen))
    made = f"attention {subject.implementation}, {subject.precision}"
    parts = [
        f"<b>{html.escape(subject.name)}</b>",
        _told(f"{_count(subject.parameters)} parameters", made),
        shape(cap),
        _told(sizes(cap), cost_line(run.cost, subject)),
        fidelity,
        *([proof] if proof else []),
        f"<span class='alarm' title='{html.escape(unseen)}'>{len(cap.unseen)} modules unseen</span>"
        if cap.unseen
        else _told("nothing unseen", "every module of this model that computes attention was seen to do so"),
        *promises(cap),
    ]
    return line(parts)


def proven_line(run: Run) -> str:
    """The same with what takes some runs to find out, once for all sessions."""

    def made() -> str:
        return header_line(run, fidelity_words(run.capture.fidelity), proof_words(run.capture.anatomy))

    return server().made("headline", run.key, made)


def promises(cap: Capture) -> list[str]:
    """What the self-attention of this model may see, and who says so, where all of it is one promise."""
    claims = {(repr(call.claim.mask), call.claim.source) for call in cap.calls if call.kind == "self"}
    if len(claims) != 1:
        return []
    mask, source = claims.pop()
    if mask == "None" or len(mask) > LONGEST:
        return []
    return [_told(f"promises {html.escape(mask)}", f"what it may see, by {source}; the page Masks checks it")]


def proof_words(anatomy: Anatomy) -> str:
    """How far the model's parts add up, as HTML; where they could not be proven to, why."""
    if not anatomy.streams:
        return _told("its parts are not proven", " ".join(anatomy.refused))
    told = (
        "embedding + all writes = residual stream; last norm and unembedding of it = logits; heads + bias = what "
        "attention writes: the largest error of these sums, relative to the largest value"
    )
    return _told(f"parts add up to {error(anatomy.proof.worst)}", told)


def fidelity_words(fidelity: float | None) -> str:
    """What watching the run changed in it, as HTML."""
    told = "largest change of any logit between the run that was watched and the same run unwatched"
    if fidelity is None:
        return _told("watching not measured", told)
    return _told("watching changed no logit" if not fidelity else f"watching moved a logit by {fidelity:.1e}", told)


def _told(words: str, meaning: str) -> str:
    return f"<span title='{html.escape(meaning, quote=True)}'>{words}</span>"


def _count(n: int) -> str:
    return f"{n / 1e9:.1f} B" if n >= 1e9 else f"{n / 1e6:.1f} M" if n >= 1e6 else f"{n:,}"
