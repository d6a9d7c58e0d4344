"""The door for code that knows its own attention: bands, buckets, features, never an n × n matrix.

Such code hands its queries, keys and values to ``attend`` together with a ``Mechanism``, which computes the output in
whatever way is cheap and says, as a ``Scores``, what weights that output implies. Whoever captures the run sees one
attention call; whoever does not, pays one test.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from headwise.interp.attention.scores import Scores, carried, single

SAMPLED = 8  # queries of a call whose weights are held against its output
ROUNDING = 1e-5  # of float32, relative to the largest output


class Mechanism(Protocol):
    """One way of computing attention. Letters as in ``scores``; what it needs beside q, k and v (positions, a mask,
    random features) it holds itself."""

    def output(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, H, Q, D), (B, Hk, K, D), (B, Hk, K, Dv) → (B, H, Q, Dv), as cheaply as it can."""

    def form(self, q: Tensor, k: Tensor) -> Scores:
        """The weights that ``output`` implies, a band of rows at a time."""


def attend(q: Tensor, k: Tensor, v: Tensor, by: Mechanism) -> Tensor:
    """Attention as ``by`` computes it → (B, H, Q, Dv): one operation to all who watch torch's operations."""
    if has_torch_function((q, k, v)):
        return handle_torch_function(attend, (q, k, v), q, k, v, by)
    return by.output(q, k, v)


def gap(form: Scores, v: Tensor, output: Tensor, rows: int = SAMPLED) -> float:
    """How far weights × values lie from the ``output`` (B, H, Q, Dv) of the same attention: the largest difference in
    some rows, from the first to the last, relative to the largest output in them."""
    queries = output.shape[2]
    worst, largest = 0.0, torch.finfo(torch.float32).tiny
    for row in sorted({round(i * (queries - 1) / max(1, rows - 1)) for i in range(rows)}):
        wanted = single(output[:, :, row : row + 1])
        made = weighted(form, v, row, row + 1)
        worst, largest = max(worst, float((made - wanted).abs().max())), max(largest, float(wanted.abs().max()))
    return worst / largest


def weighted(form: Scores, v: Tensor, start: int, stop: int) -> Tensor:
    """Weights × values of some queries → (B, H, R, Dv)."""
    return carried(form, form.weights(start, stop, slice(None)), single(v), start)


def tolerance(dtype: torch.dtype) -> float:
    """What rounding alone may leave of ``gap`` where a model runs in this precision."""
    return ROUNDING * max(1.0, torch.finfo(dtype).eps / torch.finfo(torch.float32).eps)
