"""A square of who sees whom, named as an expression of the algebra where it has a name."""

from __future__ import annotations

import torch
from torch import Tensor

from headwise.interp.masks.patterns import Bidirectional, Causal, Dense, Mask, Packed, Padding, Prefix, Window


def recognise(allowed: Tensor) -> Mask:
    """Name a (Q, K) bool square (True = may attend) as an expression of this algebra; ``Dense`` when no name fits.

    Knows causal (either alignment), windows, prefixes, packed documents and right or left padding of the keys, and
    their combinations ``pattern & Padding``.

    >>> recognise((Causal() & Window(3, 9)).dense(16))
    Window(3, 0)
    >>> recognise((Prefix(4) & Padding((9,))).dense(12))
    Prefix(4) & Padding((9,))
    """
    if allowed.ndim != 2 or allowed.dtype != torch.bool:
        raise ValueError(f"recognise expects a bool (Q, K) tensor, got {allowed.dtype} {tuple(allowed.shape)}.")
    queries, keys = allowed.shape
    if not allowed.any():
        return ~Bidirectional()
    seen = allowed.any(0).nonzero().flatten()
    first, last = int(seen[0]), int(seen[-1])
    alignments = {0, keys - queries}
    candidates: list[Mask] = [Bidirectional(), *(Causal(o) for o in alignments)]
    position = torch.arange(keys, device=allowed.device)
    reach = allowed.int().argmax(1) - torch.arange(queries, device=allowed.device)  # leftmost key − query
    furthest = (allowed * (position + 1)).amax(1) - 1 - torch.arange(queries, device=allowed.device)
    lively = allowed.any(1)
    left, right = -int(reach[lively].min()), int(furthest[lively].max())
    if left >= 0 and right >= 0:
        candidates.append(Window(left, right))
    if queries == keys:
        candidates.append(Prefix(int(allowed[0].sum())))
        segments = _segments(allowed)
        if segments is not None:
            candidates += [Packed(segments), Causal() & Packed(segments)]
    pads: list[Mask | None] = [None]
    if last < keys - 1:
        pads.append(Padding((last + 1,)))
    if first > 0:
        pads.append(Padding((last - first + 1,), starts=(first,)))
    for pad in pads:
        for candidate in candidates:
            whole = candidate if pad is None else candidate & pad
            if torch.equal(whole.dense(queries, keys).to(allowed.device), allowed):
                return whole
    return Dense(allowed)


def _segments(allowed: Tensor) -> tuple[int, ...] | None:
    """Document ids that a square could be packed by: a new one starts where a query no longer sees its neighbour."""
    if not bool(allowed.diagonal().all()):
        return None
    return tuple(torch.cat([torch.zeros(1, dtype=torch.long), (~allowed.diagonal(-1).cpu()).long().cumsum(0)]).tolist())
