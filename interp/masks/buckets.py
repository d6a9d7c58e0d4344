"""Masks of attention that meets by hash: which keys a query sees depends on the buckets in which they fell.

``bucket`` is (T,), (R, T), (H, R, T) or (B, H, R, T): R rounds of hashing, each with buckets of its own. ``meetings``
counts how often a query and a key meet in them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

from headwise.interp.masks.patterns import Mask


class Hashed(Mask):
    """What the two below share."""

    bucket: Tensor

    def __post_init__(self):
        if not 1 <= self.bucket.ndim <= 4 or self.bucket.is_floating_point():
            raise ValueError(
                f"{type(self).__name__} expects whole numbers (T,), (R, T), (H, R, T) or (B, H, R, T), got "
                f"{self.bucket.dtype} {tuple(self.bucket.shape)}."
            )

    @property
    def rounds(self) -> int:
        return self._bucket.shape[2]

    @property
    def size(self):
        return self.bucket.shape[-1], self.bucket.shape[-1]

    def meetings(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, only: int | None = None) -> Tensor:
        """How often each query meets each key, in all rounds or in the query's round ``only``."""
        raise NotImplementedError(f"{type(self).__name__} must define meetings(b, h, q, k, only)")

    def allowed(self, b, h, q, k):
        return self.meetings(b, h, q, k) > 0

    @property
    def _said(self) -> tuple:
        """What it is made of beside the buckets."""
        return tuple(getattr(self, f.name) for f in fields(self) if f.name != "bucket")

    def __eq__(self, other):
        return type(self) is type(other) and self._said == other._said and torch.equal(self.bucket, other.bucket)

    def __hash__(self):
        return hash((self._said, self.bucket.cpu().numpy().tobytes()))

    @cached_property
    def _bucket(self) -> Tensor:
        t = self.bucket
        return t.reshape((1,) * (4 - t.ndim) + tuple(t.shape))  # (B|1, H|1, R, T)

    @cached_property
    def _order(self) -> Tensor:
        """Tokens by bucket, those of one bucket as in the text → (B|1, H|1, R, T)."""
        return self._bucket.argsort(dim=-1, stable=True)

    @cached_property
    def _place(self) -> Tensor:
        """Where each token stands in that order."""
        return self._order.argsort(-1)


@dataclass(frozen=True, eq=False, repr=False)
class Buckets(Hashed):
    """A query sees the keys of its bucket that are at most ``window`` of the bucket's tokens away, in any round.

    With ``Causal()`` what a query sees does not depend on later tokens: these neither change its bucket nor how many
    of the bucket stand between it and an earlier key.

    >>> from headwise.interp.masks import Causal
    >>> print(Causal() & Buckets(torch.tensor([0, 1, 0, 0, 1, 1, 0, 1]), window=2))
    ■⬚⬚⬚⬚⬚⬚⬚
    ⬚■⬚⬚⬚⬚⬚⬚
    ■⬚■⬚⬚⬚⬚⬚
    ■⬚■■⬚⬚⬚⬚
    ⬚■⬚⬚■⬚⬚⬚
    ⬚■⬚⬚■■⬚⬚
    ⬚⬚■■⬚⬚■⬚
    ⬚⬚⬚⬚■■⬚■
    """

    bucket: Tensor
    window: int

    def meetings(self, b, h, q, k, only=None):
        buckets, places = (_sides(t, b, h, q, k) for t in (self._bucket, self._place))
        rounds = range(self.rounds) if only is None else (only,)
        same = (buckets[0][r] == buckets[1][r] for r in rounds)
        near = ((places[0][r] - places[1][r]).abs() <= self.window for r in rounds)
        return sum((s & n).int() for s, n in zip(same, near, strict=True))

    def __repr__(self) -> str:
        return f"Buckets({' × '.join(map(str, self.bucket.shape))}, window={self.window})"


@dataclass(frozen=True, eq=False, repr=False)
class SortedChunks(Hashed):
    """Tokens are sorted by bucket and cut into chunks of ``length``; a query sees its own chunk, ``before`` chunks left
    of it and ``after`` right of it, whatever their buckets (Kitaev et al. 2020, §2, figure 2).

    Chunks are counted through all rounds, so the first of a round looks back at the last of the round before, and the
    very first at the very last, as in the authors' code. A later token moves the borders of the chunks, and so changes
    what an earlier query sees: with ``Causal()`` this mask is still not causal. Compare, of the same text, with a
    token more:

    >>> from headwise.interp.masks import Causal
    >>> print(Causal() & SortedChunks(torch.tensor([1, 1, 1, 1, 0, 1]), 2))
    ■⬚⬚⬚⬚⬚
    ■■⬚⬚⬚⬚
    ■■■⬚⬚⬚
    ⬚■■■⬚⬚
    ■⬚⬚■■⬚
    ⬚■■■⬚■
    >>> print(Causal() & SortedChunks(torch.tensor([1, 1, 1, 1, 0, 1, 0]), 2))
    ■⬚⬚⬚⬚⬚⬚
    ■■⬚⬚⬚⬚⬚
    ■■■⬚⬚⬚⬚
    ■■■■⬚⬚⬚
    ⬚⬚⬚⬚■⬚⬚
    ⬚⬚■■⬚■⬚
    ⬚⬚⬚⬚■■■
    """

    bucket: Tensor
    length: int
    before: int = 1
    after: int = 0

    def meetings(self, b, h, q, k, only=None):
        each = -(-self.bucket.shape[-1] // self.length)  # chunks of a round
        rounds = torch.arange(self.rounds, device=self.bucket.device)[:, None]
        asks, met = _sides(self._place // self.length + rounds * each, b, h, q, k)
        steps = range(-self.before, self.after + 1)
        return sum(
            ((ask + step) % (each * self.rounds) == key).int()
            for ask in (asks if only is None else asks[only : only + 1])
            for key in met
            for step in steps
        )

    def __repr__(self) -> str:
        shape = " × ".join(map(str, self.bucket.shape))
        return f"SortedChunks({shape}, {self.length}, before={self.before}, after={self.after})"


def _sides(values: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Of values (B|1, H|1, R, T): those of the queries and those of the keys, a round each."""
    values = values.to(q.device)
    b = b.clamp(max=0) if values.shape[0] == 1 else b
    h = h.clamp(max=0) if values.shape[1] == 1 else h
    values = values.movedim(2, -1)  # (B|1, H|1, T, R)
    return tuple(values[b, h, t].unbind(-1) for t in (q, k))
