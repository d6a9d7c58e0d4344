"""Masks of attention in chunks of a sequence and in windows of a grid. See ``patterns`` for what a mask is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from headwise.interp.masks.patterns import And, Mask, Not, Or
from headwise.interp.masks.segments import PerHead


@dataclass(frozen=True, init=False)
class Chunks(Mask):
    """The sequence is cut into chunks of ``size`` positions; a query sees its own chunk, all of it, and ``left`` chunks
    before it, None for all of them.

    Streaming speech encoders see a chunk both ways: ``Chunks(size, left)`` (Zhang et al. 2020, §3.1, WeNet's
    ``num_left_chunks``, whose −1 is None here). Llama 4's chunked layers look back only and no further than their
    chunk: ``Causal() & Chunks(size)`` (``attention_chunk_size``). Chunks are counted from the first position, in a
    row padded on the left from the first real one.

    >>> print(Chunks(3, left=1))
    ■■■⬚⬚⬚⬚⬚
    ■■■⬚⬚⬚⬚⬚
    ■■■⬚⬚⬚⬚⬚
    ■■■■■■⬚⬚
    ■■■■■■⬚⬚
    ■■■■■■⬚⬚
    ⬚⬚⬚■■■■■
    ⬚⬚⬚■■■■■
    """

    length: int  # of a chunk; ``size`` is that of the mask
    left: int | None = 0

    def __init__(self, size: int, left: int | None = 0):
        if size < 1 or (left is not None and left < 0):
            raise ValueError(
                f"Chunks(size, left) expects a size of 1 or more, and left of 0 or more, or None for all before it; "
                f"got {size} and {left}."
            )
        object.__setattr__(self, "length", size)
        object.__setattr__(self, "left", left)

    def allowed(self, b, h, q, k):
        back = q // self.length - k // self.length
        return back >= 0 if self.left is None else (back >= 0) & (back <= self.left)

    def __repr__(self) -> str:
        return f"Chunks({self.length}{'' if self.left == 0 else f', left={self.left}'})"


@dataclass(frozen=True)
class Windows2d(Mask):
    """Positions are a grid of rows and columns, in raster order; a query sees the window of ``height`` × ``width`` in
    which it stands. Windows are moved by ``shift``, one number or (down, right); what lies before the first border
    is a window of its own, for a shift that wraps around is masked apart (Liu et al. 2021, §3.2: Swin, whose blocks
    take turns with ``Windows2d(7, 7)`` and ``Windows2d(7, 7, 3)``).

    ``grid`` is (rows, columns). Left out, ``check`` takes that of its input (B, H, W, C), or a square one where a row
    of patches has as many positions; for everything else it must be said.

    >>> print(Windows2d(2, 2, shift=1, grid=(2, 4)))
    ■⬚⬚⬚⬚⬚⬚⬚
    ⬚■■⬚⬚⬚⬚⬚
    ⬚■■⬚⬚⬚⬚⬚
    ⬚⬚⬚■⬚⬚⬚⬚
    ⬚⬚⬚⬚■⬚⬚⬚
    ⬚⬚⬚⬚⬚■■⬚
    ⬚⬚⬚⬚⬚■■⬚
    ⬚⬚⬚⬚⬚⬚⬚■
    """

    height: int
    width: int
    shift: int | tuple[int, int] = 0
    grid: tuple[int, int] | None = None

    def __post_init__(self):
        down, right = self._shifts
        if self.grid is not None:
            object.__setattr__(self, "grid", tuple(map(int, self.grid)))
        sizes = (self.height, self.width, *(self.grid or (1, 1)))
        if min(sizes) < 1 or len(sizes) != 4 or not 0 <= down < self.height or not 0 <= right < self.width:
            raise ValueError(
                f"Windows2d(height, width, shift, grid) expects windows and a grid of 1 or more each way, and a shift "
                f"smaller than the window; got {self!r}."
            )

    @property
    def _shifts(self) -> tuple[int, int]:
        return self.shift if isinstance(self.shift, tuple) else (self.shift, self.shift)

    @property
    def size(self):
        return None if self.grid is None else (self.grid[0] * self.grid[1],) * 2

    def allowed(self, b, h, q, k):
        if self.grid is None:
            raise ValueError(f"{self!r} does not say on which grid: give grid=(rows, columns).")
        columns, (down, right) = self.grid[1], self._shifts
        same_rows = (q // columns - down) // self.height == (k // columns - down) // self.height
        return same_rows & ((q % columns - right) // self.width == (k % columns - right) // self.width)

    def __str__(self) -> str:
        return repr(self) if self.grid is None else super().__str__()

    def __repr__(self) -> str:
        on = "" if self.grid is None else f", grid={self.grid}"
        return f"Windows2d({self.height}, {self.width}{f', {self.shift}' if self.shift else ''}{on})"


def on_grid(mask: Mask, grid: tuple[int, int]) -> Mask:
    """The mask with this grid for the windows in it that do not say theirs.

    >>> on_grid(~Windows2d(2, 2) & Windows2d(4, 4, 2), (6, 8))
    ~Windows2d(2, 2, grid=(6, 8)) & Windows2d(4, 4, 2, grid=(6, 8))
    """
    match mask:
        case Windows2d(grid=None):
            return replace(mask, grid=grid)
        case And(left, right) | Or(left, right):
            return type(mask)(on_grid(left, grid), on_grid(right, grid))
        case Not(inner):
            return Not(on_grid(inner, grid))
        case PerHead(masks):
            return PerHead(tuple(on_grid(each, grid) for each in masks))
    return mask
