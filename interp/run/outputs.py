"""What a module returned: the tensor a run is about, and what else it named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

POSITIONS = 256  # whose logits are in memory at a time
MAIN = ("logits", "last_hidden_state", "logits_per_text", "pooler_output")  # what it is called where it has a name


@dataclass(frozen=True, eq=False)
class Result:
    """What a run is about: logits (B, T, V) for language models, else the module's output.

    Either ``whole``, or, where the output embedding is the model's last step, that ``head`` and its input ``hidden``
    (B, T, C): logits are the largest tensor of a run, so they are computed where somebody looks.
    """

    whole: Tensor | None
    head: Callable[[Tensor], Tensor] | None = None
    hidden: Tensor | None = None

    @property
    def per_position(self) -> bool:
        """Whether it is (B, T, V), a row for each position, rather than one row for the whole input."""
        return (self.whole if self.head is None else self.hidden).ndim == 3

    @property
    def length(self) -> int:
        """T, where it has a row for each position."""
        return (self.whole if self.head is None else self.hidden).shape[1]

    def logits(self, part: slice | list[int] = slice(None)) -> Tensor:
        """Of some positions → (B, positions, V); of all, whatever its shape, without ``part``."""
        if self.head is None:
            return self.whole if part == slice(None) else self.whole[:, part]
        with torch.no_grad():
            return self.head(self.hidden[:, part])

    def measurable(self, given: Mapping[str, Any]) -> bool:
        """Whether it was computed: floats, and no echo of what was ``given``."""
        tensor = self.whole if self.head is None else self.hidden
        return tensor.is_floating_point() and not is_echo(tensor, given)

    def furthest(self, other: Result, real: Tensor | None) -> float:
        """max |Δlogit| over ``real`` (B, T) positions, in blocks of positions. Raises RuntimeError for another
        shape."""
        mine, theirs = (r.whole if r.head is None else r.hidden for r in (self, other))
        if mine.shape != theirs.shape:
            raise RuntimeError(
                f"The captured output has shape {tuple(mine.shape)}, the plain run's {tuple(theirs.shape)}."
            )
        if torch.equal(mine, theirs):
            return 0.0
        if mine.ndim < 2:
            return float((mine - theirs).abs().max())
        real = real if real is not None and mine.ndim >= 3 and real.shape == mine.shape[:2] else None
        worst = 0.0
        for start in range(0, mine.shape[1], POSITIONS):
            part = slice(start, start + POSITIONS)
            gap = (self.logits(part).float() - other.logits(part).float()).abs()
            gap = gap[real[:, part]] if real is not None else gap
            worst = max(worst, float(gap.max())) if gap.numel() else worst
        return worst


def primary(output: Any, given: Mapping[str, Any] | None = None) -> Tensor:
    """The tensor a run is about: logits, else the last hidden state, else the first floating tensor that is no echo of
    what was ``given``, else the first tensor. Raises TypeError where there is none."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        for name in MAIN:
            if isinstance(output.get(name), Tensor):
                return output[name]
    found = [item for item in leaves(output) if isinstance(item, Tensor)]
    if not found:
        raise TypeError(
            f"The module returned {type(output).__name__} without a tensor in it; a capture needs one to compare runs "
            "by."
        )
    return next((t for t in found if t.is_floating_point() and not is_echo(t, given)), found[0])


def is_echo(tensor: Tensor, given: Mapping[str, Any] | None) -> bool:
    """Is this one of the inputs, given back?"""
    return any(t is tensor or (t.shape == tensor.shape and t.data_ptr() == tensor.data_ptr() != 0)
               for t in leaves(given or {}) if isinstance(t, Tensor))  # fmt: skip


def named(output: Any, result: Tensor) -> dict[str, Tensor]:
    """What a module returned by name beside the ``result``, as long as it is small."""
    if not isinstance(output, Mapping):
        return {}
    return {k: v for k, v in output.items() if isinstance(v, Tensor) and v.ndim <= 2 and v is not result}


def leaves(value: Any) -> Iterator[Any]:
    """What nested mappings, lists and tuples hold."""
    children = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else None
    if children is None:
        yield value
    else:
        for child in children:
            yield from leaves(child)
