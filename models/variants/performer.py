"""Performer: softmax attention without its matrix. The exponential of a product of two vectors is, on average, a
product of random features of each, so keys and values are summed up once and every query reads the sum.

Choromanski et al. 2021, "Rethinking Attention with Performers": exp(xᵀy) = E[φ(x)ᵀφ(y)] with the positive features
φ(x) = exp(ωᵀx − ‖x‖²/2)/√m (lemma 1), x = q/D^¼ and y = k/D^¼; the m directions ω (``directions``) are orthogonal in
blocks of D, which lowers the variance (§2.4, FAVOR+). Causal attention takes prefix sums of φ(k)vᵀ and φ(k) (§2.2).
O(n·m·D) time and O(n·m) memory. The weights are φ(q)ᵀφ(k)/Z, an estimate of softmax whose error falls as 1/√m.

Exponentials are kept within floats by a stabiliser, which is taken away again by Z. The authors' code subtracts the
largest exponent of all keys and adds a small ε to each feature (1e-4): a later key thus changes how much the ε weigh
before it, and the past sees the future a little (``stabiliser="global"``). Here each key is held at its own size, and
a query divides by the largest before it (``stabiliser="own"``).

>>> print(Favor(drawn(16, 4)).mask())
■⬚⬚⬚⬚⬚⬚⬚
■■⬚⬚⬚⬚⬚⬚
■■■⬚⬚⬚⬚⬚
■■■■⬚⬚⬚⬚
■■■■■⬚⬚⬚
■■■■■■⬚⬚
■■■■■■■⬚
■■■■■■■■
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.interp.attention.kernel import Kernel
from headwise.interp.attention.report import attend
from headwise.interp.masks import Bidirectional, Causal, Mask
from headwise.models.architectures.blocks import Attention

STABILISERS = ("own", "global")
EPSILON = 1e-4  # of the authors' code
LOWEST = -1e30  # of a logarithm: nothing so far
BLOCK = 128  # tokens between two prefix sums
TINY = torch.finfo(torch.float32).tiny


def drawn(features: int, width: int, generator: torch.Generator | None = None) -> Tensor:
    """Random directions (M, D): orthogonal in blocks of D, of the lengths that normal vectors have (§2.4).

    QR chooses the signs of its columns. As LAPACK chooses them the directions are not spread evenly (Mezzadri 2007, §5)
    and the estimate is biased, so they are taken back.
    """
    blocks = []
    for first in range(0, features, width):
        turned, upper = torch.linalg.qr(torch.randn(width, width, generator=generator))
        blocks.append((turned * upper.diagonal().sign()).T[: features - first])
    lengths = torch.randn(features, width, generator=generator).norm(dim=1, keepdim=True)
    return torch.cat(blocks) * lengths


@dataclass(frozen=True, eq=False)
class Sums:
    """Σ φ(k)·[v, 1]ᵀ of the keys so far (B, H, M, Dv + 1), divided by exp(``top``) (B, H, 1, 1)."""

    total: Tensor
    top: Tensor


@dataclass(frozen=True, eq=False)
class Features:
    """φ of queries and keys, each divided by the exponential of its ``rise``."""

    left: Tensor  # (B, H, Q, M)
    right: Tensor  # (B, H, K, M)
    rise: tuple[Tensor, Tensor]  # (B, H, Q, 1), (B, H, K, 1)


@dataclass(frozen=True, eq=False)
class Favor:
    """Attention by random features: ``interp.attention.report.Mechanism``."""

    directions: Tensor  # (M, D)
    causal: bool = True
    stabiliser: Literal["own", "global"] = "own"
    real: Tensor | None = None  # (B, K), False: a key nobody sees

    def mask(self) -> Mask:
        return Causal() if self.causal else Bidirectional()

    def output(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        features = self.features(q, k)
        if self.causal:
            return prefixed(features, v)[0].to(v.dtype)
        top = features.rise[1].amax(-2, keepdim=True).clamp(min=LOWEST).detach()
        total = (features.right * (features.rise[1] - top).exp()).mT @ _with_ones(v)
        return _divided(features.left @ total).to(v.dtype)

    def form(self, q: Tensor, k: Tensor) -> Kernel:
        features = self.features(q, k)
        met = q, k, q.shape[-1] ** -0.5
        return Kernel(features.left, features.right, self.causal, features.rise, met=met)

    def features(self, q: Tensor, k: Tensor) -> Features:
        """(B, H, Q, D), (B, H, K, D) → φ(q/D^¼), φ(k/D^¼)."""
        scale = q.shape[-1] ** -0.25
        q, k = _single(q) * scale, _single(k) * scale
        directions, each = self.directions.to(q), len(self.directions) ** -0.5
        asked, held = q @ directions.T, k @ directions.T  # (B, H, T, M): ωᵀx
        asked_half, held_half = ((x * x).sum(-1, keepdim=True) / 2 for x in (q, k))
        top = asked.amax(-1, keepdim=True).detach()  # a query's own: it takes part in no other row
        if self.stabiliser == "own":
            left, right = (asked - top).exp() * each, held - held.amax(-1, keepdim=True).detach()
            right, size = right.exp() * each, held.amax(-1, keepdim=True).detach() - held_half
        else:  # as the authors' code: each query's largest, the largest of all keys, and ε
            most = held.amax((-1, -2), keepdim=True).detach()
            left = ((asked - asked_half - top).exp() + EPSILON) * each
            right = ((held - held_half - most).exp() + EPSILON) * each
            asked_half, size = torch.zeros_like(asked_half), most.expand_as(held_half)
        if self.real is not None:
            size = size.masked_fill(~self.real[:, None, :, None], -torch.inf)
        return Features(left, right, (top - asked_half, size))


def prefixed(features: Features, v: Tensor, sums: Sums | None = None) -> tuple[Tensor, Sums]:
    """Causal attention by prefix sums, a block of tokens at a time → (B, H, T, Dv), and the sums after the last.

    Within a block, query i meets key j with φ(qᵢ)ᵀφ(kⱼ); what stands before the block is in the sums. All is divided by
    the exponential of the largest rise up to i, so that nothing grows beyond floats and nothing later takes part.
    """
    values = _with_ones(v)
    if sums is None:
        shape = (*v.shape[:2], features.right.shape[-1], values.shape[-1])
        sums = Sums(values.new_zeros(shape), values.new_full((*v.shape[:2], 1, 1), LOWEST))
    outs = []
    for start in range(0, v.shape[2], BLOCK):
        part = slice(start, start + BLOCK)
        left, right, size, here = features.left[:, :, part], features.right[:, :, part], features.rise[1], values
        size, here = size[:, :, part], here[:, :, part]
        top = torch.maximum(size.detach().cummax(2).values, sums.top)  # (B, H, w, 1)
        later = ~Causal().dense(left.shape[2]).to(v.device)
        met = (left @ right.mT) * (size.mT - top).masked_fill(later, -torch.inf).exp()  # (B, H, w, w)
        outs.append(met @ here + (left @ sums.total) * (sums.top - top).exp())
        last = top[:, :, -1:]
        total = sums.total * (sums.top - last).exp() + (right * (size - last).exp()).mT @ here
        sums = Sums(total, last)
    return _divided(torch.cat(outs, 2)), sums


class Performer(Attention):
    """Attention by ``features`` random features. ``redraw``: after how many training steps the directions are drawn
    anew, 0: never (§4.2)."""

    def __init__(
        self, width: int, heads: int, features: int = 64, stabiliser: str = "own", redraw: int = 0, seed: int = 0
    ):
        super().__init__(width, heads)
        if features < 1:
            raise ValueError(f"features expects 1 or more random features, got {features}")
        if stabiliser not in STABILISERS:
            raise ValueError(f"stabiliser expects one of {', '.join(STABILISERS)}; got {stabiliser!r}")
        if redraw < 0:
            raise ValueError(f"redraw expects a number of training steps, or 0 for never; got {redraw}")
        self.stabiliser, self.every, self.steps = stabiliser, redraw, 0
        self.register_buffer("directions", drawn(features, width // heads, torch.Generator().manual_seed(seed)))

    def mask(self) -> Mask:
        return Causal()

    def redraw(self) -> None:
        """Other directions: the same attention on average, other errors."""
        self.directions.copy_(drawn(*self.directions.shape))

    def forward(self, x, memory=None, *, mask=None, causal=False, positions=None):
        """``mask`` (B, 1, 1, K) is True at real keys, None where all are."""
        if mask is not None and mask.shape[1:3] != (1, 1):
            raise ValueError(f"a mask of real keys (B, 1, 1, K) is expected, got {tuple(mask.shape)}")
        if self.training and self.every:
            self.steps += 1
            if self.steps % self.every == 0:
                self.redraw()
        q, k, v = self.project(x, memory, positions)
        real = None if mask is None else mask.flatten(1).expand(x.shape[0], -1)
        out = attend(q, k, v, Favor(self.directions, causal, self.stabiliser, real))
        return self.output(out.transpose(1, 2).flatten(2))

    def step(self, x: Tensor, state: Sums | None, start: int, rotary: bool) -> tuple[Tensor, Sums]:
        """The next tokens x (B, n, C) at positions ``start`` …, and the sums of those before them: as large after ten
        thousand tokens as after one."""
        if self.stabiliser == "global":
            raise ValueError('a stabiliser over all keys must know the later ones; decode with stabiliser="own"')
        positions = torch.arange(start, start + x.shape[1], device=x.device)[None] if rotary else None
        q, k, v = self.project(x, positions=positions)
        out, state = prefixed(Favor(self.directions).features(q, k), v, state)
        return self.output(out.to(v.dtype).transpose(1, 2).flatten(2)), state


def _with_ones(v: Tensor) -> Tensor:
    """A column of ones beside the values: what it becomes is Z."""
    return F.pad(_single(v), (0, 1), value=1.0)


def _divided(both: Tensor) -> Tensor:
    return both[..., :-1] / both[..., -1:].clamp_min(TINY)


def _single(t: Tensor) -> Tensor:
    """In float32, or in float64 where it is that."""
    return t.to(torch.promote_types(t.dtype, torch.float32))
