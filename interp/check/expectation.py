"""What a model promises: one mask for every layer, or one a layer, and how far its outputs may then reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor

from headwise.interp import masks
from headwise.interp.check.errors import CheckError
from headwise.interp.errors import InputError
from headwise.interp.masks import (
    And,
    Bidirectional,
    Causal,
    Chunks,
    Mask,
    Not,
    Or,
    Packed,
    Padding,
    PerHead,
    Prefix,
    Window,
    Windows2d,
)
from headwise.interp.masks.chunks import on_grid
from headwise.interp.masks.spoken import spoken_mask

LONGEST = 100_000  # characters of an expression: ids for every position of a long row
WORDS = "causal, bidirectional, window:8, prefix:4, chunks:8, windows2d:7,7,3, packed:0,0,1"


class Unfit(CheckError):
    """A promise of another size than the input's."""


@dataclass(frozen=True)
class Expectation:
    """``masks`` holds one mask for all layers, or one for each."""

    masks: tuple[Mask, ...]

    @classmethod
    def of(cls, expect: Mask | str | Sequence[Mask | str]) -> Expectation:
        each = list(expect) if isinstance(expect, list | tuple) else [expect]
        each = [parse(m) if isinstance(m, str) else m for m in each]
        if not each or not all(isinstance(m, Mask) for m in each):
            raise CheckError(f"expect= takes a mask such as Causal(), or one a layer; got {expect!r}.")
        return cls(tuple(each))

    def __str__(self) -> str:
        return " · ".join(map(repr, self.masks)) if len(set(map(repr, self.masks))) > 1 else repr(self.masks[0])

    def mask(self, layer: int) -> Mask:
        return self.masks[min(layer, len(self.masks) - 1)]

    def layer(self, layer: int, length: int, b: int = 0, h: int = 0) -> Tensor:
        """What one layer may see → bool (T, T)."""
        return self.mask(layer).dense(length, length, b=b, h=h)

    def reach(self, layers: int | None, length: int, b: int = 0) -> Tensor:
        """What an output may depend on after ``layers`` of them (None: any number) → bool (T, T).

        A residual stream keeps each position, so a layer's step is its mask or the identity; layers compose as a
        boolean product. A window of w keys reaches layers·(w − 1) back.
        """
        return self.between(0, layers if layers is not None else max(length, len(self.masks)), length, b)

    def between(self, first: int, last: int, length: int, b: int = 0) -> Tensor:
        """Reach of layers ``first … last − 1`` → bool (T, T), the identity when there are none."""
        eye = torch.eye(length, dtype=torch.bool)
        reach = eye
        for index in range(first, last):
            step = torch.stack([self.layer(index, length, b, h) for h in range(self._heads)]).any(0)
            further = ((eye | step).float() @ reach.float()) > 0
            if index >= len(self.masks) and torch.equal(further, reach):
                break
            reach = further
        return reach

    @property
    def _heads(self) -> int:
        """Heads to unite in a layer's reach, where masks differ by head."""
        wide = [m.tensor.shape[-3] for m in self.parts(masks.Dense) if m.tensor.ndim >= 3]
        wide += [len(m.masks) for m in self.parts(masks.PerHead)]
        return max([1, *wide] + ([16] if self.has(masks.RandomBlocks) else []))

    def parts(self, kind: type) -> list[Mask]:
        return [leaf for mask in self.masks for leaf in _leaves(mask) if isinstance(leaf, kind)]

    def has(self, kind: type) -> bool:
        return bool(self.parts(kind))

    @property
    def free(self) -> bool:
        """Everything may see everything: an encoder."""
        return all(isinstance(leaf, Bidirectional | Padding) for mask in self.masks for leaf in _leaves(mask))

    @property
    def plain_causal(self) -> bool:
        return all(m == Causal() for m in self.masks)

    @property
    def size(self) -> int | None:
        """Positions that a mask with one value a position fixes."""
        return next((m.size[0] for m in self.masks if m.size), None)

    def fitted(self, batch: int, length: int, grid: tuple[int, ...] = ()) -> Expectation:
        """The promise for inputs of ``batch`` samples and ``length`` positions, which are rows and columns of a
        ``grid`` where they are. Raises Unfit where it fixes other numbers."""
        for part in self.parts(Mask):
            if part.size and part.size != (length, length):
                fixed = f"a grid of {part.grid}" if isinstance(part, Windows2d) else f"{part.size[0]} positions"
                raise Unfit(
                    f"the promise {_short(part)} fixes {fixed}, but the input has {length}: promise a mask of "
                    f"{length}, or give inputs= or length= of {part.size[0]}."
                )
            if isinstance(part, Windows2d) and part.grid and len(grid) == 2 and part.grid != tuple(grid):
                raise Unfit(f"the promise {part!r} is of another grid than the input's {tuple(grid)}: say that one.")
        if self.batch not in (None, batch):
            raise Unfit(
                f"the promise {self} is of {self.batch} samples, but the input has {batch}: give inputs= of as many."
            )
        if not any(w.grid is None for w in self.parts(Windows2d)):
            return self
        side = isqrt(length)
        if len(grid) != 2 and side * side != length:
            raise Unfit(
                f"the promise {self} does not say its grid, and {length} positions are no square: say grid=(rows, "
                f"columns) in it."
            )
        return Expectation(tuple(on_grid(m, tuple(grid) if len(grid) == 2 else (side, side)) for m in self.masks))

    @property
    def batch(self) -> int | None:
        """Samples that a mask with one value a sample fixes."""
        for leaf in (leaf for mask in self.masks for leaf in _leaves(mask)):
            if isinstance(leaf, Prefix) and isinstance(leaf.n, tuple) and len(leaf.n) > 1:
                return len(leaf.n)
            if isinstance(leaf, Packed) and isinstance(leaf.segment_ids[0], tuple):
                return len(leaf.segment_ids)
            if isinstance(leaf, Padding) and len(leaf.lengths) > 1:
                return len(leaf.lengths)
            if isinstance(leaf, masks.Dense) and leaf.tensor.ndim == 4 and leaf.tensor.shape[0] > 1:
                return leaf.tensor.shape[0]
        return None

    def is_causal(self, length: int = 8) -> bool:
        length = self.size or length
        return all(not bool(self.layer(i, length).triu(1).any()) for i in range(len(self.masks)))


def parse(text: str) -> Mask:
    """``causal``, ``bidirectional``, ``prefix:4``, ``window:8`` (8 keys, itself included, as Hugging Face's
    sliding_window), ``window:2,3`` (left, right), ``chunks:8`` or ``chunks:8,2`` (with two chunks before),
    ``windows2d:7,7,3`` (height, width, shift), ``packed:0,0,1,1``, or an expression such as
    ``Causal() & Window(7, 0)``.

    >>> parse("window:8"), parse("chunks:16,2")
    (Window(7, 0), Chunks(16, left=2))
    >>> parse("Causal() & (Strided(4) | Window(3, 0))")
    Causal() & (Strided(4) | Window(3, 0))
    """
    word, _, rest = text.strip().partition(":")
    try:
        numbers = tuple(int(n) for n in rest.split(",")) if rest else ()
        match word.strip().lower(), numbers:
            case "causal", ():
                return Causal()
            case (("bidirectional" | "full" | "encoder"), ()):
                return Bidirectional()
            case "window", (keys,):
                return Window(keys - 1, 0)
            case "window", (left, right):
                return Window(left, right)
            case "prefix", (n,):
                return Prefix(n)
            case "prefix", several if several:
                return Prefix(several)
            case "chunks", (_, *left) if len(left) < 2:
                return Chunks(*numbers)
            case "windows2d", (_, _, *shift) if len(shift) < 2:
                return Windows2d(*numbers)
            case "packed", several if several:
                return Causal() & Packed(several)
        return spoken_mask(text, LONGEST)
    except (InputError, ValueError) as error:
        told = " expects " in str(error)  # a mask's own words of its numbers
        said = error if told else f"use {WORDS} or an expression like 'Causal() & Window(7, 0)'."
        raise CheckError(f"expect={text!r} is no mask: {said}") from error


def _leaves(mask: Mask) -> list[Mask]:
    if isinstance(mask, And | Or):
        return _leaves(mask.left) + _leaves(mask.right)
    if isinstance(mask, PerHead):
        return [mask, *(leaf for each in mask.masks for leaf in _leaves(each))]
    return _leaves(mask.mask) if isinstance(mask, Not) else [mask]


def _short(mask: Mask) -> str:
    text = repr(mask)
    return text if len(text) < 60 else f"{text[:40]} …)"
