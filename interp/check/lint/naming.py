"""A mask in the algebra's expressions and in words."""

from __future__ import annotations

import torch
from torch import Tensor

from headwise.interp.masks import Bidirectional, Causal, Dense, Mask, Packed, Padding, Prefix, Window, recognise


def named(four: Tensor) -> tuple[Mask, str]:
    """(expression, words) of a mask (B, H, Q, K).

    >>> pattern = Causal() & Window(7, 0) & Padding((12, 9))
    >>> named(torch.stack([pattern.dense(12, 12, b=b) for b in range(2)])[:, None])
    (Window(7, 0) & Padding((12, 9)), 'causal, window 8, plus padding of row 1')
    """
    if four.shape[1] > 1 and not bool((four == four[:, :1]).all()):
        return Dense(four), "another mask in each head"
    if four.shape[0] == 1 or bool((four == four[:1]).all()):
        found = recognise(four[0, 0])
        return found, words(found)
    square, real = pattern(four)
    queries, keys = square.shape
    lengths, starts = tuple(n for _, n in real), tuple(s for s, _ in real)
    pad = Padding(lengths) if not any(starts) else Padding(lengths, starts)
    shared = recognise(square)
    whole = shared & pad
    index = torch.arange(four.shape[0])[:, None, None]
    same = whole(index, torch.zeros(1, dtype=torch.long), torch.arange(queries)[:, None], torch.arange(keys))
    rows = torch.ones(1, dtype=torch.bool)  # those that count: real queries
    if queries == keys:
        q = torch.arange(queries)
        rows = torch.stack([(q >= s) & (q < s + n) for s, n in real])[:, :, None]
    padded = [b for b, (_, n) in enumerate(real) if n < keys]
    if padded and torch.equal(same & rows, four[:, 0] & rows):
        which = " and ".join(filter(None, [", ".join(map(str, padded[:-1])), str(padded[-1])]))
        text = f"padding of row{'s' if len(padded) > 1 else ''} {which}"
        return (pad, text) if isinstance(shared, Bidirectional) else (whole, f"{words(shared)}, plus {text}")
    return Dense(four), "another mask in each sample"


def pattern(four: Tensor) -> tuple[Tensor, list[tuple[int, int]]]:
    """(the square all samples share, real keys (start, length) of each sample). Keys nobody sees count as padding."""
    real = []
    for sample in four.any(1).any(1):  # (B, K)
        seen = sample.nonzero().flatten()
        real.append((int(seen[0]), int(seen[-1]) - int(seen[0]) + 1) if len(seen) else (0, 0))
    return four.any(0)[0] if four.shape[0] > 1 else four[0, 0], real


def words(mask: Mask) -> str:
    """A mask in words.

    >>> words(Window(7, 0))
    'causal, window 8'
    """
    match mask:
        case Causal(offset=0):
            return "causal"
        case Causal(offset=offset):
            return f"causal, diagonal moved by {offset}"
        case Window(left=left, right=0):
            return f"causal, window {left + 1}"
        case Window(left=left, right=right):
            return f"window of {left} back and {right} ahead"
        case Bidirectional():
            return "everything sees everything"
        case Prefix(n=n):
            return f"prefix of {n}, then causal"
        case Packed():
            return "packed documents"
        case Padding(lengths=lengths):
            return f"{lengths[0]} real keys"
        case Dense():
            return "a pattern without a name"
    left, right = getattr(mask, "left", None), getattr(mask, "right", None)
    return f"{words(left)}, plus {words(right)}" if isinstance(left, Mask) and isinstance(right, Mask) else repr(mask)
