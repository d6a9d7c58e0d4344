"""One head as a matrix: queries are rows, keys are columns, forbidden cells are hatched and leaks alarm."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from headwise.interp.attention.axes import Sound
from headwise.interp.drawing.matrix import FORBIDDEN, Matrix, Span
from headwise.interp.drawing.paper.colour import RGB, Palette, Scale
from headwise.interp.drawing.paper.legend import (
    bar_room,
    dashes,
    draw_bar,
    draw_legend,
    draw_small_print,
    entries,
    small_print,
)
from headwise.interp.drawing.paper.pens import Print
from headwise.interp.drawing.paper.sound import AXIS, STRIP, Timeline, strip
from headwise.interp.drawing.paper.text import HIDDEN, brief, fit, visible, width
from headwise.interp.drawing.paper.track import SIDE, Edge, depths, draw_ends, draw_names
from headwise.interp.drawing.paper.track import draw as draw_track

PAD, LINE, SLANT = 20, 14, 50  # CSS pixels; degrees of key labels
LARGEST_CELL, PLOT = 34, 640  # a cell's side and the matrix's longer side, at most
LEAST = 60  # the matrix's width, where a whole width is asked for
STEPS = (1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 50, 64, 100, 128, 200, 256, 512)
MOST_LINES = 20_000  # a speckled mask has no outline to draw
TINY = 6  # a cell narrower than this needs help to be found


@dataclass(frozen=True)
class Cells:
    """A matrix's values, float64, where its mask forbids, bool, and where there is weight all the same, bool."""

    values: np.ndarray
    forbidden: np.ndarray
    leaks: np.ndarray

    @classmethod
    def of(cls, matrix: Matrix) -> Cells:
        forbidden = matrix.forbidden.cpu().numpy() == FORBIDDEN
        return cls(matrix.values.detach().cpu().double().numpy(), forbidden, matrix.leaks.cpu().numpy())

    def __getitem__(self, part) -> Cells:
        return Cells(self.values[part], self.forbidden[part], self.leaks[part])


@dataclass(frozen=True)
class Layout:
    """Where the matrix stands, in CSS pixels: cell (r, c) begins at (left + c · w, top + r · h)."""

    left: float
    top: float
    w: float
    h: float
    rows: int
    columns: int
    row_room: float
    column_room: float
    beside: float = 0  # rooms of a series or a score
    over: float = 0

    @classmethod
    def of(cls, matrix: Matrix, plot: float | None = None) -> Layout:
        """``plot`` is how wide the matrix shall be; left out, as wide as suits it."""
        rows, columns = matrix.values.shape
        queries, keys = (span.sound is not None for span in matrix.spans)
        w, h = min(LARGEST_CELL, PLOT / columns), min(LARGEST_CELL, PLOT / rows)
        if plot is not None:
            w, h = plot / columns, max(plot, PLOT) / rows
        if rows < 3 * columns and columns < 3 * rows and queries == keys:
            w = h = min(w, h)  # a diagonal should look like one
        elif queries or keys:  # time is as long as the page is wide
            w = min(3 * LARGEST_CELL, PLOT / columns)
        else:
            w, h = min(w, 3 * h), min(h, 3 * w)
        if plot is None:
            w, h = (
                max(0.5, math.floor(2 * side) / 2) for side in (w, h)
            )  # whole pixels of the PNG: equal, crisp cells
        beside, over = depths(*matrix.spans)
        row_room = 40 if queries else min(150, max(width(text, 12) for _, text in ticks(matrix.rows, h)))
        row_room = SIDE if beside else row_room
        column_room = 0 if keys or over else min(110, max(width(text, 12) for _, text in ticks(matrix.columns, w)))
        above = (over or STRIP) + AXIS if keys or over else max(column_room * math.sin(math.radians(SLANT)) + 16, 34)
        corner = max(width(text, 11) for text in corner_words(matrix))
        left = math.ceil(PAD + max(beside + row_room, corner) + 10)
        top = math.ceil(PAD + (28 if matrix.caption else 0) + above)
        return cls(left, top, w, h, rows, columns, row_room, column_room, beside, over)

    @classmethod
    def fitted(cls, matrix: Matrix, across: int, bar: float) -> Layout:
        """So that the whole figure, with a colour bar that takes ``bar``, is ``across`` pixels wide. Raises ValueError
        where labels leave no room."""
        place = cls.of(matrix)
        for _ in range(3):  # labels are thinned as cells shrink
            plot = across - place.left - PAD - max(22 + bar, place.overhang)
            if plot < LEAST:
                raise ValueError(
                    f"A figure of this width leaves {max(0, plot):.0f} pixels for the matrix, at least {LEAST} are "
                    "needed: make it wider or its font smaller."
                )
            place = cls.of(matrix, plot)
        return place

    @property
    def overhang(self) -> float:
        """How far the slanted labels of columns reach beyond the matrix."""
        return self.column_room * math.cos(math.radians(SLANT))

    def x(self, column: float) -> float:
        return self.left + column * self.w

    def y(self, row: float) -> float:
        return self.top + row * self.h

    @property
    def right(self) -> float:
        return self.x(self.columns)

    @property
    def bottom(self) -> float:
        return self.y(self.rows)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, width, height."""
        return self.left, self.top, self.right - self.left, self.bottom - self.top


def track_edges(matrix: Matrix, place: Layout) -> list[Edge]:
    """Where a series or a score is drawn, beside the rows and over the columns."""
    beside = place.left - 10 - place.row_room - place.beside
    over = place.top - AXIS - place.over
    edges = [
        Edge(matrix.rows, False, beside, place.beside, place.y),
        Edge(matrix.columns, True, over, place.over, place.x),
    ]
    return [edge for edge in edges if edge.span.track is not None]


def corner_words(matrix: Matrix) -> tuple[str, str]:
    """What stands in the corner: of the columns, of the rows."""
    rows, columns = (f"{span.name} (s)" if span.sound else span.name for span in matrix.spans)
    return f"{columns} →", f"{rows} ↓"


def ticks(span: Span, size: float) -> list[tuple[int, str]]:
    """(row or column, label), thinned to what has room; thinned labels are numbered."""
    step = next((s for s in STEPS if s * size >= LINE), math.ceil(LINE / size))
    texts = []
    for index in range(0, len(span), step):
        position, label = span.starts[index], visible(span.labels[index])
        texts.append((index, f"{position} {label}" if step > 1 and label != str(position) else label or str(position)))
    return texts


def draw(matrix: Matrix, how: Print) -> bytes:
    """The whole figure."""
    palette, cells = Palette.of(how.theme, matrix.signed, how.paper.colours), Cells.of(matrix)
    title = HIDDEN.sub("◌", matrix.caption)
    late, early = cells[matrix.early :], cells[: matrix.early]
    beyond = early.values[~early.forbidden]
    colours = Scale.of(late.values[~late.forbidden], how.scale, matrix.quantity.kind, beyond, how.paper.top)
    place = Layout.of(matrix) if how.across is None else Layout.fitted(matrix, how.across, bar_room(colours))
    times = (Timeline.of(matrix.rows), Timeline.of(matrix.columns))
    ends = [span.sound.seconds for span, time in zip(matrix.spans, times, strict=True) if stops(time)]
    explained = entries(cells.leaks, cells.forbidden, ends[-1] if ends else None)
    bar_left, bar_top = place.right + 22, place.top - (STRIP + AXIS if times[1] else place.over and place.over + AXIS)
    bar_height = max(100, min(260, place.bottom - bar_top))
    wide = how.across or math.ceil(
        max(bar_left + bar_room(colours), place.right + place.overhang, PAD + width(title, 16), 420) + PAD
    )
    texts = (*map(visible, matrix.rows.labels + matrix.columns.labels), *(span.name for span in matrix.spans), title)
    small = small_print(how.pen, how.footer, texts, wide - 2 * PAD)
    legend_at = max(place.bottom, bar_top + bar_height) + 22
    small_at = legend_at + (24 if explained else 0)

    pen = how.sheet((wide, math.ceil(small_at + 14 * len(small) + PAD - 8)), palette)
    if title:
        pen.text((PAD, PAD + 8), title, min(16, 16 * (wide - 2 * PAD) / width(title, 16)), palette.text)
    _draw_cells(pen, place, cells, palette, colours)
    if times[1]:
        _draw_strip(pen, place, matrix.columns.sound, times[1], palette)
    edges = track_edges(matrix, place)
    for edge in edges:
        draw_track(pen, edge, palette)
        if edge.across:
            draw_ends(pen, edge, place.left - 8, palette)
    _draw_ends(pen, place, times, palette)
    _draw_numbers(pen, place, cells, palette, colours)
    _draw_labels(pen, place, matrix, times, palette)
    for edge in edges:
        draw_names(pen, edge, place.w if edge.across else place.h, palette.ink(0.8), palette.ink(0.5))
    for line, text in zip((27, 12), corner_words(matrix), strict=True):
        pen.text((place.left - 8, place.top - line), text, 11, palette.ink(0.55), "end")
    if place.w <= TINY:
        _draw_pointers(pen, place, cells.leaks, palette)
    name = matrix.quantity.name + (", log" if colours.log else "")
    draw_bar(pen, bar_left, bar_top, bar_height, colours, palette, name)
    draw_legend(pen, place.left, legend_at, explained, palette)
    draw_small_print(pen, PAD, small_at, small, palette)
    return pen.finish(title or "Attention of one head", how.stamp)


def pixels(cells: Cells, palette: Palette, colours: Scale) -> np.ndarray:
    """The cells → uint8 (rows, columns, RGBA). Forbidden ones are clear, leaked ones in the alarm colour."""
    known = np.isfinite(cells.values)
    out = np.full((*cells.values.shape, 4), 255, np.uint8)
    out[..., :3] = palette.table[colours.index(np.where(known, cells.values, colours.low))]
    out[~known, :3] = palette.empty
    out[cells.forbidden] = 0
    out[cells.leaks] = (*palette.alarm, 255)
    return out


def border(forbidden: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """The mask's edge as (x0, y0, x1, y1) in cells, runs merged."""
    for columnwise, edges in (
        (True, forbidden[:, 1:] != forbidden[:, :-1]),
        (False, (forbidden[1:] != forbidden[:-1]).T),
    ):
        for at in np.nonzero(edges.any(0))[0]:
            change = np.flatnonzero(np.diff(np.concatenate([[0], edges[:, at].astype(np.int8), [0]])))
            for start, stop in zip(change[::2], change[1::2], strict=True):
                yield (at + 1, start, at + 1, stop) if columnwise else (start, at + 1, stop, at + 1)


def stops(time: Timeline | None) -> bool:
    """Does a recording end within what is shown?"""
    return time is not None and time.stop is not None


def _draw_cells(pen, place: Layout, cells: Cells, palette: Palette, colours: Scale) -> None:
    """The matrix itself, hatched where it forbids, with the edge of its mask."""
    if cells.forbidden.any():
        pen.hatch(*place.box)
    pen.cells(place.left, place.top, place.w, place.h, pixels(cells, palette, colours))
    lines = list(border(cells.forbidden))
    if lines and len(lines) <= MOST_LINES:
        edges = [(place.x(x0), place.y(y0), place.x(x1), place.y(y1)) for x0, y0, x1, y1 in lines]
        pen.lines(edges, palette.ink(0.6))
    pen.frame(*place.box, palette.ink(0.3))


def _draw_pointers(pen, place: Layout, leaks: np.ndarray, palette: Palette) -> None:
    """Ticks beside the rows and columns of tiny leaks keep them findable."""
    for row in np.nonzero(leaks.any(1))[0]:
        pen.rect(place.left - 6, place.y(row), 5, max(1.5, place.h), palette.alarm)
    for column in np.nonzero(leaks.any(0))[0]:
        pen.rect(place.x(column), place.top - 6, max(1.5, place.w), 5, palette.alarm)


def _draw_strip(pen, place: Layout, sound: Sound, time: Timeline, palette: Palette) -> None:
    top, wide = place.top - STRIP - AXIS, place.columns * place.w
    pen.image(place.left, top, strip(sound, time, wide, palette))
    pen.frame(place.left, top, wide, STRIP, palette.ink(0.3))
    pen.text((place.left - 8, top + STRIP / 2), "pitch ↑", 11, palette.ink(0.55), "end")


def _draw_ends(pen, place: Layout, times: tuple[Timeline | None, Timeline | None], palette: Palette) -> None:
    """Dashed lines where recordings end."""
    (rows, columns), ink = times, palette.ink(0.75)
    if stops(columns):
        x, strip_top = place.x(columns.stop), place.top - STRIP - AXIS
        for start, end in ((strip_top, strip_top + STRIP), (place.top, place.bottom)):
            pen.lines([(x, a, x, b) for a, b in dashes(start, end)], ink)
    if stops(rows):
        y = place.y(rows.stop)
        pen.lines([(a, y, b, y) for a, b in dashes(place.left, place.right)], ink)


def _draw_numbers(pen, place: Layout, cells: Cells, palette: Palette, colours: Scale) -> None:
    """In a small matrix there is room for the numbers themselves."""
    if place.w < 28 or place.h < 16:
        return
    shown = np.isfinite(cells.values) & ~(cells.forbidden & ~cells.leaks) & (np.abs(cells.values) >= 0.005)
    for row, column in zip(*np.nonzero(shown), strict=True):
        value = cells.values[row, column]
        text = re.sub(r"^(-?)0\.", r"\1.", f"{value:.2f}") if abs(value) < 10 else brief(value)
        under = palette.alarm if cells.leaks[row, column] else palette.table[colours.index(value)]
        pen.text((place.x(column + 0.5), place.y(row + 0.5)), text, 10, palette.on(under), "middle")


def _draw_labels(
    pen, place: Layout, matrix: Matrix, times: tuple[Timeline | None, Timeline | None], palette: Palette
) -> None:
    ink, faint = palette.ink(0.8), palette.ink(0.4)
    if matrix.rows.track is not None:
        pass  # years or bars
    elif times[0] is not None:
        _draw_seconds(pen, times[0], place, False, ink, palette.ink(0.5))
    else:
        for row, text in ticks(matrix.rows, place.h):
            spot = (place.left - 8, place.y(row + 0.5))
            pen.text(spot, fit(text, 12, place.row_room), 12, ink, "end", faint=faint)
    if matrix.columns.track is not None:
        pass
    elif times[1] is not None:
        _draw_seconds(pen, times[1], place, True, ink, palette.ink(0.5))
    else:
        for column, text in ticks(matrix.columns, place.w):
            spot = (place.x(column + 0.5) + 1, place.top - 9)
            pen.text(spot, fit(text, 12, place.column_room), 12, ink, "start", SLANT, faint)


def _draw_seconds(pen, time: Timeline, place: Layout, across: bool, ink: RGB, line: RGB) -> None:
    """Seconds along the upper or the left edge of the matrix, none over another and none beyond its ends."""
    at = place.x if across else place.y
    first, last, free = at(0), at(place.columns if across else place.rows), -math.inf
    for cells, text in time.ticks(place.w if across else place.h, 56 if across else 22):
        spot, half = at(cells), width(text, 11) / 2 if across else 6
        middle = max(first + half, min(last - half, spot)) if across else spot
        if middle - half < free:
            continue
        free = middle + half + 6
        if across:
            pen.text((middle, place.top - 14), text, 11, ink, "middle")
            pen.lines([(spot, place.top - 6, spot, place.top - 2)], line)
        else:
            pen.text((place.left - 8, middle), text, 11, ink, "end")
            pen.lines([(place.left - 6, spot, place.left - 2, spot)], line)
