"""What the caller of a check said beside the model and its promise, as one value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Options:
    """The keyword arguments of ``check``; their meaning is told there."""

    inputs: Any = None
    forward: Callable | None = None
    step: Callable | None = None
    packed: Callable | None = None
    pad_id: int | None = None
    modes: str = "all"
    dtypes: Sequence | None = None
    budget: float = 120.0
    length: int | None = None
    positions: Callable[[int], int] | Sequence[int] | None = None
    output: Callable | None = None
    layout: str | None = None
    known_ahead: Sequence[str] = ()
    padding_mask: str | None = None
    padding: str | None = None
    reset: str | Callable | None = None
    progress: Progress | None = None
