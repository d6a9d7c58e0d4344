"""Scores of attention that meets few of its keys: a window, a stride, some global positions, blocks.

Kept are q, k and the mask as a value of the algebra, O(n·d); a band of rows is laid out over all keys when somebody
looks, and multiplied with those only that the mask lets it see.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from headwise.interp.attention.report import weighted
from headwise.interp.attention.scores import Factors, FromProducts, single, softmax
from headwise.interp.masks import Mask
from headwise.interp.masks.seen import seen

BAND = 256  # rows that are computed together

Bias = Callable[[int, int, slice], Tensor]  # of rows start … stop − 1 and some heads → (B | 1, h | 1, R, K)


@dataclass(frozen=True, eq=False)
class Banded(FromProducts):
    """q·kᵀ·scale + bias over the keys that ``pattern`` allows, and softmax over these."""

    q: Tensor  # (B, H, Q, D)
    k: Tensor  # (B, Hk, K, D)
    scale: float
    pattern: Mask
    bias: Bias | None = None  # what is added: positions
    how: str = "banded"

    def mask(self) -> Mask:
        return self.pattern

    def scores(self, start: int, stop: int, heads: slice) -> Tensor:
        return self._laid(*self._few(start, stop, heads), -math.inf)

    def added(self, start: int, stop: int, heads: slice) -> Tensor:
        some = single(self.q[:, heads, start:stop])  # (B, h, R, D)
        every = torch.arange(self.k.shape[2], device=some.device)
        return self._masked(some.new_zeros(*some.shape[:3], len(every)), (start, stop), heads, every)

    def weights(self, start: int, stop: int, heads: slice) -> Tensor:
        scores, keys = self._few(start, stop, heads)
        return self._laid(softmax(scores), keys, 0.0)

    def output(self, v: Tensor) -> Tensor:
        return Masked(self.scale, self.pattern, self.bias).output(self.q, self.k, v)

    def _few(self, start: int, stop: int, heads: slice) -> tuple[Tensor, Tensor]:
        """Scores (B, h, R, m) of the keys that these rows may see, and their positions (m,)."""
        keys = seen(self.pattern, (start, stop), self.k.shape[2], range(self.shape[1])[heads]).to(self.q.device)
        some = self.k if len(keys) == self.k.shape[2] else self.k[:, :, _span(keys)]
        products = Factors(self.q, some, self.scale).products(start, stop, heads)
        return self._masked(products, (start, stop), heads, keys), keys

    def _masked(self, s: Tensor, rows: tuple[int, int], heads: slice, keys: Tensor) -> Tensor:
        """``s`` (B, h, R, m) with positions and mask in it; writes into ``s``."""
        if self.bias is not None:
            bias = self.bias(*rows, heads)
            s = s.add_(single(bias if len(keys) == bias.shape[-1] else bias[..., _span(keys)]))
        return s.masked_fill_(~edges(self.pattern, self.shape, rows, heads, keys), -math.inf)

    def _laid(self, some: Tensor, keys: Tensor, elsewhere: float) -> Tensor:
        """(B, h, R, m) over all keys → (B, h, R, K)."""
        if len(keys) == self.k.shape[2]:
            return some
        laid = some.new_full((*some.shape[:3], self.k.shape[2]), elsewhere)
        laid[..., _span(keys)] = some
        return laid


@dataclass(frozen=True, eq=False)
class Masked:
    """Attention under a mask of which a band of queries sees few keys: the ``report.Mechanism`` of ``Banded``, as
    cheap as the mask is narrow."""

    scale: float
    pattern: Mask
    bias: Bias | None = None

    def form(self, q: Tensor, k: Tensor) -> Banded:
        return Banded(q, k, self.scale, self.pattern, self.bias)

    def output(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        form, length = self.form(q, k), q.shape[2]
        bands = [weighted(form, v, start, min(start + BAND, length)) for start in range(0, length, BAND)]
        return torch.cat(bands, 2).to(v.dtype)


def edges(pattern: Mask, shape: tuple[int, int, int, int], rows: tuple[int, int], heads: slice, keys: Tensor) -> Tensor:
    """What a mask allows in some rows, heads and ``keys`` (m,) of attention of ``shape`` (B, H, Q, K) → bool,
    broadcasting to (B, h, R, m); sides on which the mask does not depend have one element."""
    sides = (torch.arange(shape[0]), torch.arange(shape[1])[heads], torch.arange(*rows), keys)
    where = [side.to(keys.device).view([-1 if i == axis else 1 for i in range(4)]) for axis, side in enumerate(sides)]
    return pattern.allowed(*where)


def _span(keys: Tensor) -> slice | Tensor:
    """Positions in order as an index; a slice where none is left out."""
    if len(keys) and int(keys[-1]) - int(keys[0]) + 1 == len(keys):
        return slice(int(keys[0]), int(keys[-1]) + 1)
    return keys
