"""What a picture of heads is made of: numbers and labels, before anybody draws them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from interp.call import AttentionCall, pool_cells
from interp.capture import Capture
from interp.masks import Bidirectional, Mask, Padding, Window
from interp.metrics import STANDARD, Thumbnails, measure, table
from interp.subject import Axis

ALLOWED, FORBIDDEN, MIXED, LEAKED = 0, 1, 2, 3  # cells of HeadView.forbidden; 2 and 3 are pooled and hold both kinds
LEAK = 1e-6  # a smaller weight on a forbidden position is rounding
PATCH_CELLS = 48  # of a thumbnail's side
DENSE_LIMIT = 4096**2  # query × key pairs that may stand in memory at once for one head

Region = tuple[int, int, int, int]  # query start, stop, key start, stop
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]|_+")


@dataclass(frozen=True)
class Survey:
    """All heads at a glance: the metric table, and per (stack, layer) their thumbnails (H, t, t) float32."""

    table: pd.DataFrame
    thumbnails: dict[tuple[str, int], Tensor]


def survey(cap: Capture, progress: Callable[[float], None] = lambda fraction: None, size: int = 48) -> Survey:
    """Metrics and thumbnails of every head from one recomputation of the weights."""
    thumbnails = {}

    def own(call: AttentionCall) -> Thumbnails:
        part = recorded(cap, call)
        return Thumbnails(size, None if part is None else (part[1], part[3]))

    def collect():
        for call, results in measure(cap, STANDARD, None, progress, own=own):
            thumbnails[call.stack, call.layer] = results.pop(Thumbnails.name)
            yield call, results

    return Survey(table(collect()), thumbnails)


@dataclass(frozen=True)
class HeadView:
    """One head as it can be drawn: at most ``size`` × ``size`` cells, each with its value and its standing under
    the mask.

    ``matrix`` (rows, columns) float32, NaN where there is no value · ``forbidden`` uint8 of the same shape
    (ALLOWED, FORBIDDEN, MIXED, LEAKED) · ``queries``, ``keys`` labels of what the rows and columns start with ·
    cell (r, c) covers ``factor`` positions from ``origin`` + (r, c) · factor, in a picture whose whole is
    ``shape``. ``left_out`` says what was hidden or merged · ``signed``: ``matrix`` is a difference of two heads.
    """

    matrix: Tensor
    forbidden: Tensor
    queries: tuple[str, ...]
    keys: tuple[str, ...]
    shape: tuple[int, int]
    origin: tuple[int, int] = (0, 0)
    factor: tuple[int, int] = (1, 1)
    left_out: tuple[str, ...] = field(default=())
    signed: bool = False

    @property
    def leaks(self) -> Tensor:
        """Where there is weight on a forbidden position, bool (rows, columns). A difference is no weight."""
        weighed = (self.forbidden == FORBIDDEN) & (self.matrix > LEAK) | (self.forbidden == LEAKED)
        return torch.zeros_like(weighed) if self.signed else weighed


def head_view(
    cap: Capture,
    call: AttentionCall,
    head: int,
    quantity: str = "weights",
    *,
    words: bool = False,
    special: bool = True,
    region: Region | None = None,
    size: int = 512,
) -> HeadView:
    """Look at one head of the first sample. Nothing is repainted: forbidden cells keep the weight they got.

    ``quantity`` "weights", "scores" or "value_weighted" · ``words`` merges sub-word tokens by their character
    offsets: weights are summed over a word's keys and averaged over its queries · ``special=False`` leaves the
    tokenizer's own tokens out and says how much weight they held · ``region`` in the coordinates of the resulting
    picture · over ``size`` cells a side are pooled by maximum.
    """
    if words and quantity == "scores":
        raise ValueError(
            "Scores before the softmax cannot be added up into words. Look at weights, or at single tokens."
        )
    query_axis, key_axis = cap.axis(call, "query"), cap.axis(call, "key")
    promise = promised(cap, call)
    if not words and special:
        shape = (call.queries, call.keys)
        q0, q1, k0, k1 = region = _inside(region, shape)
        factor = call.factor(size, region)
        matrix, forbidden = _picture(call, head, quantity, promise, region, factor)
        queries, keys, left_out = query_axis.labels, key_axis.labels, ()
    else:
        if call.queries * call.keys > DENSE_LIMIT:
            raise ValueError(
                f"Words are merged up to {math.isqrt(DENSE_LIMIT):,} tokens; this text has "
                f"{max(call.queries, call.keys):,}."
            )
        whole = getattr(call, quantity)(head)[0]  # (Q, K)
        allowed = promise.rows(0, call.queries, call.keys, device=whole.device)
        rows, row_note = _groups(query_axis, words, special)
        columns, column_note = _groups(key_axis, words, special)
        left_out = _hidden_note(key_axis, whole, columns, quantity) + tuple(dict.fromkeys(row_note + column_note))
        whole, allowed = _merge(whole, rows, columns, quantity), _merge_allowed(allowed, rows, columns)
        shape = tuple(whole.shape)
        q0, q1, k0, k1 = region = _inside(region, shape)
        factor = (math.ceil((q1 - q0) / size), math.ceil((k1 - k0) / size))
        matrix = pool_cells(whole[q0:q1, k0:k1], *factor)
        forbidden = _codes(allowed[q0:q1, k0:k1], whole[q0:q1, k0:k1], factor)
        queries, keys = _names(query_axis, rows), _names(key_axis, columns)
    matrix = torch.where(matrix.isfinite(), matrix, math.nan)
    return HeadView(
        matrix,
        forbidden,
        tuple(queries[q0 : q1 : factor[0]]),
        tuple(keys[k0 : k1 : factor[1]]),
        shape,
        (q0, k0),
        factor,
        left_out,
    )


def recorded(cap: Capture, call: AttentionCall) -> Region | None:
    """The part of a head that lies within a recording, without the silence it was filled up with; None when no side is
    one."""
    axes = cap.axis(call, "query"), cap.axis(call, "key")
    if all(axis.sound is None for axis in axes):
        return None
    lengths = [
        len(axis) if axis.sound is None else min(len(axis), max(1, math.ceil(axis.sound.seconds / axis.sound.step)))
        for axis in axes
    ]
    return 0, lengths[0], 0, lengths[1]


def promised(cap: Capture, call: AttentionCall) -> Mask:
    """What a head may see: the promise of the model's family, the module's own mask, and no padding."""
    promise = cap.subject.promise(call.stack)
    if call.mask != promise:
        promise = call.mask if promise == Bidirectional() else promise & call.mask
    real = cap.real("key", call)
    if real is not None and not bool(real[0].all()):
        positions = real[0].nonzero().flatten()
        promise = promise & Padding((len(positions),), starts=(int(positions[0]),))
    return promise


def word_groups(axis: Axis) -> list[list[int]]:
    """Token indices of each word, by character offsets: letters and digits with inner apostrophes are a word, a
    punctuation mark is one.

    Tokens without a place in the text (special ones), or between words, stand alone.
    """
    if axis.offsets is None or axis.text is None:
        return [[i] for i in range(len(axis))]
    word_at = {}
    for number, match in enumerate(WORD.finditer(axis.text)):
        word_at.update(dict.fromkeys(range(*match.span()), number))
    groups: list[list[int]] = []
    previous = None
    for index, (start, end) in enumerate(axis.offsets):
        word = next((word_at[c] for c in range(start, end) if c in word_at), None)
        if word is not None and word == previous:
            groups[-1].append(index)
        else:
            groups.append([index])
        previous = word
    return groups


def _groups(axis: Axis, words: bool, special: bool) -> tuple[list[list[int]], tuple[str, ...]]:
    groups = word_groups(axis) if words else [[i] for i in range(len(axis))]
    note = ()
    if words and len(groups) < len(axis):
        note = (f"{len(axis)} tokens merged into {len(groups)} words: keys summed, queries averaged",)
    elif words and axis.offsets is None:
        note = ("this input has no character offsets, so nothing was merged",)
    if not special and axis.special is not None:
        groups = [kept for group in groups if (kept := [i for i in group if not axis.special[i]])]
    return groups, note


def _hidden_note(axis: Axis, whole: Tensor, columns: list[list[int]], quantity: str) -> tuple[str, ...]:
    kept = {i for group in columns for i in group}
    hidden = [i for i in range(len(axis)) if i not in kept]
    if not hidden:
        return ()
    names = ", ".join(dict.fromkeys(axis.labels[i] for i in hidden))
    share = (
        f", which held {float(whole[:, hidden].sum() / whole.sum()):.0%} of the weight" if quantity != "scores" else ""
    )
    return (f"left out: {names}{share}",)


def _merge(whole: Tensor, rows: list[list[int]], columns: list[list[int]], quantity: str) -> Tensor:
    """Sum a group's keys, average its queries → (len(rows), len(columns))."""
    single = all(len(g) == 1 for g in rows + columns)
    if single:  # only picked, which scores of −inf survive
        return whole[[g[0] for g in rows]][:, [g[0] for g in columns]]
    return _membership(rows, whole, mean=True) @ whole @ _membership(columns, whole.T, mean=False).T


def _merge_allowed(allowed: Tensor, rows: list[list[int]], columns: list[list[int]]) -> Tensor:
    """A word may see a word when any of its tokens may see any of the other's."""
    a, b = _membership(rows, allowed, mean=False), _membership(columns, allowed.T, mean=False)
    return (a @ allowed.float() @ b.T) > 0


def _membership(groups: list[list[int]], like: Tensor, mean: bool) -> Tensor:
    m = torch.zeros(len(groups), like.shape[0], device=like.device)
    for row, group in enumerate(groups):
        m[row, group] = 1 / len(group) if mean else 1.0
    return m


def _names(axis: Axis, groups: list[list[int]]) -> tuple[str, ...]:
    names = []
    for group in groups:
        if len(group) > 1 and axis.offsets is not None and axis.text is not None:
            names.append(axis.text[axis.offsets[group[0]][0] : axis.offsets[group[-1]][1]])
        else:
            names.append(axis.labels[group[0]])
    return tuple(names)


def _picture(
    call: AttentionCall, head: int, quantity: str, promise: Mask, region: Region, factor: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """A region's values, pooled by maximum, and the codes of its cells, in bands of rows."""
    q0, q1, k0, k1 = region
    step = max(1, 2**20 // call.keys // factor[0]) * factor[0]
    codes = _standing(promise, head, region, factor)
    obeyed = call.mask == promise and call.bias is None and call.seen_weights is None and call.modify is None
    values, leaks = [], []
    for start in range(q0, q1, step):
        rows = (start, min(start + step, q1))
        value = getattr(call, quantity)(head, rows)[0][:, k0:k1]
        values.append(pool_cells(value, *factor))
        if not obeyed and factor != (1, 1):  # else weights are zero there by construction
            weights = value if quantity == "weights" else call.weights(head, rows)[0][:, k0:k1]
            allowed = promise.rows(*rows, k1, h=head, device=value.device)[:, k0:]
            leaks.append(_any(~allowed & (weights > LEAK), factor).cpu())
    if leaks:
        codes = torch.where((codes == MIXED) & torch.cat(leaks), LEAKED, codes)
    return torch.cat(values), codes


@lru_cache(maxsize=32)
def _standing(promise: Mask, head: int, region: Region, factor: tuple[int, int]) -> Tensor:
    """Codes of a region's cells by the mask alone: the same for every head, so remembered. Do not write into it."""
    q0, q1, k0, k1 = region
    step = max(1, 2**20 // k1 // factor[0]) * factor[0]
    bands = (promise.rows(start, min(start + step, q1), k1, h=head)[:, k0:] for start in range(q0, q1, step))
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
    return F.pad(cells, pad).unflatten(0, (-1, factor[0])).unflatten(2, (-1, factor[1])).any(3).any(1)


def _inside(region: Region | None, shape: tuple[int, int]) -> Region:
    """A region clipped to the picture; the whole when nothing of it is left."""
    if region is None:
        return 0, shape[0], 0, shape[1]
    q0, q1, k0, k1 = (max(0, min(int(x), shape[i // 2])) for i, x in enumerate(region))
    return (q0, q1, k0, k1) if q0 < q1 and k0 < k1 else (0, shape[0], 0, shape[1])


def grid_pictures(cap: Capture, surveyed: Survey, stack: str) -> np.ndarray:
    """The thumbnails of a stack as one array (L, H, t, t) float32 in [0, 1], rows by layer.

    Square roots of the weights, so that faint heads show; NaN where a cell is forbidden and got nothing, and where
    a layer has fewer heads. Where queries and keys are not as many, the shorter side is stretched.
    """
    calls = cap.stack(stack)
    size = max(side for c in calls for side in surveyed.thumbnails[stack, c.layer].shape[1:])
    picture = np.full((len(calls), max(c.heads for c in calls), size, size), np.nan, np.float32)
    for row, call in enumerate(calls):
        small = surveyed.thumbnails[stack, call.layer].sqrt().cpu()  # (H, rows, columns)
        cells = _promised_cells(promised(cap, call), call, small.shape[1:])
        small = torch.where(cells | (small > LEAK**0.5), small, math.nan)
        picture[row, : call.heads] = F.interpolate(small[None], (size, size))[0].numpy()  # nearest
    return picture


def patch_pictures(cap: Capture, stack: str, query: int) -> np.ndarray:
    """The thumbnails of a stack that looks at a picture: what ``query`` gives each patch, laid out as they lie → (L, H,
    t, t) float32 in [0, 1], each head by its own strongest patch; NaN beside a grid that is not square.

    Raises ValueError when the keys are no patches.
    """
    calls = cap.stack(stack)
    grid = cap.axis(calls[0], "key").grid
    if grid is None or any(cap.axis(call, "key").grid != grid for call in calls):
        raise ValueError(f"The keys of the {stack} are no patches of a picture.")
    rows, columns = grid
    factor = -(-max(grid) // PATCH_CELLS)
    size = -(-max(grid) // factor)
    picture = np.full((len(calls), max(c.heads for c in calls), size, size), np.nan, np.float32)
    for row, call in enumerate(calls):
        weights = call.band(query, query + 1)[0, :, 0]  # (H, K)
        patches = weights[:, -rows * columns :].unflatten(-1, grid)  # (H, rows, columns), after CLS and its like
        patches = patches / patches.amax((1, 2), keepdim=True).clamp_min(1e-12)
        small = torch.stack([pool_cells(head, factor, factor) for head in patches]).cpu().numpy()
        top, left = (size - small.shape[1]) // 2, (size - small.shape[2]) // 2
        picture[row, : call.heads, top : top + small.shape[1], left : left + small.shape[2]] = small
    return picture


def _promised_cells(promise: Mask, call: AttentionCall, cells: tuple[int, int]) -> Tensor:
    """(rows, columns) bool: cells of the thumbnail in which anything is allowed. Only each cell's corners and
    middle are asked, which is exact up to one cell a token and for causal masks, and near enough for a thumbnail.
    """
    allowed = torch.zeros(cells, dtype=torch.bool)
    f_query, f_key = -(-call.queries // cells[0]), -(-call.keys // cells[1])
    zero = torch.zeros((), dtype=torch.long)
    for share_query in (0.0, 0.5, 1.0):
        for share_key in (0.0, 0.5, 1.0):
            query = (torch.arange(cells[0]) * f_query + int(share_query * (f_query - 1))).clamp(max=call.queries - 1)
            key = (torch.arange(cells[1]) * f_key + int(share_key * (f_key - 1))).clamp(max=call.keys - 1)
            allowed |= promise(zero, zero, query[:, None], key[None, :])
    return allowed


def layer_marks(cap: Capture, surveyed: Survey, stack: str) -> dict[int, tuple[str, str]]:
    """What is particular about a layer → {layer: (short mark, sentence)}: grouped queries, windows, leaks."""
    worst = surveyed.table[surveyed.table["stack"] == stack].groupby("layer").forbidden.max()
    marks = {}
    for call in cap.stack(stack):
        short, long = [], []
        if call.kv_heads != call.heads:
            short.append(f"{call.kv_heads} kv")
            long.append(f"grouped-query attention: {call.heads} heads share {call.kv_heads} key/value heads")
        if isinstance(call.pattern, Window):
            width = call.pattern.left + call.pattern.right + 1
            short.append(f"w {width}")
            long.append(f"windowed: a query sees {width} keys, itself included")
        if worst.get(call.layer, 0.0) > LEAK:
            short.append("leak")
            long.append(f"weight on forbidden positions: up to {worst[call.layer]:.1%} of a row on average")
        if short:
            marks[call.layer] = (" · ".join(short), "; ".join(long))
    return marks
