"""Who sees whom, as matrices: masks as they were given, are built or are broken, and how far a change travels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from headwise.interp.analysis.travel import Travel
from headwise.interp.attention.call import AttentionCall
from headwise.interp.drawing.matrix import Matrix, Span, one_of_many, side_names
from headwise.interp.drawing.quantities import Quantity
from headwise.interp.masks import Bidirectional, Mask
from headwise.interp.masks.reach import reach
from headwise.interp.run.capture import Capture

ALLOWED, REACHED, SEEN = (Quantity(yes, no=f"not {yes}") for yes in ("allowed", "reached", "seen"))
CHANGE = Quantity("largest |Δ| of the residual stream")


def edges(observed: Tensor, expected: Tensor, title: str = "", quantity: Quantity = SEEN) -> Matrix:
    """Bool (queries, keys): 1 where an edge was observed, hatched where none was expected, and in the alarm colour
    where both meet. Positions are numbered."""
    rows, columns = (
        Span(tuple(map(str, range(n))), name) for n, name in zip(observed.shape, ("queries", "keys"), strict=True)
    )
    return Matrix(observed.float(), rows, columns, quantity, (~expected).to(torch.uint8), title)


def mask_given(cap: Capture, call: AttentionCall, most: int = 512, *, promise: Mask | None = None) -> Matrix:
    """The mask a layer was given for its first sample against ``promise``, by default what is claimed of it, at most
    the first ``most`` positions a side. Where nobody says, nothing is forbidden."""
    queries, keys = min(call.queries, most), min(call.keys, most)
    observed = call.mask.rows(0, queries, call.keys)[:, :keys].cpu()
    allowed = (promise or call.claim.mask or Bidirectional()).rows(0, queries, call.keys)[:, :keys].cpu()
    names = side_names(cap, call)
    rows = Span(call.query_axis.labels[:queries], names[0])
    columns = Span(call.key_axis.labels[:keys], names[1])
    forbidden = (~allowed).to(torch.uint8)
    title = f"mask given to layer {call.layer}"
    return Matrix(observed.float(), rows, columns, ALLOWED, forbidden, title, left_out=one_of_many(cap, call))


def reached(mask: Mask, length: int, layers: int = 1) -> Matrix:
    """What a mask lets through, or what information reaches what over several layers; the rest is forbidden."""
    if layers == 1:
        allowed = mask.dense(length, length)
        return edges(allowed, allowed, "mask", ALLOWED)
    allowed = reach(mask, length, layers)
    return edges(allowed, allowed, f"reach after {layers} layers", REACHED)


def travelled(found: Travel, labels: Sequence[str], most: int = 512) -> Matrix:
    """How much each position's residual stream changes (layers, tokens) when a token does, at most the first ``most``
    positions; where the model promises that nothing arrives is forbidden."""
    columns = Span(tuple(labels[:most]), "tokens")
    forbidden = found.forbidden[:, :most].to(torch.uint8)
    rows = Span(found.depths, "layers")
    return Matrix(found.moved[:, :most], rows, columns, CHANGE, forbidden, f"token {found.position} changed")
