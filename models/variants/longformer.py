"""Longformer: a token sees a window of its neighbours, and a few tokens are seen by all. Stacked windows reach far:
after L layers L · window tokens, L · window · dilation where heads look at every second or third neighbour only.

Beltagy et al. 2020, "Longformer: The Long-Document Transformer", §3.1: the window w (here ``window`` = w / 2 a side),
the dilation d, which may differ from head to head, and global attention, symmetric, with linear projections of its
own Q_g, K_g, V_g (``own``). O(n · w) time and memory. The weights are softmax weights over what is seen; a global
token's row is made from the other projections.

>>> print(Band(window=2, globals=1).mask())
■⬚⬚⬚⬚⬚⬚⬚
■■⬚⬚⬚⬚⬚⬚
■■■⬚⬚⬚⬚⬚
■■■■⬚⬚⬚⬚
■⬚■■■⬚⬚⬚
■⬚⬚■■■⬚⬚
■⬚⬚⬚■■■⬚
■⬚⬚⬚⬚■■■
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from headwise.interp.attention.apart import WithOwn
from headwise.interp.attention.banded import Masked
from headwise.interp.masks import Causal, Dense, Global, Mask, PerHead, Strided, Window
from headwise.models.architectures.blocks import rotate
from headwise.models.variants.blockwise import NONE, Blockwise, Padded, Pattern, whole, windows


@dataclass(frozen=True)
class Band(Pattern):
    """``window`` keys a side, each ``dilation`` from the next (one number, or one a head), and the first ``globals``
    tokens."""

    window: int
    dilation: int | tuple[int, ...] = 1
    globals: int = 0
    causal: bool = True

    def __post_init__(self):
        if isinstance(self.dilation, Sequence):
            object.__setattr__(self, "dilation", tuple(self.dilation))
        each = self.dilation if isinstance(self.dilation, tuple) else (self.dilation,)
        if not (whole(self.window, 0) and each and all(whole(d, 1) for d in each) and whole(self.globals, 0)):
            raise ValueError(
                "a window expects whole numbers: window ≥ 0, dilation ≥ 1 (one, or one a head) and globals ≥ 0; got "
                f"{self.window}, {self.dilation} and {self.globals}"
            )

    def mask(self, length: int | None = None) -> Mask:
        if isinstance(self.dilation, int):
            return self._masked(self.dilation)
        return PerHead(tuple(self._masked(d) for d in self.dilation))

    def _masked(self, dilation: int) -> Mask:
        left = self.window * dilation
        mask = Window(left, 0 if self.causal else left)
        if dilation > 1:
            mask = mask & Strided(dilation)
        if self.globals:
            mask = mask | Global(tuple(range(self.globals)))
        return Causal() & mask if self.causal else mask

    def lists(self, length, heads):
        for dilation, some in _alike(self.dilation, heads).items():
            shared = torch.arange(min(self.globals, length))
            queries, keys = windows(length, self.window, dilation, self.causal, shared)
            queries = queries.masked_fill(torch.isin(queries, shared), NONE)
            seen = torch.arange(len(shared) if self.causal else length)
            yield some, [(queries, keys), *([(shared[None], seen[None])] if len(shared) else [])]


class Longformer(Blockwise):
    """Attention of a window and global tokens, whose rows are made by projections of their ``own`` where these are
    asked for."""

    def __init__(
        self,
        width: int,
        heads: int,
        window: int = 32,
        dilation: int | Sequence[int] = 1,
        globals: int = 0,
        own: bool = False,
    ):
        super().__init__(width, heads)
        self.pattern = Band(window, dilation, globals)
        if not isinstance(self.pattern.dilation, int) and len(self.pattern.dilation) != heads:
            raise ValueError(f"one dilation a head is expected, {heads}; got {len(self.pattern.dilation)}")
        self.own = own and globals > 0
        if self.own:
            self.query_global, self.key_global, self.value_global = (nn.Linear(width, width) for _ in range(3))

    def bound(self, causal: bool) -> Band:
        return replace(self.pattern, causal=causal)

    def kept(self, positions, coming):
        each = self.pattern.dilation
        far = self.pattern.window * (each if isinstance(each, int) else max(each))
        return (positions >= coming - far) | (positions < self.pattern.globals)

    def made(self, by, x, positions):
        if not self.own:
            return by
        length = x.shape[1]
        real = by.real if isinstance(by, Padded) else x.new_ones(1, length, dtype=torch.bool)  # (B | 1, T)
        places = real.int().argmax(1, keepdim=True) + torch.arange(min(self.pattern.globals, length), device=x.device)
        there = (places < length).expand(x.shape[0], -1)  # (B, G)
        places = places.clamp(max=length - 1).expand(x.shape[0], -1)
        allowed = real[:, None].expand(*places.shape, -1) & there[..., None]  # (B, G, T)
        if (by.pattern if isinstance(by, Padded) else by).causal:
            allowed = allowed & (torch.arange(length, device=x.device) <= places[..., None])
        q = self.split(self.query_global(x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))))
        k, v = self.split(self.key_global(x)), self.split(self.value_global(x))
        if positions is not None:
            q, k = rotate(q, positions.expand(x.shape[0], -1).gather(1, places)), rotate(k, positions)
        mask = Masked(q.shape[-1] ** -0.5, Dense(allowed[:, None]))
        return WithOwn(by, mask, places.where(there, NONE), q, k, v)

    def step(self, x, state, start, rotary):
        if not self.own:
            return super().step(x, state, start, rotary)
        kept, first = state or (None, x[:, :0])  # beside the keys, the global tokens so far
        out, kept = super().step(x, kept, start, rotary)
        if start < self.pattern.globals:
            first = torch.cat([first, x], 1)[:, : self.pattern.globals]
            positions = torch.arange(first.shape[1], device=x.device)[None] if rotary else None
            rows = self(first, causal=True, positions=positions)[:, start:]
            out = torch.cat([rows, out[:, rows.shape[1] :]], 1)
        return out, (kept, first)


def _alike(dilation: int | tuple[int, ...], heads: int) -> dict[int, tuple[int, ...]]:
    """Dilation → the heads that have it."""
    each = (dilation,) * heads if isinstance(dilation, int) else dilation
    return {d: tuple(head for head in range(heads) if each[head] == d) for d in dict.fromkeys(each)}
