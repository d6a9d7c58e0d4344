"""Positions by distance: what is added to a score says how far apart its query and its key are, and nothing else does.

ALiBi, Press et al. 2022, "Train Short, Test Long", §3: softmax(q_i Kᵀ/√D + m · [−(i − 1), …, −1, 0]), the slope m of a
head fixed. T5, Raffel et al. 2020, §2.1: a scalar learned for each head and each bucket of distances; half of the
buckets are exact, the others logarithmically wider up to ``furthest``, beyond which all share the last. (T5 itself
leaves √D out and lets the queries learn it.) O(n²·D) time as full attention; memory is O(n) here, by bands of rows. The
weights are the attention weights themselves. The mask is ``Causal()``, and after ``before`` keys of an earlier run:

>>> print(Pairs(before=2).mask())
■■■⬚⬚⬚⬚⬚
■■■■⬚⬚⬚⬚
■■■■■⬚⬚⬚
■■■■■■⬚⬚
■■■■■■■⬚
■■■■■■■■
■■■■■■■■
■■■■■■■■

Axis letters: B batch, H heads, h some heads, Q queries, K keys, R some rows, D head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.interp.attention.banded import BAND, Banded
from headwise.interp.attention.report import attend
from headwise.interp.masks import Bidirectional, Causal, Mask
from headwise.interp.masks.seen import seen
from headwise.models.variants.blockwise import Blockwise, Pattern, whole
from headwise.models.variants.steps import Memory


@dataclass(frozen=True, eq=False)
class Pairs(Pattern):
    """Every query meets every key before it, a band of queries at a time. Subclasses say what is ``added`` by
    distance. ``before`` keys stand before the first query: those of an earlier run."""

    causal: bool = True
    before: int = 0

    def mask(self, length: int | None = None) -> Mask:
        return Causal(self.before) if self.causal else Bidirectional()

    def allowed(self, at: Tensor, keys: Tensor, batch: int) -> Tensor:
        """What queries at ``at`` (R,) see of keys at ``keys`` (K,), bool broadcasting to (B, H, R, K)."""
        return keys <= at[:, None] if self.causal else keys[None] >= 0

    def content(self, q: Tensor, heads: slice = slice(None)) -> Tensor:
        """The queries (B, h, R, D) as they meet the keys."""
        return q

    def added(self, q: Tensor, at: Tensor, keys: Tensor, heads: slice = slice(None)) -> Tensor | None:
        """What stands beside q·k/√D in the scores of queries q (B, h, R, D) at ``at`` (R,) and keys at ``keys`` (K,),
        both in steps of one → (B | 1, h, R, K), or None for nothing."""
        return None

    def scored(self, q: Tensor, k: Tensor, mask: Mask, first: Tensor | None = None) -> Banded:
        count, live = k.shape[2], q.requires_grad

        def bias(start: int, stop: int, heads: slice) -> Tensor:
            at, some = torch.arange(start, stop, device=q.device) + self.before, q[:, heads, start:stop]
            near = seen(mask, (start, stop), count)
            keys = torch.arange(int(near[0]), int(near[-1]) + 1, device=q.device) if len(near) else at[:0]
            added = self.added(some, at, keys, heads) if len(near) else None
            if added is None:
                return q.new_zeros(1, 1, 1, count)
            if first is not None and bool(first.any()):
                behind = (
                    at < first[:, None]
                )  # (B, R): what stands before a text's first token is taken to stand behind it
                added = torch.where(behind[:, None, :, None], self.added(some, at + count, keys, heads), added)
            added = F.pad(added, (int(keys[0]), count - 1 - int(keys[-1])))
            return added if live else added.detach()

        content = self.content(q) if live else self.content(q).detach()  # whoever only looks needs no gradient
        return Banded(content, k, q.shape[-1] ** -0.5, mask, bias)

    def computed(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None = None) -> Tensor:
        outs, every = [], torch.arange(k.shape[2], device=q.device)
        for some in q.split(BAND, 2):
            at = every[: some.shape[2]] + self.before + BAND * len(outs)
            keys = every[: int(at[-1]) + 1] if self.causal else every
            allowed = self.allowed(at, keys, q.shape[0])
            if real is not None:
                allowed = allowed & real[:, None, None, : len(keys)]
            outs.append(self.among(some, k[:, :, : len(keys)], v[:, :, : len(keys)], at, keys, allowed))
        return torch.cat(outs, 2)

    def among(self, q: Tensor, k: Tensor, v: Tensor, at: Tensor, keys: Tensor, allowed: Tensor) -> Tensor:
        """Attention of queries and keys at these places; ``allowed`` broadcasts to (B, H, R, K)."""
        added = self.added(q, at, keys)
        mask = allowed if added is None else added.masked_fill(~allowed, -math.inf)
        return F.scaled_dot_product_attention(self.content(q), k, v, mask, enable_gqa=q.shape[1] != k.shape[1])


class Paired(Blockwise):
    """Attention by ``Pairs``, at once or a few tokens at a time."""

    def bound(self, causal: bool) -> Pairs:
        return Pairs(causal)

    def mask(self) -> Mask:
        return self.bound(True).mask()

    def step(self, x: Tensor, state: Memory | None, start: int, rotary: bool) -> tuple[Tensor, Memory]:
        """The next tokens x (B, n, C) at positions ``start`` …, and the keys and values of all before them."""
        q, k, v = self.project(
            x, positions=torch.arange(start, start + x.shape[1])[None].to(x.device) if rotary else None
        )
        before = 0 if state is None else state.k.shape[2]
        state = Memory(k, v) if state is None else state.grown(k, v)
        out = attend(q, state.k, state.v, replace(self.bound(True), before=before))
        return self.output(out.transpose(1, 2).flatten(2)), state


@dataclass(frozen=True, eq=False)
class Slopes(Pairs):
    """ALiBi: the further back a key, the lower its score, by its head's slope a token; ``each`` is a slope a head."""

    each: tuple[float, ...] = (1 / 4, 1 / 16, 1 / 64, 1 / 256)

    def added(self, q, at, keys, heads=slice(None)):
        slope = torch.tensor(self.each, device=q.device)[heads].to(q.dtype)  # (h,)
        return slope[None, :, None, None] * -back(at, keys).abs().to(q.dtype)  # (1, h, R, K)


class ALiBi(Paired):
    """Attention with linear biases. It has no parameters beside those of full attention."""

    def bound(self, causal):
        return Slopes(causal, each=slopes(self.heads))


@dataclass(frozen=True, eq=False)
class Buckets(Pairs):
    """T5: ``table`` (buckets, H), a scalar for each bucket of distances and head."""

    table: Tensor = field(default_factory=lambda: torch.zeros(32, 1))
    furthest: int = 128

    def added(self, q, at, keys, heads=slice(None)):
        which = bucket(back(at, keys), len(self.table), self.furthest, self.causal)  # (R, K)
        return self.table[:, heads].t()[:, which][None].to(q.dtype)  # (1, h, R, K)


class T5(Paired):
    """Attention with a learned scalar for each bucket of distances."""

    def __init__(self, width: int, heads: int, buckets: int = 32, furthest: int = 128):
        super().__init__(width, heads)
        if not (whole(buckets, 4) and whole(furthest, buckets)):
            raise ValueError(f"T5 expects 4 buckets or more, and furthest no smaller; got {buckets} and {furthest}")
        self.furthest = furthest
        self.table = nn.Parameter(torch.zeros(buckets, heads))

    def bound(self, causal):
        return Buckets(causal, table=self.table, furthest=self.furthest)


def back(at: Tensor, keys: Tensor) -> Tensor:
    """How many steps before its query a key stands → (R, K); negative after it."""
    return at[:, None] - keys


def slopes(heads: int) -> tuple[float, ...]:
    """ALiBi's slope for each head: a geometric sequence from 2^(−8/H) down to 2^−8 where H is a power of two; else
    that of the power below, and every other one of the power above (Press et al. 2022, §3 and their code).

    >>> slopes(8)[:3], slopes(3)
    ((0.5, 0.25, 0.125), (0.0625, 0.00390625, 0.25))
    """
    below = 2 ** int(math.log2(heads))
    first = [2 ** (-8 * (i + 1) / below) for i in range(below)]
    between = [2 ** (-4 * (i + 1) / below) for i in range(0, 2 * (heads - below), 2)]
    return (*first, *between)


def bucket(back: Tensor, buckets: int, furthest: int, causal: bool = True) -> Tensor:
    """T5's bucket of each distance; where not ``causal`` the second half of them is for keys after the query.

    >>> bucket(torch.tensor([-1, 0, 1, 3, 4, 6, 9, 16, 1000]), 8, 16).tolist()
    [0, 0, 1, 3, 4, 5, 6, 7, 7]
    """
    ahead = torch.zeros_like(back)
    if not causal:
        buckets //= 2
        ahead, back = (back < 0) * buckets, back.abs()
    back, exact = back.clamp(min=0), buckets // 2
    wider = exact + (torch.log(back.clamp(min=1) / exact) / math.log(furthest / exact) * (buckets - exact)).long()
    return ahead + torch.where(back < exact, back, wider.clamp(max=buckets - 1))
