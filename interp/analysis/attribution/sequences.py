"""What one sequence of an input is made of for an attribution: units that a person can point at, and the tensors that
hold them.

A unit is a token, a patch of a picture, or a strip of a recording. One array of cells says to which unit each number of
a tensor belongs; from it follow the sum over a unit and the input without some of them.

Letters: N copies, U units, T positions of the model's attention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.interp.attention.axes import Axis, Sound, numbered

STRIPS = 100  # of a recording at most
STRIP = 0.1  # seconds that one lasts at least
CELLS = 8  # rows and columns of a picture whose patches are not known
BLUR = 0.1  # standard deviation of the blurred picture, as a share of its side

Slot = str | int  # name or number of an argument of the model


@dataclass(frozen=True, eq=False)
class Lookup:
    """A table that the tokens of a sequence are looked up in: (V, C)."""

    table: Tensor
    ids: Tensor  # (1, T)


@dataclass(frozen=True, eq=False)
class Sequence:
    """One sequence of an input.

    ``axis`` names its U units, ``fixed`` (U,) are those that are never removed · ``tensors`` (1, …) hold it, and
    ``cells``, one for each, which unit each number is of; they broadcast to (1, …) · ``places`` (T,) is the unit of
    each position of the model's attention, −1 where it is of none · ``makers`` make the baselines by name, the usual
    one first · ``slot`` is the argument that the tensor is; ``lookups`` are the tables of tokens instead.
    """

    name: str
    axis: Axis
    fixed: Tensor
    tensors: tuple[Tensor, ...]
    cells: tuple[Tensor, ...]
    places: Tensor
    makers: Mapping[str, Callable[[], tuple[Tensor, ...]]]
    slot: Slot
    lookups: tuple[Lookup, ...] = ()

    def __len__(self) -> int:
        return len(self.axis)

    def beginning(self, kind: str) -> Sequence:
        """The same, with this baseline for the usual one."""
        return replace(self, makers={kind: self.makers[kind], **self.makers})

    def baseline(self, kind: str | None) -> tuple[Tensor, ...]:
        """Like ``tensors``, with nothing to tell; the usual one where it has none of that name. What is fixed stays."""
        made = self.makers.get(kind, next(iter(self.makers.values())))()
        return self.kept(self.fixed[None], made)

    def kept(self, mask: Tensor, baseline: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The units of ``mask`` (N, U) as they are and the others as in ``baseline`` → tensors (N, …)."""
        stays = mask | self.fixed
        return tuple(
            torch.where(stays[:, cells[0]], one, other.to(one))
            for one, other, cells in zip(self.tensors, baseline, self.cells, strict=True)
        )

    def gathered(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """Sums over each unit: (N, …) each → (N, U)."""
        found = tensors[0].new_zeros(len(tensors[0]), len(self))
        for one, cells in zip(tensors, self.cells, strict=True):
            found = found.index_add(1, cells.expand(1, *one.shape[1:]).flatten(), one.flatten(1))
        return found

    def spread(self, scores: Tensor) -> Tensor:
        """Scores (U,) of the units laid out over the first tensor → (1, …)."""
        return scores[self.cells[0]].expand_as(self.tensors[0])

    def from_positions(self, scores: Tensor) -> Tensor:
        """Scores (T,) of positions, summed over each unit → (U,). What belongs to no unit drops out."""
        at = self.places.to(scores.device) >= 0
        return scores.new_zeros(len(self)).index_add(0, self.places[at], scores[at])


def of_tokens(name: str, axis: Axis, lookups: tuple[Lookup, ...], held: Tensor, mask: int | None) -> Sequence:
    """Tokens, held by what their tables say (1, T, C). ``held`` (T,) are those that stay: padding, and the gap that a
    masked language model is asked to fill."""
    ids = lookups[0].ids
    length = ids.shape[1]
    special = torch.tensor(axis.special or (False,) * length, device=ids.device)
    tensors = tuple(F.embedding(ids, one.table) for one in lookups)

    def filled(make: Callable[[Tensor], Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        return lambda: tuple(make(one.table).expand_as(x) for one, x in zip(lookups, tensors, strict=True))

    makers = {"zero": filled(lambda table: table.new_zeros(1)), "mean": filled(lambda table: table.mean(0))}
    if mask is not None:
        makers["mask"] = filled(lambda table: table[mask])
    places = torch.arange(length, device=ids.device)
    cells = (places[None, :, None],) * len(lookups)
    return Sequence(name, axis, special | held, tensors, cells, places, makers, "", lookups)


def of_picture(name: str, axis: Axis | None, pixels: Tensor, slot: Slot) -> Sequence:
    """Patches of pixels (1, channels, H, W); where they are not known, as many cells as a chess board's."""
    height, width = pixels.shape[-2:]
    known = axis is not None and axis.grid is not None
    rows, columns = axis.grid if known else (min(CELLS, height), min(CELLS, width))
    count, special = rows * columns, len(axis) - rows * columns if known else 0
    labels = axis.labels[special:] if known else tuple(f"{r},{c}" for r in range(rows) for c in range(columns))
    row, column = (_shares(length, parts, pixels.device) for length, parts in ((height, rows), (width, columns)))
    places = torch.full((len(axis) if axis is not None else 0,), -1, device=pixels.device)
    if known:
        places[special:] = torch.arange(count)
    makers = {
        "zero": lambda: (torch.zeros_like(pixels),),
        "mean": lambda: (pixels.mean((-2, -1), keepdim=True).expand_as(pixels),),
        "blur": lambda: (_blurred(pixels),),
    }
    cells = (row[:, None] * columns + column)[None, None]  # (1, 1, H, W)
    units = Axis(labels, grid=(rows, columns), picture=axis.picture if known else None)
    fixed = torch.zeros(count, dtype=torch.bool, device=pixels.device)
    return Sequence(name, units, fixed, (pixels,), (cells,), places, makers, slot)


def of_sound(name: str, axis: Axis | None, heard: Tensor, slot: Slot) -> Sequence:
    """Strips of a recording, (1, bins, frames), (1, frames, bins) or (1, samples), of a tenth of a second or more; what
    pads it to the model's length is one more unit, which is never removed."""
    sound, device = axis.sound if axis is not None else None, heard.device
    sides = range(1, heard.ndim)
    frames = sound.spectrogram.shape[1] if sound is not None else -1
    time = next((side for side in sides if heard.shape[side] == frames), max(sides, key=lambda d: heard.shape[d]))
    length = heard.shape[time]
    column = 1.0  # seconds of a column
    if sound is not None:
        column = sound.hop if length == frames else sound.seconds / length
    real = length if sound is None else max(1, min(length, round(sound.seconds / column)))
    wide = max(-(-real // STRIPS), 1 if sound is None else round(STRIP / column))
    strips = -(-real // wide)
    padded = real < length
    cells = torch.arange(length, device=device) // wide
    cells[real:] = strips
    shape = [1] * heard.ndim
    shape[time] = length
    positions = torch.arange(len(axis) if axis is not None else 0, device=device)
    if sound is not None:
        positions = ((positions + 0.5) * sound.step / (wide * column)).long().clamp_max(strips - 1 + padded)
    else:
        positions = positions * (strips + padded) // max(len(positions), 1)
    labels = tuple(f"{strip * wide * column:.2f} s" if sound else str(strip) for strip in range(strips))
    labels += ("after the end",) * padded
    shown = None if sound is None else Sound(sound.spectrogram, sound.hop, wide * column, sound.seconds)
    flat = heard.ndim == 2
    makers = {
        "least": lambda: (torch.zeros_like(heard) if flat else heard.amin(time, keepdim=True).expand_as(heard),),
        "mean": lambda: (heard.mean(time, keepdim=True).expand_as(heard),),
    }
    fixed = torch.arange(strips + padded, device=device) >= strips
    units = Axis(labels, sound=shown)
    return Sequence(name, units, fixed, (heard,), (cells.view(shape),), positions, makers, slot)


def of_vectors(name: str, axis: Axis | None, given: Tensor, slot: Slot) -> Sequence:
    """What was given as numbers: vectors (1, T, C), one unit a position, or (1, F), one a number."""
    length = given.shape[1]
    axis = axis if axis is not None and len(axis) == length else numbered(length)
    places = torch.arange(length, device=given.device)
    makers = {
        "zero": lambda: (torch.zeros_like(given),),
        "mean": lambda: (given.mean(1, keepdim=True).expand_as(given),),
    }
    fixed = torch.zeros(length, dtype=torch.bool, device=given.device)
    cells = places.view(1, length, *(1,) * (given.ndim - 2))
    return Sequence(name, axis, fixed, (given,), (cells,), places, makers, slot)


def _shares(length: int, parts: int, device) -> Tensor:
    """Which of ``parts`` equal shares each of ``length`` pixels is in; a rest too small for a patch is the last's."""
    return (torch.arange(length, device=device) // (length // parts)).clamp_max(parts - 1)


def _blurred(pixels: Tensor) -> Tensor:
    """Through a Gaussian, edges repeated."""
    for side in (-2, -1):
        sigma = max(BLUR * pixels.shape[side], 0.5)
        reach = min(int(3 * sigma), pixels.shape[side])
        steps = torch.arange(-reach, reach + 1, device=pixels.device, dtype=pixels.dtype)
        weights = torch.softmax(-(steps**2) / (2 * sigma**2), 0)
        at = (torch.arange(pixels.shape[side], device=pixels.device)[:, None] + steps.long()).clamp(
            0, pixels.shape[side] - 1
        )
        pixels = (pixels.transpose(side, -1)[..., at] @ weights).transpose(side, -1)
    return pixels
