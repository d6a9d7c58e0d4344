"""Masks of attention that works in segments, in columns, or by head. See ``patterns`` for what a mask is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce

import torch
from torch import Tensor

from headwise.interp.masks.patterns import Mask, Padding, hashed


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
class Drawn(Mask):
    """Each block of queries sees ``count`` blocks of keys drawn at random, head by head: the random keys of BigBird
    (Zaheer et al. 2020, §2), as many in every row of blocks, or all where there are fewer.

    They are drawn among the blocks from ``first`` on that stand more than ``near`` blocks before the query's, and,
    where the text is known to have ``blocks`` blocks, more than ``near`` after it too. A row's draw is a hash of (seed,
    head, row), so it does not depend on what comes later.

    >>> print(Drawn(0, block=1, count=2, near=1))
    ⬚⬚⬚⬚⬚⬚⬚⬚
    ⬚⬚⬚⬚⬚⬚⬚⬚
    ■⬚⬚⬚⬚⬚⬚⬚
    ■■⬚⬚⬚⬚⬚⬚
    ⬚■■⬚⬚⬚⬚⬚
    ⬚■⬚■⬚⬚⬚⬚
    ■⬚⬚⬚■⬚⬚⬚
    ■■⬚⬚⬚⬚⬚⬚
    """

    seed: int
    block: int = 64
    count: int = 3
    near: int = 1
    first: int = 0
    blocks: int | None = None

    def __post_init__(self):
        if self.block < 1 or min(self.count, self.near, self.first) < 0:
            raise ValueError(
                f"Drawn expects blocks of 1 or more and counts of 0 or more; got block {self.block}, "
                f"count {self.count}, near {self.near} and first {self.first}."
            )

    def chosen(self, h: Tensor, row: Tensor) -> list[Tensor]:
        """The blocks of keys that rows of blocks see, −1 for none: Floyd's draw without replacement (Bentley 1987)."""
        left = (row - self.near - self.first).clamp(min=0)  # candidates before the window
        resumes = (row + self.near + 1).clamp(min=self.first)  # the first block behind it
        many = left if self.blocks is None else left + (self.blocks - resumes).clamp(min=0)
        places: list[Tensor] = []
        for draw in range(self.count):
            top = many - self.count + draw
            place = hashed(self.seed, h, row, draw) % (top + 1).clamp(min=1)
            taken = reduce(torch.logical_or, (place == other for other in places), torch.zeros_like(place).bool())
            places.append(torch.where(top < 0, -1, torch.where(taken, top, place)))
        return [
            torch.where(place < 0, -1, torch.where(place < left, self.first + place, resumes + place - left))
            for place in places
        ]

    def allowed(self, b, h, q, k):
        return _among(self.chosen(h, q // self.block), k // self.block)

    def __repr__(self) -> str:
        behind = "" if self.blocks is None else f", blocks={self.blocks}"
        return f"Drawn({self.seed}, {self.block}, {self.count}, near={self.near}, first={self.first}{behind})"


@dataclass(frozen=True)
class Listed(Mask):
    """The blocks of keys that each block of queries sees, told one by one: ``lists[head][row]``, or ``lists[row]``
    for all heads.

    >>> print(Listed(2, ((3,), (0,), (0, 1), ())))
    ⬚⬚⬚⬚⬚⬚■■
    ⬚⬚⬚⬚⬚⬚■■
    ■■⬚⬚⬚⬚⬚⬚
    ■■⬚⬚⬚⬚⬚⬚
    ■■■■⬚⬚⬚⬚
    ■■■■⬚⬚⬚⬚
    ⬚⬚⬚⬚⬚⬚⬚⬚
    ⬚⬚⬚⬚⬚⬚⬚⬚
    """

    block: int
    lists: tuple

    @cached_property
    def _table(self) -> Tensor:
        """(H | 1, rows, blocks), −1 for none."""
        each = bool(self.lists and self.lists[0]) and isinstance(self.lists[0][0], tuple)
        heads = self.lists if each else (self.lists,)
        most = max((len(row) for rows in heads for row in rows), default=0)
        return torch.tensor([[(*row, *[-1] * (most - len(row))) for row in rows] for rows in heads], dtype=torch.long)

    def chosen(self, h: Tensor, row: Tensor) -> list[Tensor]:
        """As in ``Drawn``."""
        table = self._table.to(row.device)
        if row.numel() and int(row.max()) >= table.shape[1]:
            raise IndexError(f"Listed: blocks for {table.shape[1]} rows given, row {int(row.max())} asked.")
        return [c[h.clamp(max=0) if len(table) == 1 else h, row] for c in table.unbind(-1)]

    def allowed(self, b, h, q, k):
        return _among(self.chosen(h, q // self.block), k // self.block)

    def __repr__(self) -> str:
        return f"Listed({self.block}, {self.lists})"


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


@dataclass(frozen=True, eq=False)
class Marked(Mask):
    """The keys that are marked, by sample, or with ``side`` "query" the queries: real tokens among padding that stands
    anywhere. ``marks`` is bool (T,) or (B, T).

    >>> print(Marked(torch.tensor([1, 1, 0, 1, 1, 0, 0, 0]).bool()))
    ■■⬚■■⬚⬚⬚
    ■■⬚■■⬚⬚⬚
    ■■⬚■■⬚⬚⬚
    ■■⬚■■⬚⬚⬚
    ■■⬚■■⬚⬚⬚
    ■■⬚■■⬚⬚⬚
    ■■⬚■■⬚⬚⬚
    ■■⬚■■⬚⬚⬚
    """

    marks: Tensor
    side: str = "key"

    def __post_init__(self):
        if self.marks.dtype != torch.bool or self.marks.ndim not in (1, 2) or self.side not in ("key", "query"):
            raise ValueError(
                f"Marked expects bool marks (T,) or (B, T) of a key or query side, got {self.marks.dtype} "
                f"{tuple(self.marks.shape)} of {self.side!r}."
            )

    def allowed(self, b, h, q, k):
        marks = self.marks.to(q.device).reshape(-1, self.marks.shape[-1])
        return marks[b.clamp(max=0) if len(marks) == 1 else b, k if self.side == "key" else q]

    @cached_property
    def _digest(self) -> int:
        return hash((self.side, tuple(self.marks.shape), self.marks.cpu().numpy().tobytes()))

    def __eq__(self, other):
        return isinstance(other, Marked) and self.side == other.side and torch.equal(self.marks, other.marks)

    def __hash__(self):
        return self._digest

    def __repr__(self) -> str:
        side = "" if self.side == "key" else f", side={self.side!r}"
        return f"Marked({' × '.join(map(str, self.marks.shape))}{side})"


def within(mask: Mask, real: Tensor, queries: bool = False) -> Mask:
    """A mask in texts of which only ``real`` (B, T) tokens are no padding; with ``queries`` the others see nothing.

    >>> within(Segments(4), torch.tensor([[1, 1, 0], [1, 1, 1]]).bool())
    Segments(4, 0) & Padding((2, 3), starts=(0, 0))
    """
    if bool(real.all()):
        return mask
    first, counts = real.int().argmax(1), real.sum(1)
    place = torch.arange(real.shape[1], device=real.device)
    together = (place >= first[:, None]) & (place < (first + counts)[:, None])
    whole = torch.equal(together, real)
    mask = mask & (Padding(tuple(counts.tolist()), starts=tuple(first.tolist())) if whole else Marked(real))
    return mask & Marked(real, "query") if queries else mask


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


def _among(chosen: list[Tensor], block: Tensor) -> Tensor:
    """Is the block of a key one of those that its query's row has chosen?"""
    none = torch.zeros((), dtype=torch.bool, device=block.device)
    return reduce(torch.logical_or, (block == c for c in chosen), none)
