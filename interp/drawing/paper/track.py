"""An axis that is a series or a score: it is drawn along its edge of the matrix (``assets/canvas/track.js``)."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from headwise.interp.attention.axes import Series
from headwise.interp.drawing.matrix import Span
from headwise.interp.drawing.paper.colour import RGB, Palette
from headwise.interp.drawing.paper.text import width

SIDE = 44  # CSS pixels for the names of years or bars beside the rows
DEPTH = {"series": (66, 54), "score": (96, 76)}  # of the drawing, over the columns and beside the rows
MARGIN = 6
VOICES = {
    False: ((11, 110, 153), (138, 79, 181), (168, 105, 10), (63, 125, 58)),
    True: ((91, 184, 224), (196, 144, 232), (229, 176, 96), (140, 201, 130)),
}  # light, dark
EVERY = (1, 2, 4, 5, 10, 20, 50, 100)


def depths(rows: Span, columns: Span) -> tuple[int, int]:
    """How much room the drawings take (beside the rows, over the columns); 0 where there is none."""
    kinds = ["series" if isinstance(span.track, Series) else "score" for span in (rows, columns)]
    beside, over = DEPTH[kinds[0]][1], DEPTH[kinds[1]][0]
    return (beside if rows.track is not None else 0), (over if columns.track is not None else 0)


def ticks(span: Span, size: float, room: float) -> list[tuple[float, str]]:
    """(cells, name): years or bars at least ``room`` pixels apart, where a cell has ``size``."""
    shown = [(at, text) for at, text in span.track.marks if span.origin <= at < span.end]
    places = [(at - span.origin) / span.factor for at, _ in shown]
    gap = min((b - a for a, b in itertools.pairwise(places)), default=math.inf) * size
    every = next((n for n in EVERY if n * gap >= room), math.ceil(room / gap))
    found = []
    for number, (place, (_, text)) in enumerate(zip(places, shown, strict=True)):
        named = re.search(r"\d+$", text)
        if (int(named[0]) if named else number) % every == 0:
            found.append((place, text))
    return found


@dataclass(frozen=True)
class Edge:
    """Where a span's drawing stands: over the columns (``across``) or beside the rows, ``depth`` deep from ``start``;
    ``at`` turns cells into pixels along it."""

    span: Span
    across: bool
    start: float
    depth: float
    at: Callable[[float], float]

    def box(self, first: float, end: float, low: float, high: float) -> tuple[float, float, float, float]:
        """(x, y, width, height) from one position to another and from one height, 0 … 1, to another."""
        span = self.span
        a, b = (self.at((min(max(p, span.origin), span.end) - span.origin) / span.factor) for p in (first, end))
        room = self.depth - 2 * MARGIN
        near, far = sorted(self.start + MARGIN + (1 - h if self.across else h) * room for h in (low, high))
        return (a, near, b - a, far - near) if self.across else (near, a, far - near, b - a)

    @property
    def frame(self) -> tuple[float, float, float, float]:
        a, b = self.at(0), self.at((self.span.end - self.span.origin) / self.span.factor)
        return (a, self.start, b - a, self.depth) if self.across else (self.start, a, self.depth, b - a)


def draw(pen, edge: Edge, palette: Palette) -> None:
    """The series or the score, with lines where years or bars begin."""
    x, y, w, h = edge.frame
    pen.rect(x, y, w, h, palette.ink(0.03))
    starts = [edge.box(at, at, 0, 0) for at, _ in edge.span.track.marks if edge.span.origin < at < edge.span.end]
    pen.lines([(a, y, a, y + h) if edge.across else (x, b, x + w, b) for a, b, *_ in starts], palette.ink(0.14))
    (_line if isinstance(edge.span.track, Series) else _notes)(pen, edge, palette)
    pen.frame(x, y, w, h, palette.ink(0.3))


def _line(pen, edge: Edge, palette: Palette) -> None:
    span, values = edge.span, edge.span.track.values
    low, high = _ends(values[span.origin : span.end])
    places = range(span.origin, span.end)
    points = [edge.box(p + 0.5, p + 0.5, *[(values[p] - low) / (high - low)] * 2)[:2] for p in places]
    for place, (one, other) in zip(places, itertools.pairwise(points), strict=False):
        pen.curve([one, one, other, other], _ink(span, place + 1, palette.ink(0.85), palette), 1.4)


def _notes(pen, edge: Edge, palette: Palette) -> None:
    span = edge.span
    low, high = _ends(span.track.notes[:, 2])
    half = 0.9 * max(0.5 / (high - low), 1.5 / (edge.depth - 2 * MARGIN))
    for first, end, pitch, voice in span.track.notes.tolist():
        if end <= span.origin or first >= span.end:
            continue
        middle = (pitch - low) / (high - low)
        x, y, w, h = edge.box(first, end, middle - half, middle + half)
        gap = 0.75  # so that a note said again is seen to be
        sides = (max(1, w - gap), h) if edge.across else (w, max(1, h - gap))
        pen.rect(x, y, *sides, VOICES[palette.dark][voice % 4])


def draw_ends(pen, edge: Edge, right: float, palette: Palette) -> None:
    """Its ends in words, at the left of the drawing over the columns."""
    track, ink = edge.span.track, palette.ink(0.55)
    if not isinstance(track, Series):
        pen.text((right, edge.start + edge.depth / 2), "pitch ↑", 11, ink, "end")
        return
    low, high = _ends(track.values[edge.span.origin : edge.span.end])
    digits = 0 if high - low >= 20 else 1 if high - low >= 2 else 2
    pen.text((right, edge.start + MARGIN + 2), f"{high:.{digits}f} {track.unit}".strip(), 10, ink, "end")
    pen.text((right, edge.start + edge.depth - 3 * MARGIN), f"{low:.{digits}f}", 10, ink, "end")


def draw_names(pen, edge: Edge, size: float, ink: RGB, line: RGB) -> None:
    """Years or bars between the drawing and the matrix, none over another."""
    x, y, w, h = edge.frame
    free = -math.inf
    for cells, text in ticks(edge.span, size, 40 if edge.across else 18):
        spot, half = edge.at(cells), width(text, 11) / 2 if edge.across else 6
        middle = max(x + half, min(x + w - half, spot)) if edge.across else spot
        if middle - half < free:
            continue
        free = middle + half + 6
        if edge.across:
            pen.text((middle, y + h + 12), text, 11, ink, "middle")
            pen.lines([(spot, y + h + 20, spot, y + h + 24)], line)
        else:
            pen.text((x + w + SIDE - 4, middle), text, 11, ink, "end")
            pen.lines([(x + w + SIDE - 2, spot, x + w + SIDE + 2, spot)], line)


def _ends(values: np.ndarray) -> tuple[float, float]:
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    return (low, high) if high > low else (low - 1, high + 1)


def _ink(span: Span, place: int, plain: RGB, palette: Palette) -> RGB:
    """What the model wrote has a colour of its own."""
    written = span.track.written
    return plain if written is None or place < written else VOICES[palette.dark][0]
