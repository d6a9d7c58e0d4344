"""Of a model with fewer outputs than inputs: at which input each output stands, told from how many outputs shorter
inputs have."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Counted = Callable[[int], int | None]  # outputs of an input of this length; None where it cannot be run


def waits(given: int, length: int, counted: Counted) -> Tensor:
    """For each of ``given`` outputs the last input it waits for (T',): the length at which it first appears, less one;
    even strides where that was not seen."""
    stride = max(1, round(length / given))
    even = ((torch.arange(given) + 1) * stride - 1).clamp(max=length - 1)
    counts = {n: counted(n) for n in range(length, max(1, length - 2 * stride - 1), -1)}
    falls = [n for n in counts if counts.get(n - 1) is not None and counts[n] == counts[n - 1] + 1]
    if len(falls) < 2:
        return even
    stride = falls[0] - falls[1]
    last = falls[0] - 1 + stride * (given - counts[falls[0]])  # the input that the last output waits for
    return (last - stride * torch.arange(given - 1, -1, -1)).clamp(0, length - 1)


def unit(positions: Tensor, length: int) -> int | None:
    """How many inputs make an output, where that is the same everywhere; None where it is not."""
    if len(positions) == length:
        return 1
    apart = positions.diff().unique().tolist()
    return apart[0] if len(apart) == 1 and int(positions[0]) == apart[0] - 1 else None


def at_real(real: Tensor, given: int, counted: Counted) -> Tensor:
    """Outputs (B, T') that stand at real positions (B, T) of rows padded on one side: as many as the real part has by
    itself."""
    where = torch.zeros(len(real), given, dtype=torch.bool)
    for b, row in enumerate(real.tolist()):
        n = min(counted(sum(row)) or 0, given)
        where[b, :n] = row[0]
        where[b, given - n :] |= row[-1]
    return where
