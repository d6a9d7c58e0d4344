"""Transformer-XL: the text is read segment by segment, and each segment also sees the keys of the ``memory`` tokens
before it. Stacked, layers reach L · memory tokens back; positions are relative, so that a remembered key is not
mistaken for a new one.

Dai et al. 2019, "Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context", §3.3, with E_x the input:
A_ij = q_i·k_j + q_i·W_R R_(i−j) + u·k_j + v·W_R R_(i−j), here (q + u)·k + (q + v)·r, r = W_R R (``distance`` of
sinusoids), u and v a vector a head (``about_content``, ``about_distance``). Appendix B's shift is ``skewed``. Where the
paper keeps the last segment's states and stops their gradient, the whole text is computed here in one pass, blocks of
``segment`` queries and ``memory + segment`` keys, and the gradient flows; ``step`` is the recurrence, and ``forward``
takes the states of an earlier segment as ``past``. O(n · (segment + memory) · D) time. The weights are the attention
weights themselves, over a segment's own keys and the memory's:

>>> print(Recurrence(segment=3, memory=2).mask())
■⬚⬚⬚⬚⬚⬚⬚
■■⬚⬚⬚⬚⬚⬚
■■■⬚⬚⬚⬚⬚
⬚■■■⬚⬚⬚⬚
⬚■■■■⬚⬚⬚
⬚■■■■■⬚⬚
⬚⬚⬚⬚■■■⬚
⬚⬚⬚⬚■■■■

Axis letters: B batch, H heads, T tokens, N segments, S and M tokens of a segment and its memory, D head width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.interp.attention.report import attend
from headwise.interp.masks import Mask, Segments
from headwise.models.architectures.blocks import sinusoids
from headwise.models.variants.blockwise import whole
from headwise.models.variants.positions import Paired
from headwise.models.variants.relative import Distances
from headwise.models.variants.steps import Memory


@dataclass(frozen=True, eq=False)
class Biased(Distances):
    """Two kinds of query (Dai et al. 2019, §3.3): q + u meets what a key holds, q + v the distance at which it
    stands. ``u`` and ``v`` are (H, D)."""

    u: Tensor = field(default_factory=lambda: torch.zeros(1, 1))
    v: Tensor = field(default_factory=lambda: torch.zeros(1, 1))

    def content(self, q, heads=slice(None)):
        return q + self.u[heads, None]

    def added(self, q, at, keys, heads=slice(None)):
        return super().added(q + self.v[heads, None], at, keys, heads)


@dataclass(frozen=True, eq=False)
class Recurrence(Biased):
    """The same within segments of ``segment`` tokens and the ``memory`` tokens before each."""

    segment: int = 64
    memory: int = 64

    def __post_init__(self):
        if not (whole(self.segment, 1) and whole(self.memory, 0)):
            raise ValueError(
                f"Transformer-XL expects segments of 1 token or more and a memory of 0 or more; got {self.segment} "
                f"and {self.memory}"
            )

    def mask(self, length: int | None = None) -> Mask:
        segments = Segments(self.segment, self.memory)
        return super().mask() & segments if self.causal else segments

    def computed(self, q, k, v, real=None):
        length = q.shape[2]
        size = min(self.segment, length)  # S
        count = -(-length // size)  # N
        memory = min(self.memory, (count - 1) * size)  # M
        rest = count * size - length
        some = F.pad(q, (0, 0, 0, rest)).unflatten(2, (count, size)).transpose(1, 2).flatten(0, 1)  # (B·N, H, S, D)
        keys, values = (_with_memory(t, size, memory, rest) for t in (k, v))  # (B·N, H, M + S, D)
        at, beside = torch.arange(memory, memory + size, device=q.device), torch.arange(memory + size, device=q.device)
        place = (torch.arange(count, device=q.device) * size - memory)[:, None] + beside  # (N, M + S), in the text
        allowed = ((place >= 0) & (place < length))[:, None, None]  # (N, 1, 1, M + S)
        if real is not None:
            allowed = allowed & real[:, None, None, place.clamp(0, length - 1)].movedim(3, 1)  # (B, N, 1, 1, M + S)
        allowed = allowed.expand(q.shape[0], *allowed.shape[-4:]).flatten(0, 1)
        if self.causal:
            allowed = allowed & (beside <= at[:, None])
        out = self.among(some, keys, values, at, beside, allowed)
        return out.unflatten(0, (-1, count)).transpose(1, 2).flatten(2, 3)[:, :, :length]


class TransformerXL(Paired):
    """Attention within a segment and the memory before it, by content and by distance."""

    def __init__(self, width: int, heads: int, segment: int = 64, memory: int = 64):
        super().__init__(width, heads)
        Recurrence(segment=segment, memory=memory)  # says what is wrong with them
        self.segment, self.memory = segment, memory
        self.distance = nn.Linear(width, width, bias=False)  # W_R
        self.about_content, self.about_distance = (nn.Parameter(torch.zeros(heads, width // heads)) for _ in range(2))

    def bound(self, causal):
        return Recurrence(**self._known(), causal=causal, segment=self.segment, memory=self.memory)

    def mask(self):
        return Recurrence(segment=self.segment, memory=self.memory).mask()

    def forward(self, x, memory=None, *, mask=None, causal=False, positions=None, past=None):
        """``past`` (B, M, C): what this layer was given for the last tokens of the segment before; then x is the next
        segment."""
        if past is None:
            return super().forward(x, memory, mask=mask, causal=causal, positions=positions)
        if x.shape[1] > self.segment or not (memory is mask is positions is None):
            raise ValueError(
                f"after a past one segment of at most {self.segment} tokens is expected, without a mask or rotary "
                f"positions; got {x.shape[1]} tokens"
            )
        q, k, v = self.project(x, torch.cat([past, x], 1))
        by = Biased(**self._known(), before=past.shape[1])
        return self.output(attend(q, k, v, by).transpose(1, 2).flatten(2))

    def step(self, x, state, start, rotary):
        """The next tokens x (B, n, C) from position ``start``: the recurrence itself, no piece across the border of a
        segment. What is remembered: the keys and values of the memory, and those of the segment so far."""
        known, outs = self._known(), []
        borders = [at for at in range(start + 1, start + x.shape[1]) if at % self.segment == 0]
        for first, end in pairwise((start, *borders, start + x.shape[1])):
            positions = torch.arange(first, end, device=x.device)[None] if rotary else None
            q, k, v = self.project(x[:, first - start : end - start], positions=positions)
            by = Biased(**known, before=0 if state is None else state.k.shape[2])
            state = Memory(k, v) if state is None else state.grown(k, v)
            outs.append(attend(q, state.k, state.v, by))
            state = state.last(self.memory + end % self.segment)
        return self.output(torch.cat(outs, 2).transpose(1, 2).flatten(2)), state

    def _known(self) -> dict[str, Tensor]:
        """r (H, M + S, D), u and v."""
        reach = sinusoids(self.segment + self.memory, self.distance.in_features).to(self.distance.weight)
        return {
            "distances": self.split(self.distance(reach)[None])[0],
            "u": self.about_content,
            "v": self.about_distance,
        }


def _with_memory(t: Tensor, size: int, memory: int, rest: int) -> Tensor:
    """(B, H, T, D) → (B·N, H, M + S, D): each segment, and what stands before it."""
    windows = F.pad(t, (0, 0, memory, rest)).unfold(2, memory + size, size)  # (B, H, N, D, M + S)
    return windows.permute(0, 2, 1, 4, 3).flatten(0, 1)
