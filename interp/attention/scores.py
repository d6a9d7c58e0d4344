"""How the scores of one attention computation are known: one small class a way of being seen.

Each answers the same questions, a band of rows at a time: ``scores``, ``weights``, and what the module was told to hide
(``mask``, ``given``). Nobody outside this room asks which class it is. Letters as in ``call``: B batch, H query heads,
Hk key/value heads, Q queries, K keys, D head width, h some heads, R some rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.interp.masks import Bidirectional, Causal, Dense, Mask

# An additive mask hides a key by a large negative number; the smallest one in use is −10,000 (in bf16 −9,984).
SENTINEL = -9_984.0


@dataclass(frozen=True, eq=False)
class Factors:
    """Queries and keys as they met, positions rotated in: their products times ``scale`` are scores before anything is
    added."""

    q: Tensor  # (B, H, Q, D)
    k: Tensor  # (B, Hk, K, D)
    scale: float
    versions: tuple = ()

    def __post_init__(self):
        object.__setattr__(self, "versions", (version(self.q), version(self.k)))

    @property
    def fresh(self) -> bool:
        """Whether nobody has written into them since."""
        return self.versions == (version(self.q), version(self.k))

    def fit(self, shape: tuple[int, ...]) -> bool:
        """Whether their products have this shape (B, H, Q, K)."""
        return (
            (*self.q.shape[:3], self.k.shape[2]) == tuple(shape)
            and self.q.shape[::3] == self.k.shape[::3]
            and (self.q.shape[1] % self.k.shape[1] == 0)
        )

    def products(self, start: int, stop: int, heads: slice, last: int | None = None) -> Tensor:
        """q·kᵀ·scale of some rows and heads, with the first ``last`` keys → (B, h, R, last); key heads are shared by H
        / Hk query heads each."""
        each = self.q.shape[1] // self.k.shape[1]
        some, k = single(self.q[:, heads, start:stop]), self.k[:, :, :last]  # (B, h, R, D)
        if some.shape[1] == self.q.shape[1]:  # those that share keys meet them together: nothing is copied
            met = some.unflatten(1, (-1, each)).flatten(2, 3) @ single(k).transpose(-1, -2)  # (B, Hk, each · R, last)
            return met.mul_(self.scale).unflatten(2, (each, -1)).flatten(1, 2)
        index = torch.arange(self.q.shape[1], device=self.q.device)[heads] // each
        keys = single(k[:, heads] if each == 1 else k[:, index])  # (B, h, last, D)
        return (some @ keys.transpose(-1, -2)).mul_(self.scale)


class Scores(Protocol):
    """What every way of being seen answers."""

    how: str  # where it was seen: "sdpa", "mha", "softmax", "flex"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, H, Q, K)."""

    @property
    def kv_heads(self) -> int | None:
        """Hk, where the keys were seen."""

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """What is kept alive, as the run made it."""

    @property
    def given(self) -> Tensor | None:
        """The mask tensor as the module gave it: bool (True = may attend) or float (added). None when it gave none, or
        when attention was written by hand and told none."""

    @property
    def told(self) -> bool:
        """Whether the mask was told, rather than read off the scores."""

    @property
    def exact(self) -> bool:
        """Whether what is forbidden by ``mask`` has no weight by construction."""

    @property
    def linear(self) -> bool:
        """Whether there is no softmax: weights are the scores themselves, of any sign, and a row has any sum."""

    @property
    def sorts(self) -> bool:
        """Whether keys are summed in an order that what they hold decides."""

    @property
    def factors(self) -> Factors | None:
        """The queries and keys whose products the scores were made from; None where only the scores were seen."""

    def mask(self) -> Mask:
        """What the module allowed."""

    def scores(self, start: int, stop: int, heads: slice) -> Tensor:
        """Before the softmax, −inf where a key is hidden → (B, h, R, K), float32 or float64."""

    def added(self, start: int, stop: int, heads: slice) -> Tensor:
        """What is in the scores beside the products of ``factors``: bias and mask → (B, h, R, K)."""

    def weights(self, start: int, stop: int, heads: slice) -> Tensor:
        """After it; a row that sees nothing is zero → (B, h, R, K)."""

    def sink(self, start: int, stop: int, heads: slice) -> Tensor | None:
        """The weight that went to no key: a softmax with a column more than there are keys → (B, h, R), or None."""

    def output(self, v: Tensor) -> Tensor:
        """What attention made of the values (B, Hk, K, Dv) → (B, H, Q, Dv)."""

    def size(self, queries: int, keys: int) -> float:
        """Bytes of ``tensors`` if there were that many queries and keys."""


class FromProducts:
    """What those have in common that keep queries and keys and make scores of their products. Subclasses are
    dataclasses with ``q`` (B, H, Q, D), ``k`` (B, Hk, K, D) and ``scale``, and define ``mask``, ``scores`` and
    ``added``; here they take a softmax of these over the keys."""

    q: Tensor
    k: Tensor
    scale: float

    given: Tensor | None = None
    told = exact = True
    linear = sorts = False
    factors = property(lambda self: Factors(self.q, self.k, self.scale))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.q.shape[0], self.q.shape[1], self.q.shape[2], self.k.shape[2]

    @property
    def kv_heads(self) -> int:
        return self.k.shape[1]

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.q, self.k

    def weights(self, start: int, stop: int, heads: slice) -> Tensor:
        return softmax(self.scores(start, stop, heads))

    def sink(self, start, stop, heads):
        return None

    def output(self, v: Tensor) -> Tensor:
        values = v.repeat_interleave(self.q.shape[1] // v.shape[1], 1)  # (B, H, K, Dv)
        return self.weights(0, self.q.shape[2], slice(None)).to(v.dtype) @ values

    def size(self, queries: int, keys: int) -> float:
        return self.q.nbytes * queries / self.q.shape[2] + self.k.nbytes * keys / self.k.shape[2]


@dataclass(frozen=True, eq=False)
class Computed(FromProducts):
    """Scores computed from queries and keys that were kept: q·kᵀ·scale + mask (Vaswani et al. 2017, eq. 1), O(n·d)."""

    q: Tensor  # (B, H, Q, D)
    k: Tensor  # (B, Hk, K, D)
    scale: float
    given: Tensor | None = None  # broadcasts to (B, H, Q, K)
    causal: bool = False
    how: str = "sdpa"

    exact = property(lambda self: not _added(self.given))

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.q, self.k, self.given

    def mask(self) -> Mask:
        if self.causal:
            return Causal()
        if self.given is None:
            return Bidirectional()
        return Dense(self.given if self.given.dtype == torch.bool else self.given > SENTINEL)

    def scores(self, start: int, stop: int, heads: slice) -> Tensor:
        return self._masked(self.factors.products(start, stop, heads), start, stop, heads)

    def weights(self, start: int, stop: int, heads: slice) -> Tensor:
        keys = self.k.shape[2]
        if not self.causal or self.given is not None or stop >= keys:
            return super().weights(start, stop, heads)
        met = self.factors.products(start, stop, heads, stop)  # no later key is seen by any of these rows
        return F.pad(softmax(self._masked(met, start, stop, heads)), (0, keys - stop))

    def at(self, rows: Tensor) -> Computed:
        """The same for some of the queries (R,), which are then its only ones."""
        given = self.given
        if given is not None and given.ndim >= 2 and given.shape[-2] > 1:
            given = given[..., rows, :]
        if self.causal:
            past = torch.arange(self.k.shape[2], device=rows.device) <= rows[:, None]  # (R, K)
            if given is not None and given.is_floating_point():
                given = torch.where(past, given, -math.inf)
            else:
                given = past if given is None else given & past
        return replace(self, q=self.q[:, :, rows], given=given, causal=False)

    def added(self, start: int, stop: int, heads: slice) -> Tensor:
        some = single(self.q[:, heads, start:stop])  # (B, h, R, D)
        return self._masked(some.new_zeros(*some.shape[:3], self.k.shape[2]), start, stop, heads)

    def _masked(self, s: Tensor, start: int, stop: int, heads: slice) -> Tensor:
        """``s`` (B, h, R, K) with the mask in it; writes into ``s``."""
        if self.causal:  # torch's is_causal is top-left also when Q ≠ K
            s.masked_fill_(~Causal().rows(start, stop, s.shape[-1], device=s.device), -math.inf)
        if self.given is not None:
            m = self.given
            m = m.reshape((1,) * (4 - m.ndim) + tuple(m.shape))  # (B|1, H|1, Q|1, K|1)
            m = m[:, heads if m.shape[1] > 1 else slice(None), slice(start, stop) if m.shape[2] > 1 else slice(None)]
            s = s.masked_fill_(~m, -math.inf) if m.dtype == torch.bool else s.add_(m.to(s.dtype))
        return s

    def output(self, v: Tensor) -> Tensor:
        grouped = self.kv_heads != self.q.shape[1]
        return F.scaled_dot_product_attention(
            self.q, self.k, v, self.given, is_causal=self.causal, scale=self.scale, enable_gqa=grouped
        )

    def size(self, queries: int, keys: int) -> float:
        _, _, own_queries, own_keys = self.shape
        return super().size(queries, keys) + _square_size((self.given,), queries / own_queries, keys / own_keys)


@dataclass(frozen=True, eq=False)
class Modified(FromProducts):
    """Scores that a function made from q·kᵀ·scale: flex_attention's score_mod and mask_mod."""

    q: Tensor  # (B, H, Q, D)
    k: Tensor  # (B, Hk, K, D)
    scale: float
    modify: Callable[..., Tensor]  # (scores (B, h, R, K), b, h, q, k) → scores
    how: str = "flex"

    told = exact = False

    def mask(self) -> Mask:
        return _told_by(self.scores(0, self.q.shape[2], slice(None)))

    def scores(self, start: int, stop: int, heads: slice) -> Tensor:
        s = self.factors.products(start, stop, heads)
        b, query, key = (torch.arange(n, device=s.device) for n in (s.shape[0], self.q.shape[2], self.k.shape[2]))
        index = torch.arange(self.q.shape[1], device=s.device)[heads]
        return self.modify(s, b, index, query[start:stop], key)

    def added(self, start: int, stop: int, heads: slice) -> Tensor:
        return self.scores(start, stop, heads) - self.factors.products(start, stop, heads)


@dataclass(frozen=True, eq=False)
class Seen:
    """Scores and weights as attention written by hand made them, O(n²); ``beside`` is the weight (B, H, Q) of a column
    of the softmax that is no key."""

    seen_scores: Tensor  # (B, H, Q, K)
    seen_weights: Tensor  # (B, H, Q, K)
    beside: Tensor | None = None
    factors: Factors | None = None
    how: str = "softmax"
    apart: tuple[Tensor, Tensor] | None = None  # see ``carried``

    given = None
    told = exact = linear = sorts = False
    kv_heads = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return tuple(self.seen_weights.shape)

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.seen_scores, self.seen_weights, self.beside

    def mask(self) -> Mask:
        return _told_by(single(self.seen_scores))

    def scores(self, start: int, stop: int, heads: slice) -> Tensor:
        return single(self.seen_scores[:, heads, start:stop])

    def added(self, start: int, stop: int, heads: slice) -> Tensor:
        return self.scores(start, stop, heads) - self.factors.products(start, stop, heads)

    def weights(self, start: int, stop: int, heads: slice) -> Tensor:
        return single(self.seen_weights[:, heads, start:stop])

    def at(self, rows: Tensor) -> Seen:
        """The same for some of the queries (R,), which are then its only ones."""
        beside = None if self.beside is None else self.beside[:, :, rows]
        scores, weights = (t[:, :, rows] for t in (self.seen_scores, self.seen_weights))
        return replace(self, seen_scores=scores, seen_weights=weights, beside=beside, factors=None, apart=None)

    def sink(self, start: int, stop: int, heads: slice) -> Tensor | None:
        return None if self.beside is None else single(self.beside[:, heads, start:stop])

    def output(self, v: Tensor) -> Tensor:
        return carried(self, self.seen_weights.to(v.dtype), v)

    def size(self, queries: int, keys: int) -> float:
        _, _, own_queries, own_keys = self.shape
        tall, wide = queries / own_queries, keys / own_keys
        factors = 0 if self.factors is None else self.factors.q.nbytes * tall + self.factors.k.nbytes * wide
        return _square_size((self.seen_scores, self.seen_weights), tall, wide) + factors


def carried(form: Scores, weights: Tensor, v: Tensor, start: int = 0) -> Tensor:
    """Weights (B, H, R, K) of the queries from ``start`` on × values (B, Hk, K, Dv) → (B, H, R, Dv).

    A form may have an ``apart``: queries (B, Q) that meet values (B, H, K, Dv) of their own.
    """
    out = weights @ v.repeat_interleave(weights.shape[1] // v.shape[1], 1)
    if (apart := getattr(form, "apart", None)) is None:
        return out
    rows, values = apart[0][:, start : start + weights.shape[2]], apart[1].to(weights.dtype)
    return torch.where(rows[:, None, :, None], weights @ values, out) if bool(rows.any()) else out


def copied(value):
    """A tensor, or a form of scores with its tensors, that nobody else writes into."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if not is_dataclass(value):
        return value
    parts = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
    return replace(value, **{n: copied(v) for n, v in parts.items() if isinstance(v, Tensor | Factors)})


def single(t: Tensor) -> Tensor:
    """In float32, or in float64 where the model runs in that."""
    return t if t.dtype == torch.float64 else t.float()


def version(t: Tensor | None) -> int | None:
    """How often a tensor has been written into, as far as torch counts."""
    return None if t is None or t.is_inference() else t._version


def softmax(scores: Tensor) -> Tensor:
    """Softmax over keys in which a row of −inf gives zeros instead of NaN; writes into ``scores``."""
    if scores.shape[-1] == 0:  # of a band of rows that sees no key
        return scores
    top = scores.amax(-1, keepdim=True)
    e = scores.sub_(top.masked_fill_(top == -math.inf, 0)).exp_()
    return e.div_(e.sum(-1, keepdim=True).clamp_min_(torch.finfo(e.dtype).tiny))


def _told_by(scores: Tensor) -> Mask:
    """Scores made by a function tell no mask: a key is taken as forbidden where its score is at or below −9,984."""
    allowed = scores > SENTINEL
    return Bidirectional() if bool(allowed.all()) else Dense(allowed)


def _added(mask: Tensor | None) -> bool:
    return mask is not None and mask.is_floating_point()


def _square_size(squares, tall: float, wide: float) -> float:
    """Bytes of tensors (…, Q or 1, K or 1) with that many times the queries and keys."""
    kept = (t for t in squares if t is not None)
    return sum(t.nbytes * (tall if t.shape[-2] > 1 else 1) * (wide if t.shape[-1] > 1 else 1) for t in kept)
