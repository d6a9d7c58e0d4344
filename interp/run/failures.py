"""What a stranger's model raises while it runs, as one sentence: where, on what, and what it seems to want."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from headwise.interp.errors import InputError

DATA = (  # arguments that carry an input of their own, in Hugging Face's names
    "input_ids",
    "pixel_values",
    "pixel_values_videos",
    "input_features",
    "input_values",
    "decoder_input_ids",
    "bbox",
    "patches",
)
LONGEST = 160  # characters of a model's own message


def as_sentence(error: Exception, module: nn.Module, kwargs: Mapping[str, Any], name: str) -> InputError:
    """The InputError to raise from what ``module`` raised on ``kwargs``."""
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return InputError(
            f"{name} ran out of memory on this input. Use a shorter input, a smaller model or a lower precision."
        )
    own = type(module).__name__
    said = " ".join(str(error).split())[:LONGEST] or "no message"
    if isinstance(error, TypeError) and (
        "unexpected keyword argument" in said or ("missing" in said and "argument" in said)
    ):
        return InputError(f"{own} does not take these inputs: {said}. It takes {_signature(module)}.")
    frames = [(frame, m) for frame in _frames(error.__traceback__) if (m := _module_of(frame)) is not None]
    frames = [(frame, m) for frame, m in frames if not frame.f_code.co_name.startswith("_")]  # without torch's own
    place = _path(module, frames[-1][1]) if frames else ""
    given = ", ".join(f"{key} {_described(value)}" for key, value in kwargs.items()) or "no input"
    wanted = _wanted(frames, kwargs)
    advice = (
        f"It also takes {' and '.join(wanted)}: give a dict with that too."
        if wanted
        else f"Give inputs of the shape and kind it takes: {_signature(module)}."
    )
    where = f" in {place}" if place else ""
    return InputError(f"{own} could not run on {given}: {type(error).__name__}{where}: {said.rstrip('.')}. {advice}")


def _frames(traceback: TracebackType | None) -> Iterator[FrameType]:
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _module_of(frame: FrameType) -> nn.Module | None:
    """The module whose method runs in a frame."""
    this = frame.f_locals.get("self")
    return this if isinstance(this, nn.Module) else None


def in_model(error: Exception) -> bool:
    """Was a module running when it was raised? If none was, it is an error of ours."""
    return any(_module_of(frame) is not None for frame in _frames(error.__traceback__))


def _path(root: nn.Module, module: nn.Module) -> str:
    return next((path for path, m in root.named_modules() if m is module), "")


def _wanted(frames: list[tuple[FrameType, nn.Module]], kwargs: Mapping[str, Any]) -> list[str]:
    """Inputs that a module on the way was waiting for, which nobody gave."""
    for frame, _ in frames:
        missing = [name for name in DATA if name in frame.f_locals and frame.f_locals[name] is None]
        if missing := [name for name in missing if name not in kwargs]:
            return missing
    return []


def _signature(module: nn.Module) -> str:
    parameters = inspect.signature(module.forward).parameters.values()
    named = [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    return ", ".join(named[:6]) + (" …" if len(named) > 6 else "") if named else "no named argument"


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return f"= {value!r}" if isinstance(value, bool | int | float | str) else f"({type(value).__name__})"
