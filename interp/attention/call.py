"""One attention computation as it happened, with its weights recomputed when somebody looks.

A call that went through ``scaled_dot_product_attention`` keeps q and k, O(n·d), never the n×n weights. Axis
letters: B batch, H query heads, Hk key/value heads (Hk < H is grouped-query attention, Ainslie et al. 2023), Q
queries, K keys, D head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.interp.masks import Bidirectional, Causal, Dense, Mask, recognise

# An additive mask hides a key by a large negative number; the smallest one in use is −10,000 (in bf16 −9,984).
SENTINEL = -9_984.0
BAND_BYTES = 32 * 2**20  # working memory of one band of rows

QUANTITIES = ("weights", "scores", "value_weighted")

Rows = slice | tuple[int, int] | None


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One attention computation. ``weights`` and ``scores`` are exact and lazy.

    Either q and k are kept (``seen`` is "sdpa", "flex", or "mha" inside nn.MultiheadAttention), or, for attention
    written by hand around a softmax, the scores and weights themselves (``seen`` is "softmax", or "mha" when
    nn.MultiheadAttention was asked for weights).
    """

    name: str  # module path where it happened
    kind: str  # "self" | "cross"
    seen: str  # "sdpa" | "mha" | "flex" | "softmax" | "reported"
    q: Tensor | None  # (B, H, Q, D)
    k: Tensor | None  # (B, Hk, K, D)
    v: Tensor | None  # (B, Hk, K, Dv)
    scale: float | None = None  # multiplies q·k; None when the scores were seen, not computed
    attn_mask: Tensor | None = None  # as given: bool (True = may attend) or float (added), broadcasts to (B, H, Q, K)
    is_causal: bool = False
    modify: Callable[..., Tensor] | None = (
        None  # (scores, b, h, q, k) → scores: flex_attention's score_mod and mask_mod
    )
    seen_weights: Tensor | None = None  # (B, H, Q, K)
    seen_scores: Tensor | None = None  # (B, H, Q, K)
    stack: str = ""  # "encoder" | "decoder" | "cross": which part of the model, set once the run is over
    layer: int = 0
    occurrence: int = 0  # how often the same module had been called before in this run
    _versions: tuple[int | None, ...] = field(default=(), repr=False)

    def __post_init__(self):
        object.__setattr__(self, "_versions", tuple(_version(t) for t in self._kept))

    # -- shapes ---------------------------------------------------------------------------------------------------
    @property
    def _kept(self) -> tuple[Tensor | None, ...]:
        return self.q, self.k, self.v, self.attn_mask, self.seen_weights, self.seen_scores

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, H, Q, K)."""
        if self.seen_weights is not None:
            return tuple(self.seen_weights.shape)
        return self.q.shape[0], self.q.shape[1], self.q.shape[2], self.k.shape[2]

    @property
    def batch(self) -> int:
        return self.shape[0]

    @property
    def heads(self) -> int:
        return self.shape[1]

    @property
    def kv_heads(self) -> int:
        """Hk: fewer than ``heads`` in grouped-query attention."""
        source = self.k if self.k is not None else self.v
        return self.heads if source is None else source.shape[1]

    @property
    def queries(self) -> int:
        return self.shape[2]

    @property
    def keys(self) -> int:
        return self.shape[3]

    @property
    def nbytes(self) -> int:
        """Bytes kept alive by this call, q and k and v or the weights as seen."""
        return sum(t.numel() * t.element_size() for t in self._kept if t is not None)

    def __repr__(self) -> str:
        b, h, q, k = self.shape
        groups = f" ({self.kv_heads} kv)" if self.kv_heads != h else ""
        shape = f"B={b} H={h}{groups} Q={q} K={k}"
        return f"AttentionCall({self.name!r}, layer {self.layer}, {self.kind}, {self.seen}, {shape})"

    # -- mask and bias --------------------------------------------------------------------------------------------
    @cached_property
    def mask(self) -> Mask:
        """What the module allowed, as given to the attention: ``Causal()``, ``Bidirectional()``, or ``Dense``.

        Attention written by hand tells no mask: there a key is taken as forbidden when its score is at or below
        −9,984. So it is where a function made the scores (flex_attention).
        """
        if self.is_causal:
            return Causal()
        told = self.seen_scores is None and self.modify is None
        source = self.attn_mask if told else self._scores(0, self.queries, slice(None))
        if source is None:
            return Bidirectional()
        if source.dtype == torch.bool:
            return Dense(source)
        allowed = source > SENTINEL
        return Bidirectional() if not told and bool(allowed.all()) else Dense(allowed)

    @cached_property
    def pattern(self) -> Mask:
        """``mask`` of the first sample and head by its name in the algebra where it has one: a window, a prefix,
        causal …"""
        if not isinstance(self.mask, Dense):
            return self.mask
        return recognise(self.mask.dense(self.queries, self.keys))

    @property
    def bias(self) -> Tensor | None:
        """The additive float mask as given, broadcasting to (B, H, Q, K): T5's positions, ALiBi's slopes, sentinels."""
        return self.attn_mask if self.attn_mask is not None and self.attn_mask.is_floating_point() else None

    # -- what happened --------------------------------------------------------------------------------------------
    def weights(self, head: int, rows: Rows = None) -> Tensor:
        """Attention weights of one head → (B, Q, K) float32 (float64 where the model runs in that), or (B, R, K) for
        ``rows`` (a slice or (start, stop)).

        softmax(q·kᵀ·scale + bias) over the allowed keys (Vaswani et al. 2017, eq. 1). A row that sees nothing is zero,
        never NaN; ``empty_rows`` names it. Raises IndexError for a head that is not there, RuntimeError when the model
        has since overwritten q or k in place (a static cache).
        """
        return self.band(*self._range(rows), heads=self._one(head))[:, 0]

    def scores(self, head: int, rows: Rows = None) -> Tensor:
        """Scores before the softmax, bias included, −inf where a bool or causal mask forbids → (B, Q or R, K)
        float32."""
        return self._scores(*self._range(rows), self._one(head))[:, 0]

    def value_weighted(self, head: int, rows: Rows = None) -> Tensor:
        """‖a·v‖, the weight times the length of the value vector it carries → (B, Q or R, K) float32.

        Norm-based analysis (Kobayashi et al. 2020, §3), before the output projection. Raises ValueError when v was
        not seen.
        """
        if self.v is None:
            raise ValueError(
                f"{self.name}: values were not seen in this call, so ‖a·v‖ is unknown. Look at weights instead."
            )
        lengths = _single(self.v[:, self._one(head).start // self._group]).norm(dim=-1)  # (B, K)
        return self.weights(head, rows) * lengths[:, None, :]

    @property
    def out(self) -> Tensor:
        """What attention returned, recomputed → (B, H, Q, Dv), before the output projection."""
        if self.v is None:
            raise ValueError(f"{self.name}: values were not seen in this call, so its output cannot be recomputed.")
        self._check_fresh()
        if self.seen_weights is None and self.modify is None:
            return F.scaled_dot_product_attention(
                self.q,
                self.k,
                self.v,
                self.attn_mask,
                is_causal=self.is_causal,
                scale=self.scale,
                enable_gqa=self._group > 1,
            )
        v = self.v.repeat_interleave(self._group, 1)  # (B, H, K, Dv)
        weights = self.seen_weights if self.modify is None else self.band(0, self.queries)
        return weights.to(v.dtype) @ v

    def empty_rows(self, head: int = 0) -> Tensor:
        """Queries that see no key at all → bool (B, Q)."""
        parts = [(s.amax(-1) == -math.inf) for _, _, s in self._bands(self._scores, self._one(head))]
        return torch.cat(parts, 2)[:, 0]

    # -- bands: all heads, some rows ------------------------------------------------------------------------------
    def band(self, start: int, stop: int, heads: slice = slice(None)) -> Tensor:
        """Weights of queries ``start … stop − 1`` for some heads at once → (B, heads, stop − start, K) float32."""
        if self.seen_weights is not None:
            self._check_fresh()
            return _single(self.seen_weights[:, heads, start:stop])
        return _softmax(self._scores(start, stop, heads))

    def bands(self, heads: slice = slice(None)) -> Iterator[tuple[int, int, Tensor]]:
        """(start, stop, weights (B, heads, stop − start, K)) over all queries, each band within a fixed memory."""
        yield from self._bands(self.band, heads)

    def image(
        self,
        head: int,
        size: int = 512,
        pool: str = "max",
        *,
        quantity: str = "weights",
        batch: int = 0,
        region: tuple[int, int, int, int] | None = None,
    ) -> Tensor:
        """One head pooled to at most ``size`` × ``size`` cells, built in bands → float32 (rows, columns).

        Cell (r, c) covers queries r·f … r·f + f − 1 and as many keys, f = ``factor(size, region)`` for each axis.
        ``pool`` "max" keeps thin diagonals visible, "mean" keeps mass comparable. ``quantity`` is "weights",
        "scores" or "value_weighted"; a cell with no finite score is −inf. ``region`` (query start, stop, key start,
        stop) looks at a part. When it holds no more than ``size`` positions a side nothing is pooled and the
        picture is exact.
        """
        if pool not in ("max", "mean"):
            raise ValueError(f"image expects pool 'max' or 'mean', got {pool!r}.")
        if quantity not in QUANTITIES:
            raise ValueError(f"image expects quantity {', '.join(QUANTITIES)}; got {quantity!r}.")
        q0, q1, k0, k1 = region or (0, self.queries, 0, self.keys)
        f_query, f_key = self.factor(size, region)
        read = getattr(self, quantity)
        band = max(1, self._rows_per_band(1) // f_query) * f_query
        parts = [
            pool_cells(read(head, (start, min(start + band, q1)))[batch][:, k0:k1], f_query, f_key, pool)
            for start in range(q0, q1, band)
        ]
        return torch.cat(parts)

    def factor(self, size: int, region: tuple[int, int, int, int] | None = None) -> tuple[int, int]:
        """Tokens a cell of ``image(size=size, region=region)`` covers along queries and keys."""
        q0, q1, k0, k1 = region or (0, self.queries, 0, self.keys)
        return math.ceil((q1 - q0) / size), math.ceil((k1 - k0) / size)

    # -- inside ---------------------------------------------------------------------------------------------------
    @property
    def _group(self) -> int:
        return self.heads // self.kv_heads

    def _one(self, head: int) -> slice:
        if not -self.heads <= head < self.heads:
            raise IndexError(f"{self.name} has heads 0 … {self.heads - 1}, got {head}.")
        head %= self.heads
        return slice(head, head + 1)

    def _range(self, rows: Rows) -> tuple[int, int]:
        if rows is None:
            return 0, self.queries
        start, stop, step = (rows if isinstance(rows, slice) else slice(*rows)).indices(self.queries)
        if step != 1:
            raise ValueError(f"rows expects a contiguous slice or (start, stop), got step {step}.")
        return start, max(start, stop)

    def _scores(self, start: int, stop: int, heads: slice) -> Tensor:
        self._check_fresh()
        if self.seen_weights is not None:
            return _single(self.seen_scores[:, heads, start:stop])
        index = torch.arange(self.heads, device=self.q.device)[heads]
        q = _single(self.q[:, heads, start:stop])  # (B, h, R, D)
        k = _single(self.k[:, index // self._group])  # (B, h, K, D)
        s = (q @ k.transpose(-1, -2)).mul_(self.scale)  # (B, h, R, K)
        if self.is_causal:  # torch's is_causal is top-left also when Q ≠ K
            s.masked_fill_(~Causal().rows(start, stop, self.keys, device=s.device), -math.inf)
        if self.attn_mask is not None:
            m = self.attn_mask
            m = m.reshape((1,) * (4 - m.ndim) + tuple(m.shape))  # (B|1, H|1, Q|1, K|1)
            m = m[:, heads if m.shape[1] > 1 else slice(None), slice(start, stop) if m.shape[2] > 1 else slice(None)]
            s = s.masked_fill_(~m, -math.inf) if m.dtype == torch.bool else s.add_(m.to(s.dtype))
        if self.modify is not None:
            b, query, key = (torch.arange(n, device=s.device) for n in (self.batch, self.queries, self.keys))
            s = self.modify(s, b, index, query[start:stop], key)
        return s

    def _rows_per_band(self, heads: int) -> int:
        return max(1, BAND_BYTES // (4 * self.batch * heads * self.keys))

    def _bands(self, read, heads: slice) -> Iterator[tuple[int, int, Tensor]]:
        step = self._rows_per_band(len(range(self.heads)[heads]))
        for start in range(0, self.queries, step):
            stop = min(start + step, self.queries)
            yield start, stop, read(start, stop, heads)

    def _check_fresh(self) -> None:
        if tuple(_version(t) for t in self._kept) != self._versions:
            raise RuntimeError(
                f"{self.name}: the model overwrote this call's q, k or v in place after the run (a static cache does), "
                "so its weights can no longer be recomputed. Read them before the next step, or capture "
                "without a cache."
            )


def pool_cells(rows: Tensor, f_query: int, f_key: int, pool: str = "max") -> Tensor:
    """(R, K) → (⌈R/f_query⌉, ⌈K/f_key⌉), the max or the mean of each cell; the ragged last cells pool what they
    have."""
    if f_query == f_key == 1:
        return rows
    height, width = -(-rows.shape[0] // f_query), -(-rows.shape[1] // f_key)
    cells = rows.new_full((height * f_query, width * f_key), -math.inf if pool == "max" else math.nan)
    cells[: rows.shape[0], : rows.shape[1]] = rows
    cells = cells.view(height, f_query, width, f_key)
    return cells.amax((1, 3)) if pool == "max" else cells.nanmean((1, 3))


def _softmax(scores: Tensor) -> Tensor:
    """Softmax over keys in which a row of −inf gives zeros instead of NaN."""
    top = scores.amax(-1, keepdim=True)
    e = scores.sub_(top.masked_fill_(top == -math.inf, 0)).exp_()
    return e.div_(e.sum(-1, keepdim=True).clamp_min_(torch.finfo(e.dtype).tiny))


def _single(t: Tensor) -> Tensor:
    """In float32, or in float64 where the model runs in that."""
    return t if t.dtype == torch.float64 else t.float()


def _version(t: Tensor | None) -> int | None:
    return None if t is None or t.is_inference() else t._version
