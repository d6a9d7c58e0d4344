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

from headwise.interp.attention.scores import FromProducts, single, softmax
from headwise.interp.masks import Causal, Marked, Mask
from headwise.interp.masks.buckets import Hashed


@dataclass(frozen=True, eq=False)
class Bucketed(FromProducts):
    """q·kᵀ·scale over the keys that a query meets. It sees itself only where it meets nobody else: queries are keys,
    and each would look at itself most (§2, "Causal masking for shared-QK attention")."""

    q: Tensor  # (B, H, T, D)
    k: Tensor  # (B, H, T, D)
    scale: float
    pattern: Hashed
    causal: bool = False
    real: Tensor | None = None  # (B, T), False: a key nobody else sees
    only: int | None = None  # one round, None: all of them
    itself: float | None = None  # the score that a token gets with itself where the module adds it to the others
    how: str = "bucketed"

    sorts = True

    @property
    def rounds(self) -> int:
        return self.pattern.rounds

    def round(self, number: int) -> Bucketed:
        """The same of one round of hashing."""
        return replace(self, only=number)

    def mask(self) -> Mask:
        if self.real is None or bool(self.real.all()):
            return Causal() & self.pattern if self.causal else self.pattern
        alone = Causal() & ~Causal(-1)  # a padded query still sees itself
        seen = self.pattern & (Marked(self.real) | alone)
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
        weights = softmax(self.scores(start, stop, heads))
        if self.itself is not None:
            query, key = (torch.arange(*ends, device=weights.device) for ends in ((start, stop), (self.shape[3],)))
            own = query[:, None] == key
            weights[:, :, own] *= self._rounded(query, heads)  # a token that is not alone has no weight there
        return weights

    def _rounded(self, query: Tensor, heads: slice) -> Tensor:
        """The weight of tokens that meet themselves only, in the module's arithmetic → (B | 1, h | 1, R): a score of
        −100,000 leaves float32 two digits, so that the logarithms of sums over rounds are rounded by 0.4 %."""
        b, h = (torch.arange(n, device=query.device) for n in self.shape[:2])
        sides = b[:, None, None], h[heads][:, None], query, query
        rounds = range(self.rounds) if self.only is None else (self.only,)
        count = torch.stack([self.pattern.meetings(*sides, only=r) for r in rounds], -1).to(self.q.dtype)
        norms = self.itself + count.log()  # (B | 1, h | 1, R, rounds)
        shares = (norms - norms.logsumexp(-1, keepdim=True)).exp()
        return single((shares * count * (self.itself - norms).exp()).sum(-1))
