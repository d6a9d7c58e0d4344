"""Where samples, positions and features stand in a tensor, and the one order in which everything is compared.

Notation as in einops: a letter an axis, B for samples, T for time – "(B, T, C)", "(T, B, C)", "(B, C, T)". Without a T
the letters that the input and the output share are positions, in raster order: "(B, H, W, C)". "(B T)" is one axis of
both, "T/5" is time in steps of five.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch import Tensor

from headwise.interp.check.errors import CheckError

GROUP = re.compile(r"(?:(\w+)\s*:\s*)?\(((?:[^()]|\([^()]*\))*)\)")
AXIS = re.compile(r"\([^()]*\)|[^\s,()]+")
BOTH = "(B T)"
EXAMPLE = "layout='(T, B, C) -> (T, B, V)'"


@dataclass(frozen=True)
class Layout:
    """``axes`` names each axis of a tensor; those in ``positions`` are one sequence, in that order."""

    axes: tuple[str, ...]
    positions: tuple[str, ...] = ("T",)

    def __str__(self) -> str:
        return f"({', '.join(self.axes)})"

    @property
    def timed(self) -> tuple[int, ...]:
        """The axes of positions."""
        return tuple(self.axes.index(name) for name in self.positions if name in self.axes)

    @property
    def samples(self) -> int | None:
        return self.axes.index("B") if "B" in self.axes else None

    @property
    def _order(self) -> list[int]:
        """Samples, positions, features."""
        first = [] if self.samples is None else [self.samples]
        first += self.timed
        return first + [i for i in range(len(self.axes)) if i not in first]

    def sizes(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Of the axes of positions."""
        return tuple(shape[i] for i in self.timed)

    def one_order(self, t: Tensor, batch: int) -> Tensor:
        """A tensor in this layout → (B, T, …). Without positions T is 1, without samples B is 1."""
        if self.axes[0] == BOTH:
            return t.reshape(batch, -1, *t.shape[1:])
        t = t.permute(self._order)
        t = t[None] if self.samples is None else t
        return t.unsqueeze(1) if not self.timed else t.flatten(1, len(self.timed))

    def its_own(self, x: Tensor, grid: Sequence[int] = ()) -> Tensor:
        """(B, T, …) → a tensor in this layout. ``grid``: sizes of its axes of positions, where there are several."""
        if self.axes[0] == BOTH:
            return x.flatten(0, 1)
        if len(self.timed) > 1:
            x = x.unflatten(1, tuple(grid))
        elif not self.timed:
            x = x.squeeze(1)
        x = x[0] if self.samples is None else x
        order = self._order
        return x.permute([order.index(i) for i in range(len(order))])


def plain(ndim: int) -> Layout:
    """(B, T, …)"""
    return Layout(("B", "T", *"CDEFGHI"[: ndim - 2])[:ndim])


def time_first(ndim: int) -> Layout:
    return Layout(("T", "B", *"CDEFGHI"[: ndim - 2]))


def grid(ndim: int, first: int = 1) -> Layout:
    """Rows and columns of positions at axes ``first`` and ``first`` + 1."""
    rest = iter("CDEFG")
    axes = ["B" if i == 0 else "HW"[i - first] if first <= i < first + 2 else next(rest) for i in range(ndim)]
    return Layout(tuple(axes), ("H", "W"))


@dataclass(frozen=True)
class Said:
    """What the caller said of layouts: of each input, in order or by name, and of the output."""

    inputs: tuple[tuple[str | None, Layout], ...]
    output: Layout | None

    def of(self, name: str | None, index: int) -> Layout | None:
        """Of input ``name``, the ``index``-th."""
        named = {n: layout for n, layout in self.inputs if n is not None}
        if name in named:
            return named[name]
        free = [layout for n, layout in self.inputs if n is None]
        return free[index] if index < len(free) else None


def said(text: str) -> Said:
    """Raises CheckError where it is no layout.

    >>> str(said("(B,C,T)->(B,T,V)").inputs[0][1]), said("(B, H, W, C) -> (B, H, W, C)").output.positions
    ('(B, C, T)', ('H', 'W'))
    """
    left, arrow, right = text.partition("->")
    inputs = [(name or None, AXIS.findall(axes)) for name, axes in GROUP.findall(left)]
    outputs = [AXIS.findall(axes) for _, axes in GROUP.findall(right)]
    whole = GROUP.sub("", text).replace("->", "").strip(" ,")
    if not inputs or whole or len(outputs) != (1 if arrow else 0) or not all(axes for _, axes in inputs):
        raise CheckError(f"layout={text!r} is not understood: name the axes of the input and the output, {EXAMPLE}.")
    output = outputs[0] if outputs else None
    positions = _positions([axes for _, axes in inputs], output, text)
    known = {_bare(axis) for _, axes in inputs for axis in axes}
    for axes in (*(axes for _, axes in inputs), *([output] if output else [])):
        if len(set(axes)) != len(axes):
            raise CheckError(f"layout={text!r} names an axis twice in ({', '.join(axes)}): give each its own letter.")
    made = tuple((name, Layout(tuple(axes), positions)) for name, axes in inputs)
    if output is None:
        return Said(made, None)
    bare = tuple(_bare(axis) if _bare(axis) in known and _bare(axis) in positions else axis for axis in output)
    return Said(made, Layout(bare, positions))


def _positions(inputs: list[list[str]], output: list[str] | None, text: str) -> tuple[str, ...]:
    if any("T" in axes or BOTH in axes for axes in inputs):
        return ("T",)
    shared = [axis for axis in inputs[0] if axis != "B" and not axis.isdigit()]
    if output is not None:
        shared = [axis for axis in shared if axis in {_bare(o) for o in output}]
        if inputs[0] == output and len(shared) > 2:  # the last letter of a grid that comes out as it went in
            shared = shared[:-1]
    if not shared:
        raise CheckError(f"layout={text!r} has no axis of positions: call time T, {EXAMPLE}.")
    return tuple(shared)


def _bare(axis: str) -> str:
    """ "T/5" → "T" """
    return axis.partition("/")[0].strip() if not axis.startswith("(") else axis


def read(shapes: Shapes, inputs: Layout, grid: Sequence[int] = ()) -> Layout:
    """The layout of an output, by how its shape follows the input's samples and length; by sizes where that was not
    seen. Without positions it is pooled: one answer a sample."""
    shape = shapes.shape
    names = [*"CDEFGHI"]
    if len(grid) > 1:
        return _read_grid(shapes, inputs, tuple(grid))
    by_length, by_batch = shapes.moved(shapes.shorter), shapes.moved(shapes.smaller)
    if shapes.batch > 1 and 0 in by_length and (0 in by_batch or shape[0] == shapes.batch * shapes.length):
        return Layout((BOTH, *names[: len(shape) - 1]))
    if by_length or shapes.shorter is not None:
        time = next((i for i in by_length if shape[i] == shapes.length), by_length[0] if by_length else None)
    else:
        time = _time_by_size(shape, shapes.batch, shapes.length)
        if time == 0 and shape[0] == shapes.batch * shapes.length != shapes.length:
            return Layout((BOTH, *names[: len(shape) - 1]))
    free = [i for i in range(len(shape)) if i != time]
    sample = next((i for i in by_batch if i != time), next((i for i in free if shape[i] == shapes.batch), None))
    if sample is None and shapes.batch != 1 and free and time != 0:
        sample = free[0]
    rest = iter(names)
    axes = tuple("T" if i == time else "B" if i == sample else next(rest) for i in range(len(shape)))
    return Layout(axes or ("C",))


@dataclass(frozen=True)
class Shapes:
    """Of an output: at B and T, at fewer positions, at another number of samples; None where that was refused."""

    shape: tuple[int, ...]
    batch: int
    length: int
    shorter: tuple[int, ...] | None = None
    smaller: tuple[int, ...] | None = None

    def moved(self, other: tuple[int, ...] | None) -> list[int]:
        """Axes whose size differs."""
        if other is None or len(other) != len(self.shape):
            return []
        return [i for i, (a, b) in enumerate(zip(self.shape, other, strict=True)) if a != b]


def _time_by_size(shape: tuple[int, ...], batch: int, length: int) -> int | None:
    if length < 0:
        return 1 if len(shape) >= 3 and shape[0] == batch else None
    if len(shape) >= 2 and shape[0] == batch and length in shape[1:]:
        return shape.index(length, 1)
    if length in shape[:1] or (shape and shape[0] == batch * length):
        return 0
    return 1 if len(shape) >= 3 and shape[0] == batch else None


def _read_grid(shapes: Shapes, inputs: Layout, grid: tuple[int, ...]) -> Layout:
    """Rows and columns come out as such, or as one row of patches."""
    shape, length = shapes.shape, prod(grid)
    if len(shape) >= 2 and shape[0] == shapes.batch and shape[1] == length:
        return plain(len(shape))
    for first in range(1, len(shape) - len(grid) + 1):
        if shape[first : first + len(grid)] == grid:
            rest = iter("CDEFG")
            axes = [
                "B" if i == 0 else inputs.positions[i - first] if first <= i < first + len(grid) else next(rest)
                for i in range(len(shape))
            ]
            return Layout(tuple(axes), inputs.positions)
    return Layout(("B", *"CDEFG"[: len(shape) - 1]))
