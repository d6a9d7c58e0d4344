"""What Longformer, the Sparse Transformer and BigBird have in common: a block of queries meets a short list of keys.

A pattern plans, for a text of n tokens, which queries stand together and which keys they meet; each block is then one
small dense attention, and what of it is forbidden is read off the pattern's mask. Time and memory are the cells that
are met: n times the length of the list, never n × n.

Axis letters: B batch, H heads, h some heads, T tokens, D head width, N blocks, w queries and m keys of a block.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.interp.attention.banded import Banded
from headwise.interp.attention.report import Mechanism, attend
from headwise.interp.masks import Mask, Shifted, within
from headwise.models.architectures.blocks import Attention
from headwise.models.variants.steps import Places

NONE = -1  # no position: fills blocks up
PIECE = 128  # tokens of one step that are computed together


@dataclass(frozen=True, eq=False)
class Met:
    """Blocks of queries (N, w) and the keys that each block meets (N, m), as positions; ``allowed`` (N, w, m)."""

    queries: Tensor
    keys: Tensor
    allowed: Tensor

    def among(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None) -> Tensor:
        """Attention of these blocks alone, (B, h, T, D) → (B, h, N·w, D)."""
        allowed = self.allowed[None]
        if real is not None:
            allowed = allowed & real[:, self.keys.clamp(min=0)][:, :, None]  # (B, N, w, m)
            allowed = allowed.repeat_interleave(q.shape[1], 0)
        some, keys, values = (_laid(t, at) for t, at in ((q, self.queries), (k, self.keys), (v, self.keys)))
        out = F.scaled_dot_product_attention(some, keys, values, allowed)  # (B·h, N, w, D); nothing seen gives zeros
        return out.flatten(1, 2).unflatten(0, q.shape[:2])


@dataclass(frozen=True, eq=False)
class Group:
    """Heads that meet the same keys: ``blocks``, and where each token's query stands in these, one after another."""

    heads: tuple[int, ...]
    blocks: tuple[Met, ...]
    place: Tensor  # (T,)


class Pattern:
    """Which keys a query sees, and how to compute it: ``interp.attention.report.Mechanism``. Subclasses are frozen,
    hashable dataclasses with a ``causal`` and define ``mask`` and ``lists``."""

    causal: bool

    def mask(self, length: int | None = None) -> Mask:
        """Who sees whom, as an expression; of a text of ``length`` tokens where that makes a difference."""
        raise NotImplementedError

    def lists(self, length: int, heads: int) -> Iterable[tuple[tuple[int, ...], list[tuple[Tensor, Tensor]]]]:
        """For heads that share a plan: blocks of queries (N, w) and their keys (N, m). Each query stands in one block;
        a key stands in a list once; −1 is none."""
        raise NotImplementedError

    def output(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.computed(q, k, v)

    def form(self, q: Tensor, k: Tensor) -> Banded:
        return self.scored(q, k, self.mask(k.shape[2]))

    def scored(self, q: Tensor, k: Tensor, mask: Mask, first: Tensor | None = None) -> Banded:
        """The scores under ``mask``, of texts whose first real tokens stand at ``first`` (B,): see ``Padded``."""
        return Banded(q, k, q.shape[-1] ** -0.5, mask)

    def computed(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None = None) -> Tensor:
        """(B, H, T, D) → (B, H, T, D); ``real`` (B, T) are keys that are no padding."""
        parts, order = [], []
        for group in planned(self, q.shape[2], q.shape[1], q.device):
            some = [t if len(group.heads) == t.shape[1] else t[:, list(group.heads)] for t in (q, k, v)]
            laid = torch.cat([met.among(*some, real) for met in group.blocks], 2)
            parts.append(laid[:, :, group.place])
            order += group.heads
        whole = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        return whole if order == sorted(order) else whole[:, sorted(range(len(order)), key=order.__getitem__)]


@lru_cache(maxsize=32)
def planned(pattern: Pattern, length: int, heads: int, device: torch.device) -> tuple[Group, ...]:
    """A pattern's plan for a text of this length, with what is allowed in it."""
    mask, groups = pattern.mask(length), []
    for some, lists in pattern.lists(length, heads):
        head = torch.tensor(some[0])
        blocks = []
        for queries, keys in lists:
            allowed = mask(torch.tensor(0), head, queries[:, :, None], keys[:, None])  # (N, w, m)
            allowed = allowed & (queries >= 0)[:, :, None] & (keys >= 0)[:, None]
            blocks.append(Met(queries.to(device), keys.to(device), allowed.to(device)))
        flat = torch.cat([queries.flatten() for queries, _ in lists])
        place = torch.empty(length, dtype=torch.long)
        place[flat[flat >= 0]] = torch.arange(len(flat))[flat >= 0]
        groups.append(Group(tuple(some), tuple(blocks), place.to(device)))
    return tuple(groups)


@dataclass(frozen=True, eq=False)
class Padded:
    """A pattern in texts of which some keys are padding: ``real`` (B, T). It is counted from the first real token of
    each text, so that padding on either side changes nothing."""

    pattern: Pattern
    real: Tensor

    def output(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        first = self.real.int().argmax(1)  # (B,)
        there = (torch.arange(q.shape[2], device=q.device) + first[:, None]) % q.shape[2]  # (B, T)
        back = (torch.arange(q.shape[2], device=q.device) - first[:, None]) % q.shape[2]
        out = self.pattern.computed(*(_moved(t, there) for t in (q, k, v)), self.real.gather(1, there))
        return _moved(out, back)

    def form(self, q: Tensor, k: Tensor) -> Banded:
        return self.pattern.scored(q, k, self.mask(), self.real.int().argmax(1))

    def mask(self) -> Mask:
        first, length = tuple(self.real.int().argmax(1).tolist()), self.real.shape[1]
        mask = self.pattern.mask(length)
        return within(Shifted(mask, first, length) if any(first) else mask, self.real)


class Blockwise(Attention):
    """Attention by a pattern, at once or a few tokens at a time. Subclasses set ``pattern``, which is causal."""

    pattern: Pattern

    def mask(self) -> Mask:
        return self.pattern.mask()

    def bound(self, causal: bool) -> Pattern:
        """The pattern, causal or not."""
        raise NotImplementedError

    def forward(self, x, memory=None, *, mask=None, causal=False, positions=None):
        """``mask`` (B, 1, 1, T) is True at real tokens, None where all are."""
        if memory is not None:
            raise ValueError(f"{type(self).__name__} attends within one text; give no memory, or use full attention")
        if mask is not None and mask.shape[1:3] != (1, 1):
            raise ValueError(f"a mask of real keys (B, 1, 1, T) is expected, got {tuple(mask.shape)}")
        q, k, v = self.project(x, positions=positions)
        by = self.bound(causal)
        if mask is not None:
            by = Padded(by, mask.flatten(1).expand(x.shape[0], -1))
        return self.output(attend(q, k, v, self.made(by, x, positions)).transpose(1, 2).flatten(2))

    def made(self, by: Pattern | Padded, x: Tensor, positions: Tensor | None) -> Mechanism:
        """The mechanism of this input: the pattern, unless there is more to it."""
        return by

    def kept(self, positions: Tensor, coming: int) -> Tensor:
        """Which of the keys at ``positions`` a query at ``coming`` or later may see; all, unless a mechanism knows
        better."""
        return torch.ones_like(positions, dtype=torch.bool)

    def step(self, x: Tensor, state: Places | None, start: int, rotary: bool) -> tuple[Tensor, Places]:
        """The next tokens x (B, n, C) at positions ``start`` …, and the keys that are still to be seen."""
        positions = torch.arange(start, start + x.shape[1], device=x.device)
        q, k, v = self.project(x, positions=positions[None] if rotary else None)
        outs = []
        for piece in positions.split(PIECE):
            rows = slice(int(piece[0]) - start, int(piece[-1]) + 1 - start)
            new = Places(k[:, :, rows], v[:, :, rows], piece)
            state = new if state is None else state.grown(new)
            outs.append(self._met(q[:, :, rows], piece, state))
            state = state.only(self.kept(state.positions, int(piece[-1]) + 1))
        return self.output(torch.cat(outs, 2).transpose(1, 2).flatten(2)), state

    def _met(self, q: Tensor, positions: Tensor, state: Places) -> Tensor:
        head = torch.arange(self.heads, device=q.device)[:, None, None]
        zero = torch.zeros((), dtype=torch.long, device=q.device)
        allowed = self.mask()(zero, head, positions[:, None], state.positions)  # (H, n, K)
        return F.scaled_dot_product_attention(q, state.k, state.v, allowed[None])


def windows(length: int, window: int, dilation: int, causal: bool, shared: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks of queries (N, w) and their keys (N, m) where a query sees ``window`` keys on its left, and on its right
    unless ``causal``, each ``dilation`` from the next, beside the ``shared`` ones (S,).

    Tokens that stand a multiple of the dilation apart form a text of their own; each is cut into blocks.
    """
    each = math.ceil(length / dilation)  # tokens of such a text
    window = min(window, each - 1)
    width = min(max(window, 16), each)
    first = torch.arange(0, each, width)[:, None]  # (N, 1), of the blocks
    queries = _spread(first + torch.arange(width), dilation, length)
    keys = _spread(first + torch.arange(-window, width + (0 if causal else window)), dilation, length)
    keys[torch.isin(keys, shared)] = NONE
    return queries, torch.cat([shared.expand(len(keys), -1), keys], 1)


def whole(value, least: int) -> bool:
    """Is this a whole number, no smaller than ``least``?"""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _spread(index: Tensor, dilation: int, length: int) -> Tensor:
    """Places in each of ``dilation`` texts (N, w) → positions (dilation · N, w), −1 outside."""
    positions = (index * dilation)[None] + torch.arange(dilation)[:, None, None]
    return positions.masked_fill((index < 0) | (positions >= length), NONE).flatten(0, 1)


def _laid(t: Tensor, at: Tensor) -> Tensor:
    """(B, h, T, D) at positions (N, w) → (B·h, N, w, D)."""
    return t[:, :, at.clamp(min=0)].flatten(0, 1)


def _moved(t: Tensor, at: Tensor) -> Tensor:
    """(B, H, T, D), each text at its own positions (B, T)."""
    return t.gather(2, at[:, None, :, None].expand(-1, t.shape[1], -1, t.shape[-1]))
