"""Scores of attention whose weights are products of features: random features, linear attention, states that decay.

Kept are the features, O(n·m), and never their n × n products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.interp.attention.banded import edges
from headwise.interp.attention.scores import Factors, single
from headwise.interp.masks import Bidirectional, Causal, Mask

NEAR = 30.0  # logarithms so far apart still share a measure
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, eq=False)
class Kernel:
    """Weight of key j to query i: Σₘ left[i, m] · right[j, m] · exp(rise[0][i, m] + rise[1][j, m]), divided by its sum
    over the keys where ``normalised``.

    ``rise`` are logarithms, (B, H, Q, M | 1) and (B, Hk, K, M | 1): a state that decays by γ a step has them
    i·log γ and −j·log γ; features too large or small for floats keep their size there. A causal query meets no later
    key. Scores are the logarithms of these products. Weights that are not normalised may be negative and need not sum
    to one; they are their own scores.
    """

    left: Tensor  # (B, H, Q, M)
    right: Tensor  # (B, Hk, K, M)
    causal: bool = True
    rise: tuple[Tensor, Tensor] | None = None
    normalised: bool = True
    floor: float | Tensor = 0.0  # added to the sum that weights are divided by; (B, H, Q, 1) where rows differ
    met: tuple[Tensor, Tensor, float] | None = None  # queries, keys and scale that the features stand for
    how: str = "kernel"

    given = None
    told = exact = True
    sorts = False
    linear = property(lambda self: not self.normalised)
    factors = property(lambda self: None if self.met is None else Factors(*self.met))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.left.shape[0], self.left.shape[1], self.left.shape[2], self.right.shape[2]

    @property
    def kv_heads(self) -> int | None:
        return None if self.met is None else self.met[1].shape[1]

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.left, self.right, *(self.rise or ()), *(self.met or ())[:2]

    def mask(self) -> Mask:
        return Causal() if self.causal else Bidirectional()

    def scores(self, start: int, stop: int, heads: slice) -> Tensor:
        met, top = self._met(start, stop, heads)
        if self.linear:
            every = torch.arange(self.shape[3], device=met.device)
            late = ~edges(self.mask(), self.shape, (start, stop), heads, every)
            return (met * top.exp()).masked_fill(late, -math.inf)
        positive = met > 0
        logs = met.masked_fill(~positive, 1).log() + top
        return logs.masked_fill(~positive, -math.inf)

    def added(self, start: int, stop: int, heads: slice) -> Tensor:
        """What makes the scores of ``factors`` the features' own: how far the estimate is off, and the mask."""
        return self.scores(start, stop, heads) - self.factors.products(start, stop, heads)

    def weights(self, start: int, stop: int, heads: slice) -> Tensor:
        met, top = self._met(start, stop, heads)
        if not self.normalised:
            return met * top.exp()
        total = met.sum(-1, keepdim=True)
        if isinstance(self.floor, Tensor):
            total = total + single(self.floor[:, heads, start:stop]) * (-top).exp()
        elif self.floor:
            total = total + self.floor * (-top).exp()
        return met / total.clamp_min(TINY)

    def sink(self, start, stop, heads):
        return None

    def output(self, v: Tensor) -> Tensor:
        values = v.repeat_interleave(self.shape[1] // v.shape[1], 1)  # (B, H, K, Dv)
        return self.weights(0, self.shape[2], slice(None)).to(v.dtype) @ values

    def size(self, queries: int, keys: int) -> float:
        tall, wide = queries / self.shape[2], keys / self.shape[3]
        pairs = self.tensors  # of queries, of keys, of queries …
        return sum(t.nbytes * tall for t in pairs[::2]) + sum(t.nbytes * wide for t in pairs[1::2])

    def _met(self, start: int, stop: int, heads: slice) -> tuple[Tensor, Tensor]:
        """Products of features (B, h, R, K), zero where a causal query does not look, and the logarithm (B, h, R, 1) by
        which they were made smaller."""
        group = self.left.shape[1] // self.right.shape[1]
        index = torch.arange(self.left.shape[1], device=self.left.device)[heads] // group
        last = min(stop, self.shape[3]) if self.causal else self.shape[3]  # later keys are met by nobody here
        left, right = single(self.left[:, heads, start:stop]), single(self.right[:, index, :last])
        past = Causal().rows(start, stop, last, device=left.device) if self.causal else None
        if self.rise is None:
            met, top = left @ right.mT, left.new_zeros(()).expand(*left.shape[:3], 1)
            met = met if past is None else met * past
        else:
            rise = single(self.rise[0][:, heads, start:stop]), single(self.rise[1][:, index, :last])
            met, top = self._lifted(left, right, rise, past)
        return F.pad(met, (0, self.shape[3] - last)), top

    def _lifted(
        self, left: Tensor, right: Tensor, rise: tuple[Tensor, Tensor], past: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The same of features with a rise (B, h, R, M | 1), (B, h, K, M | 1)."""
        own, key = rise
        if key.shape[-1] == 1:
            first = (
                key if past is None or not len(past) else key[:, :, : int(past[0].sum())]
            )  # those that all of these rows meet
            top = key.amax(2, keepdim=True).detach()
            if bool((top - first.amax(2, keepdim=True) < NEAR).all()):  # one measure does for all rows
                met = left @ (right * (key - top).exp()).mT
                return met if past is None else met * past, own + top
        top = own.new_full((*own.shape[:3], 1), -math.inf)
        for m in range(key.shape[-1]):
            top = torch.maximum(top, self._risen(own, key, m, past).amax(-1, keepdim=True))
        top = top.detach().masked_fill(top == -math.inf, 0)
        if key.shape[-1] == 1:
            return (left @ right.mT) * (self._risen(own, key, 0, past) - top).exp(), top
        met = 0
        for m in range(key.shape[-1]):
            each = left[..., m, None] * right[..., None, :, m]
            met = met + each * (self._risen(own, key, m, past) - top).exp()
        return met, top

    @staticmethod
    def _risen(own: Tensor, key: Tensor, m: int, past: Tensor | None) -> Tensor:
        """rise[0] + rise[1] of one feature → (B, h, R, K), −inf where a causal query does not look."""
        both = own[..., m, None] + key[..., None, :, m]
        return both if past is None else both.masked_fill(~past, -math.inf)
