"""Weights that no softmax made: what a linear attention, a state or a detour through landmarks does to its values.

Kept is what the weights are made from, O(n·d); a band of rows is made when somebody looks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from headwise.interp.attention.banded import edges
from headwise.interp.attention.scores import Modified, Scores, single
from headwise.interp.masks import Bidirectional, Mask

BAND_BYTES = 32 * 2**20  # working memory of one band of rows

# left (B, h, R, M), right (B, h, K, M), the rows' positions (R, 1), some heads → weights (B, h, R, K); those of hidden
# keys may be any finite number
Made = Callable[[Tensor, Tensor, Tensor, slice], Tensor]
# scores (B, h, R, K), then indices of samples, heads, queries and keys → scores
Modify = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Linear:
    """Weights over the keys that ``pattern`` allows: products of ``left`` and ``right``, or what ``made`` makes of
    them. They may be negative, and a row need not sum to one. They are their own scores, −inf where a key is hidden."""

    left: Tensor  # (B, H, Q, M)
    right: Tensor  # (B, Hk, K, M)
    pattern: Mask = field(default_factory=Bidirectional)
    made: Made | None = None
    how: str = "linear"

    given = factors = kv_heads = None
    told = exact = linear = True
    sorts = False

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.left.shape[0], self.left.shape[1], self.left.shape[2], self.right.shape[2]

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.left, self.right

    def mask(self) -> Mask:
        return self.pattern

    def scores(self, start: int, stop: int, heads: slice) -> Tensor:
        return self._rows(start, stop, heads, -math.inf)

    def added(self, start: int, stop: int, heads: slice) -> Tensor:
        return self.scores(start, stop, heads)

    def weights(self, start: int, stop: int, heads: slice) -> Tensor:
        return self._rows(start, stop, heads, 0.0)

    def sink(self, start, stop, heads):
        return None

    def output(self, v: Tensor) -> Tensor:
        """Some heads and rows at a time: where every channel is a head, all their weights would not fit."""
        batch, heads, queries, keys = self.shape
        rows = max(1, min(queries, BAND_BYTES // (4 * batch * keys)))
        some = max(1, BAND_BYTES // (4 * batch * keys * rows))
        parts = []
        for head in range(0, heads, some):
            index = torch.arange(head, min(head + some, heads), device=v.device)
            values = single(v[:, index // (heads // v.shape[1])])  # (B, h, K, Dv)
            bands = range(0, queries, rows)
            made = [self.weights(i, min(i + rows, queries), slice(head, head + some)) @ values for i in bands]
            parts.append(torch.cat(made, 2))
        return torch.cat(parts, 1).to(v.dtype)

    def size(self, queries: int, keys: int) -> float:
        return self.left.nbytes * queries / self.shape[2] + self.right.nbytes * keys / self.shape[3]

    def _rows(self, start: int, stop: int, heads: slice, hidden: float) -> Tensor:
        index = torch.arange(self.shape[1], device=self.right.device)[heads]
        left = single(self.left[:, heads, start:stop])
        right = single(self.right[:, index // (self.shape[1] // self.right.shape[1])])
        if self.made is None:
            made = left @ right.mT
        else:
            made = self.made(left, right, torch.arange(start, stop, device=left.device)[:, None], heads)
        every = torch.arange(self.shape[3], device=left.device)
        return made.masked_fill(~edges(self.pattern, self.shape, (start, stop), heads, every), hidden)


class ByWeights:
    """A mechanism known by its weights: its output is nothing but weights × values."""

    def form(self, q: Tensor, k: Tensor) -> Scores:
        raise NotImplementedError(f"{type(self).__name__} must define form(q, k)")

    def output(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.form(q, k).output(v)


class ByScores(ByWeights):
    """A mechanism whose scores are a function of q·kᵀ·scale, and whose weights are the softmax of these."""

    scale: float

    def modify(self, q: Tensor, k: Tensor) -> Modify:
        raise NotImplementedError(f"{type(self).__name__} must define modify(q, k)")

    def form(self, q: Tensor, k: Tensor) -> Modified:
        return Modified(q, k, self.scale, self.modify(q, k), how="scored")
