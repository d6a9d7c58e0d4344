"""Rows of two patterns on the positions that both runs have, and how far apart they are.

Axis letters: H heads, P aligned queries, K aligned keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from headwise.interp.analysis.patching.alignment import Alignment
from headwise.interp.attention.call import AttentionCall
from headwise.interp.errors import InputError

BAND = 2**22  # numbers of a pattern read at once
Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Rows:
    """``one`` and ``other`` (…, P, K + 1), float32: weights on the keys that both runs have, and last the weight that
    went anywhere else, so that each row adds up to one. ``queries`` and ``keys``: their positions in the one run and in
    the other."""

    one: Tensor
    other: Tensor
    queries: Pairs
    keys: Pairs

    @cached_property
    def divergence(self) -> Tensor:
        """Of each row, in bits → (…, P)."""
        return divergence(self.one, self.other)

    @property
    def furthest(self) -> int:
        """The row that differs most."""
        return int(self.divergence.argmax())

    def index(self, query: int) -> int:
        """The row of a query of the one run. Raises InputError where the other has no such position."""
        for number, (mine, _) in enumerate(self.queries):
            if mine == query:
                return number
        raise InputError(f"Query {query} has no partner in the other run.")

    def each(self) -> Iterator[Rows]:
        """Those of each head."""
        for one, other in zip(self.one, self.other, strict=True):
            yield Rows(one, other, self.queries, self.keys)


def rows_of(
    calls: tuple[AttentionCall, AttentionCall],
    sides: tuple[Alignment, Alignment],
    heads: tuple[Sequence[int], Sequence[int]] | None = None,
    *,
    side: int | None = None,
    most: int | None = None,
) -> Rows:
    """The rows of two calls, of their first samples. ``sides`` align their queries and keys; ``heads`` are as many of
    either, all of them when None. With a ``side``, both calls are of that run (0 or 1); ``most`` takes that many
    queries at most, evenly. Raises InputError where the runs have no position in common."""
    queries, keys = _real(sides[0].pairs, calls, "real_queries", side), _real(sides[1].pairs, calls, "real_keys", side)
    if not queries or not keys:
        raise InputError("The two runs have no position in common, so their patterns cannot be compared.")
    if most is not None and len(queries) > most:
        queries = tuple(queries[i * (len(queries) - 1) // (most - 1)] for i in range(most))
    found = []
    for number, call in enumerate(calls):
        own = number if side is None else side
        places = [[pair[own] for pair in pairs] for pairs in (queries, keys)]
        wanted = range(call.heads) if heads is None else heads[number]
        found.append(_read(call, *places, wanted))
    return Rows(*found, queries, keys)


def _real(pairs: Pairs, calls: tuple[AttentionCall, AttentionCall], name: str, side: int | None) -> Pairs:
    """Pairs of positions that are no padding on either side."""
    for number, call in enumerate(calls):
        real = getattr(call, name)
        if real is not None and side in (None, number):
            own = real[0].tolist()
            pairs = tuple(pair for pair in pairs if own[pair[number]])
    return pairs


def _read(call: AttentionCall, queries: list[int], keys: list[int], heads: Sequence[int]) -> Tensor:
    """Weights of some heads on some positions, and what goes elsewhere → (H, P, K + 1)."""
    step, parts = max(1, BAND // (call.heads * call.keys)), []
    for begin in range(0, len(queries), step):
        some = queries[begin : begin + step]
        start = min(some)
        band = call.band(start, max(some) + 1)[0][list(heads)]  # (H, R, K)
        near = band[:, [query - start for query in some]][..., keys].float().cpu()
        parts.append(torch.cat([near, (1 - near.sum(-1, keepdim=True)).clamp_min(0)], -1))
    return torch.cat(parts, 1)


def divergence(one: Tensor, other: Tensor) -> Tensor:
    """Jensen–Shannon divergence in bits of distributions along the last axis (Lin 1991, §IV): the mean of the KL
    divergences of each to the middle between them. 0 … 1, the same both ways."""
    one, other = one.double(), other.double()
    middle = (one + other) / 2
    return (_entropy(middle) - (_entropy(one) + _entropy(other)) / 2).clamp(0, 1)


def _entropy(p: Tensor) -> Tensor:
    return -torch.xlogy(p, p).sum(-1) / math.log(2)
