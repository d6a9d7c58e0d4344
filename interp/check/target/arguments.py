"""Arguments of a model's call, and changing the tensors inside them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def arguments(function) -> dict[str, inspect.Parameter]:
    """Named parameters of a function, without * and **."""
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {n: p for n, p in inspect.signature(function).parameters.items() if p.kind not in kinds}


def takes_anything(function) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def takes_positions(function) -> bool:
    """Does it take whatever is given by position (``*args``)?"""
    return any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(function).parameters.values())


def fitted(value, batch: int, given: int | None = None, axis: int = 0):
    """A fixed argument for another batch: its tensors cut, or their last sample repeated. ``axis``: where samples stand
    in what is as large there as the batch that was ``given``; elsewhere they come first."""

    def fit(t: Tensor) -> Tensor:
        at = axis if t.ndim > axis and t.shape[axis] == given else 0
        if t.shape[at] in (1, batch) or (axis and t.shape[at] != given):
            return t
        more = batch - t.shape[at]
        return (
            t.narrow(at, 0, batch) if more < 0 else torch.cat([t, t.narrow(at, -1, 1).expand(*_times(t, at, more))], at)
        )

    return each(value, fit)


def _times(t: Tensor, axis: int, n: int) -> list[int]:
    """Its shape, ``n`` long on one axis."""
    return [n if i == axis else size for i, size in enumerate(t.shape)]


def each(value, change: Callable[[Tensor], Tensor]):
    """``value`` with its tensors changed, those inside a tuple, a list or an encoder's output too."""
    if isinstance(value, Tensor):
        return change(value) if value.ndim else value
    if isinstance(value, Mapping):
        return type(value)(**{k: each(v, change) for k, v in value.items()})
    if type(value) in (tuple, list):
        return type(value)([each(v, change) for v in value])
    return value
