"""Averages: the mean over heads, over layers or over both, as a matrix and as thumbnails beside those of single heads.

A mean hides what single heads do – two heads that look in opposite ways average to one that looks both ways – so
whatever is drawn of one says that it is a mean, and of how many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from headwise.interp.analysis.metrics import as_shares
from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.sampling import STRATA, drawn
from headwise.interp.drawing.matrix import Look, Matrix, head_view, looked_at, recorded
from headwise.interp.drawing.survey import Survey, Thumbnails, grid_pictures, pictured
from headwise.interp.run.capture import Capture


def mean_view(
    cap: Capture, stack: str, layer: int | None = None, head: int | None = None, quantity: str = "weights", **look: Any
) -> Matrix:
    """Look at the mean of heads of a stack as at one: over its layers where no ``layer`` is given, over the heads of a
    layer where no ``head`` is. A cell is forbidden where it is to all of them, and the title says that it is a mean.

    Raises ValueError where layers do not have the same positions, and otherwise as ``head_view``.
    """
    calls = cap.stack(stack) if layer is None else (cap.find(layer, stack),)
    if len(shapes := {(call.batch, *call.shape[2:]) for call in calls}) > 1:
        found = " and ".join(f"{queries} × {keys}" for _, queries, keys in sorted(shapes))
        raise ValueError(f"The layers of the {stack} have {found} positions, which have no mean. Choose a layer.")
    members = [(call, one) for call in calls for one in (range(call.heads) if head is None else (head,))]
    if len(members) == 1:
        return head_view(cap, *members[0], quantity, **look)
    heads = f"mean of {len(members)} heads" if head is None else f"head {head} · mean of {len(calls)} layers"
    title = f"layer {layer} · {heads}" if layer is not None else heads
    return looked_at(cap, members, quantity, Look(**look), title)


def mean_pictures(cap: Capture, surveyed: Survey, stack: str) -> np.ndarray:
    """The thumbnails of a stack with its means beside them → (L + 1, H + 1, t, t) float32, laid as ``grid_pictures``
    lays them: the last column holds the mean over the heads of each layer, the last row the mean over the layers of
    each head, the corner the mean of all.

    A cell is the largest of the averaged weights, of the same queries as the survey looked at. NaN where a mean does
    not apply: over layers that differ in their heads or positions. Costs another look at the weights.
    """
    calls, single = cap.stack(stack), grid_pictures(cap, surveyed, stack)
    layers, heads, size = single.shape[:3]
    out = np.full((layers + 1, heads + 1, size, size), np.nan, np.float32)
    out[:layers, :heads] = single
    together = len({call.shape for call in calls}) == 1
    made = [_means(cap, calls, surveyed)] if together else [_means(cap, [call], surveyed) for call in calls]
    batch = min(surveyed.batch, calls[0].batch - 1)
    for number, call in enumerate(calls):
        over_heads = made[0][0][number] if together else made[number][0][0]
        out[number, heads] = pictured(cap, [call], over_heads, batch, size)[0]
    if together:
        out[layers, :heads] = pictured(cap, calls, made[0][1], batch, size)
        out[layers, heads] = pictured(cap, calls, made[0][2], batch, size)[0]
    return out


def _means(cap: Capture, calls: Sequence[AttentionCall], surveyed: Survey) -> tuple[list[Tensor], Tensor, Tensor]:
    """Thumbnails of calls alike in shape: the mean over the heads of each, (1, t, t), over all calls, (H, t, t), and
    over both, (1, t, t)."""
    part = recorded(cap, calls[0])
    ends = None if part is None else (part[1], part[3])
    over_heads = [Thumbnails(STRATA, ends) for _ in calls]
    over_layers, over_both = Thumbnails(STRATA, ends), Thumbnails(STRATA, ends)
    batch = min(surveyed.batch, calls[0].batch - 1)
    for start, draws, every in _read(calls, bool(surveyed.sampled) and part is None):
        total: Tensor | float = 0.0
        for weights, thumbnails in zip(every, over_heads, strict=True):
            thumbnails.add(weights[batch].mean(0, keepdim=True), start, draws)
            total = total + weights[batch]
        over_layers.add(total / len(calls), start, draws)
        over_both.add((total / len(calls)).mean(0, keepdim=True), start, draws)
    return [one.result() for one in over_heads], over_layers.result(), over_both.result()


def _read(calls: Sequence[AttentionCall], sampled: bool) -> Iterator[tuple[int, int | None, Iterator[Tensor]]]:
    """The first query of a band, how many rows each stratum gave (None: all), and the band's weights (B, H, R, K) of
    each call, one after the other."""
    sample = drawn(calls[0].queries) if sampled and len(drawn(calls[0].queries).rows) < calls[0].queries else None
    if sample is None:
        each = [((start, weights) for start, _, weights in call.bands()) for call in calls]
    else:
        each = [((int(rows[0]), own) for rows, own in call.drawn(sample.rows, sample.draws)) for call in calls]
    for band in zip(*each, strict=True):
        shares = (as_shares(w) if call.linear else w for call, (_, w) in zip(calls, band, strict=True))
        yield band[0][0], None if sample is None else sample.draws, shares
