"""Scores of attention that meets by hash: queries and keys are one, and a query meets the keys of its buckets.

Kept are q, k and the buckets, O(n·(d + rounds)). Where a query and a key meet in several rounds of hashing the key
counts as often, for each round is a softmax of its own and the rounds are summed by their normalisers (Kitaev et al.
2020, §2, and the authors' code): the joint weights are one softmax of the scores + log of the number of meetings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from headwise.interp.attention.scores import Factors, single, softmax
from headwise.interp.masks import Causal, Mask, Padding
from headwise.interp.masks.buckets import Hashed


@dataclass(frozen=True, eq=False)
class Bucketed:
    """q·kᵀ·scale over the keys that a query meets. It sees itself only where it meets nobody else: queries are keys,
    and each would look at itself most (§2, "Causal masking for shared-QK attention")."""

    q: Tensor  # (B, H, T, D)
    k: Tensor  # (B, H, T, D)
    scale: float
    pattern: Hashed
    causal: bool = False
    real: Tensor | None = None  # (B, T), False: a key nobody else sees
    only: int | None = None  # one round, None: all of them
    how: str = "bucketed"

    given = None
    told = exact = True
    factors = property(lambda self: Factors(self.q, self.k, self.scale))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.q.shape[0], self.q.shape[1], self.q.shape[2], self.k.shape[2]

    @property
    def kv_heads(self) -> int:
        return self.k.shape[1]

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.q, self.k

    @property
    def rounds(self) -> int:
        return self.pattern.rounds

    def round(self, number: int) -> Bucketed:
        """The same of one round of hashing."""
        return replace(self, only=number)

    def mask(self) -> Mask:
        if self.real is None or bool(self.real.all()):
            return Causal() & self.pattern if self.causal else self.pattern
        lengths, starts = self.real.sum(1).tolist(), self.real.int().argmax(1).tolist()
        alone = Causal() & ~Causal(-1)  # a padded query still sees itself
        seen = self.pattern & (Padding(tuple(lengths), tuple(starts)) | alone)
        return Causal() & seen if self.causal else seen

    def scores(self, start: int, stop: int, heads: slice) -> Tensor:
        return self.factors.products(start, stop, heads) + self.added(start, stop, heads)

    def added(self, start: int, stop: int, heads: slice) -> Tensor:
        """log of the meetings → (B, h, R, K)."""
        sides = (torch.arange(n, device=self.q.device) for n in self.shape)
        b, h, query, key = (t.view([-1 if i == axis else 1 for i in range(4)]) for axis, t in enumerate(sides))
        h, query = h[:, heads], query[:, :, start:stop]
        count = self.pattern.meetings(b, h, query, key, self.only)  # (B|1, h|1, R, K)
        others = (count > 0) & (query != key)
        if self.causal:
            others = others & (key < query)
        if self.real is not None:
            others = others & self.real[:, None, None, :]
        seen = others | ((query == key) & ~others.any(-1, keepdim=True))
        added = count.clamp(min=1).to(single(self.q).dtype).log().masked_fill(~seen, -math.inf)
        return added.expand(self.shape[0], h.shape[1], stop - start, self.shape[3])

    def weights(self, start: int, stop: int, heads: slice) -> Tensor:
        return softmax(self.scores(start, stop, heads))

    def sink(self, start, stop, heads):
        return None

    def output(self, v: Tensor) -> Tensor:
        values = v.repeat_interleave(self.shape[1] // v.shape[1], 1)  # (B, H, K, Dv)
        return self.weights(0, self.shape[2], slice(None)).to(v.dtype) @ values

    def size(self, queries: int, keys: int) -> float:
        return self.q.nbytes * queries / self.q.shape[2] + self.k.nbytes * keys / self.k.shape[2]
