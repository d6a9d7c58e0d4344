"""Reformer: softmax gives nearly all its weight to the keys most like the query, so only those are met that a random
hash puts into the query's bucket. Several rounds of hashing find what one of them misses.

Kitaev et al. 2020, "Reformer: The Efficient Transformer". Queries are keys (§2, "Shared-QK"): kⱼ = qⱼ/‖qⱼ‖, here √D as
long and divided by √D again. Hash h(x) = argmax([xR; −xR]) with random R (``rotations``), ``buckets`` of them, in
``rounds`` rounds. Query i meets Pᵢ = {j ≤ i : h(qᵢ) = h(qⱼ)}, itself only where there is nobody else, and the rounds
are weighted by their normalisers exp(z(i, Pᵢ)) (equations 2 to 6). Pairs that meet in several rounds count several
times, as in Hugging Face's; the paper divides by their number. O(n · rounds · chunk) time and memory. The weights are
softmax weights over who was met, of each round or of all together (``Bucketed.round``).

So that buckets of any size cost the same, the paper sorts tokens by bucket and cuts the order into chunks; a query sees
its chunk and the one before (``published=True``). A later token shifts the borders of the chunks and so chooses which
keys an earlier one meets: as published, Reformer is not strictly causal.

>>> print(LSH(torch.tensor([1, 1, 1, 1, 0, 1]), chunk=2, published=True).mask())
■⬚⬚⬚⬚⬚
■■⬚⬚⬚⬚
■■■⬚⬚⬚
⬚■■■⬚⬚
■⬚⬚■■⬚
⬚■■■⬚■

Without borders a query meets the last ``chunk`` tokens of its bucket. What comes later moves neither.

>>> print(LSH(torch.tensor([1, 1, 1, 1, 0, 1]), chunk=2).mask())
■⬚⬚⬚⬚⬚
■■⬚⬚⬚⬚
■■■⬚⬚⬚
⬚■■■⬚⬚
⬚⬚⬚⬚■⬚
⬚⬚■■⬚■
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.interp.attention.bucketed import Bucketed
from headwise.interp.attention.report import attend, weighted
from headwise.interp.masks import Buckets, Causal, Mask, SortedChunks
from headwise.models.architectures.blocks import Attention, rotate

LAST_RESORT = -1e5  # the score of a token with itself (§2): it counts where there is no other
NORM_EPSILON = 1e-6
PIECE = 128  # tokens of one step that are computed together


def hashed(x: Tensor, rotations: Tensor) -> Tensor:
    """x (B, H, T, D) and R (H, D, R, buckets / 2) → the bucket of each token in each round (B, H, R, T)."""
    if not rotations.shape[-1]:
        return torch.zeros(*x.shape[:2], rotations.shape[2], x.shape[2], dtype=torch.long, device=x.device)
    turned = torch.einsum("bhtd,hdrn->bhrtn", x.detach(), rotations.to(x))
    return torch.cat([turned, -turned], -1).argmax(-1)


def unit(q: Tensor) -> Tensor:
    """The keys of shared queries: as long as √D, whatever the query's length."""
    return F.rms_norm(q, q.shape[-1:], eps=NORM_EPSILON)


@dataclass(frozen=True, eq=False)
class LSH:
    """Attention within buckets: ``interp.attention.report.Mechanism``. Tokens stay in the ``bucket`` they were hashed
    to, also where somebody changes their queries.

    ``bucket`` is (T,), (R, T), (H, R, T) or (B, H, R, T); ``before`` and ``after`` are the neighbours of a chunk that
    the published form looks at.
    """

    bucket: Tensor
    chunk: int
    causal: bool = True
    published: bool = False
    real: Tensor | None = None  # (B, T), False: a key nobody sees
    before: int = 1
    after: int = 0

    def mask(self) -> Mask:
        return Causal() & self.pattern if self.causal else self.pattern

    @cached_property
    def pattern(self) -> Buckets | SortedChunks:
        if self.published:
            return SortedChunks(self.bucket, self.chunk, self.before, self.after)
        return Buckets(self.bucket, self.chunk)

    def form(self, q: Tensor, k: Tensor) -> Bucketed:
        return Bucketed(q, k, q.shape[-1] ** -0.5, self.pattern, self.causal, self.real)

    def output(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch, heads, length, width = q.shape
        bucket = self.bucket.reshape((1,) * (4 - self.bucket.ndim) + tuple(self.bucket.shape))
        bucket = bucket.expand(batch, heads, -1, -1)  # (B, H, R, T)
        order = bucket.argsort(dim=-1, stable=True)
        chunk = min(self.chunk, length)
        missing = -length % chunk
        slots = F.pad(order, (0, missing), value=length).unflatten(-1, (-1, chunk))  # (B, H, R, N, m); T is no token
        keys = self._looked(slots, length)  # (B, H, R, N, m·neighbours)
        allowed = self._allowed(slots, keys, bucket, length)

        laid = [_laid(t, at) for t, at in ((q, slots), (k, keys), (v, keys))]  # (B, H, R, N, …, D)
        scores = (laid[0] @ laid[1].mT * width**-0.5).masked_fill(~allowed, -torch.inf)
        scores = scores.masked_fill(slots[..., :, None] == keys[..., None, :], LAST_RESORT)
        norms = scores.logsumexp(-1, keepdim=True)  # z(i, Pᵢ) (B, H, R, N, m, 1)
        outs = (scores.softmax(-1) @ laid[2]).flatten(3, 4)
        place = order.argsort(-1)[..., None]  # where each token stands
        outs = outs.gather(3, place.expand(*place.shape[:-1], outs.shape[-1]))  # (B, H, R, T, D)
        share = norms.flatten(3, 4).gather(3, place).softmax(2)
        return (outs * share).sum(2).to(v.dtype)

    def _looked(self, slots: Tensor, none: int) -> Tensor:
        """The keys that each chunk looks at."""
        if self.published:  # chunks are counted through the rounds, and round again
            flat = slots.flatten(2, 3)
            near = [flat.roll(-step, 2) for step in range(-self.before, self.after + 1)]
            return torch.cat(near, -1).unflatten(2, slots.shape[2:4])
        shifted = F.pad(slots, (0, 0, 1, 1), value=none)  # nothing before the first and after the last
        near = [shifted[:, :, :, :-2], slots] + ([] if self.causal else [shifted[:, :, :, 2:]])
        return torch.cat(near, -1)

    def _allowed(self, slots: Tensor, keys: Tensor, bucket: Tensor, length: int) -> Tensor:
        """Who meets whom, nobody itself → bool (B, H, R, N, m, m·neighbours)."""
        query, key = slots[..., :, None], keys[..., None, :]
        allowed = (key < query) if self.causal else (key != query)
        allowed = allowed & (key < length)
        if self.real is not None:
            real = F.pad(self.real, (0, 1))[:, None, None, None].expand(*keys.shape[:-1], -1)  # (B, H, R, N, T + 1)
            allowed = allowed & real.gather(-1, keys)[..., None, :]
        if self.published:
            return allowed
        bucket = F.pad(bucket, (0, 1), value=-1)[:, :, :, None].expand(*keys.shape[:-1], -1)
        same = bucket.gather(-1, slots)[..., :, None] == bucket.gather(-1, keys)[..., None, :]
        place = torch.arange(keys.shape[-1], device=keys.device)
        own = place[: slots.shape[-1]] + slots.shape[-1]  # the chunk before stands left of it
        return allowed & same & ((own[:, None] - place).abs() <= self.chunk)


@dataclass(frozen=True, eq=False)
class Past:
    """The tokens so far: (B, H, T, D) each, and their buckets (B, H, R, T)."""

    q: Tensor
    k: Tensor
    v: Tensor
    bucket: Tensor

    def grown(self, new: Past) -> Past:
        ours, theirs = (vars(past).values() for past in (self, new))
        dims = 2, 2, 2, 3
        return Past(*(torch.cat(pair, dim) for *pair, dim in zip(ours, theirs, dims, strict=True)))


class Reformer(Attention):
    """Attention by hash. The first ``local`` heads hash nothing: all tokens are in one bucket, and a query sees the
    last ``chunk`` of them, as in the local layers that Reformers are built with."""

    def __init__(
        self,
        width: int,
        heads: int,
        buckets: int = 16,
        rounds: int = 2,
        chunk: int = 32,
        published: bool = False,
        local: int = 0,
    ):
        super().__init__(width, heads)
        if buckets != 1 and (buckets < 2 or buckets % 2):
            raise ValueError(f"buckets expects an even number, or 1 for no hashing; got {buckets}")
        if rounds < 1 or chunk < 1:
            raise ValueError(f"rounds and chunk expect 1 or more, got {rounds} and {chunk}")
        if not 0 <= local <= heads:
            raise ValueError(f"local expects a number of heads, 0 … {heads}; got {local}")
        del self.key  # queries are keys
        self.chunk, self.published, self.local, self.buckets = chunk, published, local, buckets
        self.register_buffer("rotations", torch.randn(heads, width // heads, rounds, buckets // 2))

    def mask(self) -> Mask:
        """What it may see at most: whom it meets depends on the text."""
        return Causal()

    def redraw(self) -> None:
        """Other rotations, other buckets."""
        self.rotations.normal_()

    def shared(self, x: Tensor, positions: Tensor | None, real: Tensor | None = None) -> Past:
        """x (B, T, C) → queries, keys, values and buckets. What is hashed is the content: rotary positions are turned
        in afterwards. Padding has a bucket of its own."""
        q, v = self.split(self.query(x)), self.split(self.value(x))
        bucket = hashed(q, self.rotations)
        bucket[:, : self.local] = 0
        if real is not None:
            bucket = bucket.masked_fill(~real[:, None, None, :], self.buckets)
        if positions is not None:
            q = rotate(q, positions)
        return Past(q, unit(q), v, bucket)

    def forward(self, x, memory=None, *, mask=None, causal=False, positions=None):
        """``mask`` (B, 1, 1, T) is True at real tokens, None where all are."""
        if memory is not None:
            raise ValueError("Reformer's queries are its keys, so it reads no other text; use full attention for that")
        if mask is not None and mask.shape[1:3] != (1, 1):
            raise ValueError(f"a mask of real keys (B, 1, 1, T) is expected, got {tuple(mask.shape)}")
        real = None if mask is None else mask.flatten(1).expand(x.shape[0], -1)
        held = self.shared(x, positions, real)
        out = attend(held.q, held.k, held.v, LSH(held.bucket, self.chunk, causal, self.published, real))
        return self.output(out.transpose(1, 2).flatten(2))

    def step(self, x: Tensor, state: Past | None, start: int, rotary: bool) -> tuple[Tensor, Past]:
        """The next tokens x (B, n, C) at positions ``start`` …, and all that came before them."""
        outs = []
        for piece in x.split(PIECE, 1):
            positions = torch.arange(start, start + piece.shape[1], device=x.device)[None] if rotary else None
            new = self.shared(piece, positions)
            state = new if state is None else state.grown(new)
            met = LSH(state.bucket, self.chunk, published=self.published).pattern
            told = Bucketed(state.q, state.k, state.q.shape[-1] ** -0.5, met, causal=True)
            outs.append(weighted(told, state.v, start, start + piece.shape[1]).to(x.dtype))
            start += piece.shape[1]
        return self.output(torch.cat(outs, 2).transpose(1, 2).flatten(2)), state


def _laid(t: Tensor, at: Tensor) -> Tensor:
    """(B, H, T, D) at tokens (B, H, R, N, m) → (B, H, R, N, m, D), in float32 or more; token T is zeros."""
    t = t.to(torch.promote_types(t.dtype, torch.float32))
    flat = at.flatten(2)[..., None].expand(-1, -1, -1, t.shape[-1])
    return F.pad(t, (0, 0, 0, 1)).gather(2, flat).unflatten(2, at.shape[2:])
