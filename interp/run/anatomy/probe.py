"""The short input on which an anatomy is found: a few tokens, in two samples where there are tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from headwise.interp.errors import InputError
from headwise.interp.subject import Inputs, Subject

TOKENS = 16  # a norm's weight and bias are two unknowns a channel: it takes some more rows
SHORT = 12
TEXTS = (
    "When Mary and John went to the store, John gave a drink to Mary, and she was happy about the gift that day.",
    ("transformer", "transformer"),
    "transformer",
)
SIDE, RATE = 64, 16_000
TARGET = ("decoder_", "tgt")
NO_INPUT = "{} says of no input how to make one. Give anatomy(subject, raw) an input that it reads."


def default(subject: Subject) -> Inputs:
    """A short input of a subject's own kind. Raises InputError where its reader takes none of those tried."""
    for raw in _raws(subject):
        try:
            made = subject.encode(raw)
        except (InputError, TypeError, ValueError, AttributeError):
            continue
        return made if isinstance(made, Inputs) else Inputs(dict(made))
    raise InputError(NO_INPUT.format(subject.name))


def _raws(subject: Subject) -> Iterator[Any]:
    generator = torch.Generator().manual_seed(0)
    if subject.family == "vision":
        from PIL import Image  # here: only pictures need it

        pixels = torch.randint(0, 256, (SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
        yield Image.fromarray(pixels.numpy())
    elif subject.family == "audio":
        yield torch.randn(RATE, generator=generator) * 0.1, "Good morning"
        yield torch.randn(RATE, generator=generator) * 0.1
    else:
        yield from TEXTS


def shortened(inputs: Inputs) -> Iterator[Inputs]:
    """The input in two samples of a few tokens, then as it is where the model does not take that."""
    cut = _cut(inputs)
    if cut is not None:
        yield _two(cut)
        yield cut
    yield inputs


def _cut(inputs: Inputs) -> Inputs | None:
    """The first tokens of the first sample: source and target to different lengths. None where something else hangs on
    the tokens, such as a mask (T, T), or there are none."""
    lengths = {}
    for name, value in inputs.kwargs.items():
        if _is_ids(value) and "mask" not in name:
            lengths[name.startswith(TARGET)] = value.shape[1]
    if not lengths or inputs.args or any(isinstance(v, Tensor) and not v.ndim for v in inputs.kwargs.values()):
        return None
    kwargs = {}
    for name, value in inputs.kwargs.items():
        side = name.startswith(TARGET)
        if isinstance(value, Tensor):
            value = value[:1]
            if value.ndim >= 2 and side in lengths and not value.is_floating_point():
                if value.ndim != 2 or value.shape[1] != lengths[side]:
                    return None
                value = value[:, : SHORT if side else TOKENS]
        elif value is not None and not isinstance(value, bool | int | float | str):
            return None
        kwargs[name] = value
    return Inputs(kwargs)


def _two(inputs: Inputs) -> Inputs:
    """With a second sample, the same tokens the other way round."""
    kwargs = {
        name: value if not isinstance(value, Tensor) else torch.cat([value, value.flip(1) if _is_ids(value) else value])
        for name, value in inputs.kwargs.items()
    }
    return Inputs(kwargs)


def _is_ids(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 2 and value.dtype in (torch.int64, torch.int32)
