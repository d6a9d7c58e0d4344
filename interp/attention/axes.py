"""What the positions of a sequence are: tokens of a text, patches of a picture, frames of a recording, steps of a
series, notes of a score, or numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class PixelGrid:
    """The picture that an axis of patches lies on.

    ``pixels`` (height, width, 3) uint8, upright, as the user gave it (made smaller when it is huge) · ``box`` (left,
    top, right, bottom) in its pixels: what the grid of patches covers, each patch an equal share. A model that crops
    has a box inside the picture, one that pads has a box that reaches beyond it.
    """

    pixels: np.ndarray
    box: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Sound:
    """The recording that an axis of frames lies on.

    ``spectrogram`` (bins, frames) float32, low pitches first, as the model was given it · position i of the axis covers
    ``step`` seconds from i · ``step``, each column of the spectrogram ``hop`` seconds likewise · ``seconds`` the
    recording lasts; positions beyond are padding.
    """

    spectrogram: np.ndarray
    hop: float
    step: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Track:
    """What repeats along an axis: every ``period`` positions it is again the same ``step`` ("month", "note") of the
    next ``cycle`` ("year", "bar"). ``marks`` are positions with a name, such as where years or bars begin, and from
    ``written`` on the model went on by itself."""

    period: int
    step: str
    cycle: str
    marks: tuple[tuple[int, str], ...] = ()
    written: int | None = None


@dataclass(frozen=True, eq=False)
class Series(Track):
    """The series of numbers that an axis of steps lies on: ``values`` (T,) float64, one a position, in ``unit``."""

    values: np.ndarray = field(kw_only=True)
    unit: str = ""


@dataclass(frozen=True, eq=False)
class Score(Track):
    """The score that an axis of notes lies on. ``notes`` (N, 4) int64: the first position of each, the one after its
    last, its pitch as in MIDI (60 is middle C), its voice from 0. Position i begins ``seconds`` · i after the first
    when it is played."""

    notes: np.ndarray = field(kw_only=True)
    seconds: float = field(kw_only=True)
    voices: tuple[str, ...] = field(kw_only=True)


@dataclass(frozen=True)
class Axis:
    """What the positions of one sequence are.

    ``offsets`` are (start, end) characters in ``text``, None for positions with no place in it; ``special`` marks
    tokens the tokenizer added. When the positions are patches of a picture, ``grid`` is their (rows, columns), they
    come last, row by row, after special ones such as CLS, and ``picture`` is what they lie on. When they are frames of
    a recording, ``sound`` is that. When they are steps of a series or of a score, ``track`` is that.
    """

    labels: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...] | None = None
    special: tuple[bool, ...] | None = None
    text: str | None = None
    grid: tuple[int, int] | None = None
    picture: PixelGrid | None = None
    sound: Sound | None = None
    track: Series | Score | None = None

    def __len__(self) -> int:
        return len(self.labels)


def numbered(length: int) -> Axis:
    """The axis of positions about which nothing is known but their number."""
    return Axis(tuple(map(str, range(length))))
