"""An axis that is a recording: positions are told as times, and the spectrogram stands over its columns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from headwise.interp.attention.axes import Sound
from headwise.interp.drawing.matrix import Span
from headwise.interp.drawing.paper.colour import Palette
from headwise.interp.drawing.paper.pens import RATIO

STRIP, AXIS = 72, 26  # CSS pixels: the spectrogram's height, and that of the seconds under it


def times(span: Span) -> list[str]:
    """What the frames of a recording are called: when each begins, "1.24 s"; a pooled one "1.24–1.30 s"."""
    step = span.sound.step
    digits = next((d for d in (0, 1, 2) if abs(step * 10**d - round(step * 10**d)) < 1e-6), 3)
    if span.factor == 1:
        return [f"{first * step:.{digits}f} s" for first in span.starts]
    ends = (min(first + span.factor, span.whole) for first in span.starts)
    return [
        f"{first * step:.{digits}f}–{end * step:.{digits}f} s" for first, end in zip(span.starts, ends, strict=True)
    ]


@dataclass(frozen=True)
class Timeline:
    """The time of a span of frames, in seconds: where it starts and ends, what a cell lasts, what the recording."""

    start: float
    end: float
    cell: float
    seconds: float

    @classmethod
    def of(cls, span: Span) -> Timeline | None:
        """None where the positions are no frames of a recording."""
        if span.sound is None:
            return None
        step = span.sound.step
        return cls(span.origin * step, span.end * step, span.factor * step, span.sound.seconds)

    def place(self, time: float) -> float:
        """Seconds → cells from the first one's edge."""
        return (time - self.start) / self.cell

    def ticks(self, size: float, room: float) -> list[tuple[float, str]]:
        """(cells, seconds): round times at least ``room`` pixels apart, where a cell has ``size``."""
        least = room / size * self.cell
        power = 10.0 ** math.floor(math.log10(least) + 1e-9)
        every = next(m * power for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9))
        digits = max(0, -math.floor(math.log10(every) + 1e-9))
        numbers = range(math.ceil(self.start / every - 1e-6), math.floor(self.end / every + 1e-6) + 1)
        return [(self.place(n * every), f"{n * every:.{digits}f}") for n in numbers]

    @property
    def stop(self) -> float | None:
        """Where the recording ends, in cells, if that is in sight."""
        return self.place(self.seconds) if self.start + 1e-6 < self.seconds < self.end - 1e-6 else None


def strip(sound: Sound, timeline: Timeline, wide: float, palette: Palette) -> np.ndarray:
    """The spectrogram over columns that are ``wide`` CSS pixels together → uint8 (STRIP, wide, RGB) device pixels.

    What is loud stands out from the page; low pitches are at the bottom. Greys span the whole recording, so that a
    silence stays silent when one looks at nothing else, and what follows its end is faint.
    """
    high, across = STRIP * RATIO, round(wide * RATIO)
    out = np.empty((high, across, 3), np.uint8)
    out[:] = palette.empty
    values = sound.spectrogram
    known = np.isfinite(values)
    begin, end = max(0.0, timeline.start), min(timeline.end, values.shape[1] * sound.hop)
    if end > begin and known.any():
        low, top = float(values[known].min()), float(values[known].max())
        values = np.nan_to_num(values, nan=low, posinf=top, neginf=low)
        part = Image.fromarray(((values[::-1] - low) / max(top - low, 1e-12)).astype(np.float32))
        pixels = wide * RATIO / (timeline.end - timeline.start)  # for each second
        left, right = (round((time - timeline.start) * pixels) for time in (begin, end))
        box = (begin / sound.hop, 0, end / sound.hop, values.shape[0])
        enlarged = right - left > box[2] - box[0]  # then a column keeps its sharp edges
        how = Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX
        part = part.resize((max(1, right - left), values.shape[0]), how, box)
        part = part.resize((part.width, high), Image.Resampling.BILINEAR)
        loud, strength = (255, 0.88) if palette.dark else (0, 0.82)
        page = np.array(palette.background, float)
        ink = strength * np.asarray(part)[..., None].clip(0, 1)
        out[:, left : left + part.width] = np.rint(page + ink * (loud - page))
    if timeline.stop is not None:
        after = out[:, round((timeline.seconds - timeline.start) / (timeline.end - timeline.start) * across) :]
        after[:] = np.rint((after + np.array(palette.background, float)) / 2)
    return out
