"""Attention over channels, told from attention over positions by its numbers.

Cross-covariance attention (XCiT: El-Nouby et al. 2021, §3), the channel groups of DaViT (Ding et al. 2022, §3.2) and
transposed attention (Restormer: Zamir et al. 2022, §3.1) weigh channels by channels; a value is then a row of numbers
over all positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from torch import Tensor, nn

from headwise.interp.attention.call import AttentionCall


def over_channels(calls: list[AttentionCall], module: nn.Module, given: list) -> list[AttentionCall]:
    """Those of the ``calls`` made directly in a ``module`` that are over channels of what it was ``given``."""
    return [
        c for c in calls if _weighs_channels(c, module, given) or any(_linear(c, d) or _linear(d, c) for d in calls)
    ]


def _linear(one: AttentionCall, other: AttentionCall) -> bool:
    """Two softmaxes of linear attention, one over the N positions for each channel of a head, one over the channels
    for each position (Shen et al. 2021, "Efficient Attention", §3.2)."""
    shapes = one.queries == other.keys == one.width and one.keys == other.queries
    return shapes and one.keys != one.queries and one.heads == other.heads


def _weighs_channels(call: AttentionCall, module: nn.Module, given: list) -> bool:
    """Are queries and keys of ``call`` the channels of what its ``module`` was given? Heads × queries and heads × keys
    are then all C channels, each value has a number for each of the N positions, and there are not N queries.

    Where as many positions as channels a head leave both readings, it is over positions.
    """
    for x in given:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            continue
        for channels, positions in _layouts(x, module, call.heads):
            square = call.heads * call.queries == call.heads * call.keys == channels
            if square and call.width == positions != call.queries:
                return True
    return False


def _layouts(x: Tensor, module: nn.Module, heads: int) -> Iterator[tuple[int, int]]:
    """(C, N) as x may mean them: (B, …, C), (B, C, …).

    One head over (B, N, C) has the same numbers whether it weighs N positions of a picture (B, C = N, N = C) or C
    channels: then only a layer that maps C channels tells."""
    if x.ndim < 3:
        return
    for axis, layers in ((x.ndim - 1, (nn.Linear,)), (1, (nn.Conv1d, nn.Conv2d))):
        channels, positions = x.shape[axis], prod(x.shape[1:]) // max(1, x.shape[axis])
        if heads > 1 or x.ndim > 3 or any(_takes(m, layers, channels) for m in module.modules()):
            yield channels, positions


def _takes(module: nn.Module, layers: tuple, channels: int) -> bool:
    wide = getattr(module, "in_features", None) or getattr(module, "in_channels", None)
    return isinstance(module, layers) and wide == channels
