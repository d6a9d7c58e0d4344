"""What a picture of heads is made of: numbers and labels, before anybody draws them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.interp.attention.call import AttentionCall, pool_cells
from headwise.interp.drawing.words import groups_of, hidden_note, merged, merged_allowed, names_of
from headwise.interp.masks import Bidirectional, Mask, Padding
from headwise.interp.run.capture import Capture

ALLOWED, FORBIDDEN, MIXED, LEAKED = 0, 1, 2, 3  # cells of HeadView.forbidden; 2 and 3 are pooled and hold both kinds
LEAK = 1e-6  # a smaller weight on a forbidden position is rounding
DENSE_LIMIT = 4096**2  # query × key pairs that may stand in memory at once for one head

Region = tuple[int, int, int, int]  # query start, stop, key start, stop


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
    query_axis, key_axis = call.query_axis, call.key_axis
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
        rows, row_note = groups_of(query_axis, words, special)
        columns, column_note = groups_of(key_axis, words, special)
        left_out = hidden_note(key_axis, whole, columns, quantity) + tuple(dict.fromkeys(row_note + column_note))
        whole, allowed = merged(whole, rows, columns, quantity), merged_allowed(allowed, rows, columns)
        shape = tuple(whole.shape)
        q0, q1, k0, k1 = region = _inside(region, shape)
        factor = (math.ceil((q1 - q0) / size), math.ceil((k1 - k0) / size))
        matrix = pool_cells(whole[q0:q1, k0:k1], *factor)
        forbidden = _codes(allowed[q0:q1, k0:k1], whole[q0:q1, k0:k1], factor)
        queries, keys = names_of(query_axis, rows), names_of(key_axis, columns)
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
    axes = call.query_axis, call.key_axis
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
    real = call.real_keys
    if real is not None and not bool(real[0].all()):
        positions = real[0].nonzero().flatten()
        promise = promise & Padding((len(positions),), starts=(int(positions[0]),))
    return promise


def _picture(
    call: AttentionCall, head: int, quantity: str, promise: Mask, region: Region, factor: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """A region's values, pooled by maximum, and the codes of its cells, in bands of rows."""
    q0, q1, k0, k1 = region
    step = max(1, 2**20 // call.keys // factor[0]) * factor[0]
    codes = _standing(promise, head, region, factor)
    obeyed = call.obeys(promise)
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
