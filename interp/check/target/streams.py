"""What a model is fed, in one order: every stream (B, T, …), whatever the model's own layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from headwise.interp.check.target.layout import Layout


@dataclass(frozen=True, eq=False)
class Stream:
    """One tensor of the input that has the positions of the sequence."""

    name: str | None  # the argument that takes it; None: the first one, whatever it is called
    layout: Layout
    alphabet: Tensor | None = None  # ids that may be drawn; None for floats
    features: tuple[int, ...] = ()  # sizes behind (B, T)
    given: Tensor | None = None  # (B, T, …), by the caller
    changes: bool = True  # False: it is cut along and never changed – a mask, positions, what is known ahead

    @property
    def hot(self) -> bool:
        """Is it content that an output may leak?"""
        return self.changes and (self.alphabet is None or len(self.alphabet) > 1)


@dataclass(frozen=True, eq=False)
class Batch:
    """One input: the ``parts`` of its streams, each (B, T, …); ``start``: where in the whole sequence it begins."""

    parts: tuple[Tensor, ...]
    start: int = 0

    @property
    def first(self) -> Tensor:
        """The main stream."""
        return self.parts[0]

    @property
    def size(self) -> int:
        """B"""
        return self.first.shape[0]

    @property
    def length(self) -> int:
        """T"""
        return self.first.shape[1]

    @property
    def device(self) -> torch.device:
        return self.first.device

    def __getitem__(self, samples: slice) -> Batch:
        return self.each(lambda t: t[samples])

    def cut(self, start: int, length: int) -> Batch:
        """Positions ``start`` … ``start + length − 1``."""
        return replace(self.each(lambda t: t.narrow(1, start, length)), start=self.start + start)

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(self, parts=tuple(change(t) for t in self.parts))

    def to(self, dtype: torch.dtype) -> Batch:
        """With its floats, and complex numbers, in another dtype."""

        def cast(t: Tensor) -> Tensor:
            return t.to(dtype) if t.is_floating_point() else t.to(dtype.to_complex()) if t.is_complex() else t

        return self.each(cast)


def spread(where: Tensor, x: Tensor) -> Tensor:
    """(B, T) → (B, T, 1, …), to stand beside every axis of ``x``."""
    return where.view(*where.shape, *[1] * (x.ndim - where.ndim))
