"""Sparse Transformer: two kinds of heads that together reach every token in two steps. One sees its neighbours, the
other one token of every stretch, and a stretch is about √n long.

Child et al. 2019, "Generating Long Sequences with Sparse Transformers", §4.2–4.3: with stride l (``stride``) the
strided pattern is A⁽¹⁾ = {max(0, i − l), …, i}, A⁽²⁾ = {j : (i − j) mod l = 0}, and the fixed one A⁽¹⁾ = {j : ⌊j/l⌋
= ⌊i/l⌋} and A⁽²⁾ = {j : j mod l ≥ l − c} with c summary columns (``width``). Heads take turns, even ones have A⁽¹⁾ and
odd ones A⁽²⁾. Beside the columns a token sees itself, or the first ones would see nothing. O(n · (l + n/l)) time and
memory, so O(n√n) for l = √n. The weights are softmax weights over what is seen.

>>> print(Stripes(stride=3).mask().masks[1])
■⬚⬚⬚⬚⬚⬚⬚
⬚■⬚⬚⬚⬚⬚⬚
⬚⬚■⬚⬚⬚⬚⬚
■⬚⬚■⬚⬚⬚⬚
⬚■⬚⬚■⬚⬚⬚
⬚⬚■⬚⬚■⬚⬚
■⬚⬚■⬚⬚■⬚
⬚■⬚⬚■⬚⬚■
>>> print(Stripes(stride=3, kind="fixed").mask().masks[1])
■⬚⬚⬚⬚⬚⬚⬚
⬚■⬚⬚⬚⬚⬚⬚
⬚⬚■⬚⬚⬚⬚⬚
⬚⬚■■⬚⬚⬚⬚
⬚⬚■⬚■⬚⬚⬚
⬚⬚■⬚⬚■⬚⬚
⬚⬚■⬚⬚■■⬚
⬚⬚■⬚⬚■⬚■
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from headwise.interp.masks import Causal, Columns, Mask, PerHead, Segments, Strided, Window
from headwise.models.variants.blockwise import NONE, Blockwise, Pattern, whole, windows

KINDS = ("strided", "fixed")


@dataclass(frozen=True)
class Stripes(Pattern):
    """Neighbours and stripes, by turns over ``heads`` heads."""

    stride: int
    width: int = 1
    kind: str = "strided"
    heads: int = 2
    causal: bool = True

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind expects one of {', '.join(KINDS)}; got {self.kind!r}")
        if not (whole(self.stride, 1) and whole(self.width, 1) and self.width <= self.stride):
            raise ValueError(
                f"stripes expect whole numbers, 1 ≤ width ≤ stride; got width {self.width} and stride {self.stride}"
            )

    def mask(self, length: int | None = None) -> Mask:
        if self.kind == "fixed":
            near, far = Segments(self.stride), Columns(self.stride, self.width) | Window(0, 0)
        else:
            near, far = Window(self.stride, 0 if self.causal else self.stride), Strided(self.stride)
        near, far = (Causal() & near, Causal() & far) if self.causal else (near, far)
        return PerHead(tuple((near, far)[head % 2] for head in range(self.heads)))

    def lists(self, length, heads):
        near, far = (self._segments, self._columns) if self.kind == "fixed" else (self._window, self._strided)
        yield range(0, heads, 2), [near(length)]
        if heads > 1:
            yield range(1, heads, 2), [far(length)]

    def _window(self, length):
        return windows(length, self.stride, 1, self.causal, torch.arange(0))

    def _strided(self, length):
        """Tokens that stand a multiple of the stride apart are a text of their own."""
        stride = min(self.stride, length)
        positions = torch.arange(math.ceil(length / stride)) * stride + torch.arange(stride)[:, None]
        positions = positions.masked_fill(positions >= length, NONE)
        return positions, positions

    def _segments(self, length):
        stride = min(self.stride, length)
        positions = torch.arange(math.ceil(length / stride) * stride).view(-1, stride)
        positions = positions.masked_fill(positions >= length, NONE)
        return positions, positions

    def _columns(self, length):
        queries, _ = self._segments(length)
        keys = torch.arange(length)
        keys = keys[keys % self.stride >= self.stride - self.width]
        keys = keys.expand(len(queries), -1)
        own = keys // self.stride == torch.arange(len(queries))[:, None]
        return queries, torch.cat([queries, keys.masked_fill(own, NONE)], 1)


class Sparse(Blockwise):
    """Attention of neighbours and stripes, head by head in turn."""

    def __init__(self, width: int, heads: int, stride: int = 32, columns: int = 1, kind: str = "strided"):
        super().__init__(width, heads)
        self.pattern = Stripes(stride, columns, kind, heads)

    def bound(self, causal: bool) -> Stripes:
        return replace(self.pattern, causal=causal)

    def kept(self, positions, coming):
        if self.pattern.kind == "strided":
            return torch.ones_like(positions, dtype=torch.bool)  # each is some later token's
        stride = self.pattern.stride
        return (positions >= coming // stride * stride) | (positions % stride >= stride - self.pattern.width)
