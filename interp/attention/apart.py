"""Attention of which some queries have queries, keys and values of their own: Longformer's global tokens (Beltagy et
al. 2020, §3.1). One call to all who look: each row is made of what is its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from headwise.interp.attention.report import Mechanism
from headwise.interp.attention.scores import Factors, Scores, carried
from headwise.interp.masks import Mask


@dataclass(frozen=True, eq=False)
class Apart:
    """``most`` of all queries; ``own`` (B, H, G, K) in the rows ``places`` (B, G), where −1 is none, with ``values``
    (B, H, K, Dv) of their own."""

    most: Scores
    own: Scores
    places: Tensor
    values: Tensor

    given = None
    told = True
    linear = False
    how = property(lambda self: self.most.how)
    sorts = property(lambda self: self.most.sorts)
    exact = property(lambda self: self.most.exact)
    shape = property(lambda self: self.most.shape)
    kv_heads = property(lambda self: self.most.kv_heads)

    @property
    def factors(self) -> Factors | None:
        """Of most queries."""
        return self.most.factors

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return *self.most.tensors, *self.own.tensors, self.values

    @cached_property
    def apart(self) -> tuple[Tensor, Tensor]:
        rows = torch.zeros(self.shape[0], self.shape[2], dtype=torch.bool, device=self.places.device)
        sample, index = (self.places >= 0).nonzero(as_tuple=True)
        rows[sample, self.places[sample, index]] = True
        return rows, self.values

    def mask(self) -> Mask:
        return self.most.mask()

    def scores(self, start: int, stop: int, heads: slice) -> Tensor:
        return self._with("scores", start, stop, heads)

    def added(self, start: int, stop: int, heads: slice) -> Tensor:
        return self._with("added", start, stop, heads)

    def weights(self, start: int, stop: int, heads: slice) -> Tensor:
        return self._with("weights", start, stop, heads)

    def sink(self, start, stop, heads):
        return None

    def output(self, v: Tensor) -> Tensor:
        return carried(self, self.weights(0, self.shape[2], slice(None)).to(v.dtype), v)

    def size(self, queries: int, keys: int) -> float:
        wide = (self.values.nbytes + sum(t.nbytes for t in self.own.tensors)) * keys / self.shape[3]
        return self.most.size(queries, keys) + wide

    def _with(self, name: str, start: int, stop: int, heads: slice) -> Tensor:
        """(B, h, R, K) of these rows, those apart in their places."""
        most = getattr(self.most, name)(start, stop, heads)
        sample, index = ((self.places >= start) & (self.places < stop)).nonzero(as_tuple=True)
        if not len(sample):
            return most
        own = getattr(self.own, name)(0, self.own.shape[2], heads).transpose(1, 2)[sample, index]  # (rows, h, K)
        rows = most.transpose(1, 2).index_put((sample, self.places[sample, index] - start), own)
        return rows.transpose(1, 2)


@dataclass(frozen=True, eq=False)
class WithOwn:
    """The mechanism of such attention: ``most`` of all queries, and ``by`` of those at ``places`` (B, G), which have
    ``q`` (B, H, G, D), ``k`` and ``v`` (B, H, K, D)."""

    most: Mechanism
    by: Mechanism
    places: Tensor
    q: Tensor
    k: Tensor
    v: Tensor

    def form(self, q: Tensor, k: Tensor) -> Apart:
        own = (self.q, self.k, self.v) if q.requires_grad else (self.q.detach(), self.k.detach(), self.v.detach())
        return Apart(self.most.form(q, k), self.by.form(*own[:2]), self.places, own[2])

    def output(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        most, own = self.most.output(q, k, v), self.by.output(self.q, self.k, self.v)
        sample, index = (self.places >= 0).nonzero(as_tuple=True)
        rows = own.transpose(1, 2)[sample, index]  # (rows, H, Dv)
        return most.transpose(1, 2).index_put((sample, self.places[sample, index]), rows).transpose(1, 2)
