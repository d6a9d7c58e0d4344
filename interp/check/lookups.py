"""Where the one answer of a sequence is read: the operation that picks a position, and the same at another position."""

from __future__ import annotations

import torch
from torch import Tensor

from headwise.interp.check.errors import Refused
from headwise.interp.check.experiments import Instead, Step, Trace
from headwise.interp.check.target import BASE, Batch, Target
from headwise.interp.run.tap import Recorder, listen


def read_at(target: Target, x: Batch, mask: Tensor | None, places: Tensor, **extra) -> Tensor | None:
    """The answer when it is read at ``places`` (B,); None where no one operation picks a position of each sample."""
    recorder, act = Recorder(target.module, x.size), Instead(lambda step: _moved(step, places, x.length))
    try:
        with listen(recorder, operations=False), Trace(recorder, lambda path: True, act):
            out = target.run(x, mask, mode=BASE, **extra)
    except Refused:
        return None
    return out if len(act.used) == 1 else None


def _moved(step: Step, places: Tensor, length: int) -> tuple[tuple, dict] | None:
    """The same look-up in (B, T, …), at other places."""
    x = step.args[0] if step.args else None
    if not isinstance(x, Tensor) or x.ndim < 2 or x.shape[:2] != (len(places), length):
        return None
    if step.name == "__getitem__" and _picks(step.args[1], len(x)):
        return (x, (torch.arange(len(x), device=x.device), places.to(x.device))), {}
    index = step.kwargs.get("index", step.args[2] if len(step.args) > 2 else None)
    if step.name in ("gather", "take_along_dim") and isinstance(index, Tensor) and index.shape[:2] == (len(x), 1):
        moved = places.to(x.device).view(-1, *[1] * (index.ndim - 1)).expand(index.shape)
        return (x, 1, moved), {}
    return None


def _picks(index, batch: int) -> bool:
    """Is it one position of each sample: ``x[:, −1]``, ``x[torch.arange(B), place]``?"""
    if not isinstance(index, tuple) or len(index) < 2 or any(rest != slice(None) for rest in index[2:]):
        return False
    samples, place = index[:2]
    if isinstance(place, int):
        return isinstance(samples, slice) and samples == slice(None)
    each = isinstance(samples, Tensor) and isinstance(place, Tensor)
    return each and samples.shape == place.shape == (batch,) and not place.is_floating_point()
