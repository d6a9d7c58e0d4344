"""Which keys a band of queries can see at all, so that nobody multiplies with the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from headwise.interp.masks.chunks import Chunks, Windows2d
from headwise.interp.masks.patterns import And, Causal, Global, Mask, Or, Padding, Strided, Window
from headwise.interp.masks.segments import Columns, Drawn, Listed, Marked, PerHead, Segments, Shifted


def seen(mask: Mask, rows: tuple[int, int], keys: int, heads: Sequence[int] = (0,)) -> Tensor:
    """Positions, in order, among which are all keys that some query in rows[0] … rows[1] − 1 sees in some of the
    ``heads``: no fewer, perhaps more.

    >>> seen(Causal() & (Window(2, 2) | Global((0,))), (6, 8), 100)
    tensor([0, 4, 5, 6, 7])
    """
    start, stop = rows
    every = torch.arange(keys)
    match mask:
        case And(left, right):
            one, other = seen(left, rows, keys, heads), seen(right, rows, keys, heads)
            return one if len(other) == keys else one[torch.isin(one, other, assume_unique=True)]
        case Or(left, right):
            return torch.cat([seen(left, rows, keys, heads), seen(right, rows, keys, heads)]).unique()
        case Causal(offset):
            return every[: max(0, stop + offset)]
        case Window(left, right):
            return every[max(0, start - left) : max(0, stop + right)]
        case Segments(length, before, after):
            first, last = start // length * length - before, (-(-stop // length)) * length + after
            return every[max(0, first) : last]
        case Chunks(length, left):
            first = 0 if left is None else max(0, start // length - left) * length
            return every[first : -(-stop // length) * length]
        case Windows2d(height, _, shift, (_, columns)):
            down = shift[0] if isinstance(shift, tuple) else shift
            first, last = ((row // columns - down) // height * height + down for row in (start, stop - 1))
            return every[max(0, first) * columns : max(0, last + height) * columns]
        case Global(ids) if not any(start <= i < stop for i in ids):
            return torch.tensor(sorted({i for i in ids if i < keys}), dtype=torch.long)
        case Strided(s) if stop - start < s:
            return every[torch.isin(every % s, torch.arange(start, stop) % s)]
        case Columns(stride, width):
            return every[every % stride >= stride - width]
        case Drawn(block=block) | Listed(block=block):
            row = torch.arange(start // block, -(-stop // block))
            chosen = mask.chosen(torch.tensor(list(heads))[:, None], row)
            return every[torch.isin(every // block, torch.cat([row[:0], *(c.flatten() for c in chosen)]))]
        case Padding(lengths, starts):
            first = starts or (0,) * len(lengths)
            return every[min(first) : max(f + n for f, n in zip(first, lengths, strict=True))]
        case Marked(marks, "key"):
            return every[marks.reshape(-1, marks.shape[-1]).any(0)[:keys].cpu()]
        case PerHead(masks):
            some = dict.fromkeys(masks[head] for head in heads)
            return torch.cat([seen(each, rows, keys, heads) for each in some]).unique()
        case Shifted(inner, starts, length) if keys == length and all(start >= first for first in starts):
            each = ((seen(inner, (start - first, stop - first), keys, heads) + first) % length for first in set(starts))
            return torch.cat(list(each)).unique()
    return every
