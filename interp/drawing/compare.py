"""One head beside the same head of another model on the same tokens, such as before and after fine-tuning."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from headwise.interp.drawing.matrix import HeadView
from headwise.interp.errors import InputError
from headwise.interp.subject import Inputs, Subject


def difference(view: HeadView, other: HeadView) -> HeadView:
    """``other`` minus ``view``, cell by cell, (rows, columns). Raises ValueError where they show other positions."""
    if (view.shape, view.origin, view.factor) != (other.shape, other.origin, other.factor):
        raise ValueError(
            f"it has {other.shape[0]} × {other.shape[1]} positions, not {view.shape[0]} × {view.shape[1]}."
        )
    return replace(view, matrix=other.matrix - view.matrix, signed=True)


def expect_same_tokens(subject: Subject, other: Subject, inputs: Inputs) -> None:
    """Raises InputError unless both subjects read the same tokens in the ids of ``inputs``."""
    ids = {int(i) for value in inputs.kwargs.values() if _holds_ids(value) for i in value.flatten().tolist()}
    if subject.decode is None or other.decode is None or max(ids, default=0) >= (other.vocab_size or 0):
        same = False
    else:
        same = all(subject.decode([i]) == other.decode([i]) for i in ids)
    if not same:
        raise InputError(f"{other.name} reads other tokens than {subject.name}, so their heads cannot be compared.")


def _holds_ids(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim == 2 and value.dtype in (torch.int64, torch.int32)
