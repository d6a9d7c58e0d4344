"""Scores of attention that meets few of its keys: a window, a stride, some global positions, blocks.

Kept are q, k and the mask as a value of the algebra, O(n·d); a band of rows is laid out over all keys when somebody
looks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from headwise.interp.attention.scores import Factors, single, softmax
from headwise.interp.masks import Mask

Bias = Callable[[int, int, slice], Tensor]  # of rows start … stop − 1 and some heads → (B | 1, h | 1, R, K)


@dataclass(frozen=True, eq=False)
class Banded:
    """q·kᵀ·scale + bias over the keys that ``pattern`` allows, and softmax over these."""

    q: Tensor  # (B, H, Q, D)
    k: Tensor  # (B, Hk, K, D)
    scale: float
    pattern: Mask
    bias: Bias | None = None  # what is added: positions
    how: str = "banded"

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

    def mask(self) -> Mask:
        return self.pattern

    def scores(self, start: int, stop: int, heads: slice) -> Tensor:
        return self._masked(self.factors.products(start, stop, heads), start, stop, heads)

    def added(self, start: int, stop: int, heads: slice) -> Tensor:
        some = single(self.q[:, heads, start:stop])  # (B, h, R, D)
        return self._masked(some.new_zeros(*some.shape[:3], self.k.shape[2]), start, stop, heads)

    def weights(self, start: int, stop: int, heads: slice) -> Tensor:
        return softmax(self.scores(start, stop, heads))

    def sink(self, start, stop, heads):
        return None

    def output(self, v: Tensor) -> Tensor:
        values = v.repeat_interleave(self.shape[1] // v.shape[1], 1)  # (B, H, K, Dv)
        return self.weights(0, self.shape[2], slice(None)).to(v.dtype) @ values

    def size(self, queries: int, keys: int) -> float:
        return self.q.nbytes * queries / self.q.shape[2] + self.k.nbytes * keys / self.k.shape[2]

    def _masked(self, s: Tensor, start: int, stop: int, heads: slice) -> Tensor:
        """``s`` (B, h, R, K) with positions and mask in it; writes into ``s``."""
        if self.bias is not None:
            s = s.add_(single(self.bias(start, stop, heads)))
        return s.masked_fill_(~edges(self.pattern, self.shape, (start, stop), heads, s.device), -math.inf)


def edges(
    pattern: Mask, shape: tuple[int, int, int, int], rows: tuple[int, int], heads: slice, device: torch.device
) -> Tensor:
    """What a mask allows in some rows and heads of attention of ``shape`` (B, H, Q, K) → bool, broadcasting to
    (B, h, R, K); sides on which the mask does not depend have one element."""
    sides = (torch.arange(shape[0]), torch.arange(shape[1])[heads], torch.arange(*rows), torch.arange(shape[3]))
    where = [side.to(device).view([-1 if i == axis else 1 for i in range(4)]) for axis, side in enumerate(sides)]
    return pattern.allowed(*where)
