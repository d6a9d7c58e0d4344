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


def fitted(value, batch: int):
    """A fixed argument for another batch: its tensors cut, or their last sample repeated."""

    def fit(t: Tensor) -> Tensor:
        if t.shape[0] in (1, batch):
            return t
        more = batch - t.shape[0]
        return t[:batch] if more < 0 else torch.cat([t, t[-1:].expand(more, *t.shape[1:])])

    return each(value, fit)


def each(value, change: Callable[[Tensor], Tensor]):
    """``value`` with its tensors changed, those inside a tuple, a list or an encoder's output too."""
    if isinstance(value, Tensor):
        return change(value) if value.ndim else value
    if isinstance(value, Mapping):
        return type(value)(**{k: each(v, change) for k, v in value.items()})
    if type(value) in (tuple, list):
        return type(value)([each(v, change) for v in value])
    return value
