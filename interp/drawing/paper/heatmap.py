"""One head as a matrix: queries are rows, keys are columns, forbidden cells are hatched and leaks alarm."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headwise.interp.attention.axes import Sound
from headwise.interp.drawing.matrix import FORBIDDEN, HeadView
from headwise.interp.drawing.paper.colour import NAMES, RGB, Palette, Scale
from headwise.interp.drawing.paper.legend import (
    bar_room,
    dashes,
    draw_bar,
    draw_legend,
    draw_small_print,
    entries,
    small_print,
)
from headwise.interp.drawing.paper.sound import AXIS, STRIP, Timeline, strip
from headwise.interp.drawing.paper.text import HIDDEN, brief, fit, visible, width

PAD, LINE, SLANT = 20, 14, 50  # CSS pixels; degrees of key labels
LARGEST_CELL, PLOT = 34, 640  # a cell's side and the matrix's longer side, at most
STEPS = (1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 50, 64, 100, 128, 200, 256, 512)
MOST_LINES = 20_000  # a speckled mask has no outline to draw


def arrays(view: HeadView, quantity: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The values, float64 (R, K), where the mask forbids, bool, and where there is weight all the same, bool."""
    matrix, forbidden = view.matrix.detach().cpu().double().numpy(), view.forbidden.cpu().numpy() == FORBIDDEN
    leaks = view.leaks.cpu().numpy() & (quantity != "scores")  # a score is no weight, wherever it stands
    return matrix, forbidden, leaks


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

    @classmethod
    def of(
        cls,
        view: HeadView,
        title: str = "",
        query_sound: Sound | None = None,
        key_sound: Sound | None = None,
        axis_names: tuple[str, str] = ("queries", "keys"),
    ) -> Layout:
        rows, columns = view.matrix.shape
        w, h = min(LARGEST_CELL, PLOT / columns), min(LARGEST_CELL, PLOT / rows)
        if rows < 3 * columns and columns < 3 * rows and (query_sound is None) == (key_sound is None):
            w = h = min(w, h)  # a diagonal should look like one
        elif query_sound is not None or key_sound is not None:  # time is as long as the page is wide
            w = min(3 * LARGEST_CELL, PLOT / columns)
        else:
            w, h = min(w, 3 * h), min(h, 3 * w)
        w, h = (max(0.5, math.floor(2 * side) / 2) for side in (w, h))  # whole pixels of the PNG: equal, crisp cells
        row_room = 40 if query_sound else min(150, max(width(text, 12) for _, text in ticks(view, 0, h)))
        column_room = 0 if key_sound else min(110, max(width(text, 12) for _, text in ticks(view, 1, w)))
        above = STRIP + AXIS if key_sound else max(column_room * math.sin(math.radians(SLANT)) + 16, 34)
        corner = max(width(text, 11) for text in corner_words(axis_names, query_sound, key_sound))
        left, top = math.ceil(PAD + max(row_room, corner) + 10), math.ceil(PAD + (28 if title else 0) + above)
        return cls(left, top, w, h, rows, columns, row_room, column_room)

    def x(self, column: float) -> float:
        return self.left + column * self.w

    def y(self, row: float) -> float:
        return self.top + row * self.h


def corner_words(axis_names: tuple[str, str], query_sound: Sound | None, key_sound: Sound | None) -> tuple[str, str]:
    """What stands in the corner: of the columns, of the rows."""
    queries, keys = (
        f"{name} (s)" if sound else name for name, sound in zip(axis_names, (query_sound, key_sound), strict=True)
    )
    return f"{keys} →", f"{queries} ↓"


def ticks(view: HeadView, axis: int, size: float) -> list[tuple[int, str]]:
    """(row or column, label), thinned to what has room; thinned labels are numbered."""
    labels = view.keys if axis else view.queries
    step = next((s for s in STEPS if s * size >= LINE), math.ceil(LINE / size))
    texts = []
    for index in range(0, len(labels), step):
        position, label = view.origin[axis] + index * view.factor[axis], visible(labels[index])
        texts.append((index, f"{position} {label}" if step > 1 and label != str(position) else label or str(position)))
    return texts


def draw(
    pen_type: type,
    view: HeadView,
    *,
    title: str,
    scale: str,
    theme: str,
    quantity: str,
    stamp: Mapping[str, Any],
    footer: Sequence[str],
    query_sound: Sound | None,
    key_sound: Sound | None,
    axis_names: tuple[str, str],
) -> bytes:
    """The whole figure. ``footer`` are the parts of the small print."""
    palette = Palette.of(theme, view.signed)
    matrix, forbidden, leaks = arrays(view, quantity)
    colours = Scale.of(matrix[~forbidden], scale, quantity, signed=view.signed)
    title = HIDDEN.sub("◌", title)
    place = Layout.of(view, title, query_sound, key_sound, axis_names)
    rows_time, columns_time = Timeline.of(query_sound, view, 0), Timeline.of(key_sound, view, 1)
    ends = [sound.seconds for sound, time in ((key_sound, columns_time), (query_sound, rows_time)) if stops(time)]
    explained = entries(leaks, forbidden, ends[0] if ends else None)
    right, bottom = place.x(place.columns), place.y(place.rows)
    bar_left, bar_top = right + 22, place.top - (STRIP + AXIS if key_sound else 0)
    bar_height = max(100, min(260, bottom - bar_top))
    overhang = place.column_room * math.cos(math.radians(SLANT))
    wide = math.ceil(max(bar_left + bar_room(colours), right + overhang, PAD + width(title, 16), 420) + PAD)
    texts = (*map(visible, view.queries + view.keys), *axis_names, title)
    small = small_print(pen_type, footer, texts, wide - 2 * PAD)
    legend_at = max(bottom, bar_top + bar_height) + 22
    small_at = legend_at + (24 if explained else 0)

    pen = pen_type((wide, math.ceil(small_at + 14 * len(small) + PAD - 8)), palette)
    if title:
        pen.text(PAD, PAD + 8, title, 16, palette.text)
    if forbidden.any():
        pen.hatch(place.left, place.top, right - place.left, bottom - place.top)
    pen.cells(place.left, place.top, place.w, place.h, pixels(matrix, forbidden, leaks, palette, colours))
    lines = list(border(forbidden))
    if lines and len(lines) <= MOST_LINES:
        pen.lines(
            [(place.x(x0), place.y(y0), place.x(x1), place.y(y1)) for x0, y0, x1, y1 in lines],
            palette.ink(0.6),
        )
    pen.frame(place.left, place.top, right - place.left, bottom - place.top, palette.ink(0.3))
    if key_sound:
        _draw_strip(pen, place, key_sound, columns_time, palette)
    _draw_ends(pen, place, rows_time, columns_time, palette)
    _draw_numbers(pen, place, matrix, forbidden & ~leaks, palette, colours, leaks)
    _draw_labels(pen, place, view, (rows_time, columns_time), palette)
    for line, text in zip((27, 12), corner_words(axis_names, query_sound, key_sound), strict=True):
        pen.text(place.left - 8, place.top - line, text, 11, palette.ink(0.55), "end")
    if leaks.any() and place.w <= 6:  # tiny cells: ticks beside their rows and columns keep them findable
        for row in np.nonzero(leaks.any(1))[0]:
            pen.rect(place.left - 6, place.y(row), 5, max(1.5, place.h), palette.alarm)
        for column in np.nonzero(leaks.any(0))[0]:
            pen.rect(place.x(column), place.top - 6, max(1.5, place.w), 5, palette.alarm)

    name = NAMES[quantity] + (" difference" if view.signed else "") + (", log" if colours.log else "")
    draw_bar(pen, bar_left, bar_top, bar_height, colours, palette, name)
    draw_legend(pen, place.left, legend_at, explained, palette)
    draw_small_print(pen, PAD, small_at, small, palette)
    return pen.finish(title or "Attention of one head", stamp)


def pixels(
    matrix: np.ndarray, forbidden: np.ndarray, leaks: np.ndarray, palette: Palette, colours: Scale
) -> np.ndarray:
    """The cells → uint8 (rows, columns, RGBA). Forbidden ones are clear, leaked ones in the alarm colour."""
    known = np.isfinite(matrix)
    out = np.full((*matrix.shape, 4), 255, np.uint8)
    out[..., :3] = palette.table[colours.index(np.where(known, matrix, colours.low))]
    out[~known, :3] = palette.empty
    out[forbidden] = 0
    out[leaks] = (*palette.alarm, 255)
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


def _draw_strip(pen, place: Layout, sound: Sound, time: Timeline, palette: Palette) -> None:
    top, wide = place.top - STRIP - AXIS, place.columns * place.w
    pen.image(place.left, top, strip(sound, time, wide, palette))
    pen.frame(place.left, top, wide, STRIP, palette.ink(0.3))
    pen.text(place.left - 8, top + STRIP / 2, "pitch ↑", 11, palette.ink(0.55), "end")


def _draw_ends(pen, place: Layout, rows: Timeline | None, columns: Timeline | None, palette: Palette) -> None:
    """Dashed lines where recordings end."""
    ink = palette.ink(0.75)
    if stops(columns):
        x, strip_top = place.x(columns.stop), place.top - STRIP - AXIS
        for start, end in ((strip_top, strip_top + STRIP), (place.top, place.y(place.rows))):
            pen.lines([(x, a, x, b) for a, b in dashes(start, end)], ink)
    if stops(rows):
        y = place.y(rows.stop)
        pen.lines([(a, y, b, y) for a, b in dashes(place.left, place.x(place.columns))], ink)


def _draw_numbers(pen, place: Layout, matrix, hidden, palette: Palette, colours: Scale, leaks) -> None:
    """In a small matrix there is room for the numbers themselves."""
    if place.w < 28 or place.h < 16:
        return
    for row, column in zip(*np.nonzero(np.isfinite(matrix) & ~hidden & (np.abs(matrix) >= 0.005)), strict=True):
        value = matrix[row, column]
        text = re.sub(r"^(-?)0\.", r"\1.", f"{value:.2f}") if abs(value) < 10 else brief(value)
        under = palette.alarm if leaks[row, column] else palette.table[colours.index(value)]
        pen.text(place.x(column + 0.5), place.y(row + 0.5), text, 10, palette.on(under), "middle")


def _draw_labels(
    pen, place: Layout, view: HeadView, time: tuple[Timeline | None, Timeline | None], palette: Palette
) -> None:
    ink, faint = palette.ink(0.8), palette.ink(0.4)
    if time[0] is not None:
        _draw_seconds(pen, time[0], place, False, ink, palette.ink(0.5))
    else:
        for row, text in ticks(view, 0, place.h):
            pen.text(place.left - 8, place.y(row + 0.5), fit(text, 12, place.row_room), 12, ink, "end", faint=faint)
    if time[1] is not None:
        _draw_seconds(pen, time[1], place, True, ink, palette.ink(0.5))
    else:
        for column, text in ticks(view, 1, place.w):
            x, y = place.x(column + 0.5) + 1, place.top - 9
            pen.text(x, y, fit(text, 12, place.column_room), 12, ink, "start", SLANT, faint)


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
            pen.text(middle, place.top - 14, text, 11, ink, "middle")
            pen.lines([(spot, place.top - 6, spot, place.top - 2)], line)
        else:
            pen.text(place.left - 8, middle, text, 11, ink, "end")
            pen.lines([(place.left - 6, spot, place.left - 2, spot)], line)
