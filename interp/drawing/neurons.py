"""A score taken apart, as it is drawn: its parts as steps that end at the score, and those of all keys as a matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from headwise.interp.analysis.neuron import Neuron
from headwise.interp.attention.axes import Axis
from headwise.interp.drawing.matrix import FORBIDDEN, Matrix, Span, side_names
from headwise.interp.drawing.paper.sound import times
from headwise.interp.drawing.paper.text import visible
from headwise.interp.drawing.quantities import Quantity
from headwise.interp.run.capture import Capture

PART, OTHERS, BIAS, SCORE = "part", "others", "bias", "score"
ADDS = Quantity("adds to the score", "signed")
MOST_KEYS = 256  # rows; of a longer input those around the chosen key


def part_names(found: Neuron) -> tuple[str, ...]:
    """What parts are called: a dimension by its number, a pair by its first, or by both where that tells nothing."""
    if all(part[0] == number for number, part in enumerate(found.parts)):
        return tuple(str(part[0]) for part in found.parts)
    return tuple("+".join(map(str, part)) for part in found.parts)


def neuron_map(cap: Capture, found: Neuron, within: tuple[int, int] | None = None, most: int = MOST_KEYS) -> Matrix:
    """Keys (rows) × dimensions or pairs of them (columns): of the keys from ``within[0]`` to ``within[1]`` − 1 those up
    to the last that the mask allows; what it hides among them is forbidden. The chosen key is always there."""
    allowed = found.allowed.cpu()
    first, stop = within or (0, found.call.keys)
    first, stop = min(first, found.key), max(min(stop, _last(allowed) + 1), found.key + 1)
    start = max(first, min(found.key - most // 2, stop - most))
    end = min(stop, start + most)
    axis, names = found.call.key_axis, side_names(cap, found.call)
    lies = {"sound": axis.sound, "picture": axis.picture, "grid": axis.grid, "track": axis.track}
    rows = Span(axis.labels[start:end], names[1], start, whole=found.call.keys, **lies)
    columns = Span(part_names(found), "pairs" if found.paired else "dimensions")
    hidden = (~allowed[start:end, None]).expand(-1, len(columns)).to(torch.uint8) * FORBIDDEN
    title = f"query {found.query}, key by key"
    return Matrix(found.values[start:end].float().cpu(), rows, columns, ADDS, hidden, title)


def _last(allowed: Tensor) -> int:
    """The last key that may be seen, −1 where none may."""
    found = allowed.nonzero()
    return int(found[-1]) if len(found) else -1


@dataclass(frozen=True)
class Step:
    """One bar of a waterfall: it starts where the one before it ended. ``row`` is the part's in the table, −1 where it
    is none."""

    kind: str  # PART | OTHERS | BIAS | SCORE
    name: str
    start: float
    end: float
    row: int = -1

    @property
    def value(self) -> float:
        return self.end - self.start


def steps(found: Neuron, most: int = 8, by_size: bool = True) -> tuple[Step, ...]:
    """The parts that add most, the largest first (or in their order), the others together, the bias where there is one,
    and the score, which all of them end at but for rounding. A key that the mask hides has no bias and the score that
    it would have."""
    values, names = found.values[found.key].tolist(), part_names(found)
    largest = sorted(range(len(values)), key=lambda row: -abs(values[row]))[: most if len(values) > most + 1 else None]
    chosen = largest if by_size else sorted(largest)
    amounts = [(PART, names[row], values[row], row) for row in chosen]
    if others := len(values) - len(chosen):
        amounts.append((OTHERS, f"{others} others", found.total - sum(values[row] for row in chosen), -1))
    if found.bias and not found.hidden:
        amounts.append((BIAS, "bias" if found.told else "added", found.bias, -1))
    made, at = [], 0.0
    for kind, name, value, row in amounts:
        made.append(Step(kind, name, at, at + value, row))
        at += value
    return (*made, Step(SCORE, "score", 0.0, found.total if found.hidden else found.score))


def position_name(axis: Axis, index: int) -> str:
    """What a position is called by itself: its time, its patch, or its token and number."""
    if axis.sound is not None:
        return times(Span(("",), "frames", index, whole=len(axis), sound=axis.sound))[0]
    label = visible(axis.labels[index])
    if axis.grid is not None:
        return f"patch {label}" if "," in label else label
    return label if label == str(index) else f"{label} {index}"
