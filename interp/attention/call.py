"""One attention computation as it happened, with its weights recomputed when somebody looks.

A call that went through ``scaled_dot_product_attention`` keeps q and k, O(n·d), never the n×n weights. Axis
letters: B batch, H query heads, Hk key/value heads (Hk < H is grouped-query attention, Ainslie et al. 2023), Q
queries, K keys, D head width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.interp.attention.axes import Axis, numbered
from headwise.interp.attention.promise import UNKNOWN, Promise
from headwise.interp.attention.report import Mechanism
from headwise.interp.attention.scores import Factors, Scores, copied, single, version
from headwise.interp.masks import Dense, Mask, Padding, recognise

BAND_BYTES = 4 * 2**20  # working memory of one band of rows, about what a core's cache holds

QUANTITIES = ("weights", "scores", "value_weighted")

Rows = slice | tuple[int, int] | None
Region = tuple[int, int, int, int]  # query start, stop, key start, stop


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One attention computation. ``weights`` and ``scores`` are exact and lazy.

    It knows its place (``name``, ``stack``, ``layer``), what its positions are (``query_axis``, ``key_axis``), which of
    them are real (``real_queries`` (B, Q), ``real_keys`` (B, K), None when all are) and what it should see (``claim``,
    and ``promise``, the claim within the mask it was given). These are bound once the run is over; until then positions
    are numbers, all of them real, and nothing is claimed.
    """

    name: str  # module path where it happened
    kind: str  # "self" | "cross"
    form: Scores  # how its scores are known
    v: Tensor | None = None  # (B, Hk, K, Dv); None when the values were not seen
    stack: str = ""  # "encoder" | "decoder" | "cross": which part of the model
    layer: int = 0
    occurrence: int = 0  # how often the same module had been called before in this run
    _query_axis: Axis | None = field(default=None, repr=False)
    _key_axis: Axis | None = field(default=None, repr=False)
    real_queries: Tensor | None = field(default=None, repr=False)
    real_keys: Tensor | None = field(default=None, repr=False)
    claim: Promise = field(default=UNKNOWN, repr=False)
    _versions: tuple[int | None, ...] = field(default=(), repr=False)

    def __post_init__(self):
        if not self._versions:  # a copy that is bound later must still notice what was overwritten in between
            object.__setattr__(self, "_versions", tuple(version(t) for t in self._kept))

    def bound(
        self,
        axes: tuple[Axis | None, Axis | None],
        real: tuple[Tensor | None, Tensor | None],
        claim: Promise = UNKNOWN,
    ) -> AttentionCall:
        """The same call, with the axes and the real positions of its queries and keys, and what is claimed of it."""
        keys = {"_query_axis": axes[0], "_key_axis": axes[1], "real_queries": real[0], "real_keys": real[1]}
        return replace(self, **keys, claim=claim)

    def copied(self) -> AttentionCall:
        """The same call with tensors of its own: a static cache may be written into afterwards. One that was already
        overwritten stays as it is, and says so."""
        if tuple(version(t) for t in self._kept) != self._versions:
            return self
        return replace(self, form=copied(self.form), v=None if self.v is None else copied(self.v), _versions=())

    def with_keys(self, axis: Axis) -> AttentionCall:
        """The same call with other names for its keys."""
        return replace(self, _key_axis=axis)

    # -- shapes and axes ------------------------------------------------------------------------------------------
    @property
    def _kept(self) -> tuple[Tensor | None, ...]:
        return *self.form.tensors, self.v

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, H, Q, K)."""
        return self.form.shape

    @property
    def batch(self) -> int:
        return self.shape[0]

    @property
    def heads(self) -> int:
        return self.shape[1]

    @property
    def kv_heads(self) -> int:
        """Hk: fewer than ``heads`` in grouped-query attention."""
        return self.form.kv_heads or (self.heads if self.v is None else self.v.shape[1])

    @property
    def queries(self) -> int:
        return self.shape[2]

    @property
    def keys(self) -> int:
        return self.shape[3]

    @property
    def width(self) -> int | None:
        """D of the values, None when they were not seen."""
        return None if self.v is None else self.v.shape[-1]

    @property
    def device(self) -> torch.device:
        return self.form.tensors[0].device

    @cached_property
    def query_axis(self) -> Axis:
        """What the queries are; plain numbers where nothing better is known."""
        return self._query_axis or numbered(self.queries)

    @cached_property
    def key_axis(self) -> Axis:
        """What the keys are."""
        return self._key_axis or numbered(self.keys)

    @cached_property
    def promise(self) -> Promise:
        """What its heads may see: the claim, within the module's own mask, without each sample's padding keys."""
        real, padding = self.real_keys, None
        if real is not None and real.shape[0] == self.batch and not bool(real.all()):
            padding = Padding(tuple(real.sum(1).tolist()), starts=tuple(real.int().argmax(1).tolist()))
        return self.claim.narrowed(self.mask, padding)

    @property
    def shows_queries(self) -> bool:
        """Whether queries and keys were seen, rather than the scores made from them."""
        return self.form.kv_heads is not None

    @property
    def seen(self) -> str:
        """Where it was seen, for those who document a figure: "sdpa", "mha", "flex", "softmax"."""
        return self.form.how

    @property
    def nbytes(self) -> int:
        """Bytes kept alive by this call: q and k and v, or the weights as seen."""
        return int(self.grown(self.queries, self.keys))

    def grown(self, queries: int, keys: int) -> float:
        """What ``nbytes`` would be with that many queries and keys."""
        values = 0 if self.v is None else self.v.nbytes * keys / self.keys
        return self.form.size(queries, keys) + values

    def __repr__(self) -> str:
        b, h, q, k = self.shape
        groups = f" ({self.kv_heads} kv)" if self.kv_heads != h else ""
        shape = f"B={b} H={h}{groups} Q={q} K={k}"
        return f"AttentionCall({self.name!r}, layer {self.layer}, {self.kind}, {self.form.how}, {shape})"

    # -- mask and bias --------------------------------------------------------------------------------------------
    @cached_property
    def mask(self) -> Mask:
        """What the module allowed, as given to the attention: ``Causal()``, ``Bidirectional()``, or ``Dense``.

        Attention written by hand tells no mask: there a key is taken as forbidden when its score is at or below
        −9,984. So it is where a function made the scores (flex_attention).
        """
        return self.form.mask()

    @cached_property
    def pattern(self) -> Mask:
        """``mask`` of the first sample and head by its name in the algebra where it has one: a window, a prefix,
        causal …"""
        return recognise(self.mask.dense(self.queries, self.keys)) if isinstance(self.mask, Dense) else self.mask

    @property
    def given(self) -> Tensor | None:
        """The mask tensor as the module gave it, broadcasting to (B, H, Q, K): bool (True = may attend) or float
        (added). None where it gave none, and where attention was written by hand."""
        return self.form.given

    @property
    def bias(self) -> Tensor | None:
        """``given`` where it is additive: T5's positions, ALiBi's slopes, sentinels."""
        return self.given if self.given is not None and self.given.is_floating_point() else None

    @property
    def scale(self) -> float | None:
        """What products of queries and keys are multiplied with, None where these were not seen."""
        return None if self.form.factors is None else self.form.factors.scale

    @property
    def told(self) -> bool:
        """Whether the module told its mask, rather than having it read off its scores."""
        return self.form.told

    @property
    def linear(self) -> bool:
        """Whether no softmax made its weights: they may be negative, and a row may have any sum."""
        return self.form.linear

    @property
    def sorts(self) -> bool:
        """Whether keys are summed in an order that what they hold decides, so that one changed token moves the last
        bits of sums it is no part of."""
        return self.form.sorts

    def obeys(self, mask: Mask) -> bool:
        """Whether weights are zero outside ``mask`` by construction, so that nobody need look."""
        return self.form.exact and self.mask == mask

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
        return self.score_band(*self._range(rows), heads=self._one(head))[:, 0]

    def value_weighted(self, head: int, rows: Rows = None) -> Tensor:
        """‖a·v‖, the weight times the length of the value vector it carries → (B, Q or R, K) float32.

        Norm-based analysis (Kobayashi et al. 2020, §3), before the output projection. Raises ValueError when v was
        not seen.
        """
        if self.v is None:
            raise ValueError(
                f"{self.name}: values were not seen in this call, so ‖a·v‖ is unknown. Look at weights instead."
            )
        group, index = self.heads // self.kv_heads, self._one(head).start
        lengths = single(self.v[:, index // group]).norm(dim=-1)[:, None]  # (B, 1, K)
        if self.apart is not None:
            own = single(self.apart[1][:, index]).norm(dim=-1)[:, None]
            lengths = torch.where(self.apart[0][:, slice(*self._range(rows)), None], own, lengths)  # (B, R, K)
        return self.weights(head, rows) * lengths

    def query_vectors(self, head: int) -> Tensor:
        """The queries of one head as they met the keys, rotary positions turned in → (B, Q, D) float32.

        Raises ValueError where attention was written by hand in a way that only showed its scores.
        """
        return single(self._factors().q[:, self._one(head)][:, 0])

    def key_vectors(self, head: int) -> Tensor:
        """The keys that one head meets, those of its group where heads share them → (B, K, D) float32."""
        factors = self._factors()
        return single(factors.k[:, self._one(head).start // (self.heads // factors.k.shape[1])])

    @property
    def query_width(self) -> int | None:
        """D of queries and keys, None where they were not seen."""
        return None if self.form.factors is None else self.form.factors.q.shape[-1]

    def under(self, by: Mechanism) -> AttentionCall:
        """The same queries, keys and values as another mechanism takes them, which scales by 1/√D itself; keys and
        values that heads share are given to each. Raises ValueError where they were not seen."""
        factors, each = self._factors(), self.heads // self.kv_heads
        q = factors.q * (factors.scale * math.sqrt(factors.q.shape[-1]))
        k, v = (t if t is None or each == 1 else t.repeat_interleave(each, 1) for t in (factors.k, self.v))
        return replace(self, form=by.form(q, k), v=v, _versions=())

    def added(self, head: int, rows: Rows = None) -> Tensor:
        """What stands in the scores beside q·kᵀ·scale: bias and mask, or what a function of the model's made of it;
        −inf where a key is hidden → (B, Q or R, K) float32."""
        self._factors()
        return self.form.added(*self._range(rows), self._one(head))[:, 0]

    @property
    def has_sink(self) -> bool:
        """Whether the softmax has a column beside the keys."""
        return self.form.sink(0, 1, slice(0, 1)) is not None

    def sink(self, head: int, rows: Rows = None) -> Tensor | None:
        """The weight that a row gave to no key, where the softmax has a learned column beside the keys (an attention
        sink: Xiao et al. 2023, §3.3) → (B, Q or R); None where there is none. With it each row sums to one."""
        self._check_fresh()
        found = self.form.sink(*self._range(rows), self._one(head))
        return None if found is None else found[:, 0]

    @property
    def apart(self) -> tuple[Tensor, Tensor] | None:
        """Queries that meet values of their own: which, bool (B, Q), and these values (B, H, K, Dv). None where there
        are none, as in all but Longformer's global attention."""
        return getattr(self.form, "apart", None)

    @property
    def out(self) -> Tensor:
        """What attention returned, recomputed → (B, H, Q, Dv), before the output projection."""
        if self.v is None:
            raise ValueError(f"{self.name}: values were not seen in this call, so its output cannot be recomputed.")
        self._check_fresh()
        return self.form.output(self.v)

    def empty_rows(self, head: int = 0) -> Tensor:
        """Queries that see no key at all → bool (B, Q)."""
        bands = self._bands(self.score_band, self._one(head))
        return torch.cat([(s.amax(-1) == -math.inf) for _, _, s in bands], 2)[:, 0]

    # -- bands: all heads, some rows ------------------------------------------------------------------------------
    def band(self, start: int, stop: int, heads: slice = slice(None)) -> Tensor:
        """Weights of queries ``start … stop − 1`` for some heads at once → (B, heads, stop − start, K) float32."""
        self._check_fresh()
        return self.form.weights(start, stop, heads)

    def score_band(self, start: int, stop: int, heads: slice = slice(None)) -> Tensor:
        """The same of the scores."""
        self._check_fresh()
        return self.form.scores(start, stop, heads)

    def bands(self, heads: slice = slice(None)) -> Iterator[tuple[int, int, Tensor]]:
        """(start, stop, weights (B, heads, stop − start, K)) over all queries, each band within a fixed memory."""
        yield from self._bands(self.band, heads)

    def drawn(self, rows: Tensor, step: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """(positions (R,), weights (B, H, R, K)) of some queries only, in bands of a multiple of ``step`` rows."""
        self._check_fresh()
        rows = rows.to(self.device)
        some = self.form.at(rows) if hasattr(self.form, "at") else None
        band = -(-max(step, self._rows_per_band(self.heads)) // step) * step
        for start in range(0, len(rows), band):
            part = rows[start : start + band]
            if some is not None:
                yield part, some.weights(start, start + len(part), slice(None))
            else:  # a row at a time
                every = [self.form.weights(row, row + 1, slice(None)) for row in part.tolist()]
                yield part, torch.cat(every, 2)

    def image(
        self,
        head: int,
        size: int = 512,
        pool: str = "max",
        *,
        quantity: str = "weights",
        batch: int = 0,
        region: Region | None = None,
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

    def factor(self, size: int, region: Region | None = None) -> tuple[int, int]:
        """Tokens a cell of ``image(size=size, region=region)`` covers along queries and keys."""
        q0, q1, k0, k1 = region or (0, self.queries, 0, self.keys)
        return math.ceil((q1 - q0) / size), math.ceil((k1 - k0) / size)

    # -- inside ---------------------------------------------------------------------------------------------------
    def _factors(self) -> Factors:
        if self.form.factors is None:
            raise ValueError(
                f"{self.name}: attention was written by hand here and only its scores were seen, not the queries and "
                "keys that made them. Look at scores instead."
            )
        self._check_fresh(self.form.factors.fresh)
        return self.form.factors

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

    def _rows_per_band(self, heads: int) -> int:
        return max(1, BAND_BYTES // (4 * self.batch * heads * self.keys))

    def _bands(self, read, heads: slice) -> Iterator[tuple[int, int, Tensor]]:
        step = self._rows_per_band(len(range(self.heads)[heads]))
        for start in range(0, self.queries, step):
            stop = min(start + step, self.queries)
            yield start, stop, read(start, stop, heads)

    def _check_fresh(self, fresh: bool = True) -> None:
        if not fresh or tuple(version(t) for t in self._kept) != self._versions:
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
    down, across = -rows.shape[0] % f_query, -rows.shape[1] % f_key
    if down or across:
        rows = F.pad(rows, (0, across, 0, down), value=-math.inf if pool == "max" else math.nan)
    if pool == "max":  # down first: neighbours in memory stay neighbours
        return rows.unflatten(0, (-1, f_query)).amax(1).unflatten(1, (-1, f_key)).amax(2)
    return rows.unflatten(0, (-1, f_query)).unflatten(2, (-1, f_key)).nanmean((1, 3))
