"""A Matrix: numbers with both axes named, ready to be drawn, compared or written, and ``head_view``, which makes one of
a head."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from operator import or_
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.interp.attention.axes import Axis, PixelGrid, Score, Series, Sound
from headwise.interp.attention.call import AttentionCall, pool_cells
from headwise.interp.drawing.quantities import QUANTITIES, SIGNED, Quantity
from headwise.interp.drawing.words import groups_of, hidden_note, merged, merged_allowed, names_of
from headwise.interp.masks import Mask
from headwise.interp.run.capture import Capture

ALLOWED, FORBIDDEN, MIXED, LEAKED = 0, 1, 2, 3  # cells of Matrix.forbidden; 2 and 3 are pooled and hold both kinds
LEAK = 1e-6  # a smaller weight on a forbidden position is rounding
SINK = "sink"  # the column of the weight that goes to no key
DENSE_LIMIT = 4096**2  # query × key pairs that may stand in memory at once for one head

Members = Sequence[tuple[AttentionCall, int]]  # heads: their calls and numbers
Region = tuple[int, int, int, int]  # query start, stop, key start, stop


@dataclass(frozen=True)
class Span:
    """The rows or the columns of a matrix: a stretch of positions.

    ``labels`` what each row's first position is called · ``name`` what positions are called, in the plural, such as
    "source keys" · row r covers ``factor`` positions from ``origin`` + r · ``factor`` on, of ``whole`` in all (by
    default up to the last row's) · ``sound`` when they are frames of a recording, ``picture`` and ``grid`` when they
    are patches of a picture, ``track`` when they are steps of a series or a score, as in ``Axis``.
    """

    labels: tuple[str, ...]
    name: str
    origin: int = 0
    factor: int = 1
    whole: int | None = None
    sound: Sound | None = None
    picture: PixelGrid | None = None
    grid: tuple[int, int] | None = None
    track: Series | Score | None = None

    def __post_init__(self):
        object.__setattr__(self, "labels", tuple(self.labels))
        if self.whole is None:
            object.__setattr__(self, "whole", self.origin + len(self) * self.factor)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def starts(self) -> range:
        """The first position of each row."""
        return range(self.origin, self.origin + len(self) * self.factor, self.factor)

    @property
    def end(self) -> int:
        """The position after the last row's last."""
        return min(self.origin + len(self) * self.factor, self.whole)


@dataclass(frozen=True, eq=False)
class Matrix:
    """Numbers that know what they are: whoever draws, writes or compares one asks for nothing else.

    ``values`` (rows, columns) float32 (float64 where the model runs in that), NaN where there is none · ``rows`` and
    ``columns`` what they stand for · ``quantity`` what a value is · ``forbidden`` uint8 of the same shape (ALLOWED,
    FORBIDDEN, MIXED, LEAKED); None: all allowed · ``title`` which one it is, ``of`` whose: a model's name, and its
    stack where it has several · ``left_out`` what was hidden, merged or not shown, in words.

    Raises ValueError where the shapes or the labels do not fit together.
    """

    values: Tensor
    rows: Span
    columns: Span
    quantity: Quantity = QUANTITIES["weights"]
    forbidden: Tensor | None = None
    title: str = ""
    of: str = ""
    left_out: tuple[str, ...] = ()

    def __post_init__(self):
        shape = tuple(self.values.shape)
        if len(shape) != 2:
            raise ValueError(f"A matrix expects values (rows, columns); got {shape}.")
        if self.forbidden is None:
            object.__setattr__(self, "forbidden", torch.zeros(shape, dtype=torch.uint8))
        if tuple(self.forbidden.shape) != shape:
            raise ValueError(f"forbidden expects the values' shape {shape}; got {tuple(self.forbidden.shape)}.")
        for side, span, count in (("rows", self.rows, shape[0]), ("columns", self.columns, shape[1])):
            if len(span) != count:
                raise ValueError(f"{side} expects {count} labels, one for each; got {len(span)}.")

    @property
    def spans(self) -> tuple[Span, Span]:
        return self.rows, self.columns

    @property
    def shape(self) -> tuple[int, int]:
        """Of the whole that this is a part of, in positions."""
        return self.rows.whole, self.columns.whole

    @property
    def origin(self) -> tuple[int, int]:
        return self.rows.origin, self.columns.origin

    @property
    def factor(self) -> tuple[int, int]:
        """Positions a cell covers, down and across."""
        return self.rows.factor, self.columns.factor

    @property
    def caption(self) -> str:
        """The title as it stands outside its page: whose it is comes first."""
        return " · ".join(part for part in (self.of, self.title) if part)

    @property
    def signed(self) -> bool:
        return self.quantity.kind == "signed"

    @property
    def still(self) -> bool:
        """Whether it is a difference, and there is none."""
        return self.signed and not bool(self.values.nan_to_num(0).any())

    @property
    def leaks(self) -> Tensor:
        """Where there is weight on a forbidden position, bool (rows, columns). A score or a difference is no weight."""
        if self.quantity.kind != "weight":
            return torch.zeros_like(self.forbidden, dtype=torch.bool)
        return (self.forbidden == FORBIDDEN) & (self.values > LEAK) | (self.forbidden == LEAKED)

    @property
    def early(self) -> int:
        """How many of the first rows lie in the first cycle of a series or a score. They have few keys to weigh, and
        would outshine all others on one scale of colours."""
        track = self.rows.track
        if track is None or self.quantity.kind != "weight":
            return 0
        rows = -(-(track.period - self.rows.origin) // self.rows.factor)
        return rows if 0 < 2 * rows <= len(self.rows) else 0

    # -- a head's matrix, as it is spoken of ----------------------------------------------------------------------
    @property
    def matrix(self) -> Tensor:
        return self.values

    @property
    def queries(self) -> tuple[str, ...]:
        return self.rows.labels

    @property
    def keys(self) -> tuple[str, ...]:
        return self.columns.labels

    def minus(self, other: Matrix) -> Matrix:
        """This one less ``other``, cell by cell; mask, names and notes are the other's. Raises ValueError where the two
        are not of the same positions or of the same quantity."""
        if (self.shape, self.origin, self.factor) != (other.shape, other.origin, other.factor):
            raise ValueError(
                f"it has {self.shape[0]} × {self.shape[1]} positions, not {other.shape[0]} × {other.shape[1]}."
            )
        if self.quantity != other.quantity:
            raise ValueError(f"it holds {self.quantity.many}, not {other.quantity.many}.")
        of = f"{self.of} − {other.of}" if self.of and other.of else ""
        return replace(other, values=self.values - other.values, quantity=other.quantity.difference, of=of)


@dataclass(frozen=True)
class Look:
    """How to look at a head.

    ``words`` merges sub-word tokens by their character offsets: weights are summed over a word's keys and averaged
    over its queries · ``special=False`` leaves the tokenizer's own tokens out and says how much weight they held ·
    ``region`` in the coordinates of the resulting picture · over ``size`` cells a side are pooled by maximum ·
    ``batch`` which sample, or which part where a layer splits its input into several (windows, channels).
    """

    words: bool = False
    special: bool = True
    region: Region | None = None
    size: int = 512
    batch: int = 0


def head_view(cap: Capture, call: AttentionCall, head: int, quantity: str = "weights", **look: Any) -> Matrix:
    """Look at one head. Nothing is repainted: forbidden cells keep the weight they got.

    ``quantity`` "weights", "scores" or "value_weighted"; weights that no softmax made may be negative, and are drawn to
    both sides of 0 then · ``look`` the fields of ``Look``: words, special, region,
    size, batch. Raises ValueError for what cannot be computed, IndexError for a head or a sample that is not there.
    """
    return looked_at(cap, [(call, head)], quantity, Look(**look), _title(call, head))


def looked_at(cap: Capture, members: Members, quantity: str, how: Look, title: str) -> Matrix:
    """One head, or the mean of several at the same positions. Raises what ``head_view`` raises."""
    call = members[0][0]
    if quantity not in QUANTITIES:
        raise ValueError(f"quantity expects one of {', '.join(QUANTITIES)}; got {quantity!r}.")
    if how.words and quantity == "scores":
        raise ValueError(
            "Scores before the softmax cannot be added up into words. Look at weights, or at single tokens."
        )
    if not 0 <= how.batch < call.batch:
        raise IndexError(f"batch expects a sample 0 … {call.batch - 1}; got {how.batch}.")
    promise = reduce(or_, dict.fromkeys(own.promise.mask for own, _ in members))
    axes = call.query_axis, call.key_axis
    one = _Heads(members, quantity, how.batch, promise, axes, side_names(cap, call))
    values, codes, spans, notes = (_merged if how.words or not how.special else _plain)(one, how)
    return Matrix(
        torch.where(values.isfinite(), values, math.nan).cpu(),
        *spans,
        SIGNED if quantity == "weights" and call.linear and bool((values < 0).any()) else QUANTITIES[quantity],
        codes.cpu(),
        title=title,
        of=_whose(cap, call),
        left_out=(*notes, *one_of_many(cap, call, how.batch)),
    )


def one_of_many(cap: Capture, call: AttentionCall, batch: int = 0) -> tuple[str, ...]:
    """That there is more than what is shown: other samples, or other parts into which a layer splits its input."""
    if call.batch == 1:
        return ()
    given = cap.inputs.batch
    if call.batch > given and call.batch % given == 0:
        whole = "its input" if given == 1 else f"{given} samples"
        parts = f"{call.batch} parts, such as windows or channels"
        return (f"this layer splits {whole} into {parts}: part {batch} is shown",)
    return (f"sample {batch} is shown, one of {call.batch}",)


def recorded(cap: Capture, call: AttentionCall) -> Region | None:
    """The part of a head that lies within a recording, without the silence it was filled up with; None when no side is
    one."""
    axes = call.query_axis, call.key_axis
    if all(axis.sound is None for axis in axes):
        return None
    lengths = [
        len(axis) if axis.sound is None else min(len(axis), max(1, math.ceil(axis.sound.seconds / axis.sound.step)))
        for axis in axes
    ]
    return 0, lengths[0], 0, lengths[1]


def side_names(cap: Capture, call: AttentionCall) -> tuple[str, str]:
    """("queries", "keys"), or ("target queries", "source keys") where there are two sequences."""
    names = []
    for side, plural in (("query", "queries"), ("key", "keys")):
        own = axis_name(cap, call, side)
        names.append(f"{own} {plural}" if own and len(cap.axes) > 1 else plural)
    return names[0], names[1]


def axis_name(cap: Capture, call: AttentionCall, side: str) -> str | None:
    """What the input calls the axis of a call's "query" or "key" side: "input", "source" or "target"."""
    axis = getattr(call, f"{side}_axis")
    return next((name for name, own in cap.axes.items() if own is axis), None)


def _whose(cap: Capture, call: AttentionCall) -> str:
    """The model, its stack where it has several, and that the run was edited."""
    name = f"{cap.subject.name} · {call.stack}" if len(cap.stacks) > 1 else cap.subject.name
    return f"{name} (edited)" if cap.edits else name


def _title(call: AttentionCall, head: int) -> str:
    """ "layer 2 · head 3", with its key/value head where heads share them."""
    shared = call.heads // call.kv_heads
    return f"layer {call.layer} · head {head}" + (f" · key/value head {head // shared}" if shared > 1 else "")


# -- the numbers of a head --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Heads:
    """One head of one sample, or the mean of several, read in bands of rows (start, stop)."""

    members: Members
    quantity: str
    batch: int
    promise: Mask
    axes: tuple[Axis, Axis]
    names: tuple[str, str]

    @property
    def call(self) -> AttentionCall:
        """The first, whose positions are all the others'."""
        return self.members[0][0]

    @property
    def head(self) -> int:
        return self.members[0][1]

    def obeyed(self) -> bool:
        """Whether no weight can lie where it is forbidden."""
        return all(call.obeys(self.promise) for call, _ in self.members)

    def values(self, rows: tuple[int, int]) -> Tensor:
        """(R, K)."""
        return self._mean(getattr(call, self.quantity)(head, rows)[self.batch] for call, head in self.members)

    def weights(self, rows: tuple[int, int]) -> Tensor:
        """(R, K)."""
        return self._mean(call.weights(head, rows)[self.batch] for call, head in self.members)

    def _mean(self, parts: Iterator[Tensor]) -> Tensor:
        return next(parts) if len(self.members) == 1 else sum(parts) / len(self.members)

    def sink(self, rows: tuple[int, int]) -> Tensor | None:
        """(R, 1), where there is one and weights are looked at: the sink has no value, and its score is not kept."""
        if self.quantity != "weights" or not any(call.has_sink for call, _ in self.members):
            return None
        found = [call.sink(head, rows) for call, head in self.members]
        none = torch.zeros(rows[1] - rows[0], device=self.call.device)
        return self._mean(none if sink is None else sink[self.batch] for sink in found)[:, None]

    def allowed(self, rows: tuple[int, int], device: torch.device) -> Tensor:
        """(R, K) bool."""
        return self.promise.rows(*rows, self.call.keys, b=self.batch, h=self.head, device=device)

    def spans(self, labels: tuple[Sequence[str], Sequence[str]], region: Region, factor: tuple[int, int]):
        """What is left of both sides: of their axes, or of the words these were merged into, which lie on no recording
        and no picture."""
        found = []
        for side, (axis, name, texts, size) in enumerate(zip(self.axes, self.names, labels, factor, strict=True)):
            start, stop = region[2 * side : 2 * side + 2]
            lies = {"sound": axis.sound, "picture": axis.picture, "grid": axis.grid, "track": axis.track}
            own = lies if len(texts) == len(axis) else {}
            found.append(Span(tuple(texts[start:stop:size]), name, start, size, len(texts), **own))
        return found[0], found[1]


Found = tuple[Tensor, Tensor, tuple[Span, Span], tuple[str, ...]]  # values, codes, spans, notes


def _plain(one: _Heads, how: Look) -> Found:
    """Every position as it is: a region's values, pooled by maximum, and the codes of its cells, in bands of rows."""
    q0, q1, k0, k1 = region = _inside(how.region, (one.call.queries, one.call.keys))
    factor = one.call.factor(how.size, region)
    step = max(1, 2**20 // one.call.keys // factor[0]) * factor[0]
    codes = _standing(one.promise, (one.batch, one.head), region, factor)
    values, leaks = [], []
    for start in range(q0, q1, step):
        rows = (start, min(start + step, q1))
        value = one.values(rows)
        values.append(pool_cells(value[:, k0:k1], *factor))
        if not one.obeyed() and factor != (1, 1):
            weights = value if one.quantity == "weights" else one.weights(rows)
            leaked = ~one.allowed(rows, value.device) & (weights > LEAK)
            leaks.append(_any(leaked[:, k0:k1], factor).cpu())
    if leaks:
        codes = torch.where((codes == MIXED) & torch.cat(leaks), LEAKED, codes)
    labels = one.axes[0].labels, one.axes[1].labels
    found = torch.cat(values), codes, one.spans(labels, region, factor), ()
    return _beside(found, one.sink((q0, q1)))


def _merged(one: _Heads, how: Look) -> Found:
    """Words instead of tokens, or no special tokens: the whole square is needed to know what they held."""
    call = one.call
    if call.queries * call.keys > DENSE_LIMIT:
        most, longest = math.isqrt(DENSE_LIMIT), max(call.queries, call.keys)
        raise ValueError(f"Words are merged up to {most:,} tokens; this text has {longest:,}.")
    every = (0, call.queries)
    whole = one.values(every)  # (Q, K)
    allowed = one.allowed(every, whole.device)
    (rows, row_note), (columns, column_note) = (groups_of(axis, how.words, how.special) for axis in one.axes)
    notes = hidden_note(one.axes[1], whole, columns, one.quantity) + tuple(dict.fromkeys(row_note + column_note))
    whole, allowed = merged(whole, rows, columns, one.quantity), merged_allowed(allowed, rows, columns)
    q0, q1, k0, k1 = region = _inside(how.region, tuple(whole.shape))
    factor = (math.ceil((q1 - q0) / how.size), math.ceil((k1 - k0) / how.size))
    whole, allowed = whole[q0:q1, k0:k1], allowed[q0:q1, k0:k1]
    labels = names_of(one.axes[0], rows), names_of(one.axes[1], columns)
    found = pool_cells(whole, *factor), _codes(allowed, whole, factor), one.spans(labels, region, factor), notes
    sink = one.sink(every)
    return _beside(found, None if sink is None else merged(sink, rows, [[0]], one.quantity)[q0:q1])


def _beside(found: Found, sink: Tensor | None) -> Found:
    """With the weight that went to no key, (R, 1), as a last column where the last key is shown and nothing is pooled;
    else in words."""
    if sink is None:
        return found
    values, codes, (rows, columns), notes = found
    if columns.end < columns.whole or (rows.factor, columns.factor) != (1, 1):
        return (
            values,
            codes,
            (rows, columns),
            (*notes, f"not shown: the sink, with {float(sink.mean()):.0%} of the weight"),
        )
    wider = replace(columns, labels=(*columns.labels, SINK), whole=columns.whole + 1)
    return torch.cat([values, sink], 1), F.pad(codes, (0, 1), value=ALLOWED), (rows, wider), notes


@lru_cache(maxsize=32)
def _standing(promise: Mask, which: tuple[int, int], region: Region, factor: tuple[int, int]) -> Tensor:
    """Codes of a region's cells by the mask alone, for one (sample, head): the same for every quantity, so remembered.
    Do not write into it."""
    q0, q1, k0, k1 = region
    step = max(1, 2**20 // k1 // factor[0]) * factor[0]
    sample, head = which
    bands = (promise.rows(start, min(start + step, q1), k1, b=sample, h=head)[:, k0:] for start in range(q0, q1, step))
    return torch.cat([_codes(allowed.cpu(), None, factor) for allowed in bands])


def _codes(allowed: Tensor, weights: Tensor | None, factor: tuple[int, int]) -> Tensor:
    """(R, K) bool → uint8 cells. LEAKED is a mixed cell whose forbidden part got weight."""
    if factor == (1, 1):
        return (~allowed).to(torch.uint8)  # ALLOWED, FORBIDDEN
    some, hidden = _any(allowed, factor), _any(~allowed, factor)
    codes = torch.where(some, torch.where(hidden, MIXED, ALLOWED), FORBIDDEN).to(torch.uint8)
    if weights is not None:
        codes[(codes == MIXED) & _any(~allowed & (weights > LEAK), factor)] = LEAKED
    return codes


def _any(cells: Tensor, factor: tuple[int, int]) -> Tensor:
    """(R, K) bool → (⌈R/f⌉, ⌈K/f⌉) bool."""
    pad = (0, -cells.shape[1] % factor[1], 0, -cells.shape[0] % factor[0])
    cells = F.pad(cells, pad) if any(pad) else cells
    return cells.unflatten(0, (-1, factor[0])).any(1).unflatten(1, (-1, factor[1])).any(2)


def _inside(region: Region | None, shape: tuple[int, int]) -> Region:
    """A region clipped to the picture; the whole when nothing of it is left."""
    if region is None:
        return 0, shape[0], 0, shape[1]
    q0, q1, k0, k1 = (max(0, min(int(x), shape[i // 2])) for i, x in enumerate(region))
    return (q0, q1, k0, k1) if q0 < q1 and k0 < k1 else (0, shape[0], 0, shape[1])
