"""BigBird: a block of tokens sees its neighbours, a few blocks that all see, and a few drawn at random. Random blocks
are short cuts: two tokens are a few steps apart, however long the text.

Zaheer et al. 2020, "Big Bird: Transformers for Longer Sequences", §2 and appendix D: blocks of b tokens (``block``), a
window of w blocks (here ``window`` = (w − 1) / 2 a side), g global tokens (``globals`` = g / b blocks), r random blocks
a row (``random``). O(n · (g + w + r) · b) time and memory. Where it is causal, blocks are drawn among the earlier ones,
so that no draw depends on what comes later. The weights are softmax weights over what is seen.

>>> print(Scattered(block=2, window=0, random=1, seed=3).mask())
■⬚⬚⬚⬚⬚⬚⬚
■■⬚⬚⬚⬚⬚⬚
■■■⬚⬚⬚⬚⬚
■■■■⬚⬚⬚⬚
■■■■■⬚⬚⬚
■■■■■■⬚⬚
■■⬚⬚■■■⬚
■■⬚⬚■■■■
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from headwise.interp.masks import Causal, Drawn, Global, Listed, Mask, Segments
from headwise.models.variants.blockwise import NONE, Blockwise, Pattern, whole


@dataclass(frozen=True)
class Scattered(Pattern):
    """``window`` blocks a side, the first ``globals`` blocks and, where it is not causal, the ``last`` ones, and
    ``random`` more a row: how many, or which, by head and row."""

    block: int
    window: int = 1
    globals: int = 1
    random: int | tuple = 1
    seed: int = 0
    last: int = 0
    causal: bool = True

    def __post_init__(self):
        counts = (self.window, self.globals, self.last, 0 if isinstance(self.random, tuple) else self.random)
        if not (whole(self.block, 1) and all(whole(n, 0) for n in counts)):
            raise ValueError(
                "blocks expect whole numbers: block ≥ 1, window, globals and random ≥ 0; got "
                f"{self.block}, {self.window}, {self.globals} and {self.random}"
            )

    def mask(self, length: int | None = None) -> Mask:
        b = self.block
        mask = Segments(b, self.window * b, 0 if self.causal else self.window * b)
        if shared := self._shared(length):
            mask = mask | Global(shared)
        if self.random:
            mask = mask | self._scattered(length)
        return Causal() & mask if self.causal else mask

    def lists(self, length, heads):
        width = min(self.block, length)
        shared = torch.tensor([at for at in self._shared(length) if at < length], dtype=torch.long)
        row = torch.arange(math.ceil(length / width))  # of blocks
        queries = _tokens(row[:, None], width, length)
        near = row[:, None] + torch.arange(-self.window, 1 if self.causal else self.window + 1)
        for head in range(heads):
            chosen = self._scattered(length).chosen(torch.tensor(head), row)
            keys = _once(_tokens(torch.cat([near, *(c[:, None] for c in chosen)], 1), width, length))
            keys = torch.cat([shared.expand(len(row), -1), keys.masked_fill(torch.isin(keys, shared), NONE)], 1)
            lists = [(queries.masked_fill(torch.isin(queries, shared), NONE), keys)]
            if len(shared):
                seen = torch.arange(int(shared[-1]) + 1 if self.causal else length)
                lists.append((shared[None], seen[None]))
            yield (head,), lists

    def _shared(self, length: int | None) -> tuple[int, ...]:
        """Positions of the global tokens."""
        first = range(self.globals * self.block)
        if self.causal or not self.last or length is None:
            return tuple(first)
        start = max(len(first), (math.ceil(length / self.block) - self.last) * self.block)
        return (*first, *range(start, length))

    def _scattered(self, length: int | None) -> Drawn | Listed:
        """The blocks that each row of blocks sees beside those."""
        if isinstance(self.random, tuple):
            return Listed(self.block, self.random)
        blocks = None if self.causal or length is None else math.ceil(length / self.block) - self.last
        return Drawn(self.seed, self.block, self.random, self.window, self.globals, blocks)


class BigBird(Blockwise):
    """Attention of neighbouring, global and random blocks. Each layer draws its own, from the ``seed`` or at random,
    and keeps the draw with its weights."""

    def __init__(
        self,
        width: int,
        heads: int,
        block: int = 16,
        window: int = 1,
        globals: int = 1,
        random: int = 1,
        seed: int | None = None,
    ):
        super().__init__(width, heads)
        self.sizes = Scattered(block, window, globals, random)
        self.register_buffer("seed", torch.randint(2**31, ()) if seed is None else torch.tensor(seed))

    @property
    def pattern(self) -> Scattered:
        return replace(self.sizes, seed=int(self.seed))

    def bound(self, causal: bool) -> Scattered:
        return replace(self.pattern, causal=causal)


def _tokens(blocks: Tensor, width: int, length: int) -> Tensor:
    """Blocks (N, m) → their positions (N, m · width), −1 outside the text."""
    positions = (blocks[..., None] * width + torch.arange(width)).flatten(1)
    return positions.masked_fill(
        (positions < 0) | (positions >= length) | (blocks < 0).repeat_interleave(width, 1), NONE
    )


def _once(keys: Tensor) -> Tensor:
    """Keys (N, m) in which each stands once, −1 for the others."""
    keys = keys.sort(1).values
    return torch.where(keys == keys.roll(1, 1), NONE, keys) if keys.shape[1] > 1 else keys
