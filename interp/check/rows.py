"""Which position each row of a tensor stands for, and which rows two runs change.

A tensor with an axis as long as the sequence, the output or the grid has a row a position. Of others – padded before
a convolution, folded into windows, with memory tokens in front – a row belongs to what reaches it on the way in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Places:
    """What is known of the rows of a run: B samples of T positions, ``outputs`` (T',) the positions of the outputs."""

    batch: int
    length: int
    outputs: Tensor | None = None
    grid: tuple[int, ...] = ()

    def axes(self, t: Tensor) -> tuple[list[int], Tensor] | None:
        """(the axes that hold positions, the position of each row along them), None where there are none."""
        shape = tuple(t.shape)
        if self.length in shape:
            timed = [i for i, n in enumerate(shape) if n == self.length]
            axis = 1 if 1 in timed and shape[0] != self.length else timed[0]
            return [axis], torch.arange(self.length)
        n = len(self.grid)
        for i in range(len(shape) - n + 1) if n > 1 else ():
            if shape[i : i + n] == self.grid:
                return list(range(i, i + n)), torch.arange(self.length)
        return self._strided(shape)

    def _strided(self, shape: tuple[int, ...]) -> tuple[list[int], Tensor] | None:
        """As many rows as outputs, or a multiple of them."""
        few = 0 if self.outputs is None else len(self.outputs)
        if few < 3 or len(shape) < 3 or shape[0] != self.batch:
            return None
        rates = [(i, n // few) for i, n in enumerate(shape) if i and n < self.length and n % few == 0]
        if len(rates) != 1:
            return None
        axis, rate = rates[0]
        step = max(1, self.length // (few * rate))
        row = torch.arange(few * rate)
        place = self.outputs[row // rate] - (rate - 1 - row % rate) * step
        return [axis], place.clamp(0, self.length - 1)

    def rows(self, t: Tensor, b: int) -> tuple[Tensor, Tensor] | None:
        """(rows (n, F) of sample ``b``, the position of each)."""
        found = self.axes(t)
        if found is None:
            return None
        axes, positions = found
        own = next((i for i in (0, 1) if i < t.ndim and i not in axes and t.shape[i] == self.batch), None)
        if own is not None:
            t, axes = t.select(own, b), [i - (i > own) for i in axes]
        return t.movedim(axes, list(range(len(axes)))).reshape(len(positions), -1), positions

    def where(self, t: Tensor, marked: Tensor) -> Tensor | None:
        """Marked positions (B, T) as a mask that broadcasts to ``t``."""
        found = self.axes(t)
        if found is None:
            return None
        axes, positions = found
        own = next((i for i in (0, 1) if i < t.ndim and i not in axes and t.shape[i] == self.batch), None)
        mask = marked[:, positions] if own is not None else marked.all(0)[positions][None]
        shape = [1] * t.ndim
        for i in axes:
            shape[i] = t.shape[i]
        if own is not None:
            shape[own] = self.batch
        return mask.reshape(shape) if own in (None, 0) else mask.T.reshape(shape)

    def changed(self, one: list[Tensor], two: list[Tensor], b: int) -> Tensor:
        """Positions of sample ``b`` at which any of these tensors changed beyond rounding → bool (T,)."""
        changed = torch.zeros(self.length, dtype=torch.bool)
        for a, c in zip(one, two, strict=False):
            if a.shape != c.shape or (rows := self.rows(differs(a, c), b)) is None:
                continue
            changed[rows[1]] |= rows[0].any(1).cpu()
        return changed


def changed_positions(one: list[Tensor], two: list[Tensor], *, length: int, b: int, batch: int) -> Tensor:
    """The same, of tensors with an axis of T."""
    return Places(batch, length).changed(one, two, b)


def differs(a: Tensor, b: Tensor) -> Tensor:
    """Where two tensors of one shape differ beyond rounding → bool."""
    unequal = (a != b) & ~((a != a) & (b != b))
    if a.is_floating_point() and bool(unequal.any()):
        scale = a[a.isfinite()].abs().max() if bool(a.isfinite().any()) else 1.0
        unequal &= ~((a - b).abs() <= torch.finfo(a.dtype).eps * scale)
    return unequal


@dataclass(frozen=True, eq=False)
class Touched:
    """Rows (R,) of a module's input and output that the forbidden content reaches, and that the content of those who
    may not see it reaches."""

    before: tuple[Tensor, Tensor]
    after: tuple[Tensor, Tensor]

    @property
    def mixed(self) -> Tensor:
        """Rows of those who may not see it, that came in clean and went out with it."""
        return self.before[1] & ~self.before[0] & self.after[0] & self.after[1]


def touched(base, hidden, held) -> Iterator[tuple[tuple[int, ...], Touched]]:
    """(shape of the rows, which are touched) of one visit of a module in three runs: as it is, with other forbidden
    content, with other content where it is forbidden. Rows are told only where the output has those of the input."""
    for into in zip(base.inputs, hidden.inputs, held.inputs, strict=False):
        for out in zip(base.outputs, hidden.outputs, held.outputs, strict=False):
            same = all(t.shape == into[0].shape for t in into) and all(t.shape == out[0].shape for t in out)
            for axis in _features(into[0].shape, out[0].shape) if same else ():
                before = tuple(_rows(into[0], t, axis, out[0].ndim) for t in into[1:])
                after = tuple(_rows(out[0], t, axis, out[0].ndim) for t in out[1:])
                shape = tuple(n for i, n in enumerate(out[0].shape) if i != axis % out[0].ndim)
                yield shape, Touched(before, after)


def _features(into: torch.Size, out: torch.Size) -> list[int]:
    """Axes that may hold features, so that all others are rows."""
    if len(into) == len(out) - 1 >= 2:
        return [-1] if into == out[:-1] else []
    if len(into) != len(out) or len(out) < 3:
        return []
    return [
        i for i in (-1, 1) if all(n == m for j, (n, m) in enumerate(zip(into, out, strict=True)) if j != i % len(out))
    ]


def _rows(a: Tensor, b: Tensor, axis: int, ndim: int) -> Tensor:
    changed = differs(a, b)
    return (changed.any(axis) if a.ndim == ndim else changed).flatten().cpu()
