"""Masks of attention that works in segments, in columns, or by head. See ``patterns`` for what a mask is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch

from headwise.interp.masks.patterns import Mask


@dataclass(frozen=True)
class Segments(Mask):
    """The text is cut into segments of ``length`` tokens; a query sees its own, ``before`` tokens left of it and
    ``after`` right of it.

    Transformer-XL is ``Causal() & Segments(length, memory)`` (Dai et al. 2019, §3.2), BigBird's blocked window
    ``Segments(block, block, block)`` (Zaheer et al. 2020, appendix D).

    >>> from headwise.interp.masks import Causal
    >>> print(Causal() & Segments(3, 2))
    ■⬚⬚⬚⬚⬚⬚⬚
    ■■⬚⬚⬚⬚⬚⬚
    ■■■⬚⬚⬚⬚⬚
    ⬚■■■⬚⬚⬚⬚
    ⬚■■■■⬚⬚⬚
    ⬚■■■■■⬚⬚
    ⬚⬚⬚⬚■■■⬚
    ⬚⬚⬚⬚■■■■
    """

    length: int
    before: int = 0
    after: int = 0

    def __post_init__(self):
        if self.length < 1 or self.before < 0 or self.after < 0:
            raise ValueError(
                f"Segments expects a length of 1 or more, and before and after of 0 or more; got {self.length}, "
                f"{self.before} and {self.after}."
            )

    def allowed(self, b, h, q, k):
        start = q // self.length * self.length
        return (k >= start - self.before) & (k < start + self.length + self.after)

    def __repr__(self) -> str:
        return f"Segments({', '.join(map(str, (self.length, self.before, self.after)[: 3 if self.after else 2]))})"


@dataclass(frozen=True)
class Columns(Mask):
    """The last ``width`` keys of every ``stride`` are seen by all: the summary columns of the fixed pattern (Child et
    al. 2019, §4.3), which is ``Causal() & (Segments(stride, 0) | Columns(stride, width))``.

    >>> print(Columns(4, 1))
    ⬚⬚⬚■⬚⬚⬚■
    ⬚⬚⬚■⬚⬚⬚■
    ⬚⬚⬚■⬚⬚⬚■
    ⬚⬚⬚■⬚⬚⬚■
    ⬚⬚⬚■⬚⬚⬚■
    ⬚⬚⬚■⬚⬚⬚■
    ⬚⬚⬚■⬚⬚⬚■
    ⬚⬚⬚■⬚⬚⬚■
    """

    stride: int
    width: int = 1

    def __post_init__(self):
        if not 1 <= self.width <= self.stride:
            raise ValueError(f"Columns expects 1 ≤ width ≤ stride, got width {self.width} and stride {self.stride}.")

    def allowed(self, b, h, q, k):
        return k % self.stride >= self.stride - self.width

    def __repr__(self) -> str:
        return f"Columns({self.stride}, {self.width})"


@dataclass(frozen=True)
class PerHead(Mask):
    """A mask a head; the drawing is of the first.

    >>> from headwise.interp.masks import Causal
    >>> print(PerHead((Causal() & Segments(2, 0), Causal())))
    ■⬚⬚⬚⬚⬚⬚⬚
    ■■⬚⬚⬚⬚⬚⬚
    ⬚⬚■⬚⬚⬚⬚⬚
    ⬚⬚■■⬚⬚⬚⬚
    ⬚⬚⬚⬚■⬚⬚⬚
    ⬚⬚⬚⬚■■⬚⬚
    ⬚⬚⬚⬚⬚⬚■⬚
    ⬚⬚⬚⬚⬚⬚■■
    """

    masks: tuple[Mask, ...]

    def __post_init__(self):
        object.__setattr__(self, "masks", tuple(self.masks))
        if not self.masks:
            raise ValueError("PerHead expects a mask for each head, got none.")

    @property
    def size(self):
        return next((mask.size for mask in self.masks if mask.size), None)

    def allowed(self, b, h, q, k):
        if int(h.max()) >= len(self.masks):
            raise IndexError(f"PerHead has masks for {len(self.masks)} heads, head {int(h.max())} was asked.")
        each = ((h == head) & mask.allowed(b, h, q, k) for head, mask in enumerate(self.masks))
        return reduce(torch.logical_or, each)

    def __repr__(self) -> str:
        return f"PerHead(({', '.join(map(repr, self.masks))}{',' * (len(self.masks) == 1)}))"


@dataclass(frozen=True)
class Shifted(Mask):
    """A pattern over ``length`` tokens, counted from the first real one of each sample: ``mask`` under padding on the
    left, which is taken to stand at the end.

    >>> print(Shifted(Segments(3), (1,), 8))
    ■⬚⬚⬚⬚⬚⬚■
    ⬚■■■⬚⬚⬚⬚
    ⬚■■■⬚⬚⬚⬚
    ⬚■■■⬚⬚⬚⬚
    ⬚⬚⬚⬚■■■⬚
    ⬚⬚⬚⬚■■■⬚
    ⬚⬚⬚⬚■■■⬚
    ■⬚⬚⬚⬚⬚⬚■
    """

    mask: Mask
    starts: tuple[int, ...]
    length: int

    def __post_init__(self):
        object.__setattr__(self, "starts", tuple(self.starts))

    @property
    def size(self):
        return self.length, self.length

    def allowed(self, b, h, q, k):
        starts = torch.tensor(self.starts, device=q.device)
        start = starts[b.clamp(max=0) if len(starts) == 1 else b]
        return self.mask.allowed(b, h, (q - start) % self.length, (k - start) % self.length)

    def __repr__(self) -> str:
        return f"Shifted({self.mask!r}, {self.starts}, {self.length})"
