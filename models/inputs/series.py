"""Series of numbers for the forecaster: its tokens are changes from one month to the next.

A text holds a series, a month a line, as "1958-03 316.1" or the number alone; a first line such as
"# CO₂ at Mauna Loa (ppm)" names it. The model reads changes in steps of ``STEP``. A series that moves much more or
much less than the ones it learned from is scaled to move as they do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from headwise.interp.attention.axes import Axis, Series
from headwise.interp.errors import InputError
from headwise.interp.subject import Inputs
from headwise.models.inputs.base import BaseReader
from headwise.models.inputs.tokens import checked, clip

STEP = 0.1  # of a change, in the series' unit
MOST = 40  # steps that a month can rise or fall
START = 2 * MOST + 1  # the first month has no change
VOCABULARY = START + 1
LIKE = (0.4, 2.5)  # mean changes a month that need no scaling: the training series have 1.0
YEAR = 12
GAP = "\u00a0"
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
LINE = re.compile(r"(?:(\d{4})-(\d{1,2})\s*[\s,;])?\s*([-−+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*,?$")
UNIT = re.compile(r"\(([^()]*)\)\s*$")


def tokens_of(values: np.ndarray) -> np.ndarray:
    """Levels (…, T) in the model's unit → tokens (…, T): START, then the changes. Levels are rounded, not changes, so
    that what is rounded away does not add up."""
    changes = np.diff(np.rint(np.asarray(values) / STEP).astype(np.int64), axis=-1)
    changes = np.clip(changes, -MOST, MOST) + MOST
    return np.concatenate([np.full((*changes.shape[:-1], 1), START), changes], -1)


def changes_of(tokens: Sequence[int]) -> np.ndarray:
    """Tokens → changes in the model's unit; START is none."""
    tokens = np.asarray(tokens)
    return np.where(tokens == START, 0, tokens - MOST) * STEP


def spell(tokens: Sequence[int]) -> str:
    """Tokens as a person reads them: "+0.8", "−1.2"."""
    return "".join(
        "start" if t == START else "±0.0" if t == MOST else f"{(t - MOST) * STEP:+.1f}".replace("-", "−")
        for t in tokens
    )


@dataclass(frozen=True, eq=False, repr=False)
class SeriesReader(BaseReader):
    """For the forecaster: a text with a month a line."""

    context: int
    device: str

    def read(self, raw: Any, truncate: bool) -> Inputs:
        text, notes = checked(raw, truncate, "series")
        values, offsets, first, unit = _parsed(text)
        keep, more = clip(values, self.context, truncate)
        if keep < len(values):
            more = (f"series cut from {len(values):,} to its first {keep:,} months",)
        values, offsets, notes = values[:keep], offsets[:keep], notes + more
        scale = _scale(values)
        if scale != 1:
            notes += (f"scaled: the model's 1.0 is {scale:.3g} {unit}".rstrip() + " of this series",)
        if np.abs(np.diff(values / scale)).max(initial=0) > (MOST + 0.5) * STEP:
            notes += (f"a month changes by more than {MOST * STEP:g}, the most this model knows; it reads that much",)
        ids = torch.from_numpy(tokens_of(values / scale))[None].to(self.device)
        track = Series(YEAR, "month", "year", _years(first, keep), values=values, unit=unit)
        labels = tuple(_label(first, place, value) for place, value in enumerate(values))
        return Inputs({"input_ids": ids}, {"input": Axis(labels, tuple(offsets), None, text, track=track)}, notes)

    def grown(self, axis: Axis, tokens: Sequence[int]) -> Axis:
        """The axis with the months that ``tokens`` say after it."""
        track, text, offsets = axis.track, axis.text, list(axis.offsets)
        known = track.values if track.written is None else track.values[: track.written]
        scale, first = _scale(known), _first(text)
        values, labels = list(track.values), list(axis.labels)
        level = np.rint(values[-1] / scale / STEP) * STEP
        for change in changes_of(tokens):
            level += change
            values.append(level * scale)
            labels.append(_label(first, len(labels), values[-1]))
            line = f"\n{_line(first, len(labels) - 1, values[-1])}"
            offsets.append((len(text) + 1, len(text) + len(line)))
            text += line
        written = len(axis) if track.written is None else track.written
        track = replace(track, values=np.array(values), marks=_years(first, len(values)), written=written)
        return replace(axis, labels=tuple(labels), offsets=tuple(offsets), text=text, track=track)


def _parsed(text: str) -> tuple[np.ndarray, list[tuple[int, int]], int | None, str]:
    """→ values, where each stands in the text, the first month (in months from year 0, None where none is said), the
    unit. Raises InputError, one sentence naming the line."""
    values, offsets, first, unit, place = [], [], None, "", 0
    for line in text.splitlines(keepends=True):
        start, place, own = place, place + len(line), line.strip()
        if not own or own.startswith("#"):
            unit = found[1] if (found := UNIT.search(own)) else unit
            continue
        found = LINE.match(own)
        if found is None:
            if not values and not re.search(r"\d", own):  # the header of a table
                continue
            raise InputError(f'A series has a month a line, such as "1958-03 316.1"; {own[:40]!r} is none.')
        year, month, number = found.groups()
        if year is not None:
            if not 1 <= int(month) <= YEAR:
                raise InputError(f"A month is one of 1 … 12; got {own[:40]!r}.")
            at = int(year) * YEAR + int(month) - 1
            first = at if first is None else first
            if at != first + len(values):
                raise InputError(f"A series goes on month by month; {own[:40]!r} is not the one after the line before.")
        values.append(float(number.replace("−", "-")))
        left = start + line.index(own)
        offsets.append((left, left + len(own)))
    if len(values) < 2:
        raise InputError(f"A series needs two months at least, each a number on a line of its own; got {len(values)}.")
    if not np.isfinite(values).all():
        raise InputError("A series holds finite numbers only.")
    return np.array(values), offsets, first, unit


def _scale(values: np.ndarray) -> float:
    """What the model's 1.0 is of this series."""
    mean = float(np.abs(np.diff(values)).mean())
    return 1.0 if mean == 0 or LIKE[0] <= mean <= LIKE[1] else mean


def _first(text: str) -> int | None:
    return _parsed(text)[2]


def _years(first: int | None, count: int) -> tuple[tuple[int, str], ...]:
    """Where years begin; without dates, every twelfth month."""
    if first is None:
        return tuple((place, f"year {place // YEAR + 1}") for place in range(0, count, YEAR))
    return tuple((at - first, str(at // YEAR)) for at in range(-(-first // YEAR) * YEAR, first + count, YEAR))


def _label(first: int | None, place: int, value: float) -> str:
    """ "May 1993: 360.2"; its spaces do not break, and so are no characters of a text to be shown."""
    named = f"month {place + 1}" if first is None else f"{MONTHS[(first + place) % YEAR]} {(first + place) // YEAR}"
    return f"{named}: {value:.4g}".replace(" ", GAP)


def _line(first: int | None, place: int, value: float) -> str:
    at = None if first is None else first + place
    return f"{value:.2f}" if at is None else f"{at // YEAR}-{at % YEAR + 1:02d} {value:.2f}"
