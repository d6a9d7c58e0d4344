"""One query of a head over the picture its keys lie on: left as it is, right in faint grey under the weights.

The colours span the weights of the patches that are shown: beside the strongest of all queries most would be too faint
to see. Positions before the patches, such as CLS, have no place in the picture: they are chips above it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from headwise.interp.attention.axes import PixelGrid
from headwise.interp.drawing.matrix import HeadView
from headwise.interp.drawing.paper.colour import NAMES, Palette, Scale
from headwise.interp.drawing.paper.heatmap import PAD, arrays
from headwise.interp.drawing.paper.legend import bar_room, draw_bar, draw_legend, draw_small_print, entries, small_print
from headwise.interp.drawing.paper.pens import RATIO, hatching
from headwise.interp.drawing.paper.text import HIDDEN, brief, fit, width

PANEL, NARROWEST, GAP = 320, 220, 24  # CSS pixels: a panel's longer side, its least width with chips, between the two
CHIP = 20  # a chip's height
ENLARGED = 4  # from here on a picture's own pixels are shown as squares
FADE, VEIL = 0.7, 0.66  # how much of the page lies over the grey picture, and over what no patch covers


@dataclass(frozen=True)
class Place:
    """A panel in device pixels: the picture covers ``own`` (left, top, right, bottom), patch (r, c) is xs[c] …
    xs[c + 1] by ys[r] … ys[r + 1]. All are whole, so that neighbours meet."""

    size: tuple[int, int]
    own: tuple[int, int, int, int]
    xs: np.ndarray
    ys: np.ndarray
    enlarged: bool

    @classmethod
    def of(cls, picture: PixelGrid, grid: tuple[int, int]) -> Place:
        high, wide = picture.pixels.shape[:2]
        box, (rows, columns) = picture.box, grid
        left, top = min(0, box[0]), min(0, box[1])
        right, bottom = max(wide, box[2]), max(high, box[3])
        scale = RATIO * PANEL / max(right - left, bottom - top)

        def whole(places, begin: float) -> np.ndarray:
            return np.rint((np.asarray(places) - begin) * scale).astype(int)

        (x0, x1), (y0, y1) = whole((0, wide), left), whole((0, high), top)
        return cls(
            (max(1, whole(right, left)), max(1, whole(bottom, top))),
            (x0, y0, max(x0 + 1, x1), max(y0 + 1, y1)),
            whole(np.linspace(box[0], box[2], columns + 1), left),
            whole(np.linspace(box[1], box[3], rows + 1), top),
            scale >= ENLARGED * RATIO,
        )

    @property
    def covered(self) -> tuple[int, int, int, int]:
        return self.xs[0], self.ys[0], self.xs[-1], self.ys[-1]

    def patch(self, number: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom."""
        row, column = divmod(number, len(self.xs) - 1)
        return self.xs[column], self.ys[row], self.xs[column + 1], self.ys[row + 1]


def row_of(view: HeadView, picture: PixelGrid, grid: tuple[int, int], query: int) -> int:
    """The row of the view that is ``query``'s. Raises ValueError unless the view has it, and all keys, one a cell."""
    height, width, channels = (*picture.pixels.shape, 0)[:3]
    if picture.pixels.ndim != 3 or channels != 3 or not height * width:
        raise ValueError(f"picture expects pixels (height, width, 3); got {picture.pixels.shape}.")
    if not (picture.box[0] < picture.box[2] and picture.box[1] < picture.box[3]):
        raise ValueError(f"picture expects a box (left, top, right, bottom) with an area; got {picture.box}.")
    patches = grid[0] * grid[1]
    if view.shape[0] != view.shape[1] or not 0 < patches <= view.shape[1]:
        raise ValueError(
            f"A figure over a picture expects a patch for each query and key; got a grid of {grid[0]} × {grid[1]} "
            f"for {view.shape[0]} queries and {view.shape[1]} keys."
        )
    if not 0 <= query < view.shape[0]:
        raise ValueError(f"query expects a position 0 … {view.shape[0] - 1}; got {query}.")
    if view.signed:
        raise ValueError("A figure over a picture expects one head, not a difference; draw the difference as a matrix.")
    row = query - view.origin[0]
    if view.factor != (1, 1) or view.matrix.shape[1] != view.shape[1] or not 0 <= row < view.matrix.shape[0]:
        raise ValueError(
            f"A figure over a picture expects all keys of query {query}, neither pooled nor cropped; make the view "
            f"with region=({query}, {query + 1}, 0, {view.shape[1]}) and size={view.shape[1]}."
        )
    return row


def draw(
    pen_type: type,
    view: HeadView,
    picture: PixelGrid,
    grid: tuple[int, int],
    query: int,
    *,
    title: str,
    scale: str,
    theme: str,
    quantity: str,
    stamp: Mapping[str, Any],
    footer: Sequence[str],
) -> bytes:
    """The whole figure. ``footer`` are the parts of the small print."""
    palette = Palette.of(theme)
    row = row_of(view, picture, grid, query)
    values, forbidden, leaks = (array[row] for array in arrays(view, quantity))  # (K,)
    special = view.shape[1] - grid[0] * grid[1]
    patches = slice(special, None)
    apart = values[:special][~forbidden[:special]]
    colours = Scale.of(values[patches][~forbidden[patches]], scale, quantity, apart)
    place = Place.of(picture, grid)
    title = shown(title)
    wide, high = (side / RATIO for side in place.size)
    room = math.ceil(max(wide, NARROWEST) if special else wide)
    left, right = PAD, PAD + room + GAP
    head = PAD + (28 if title else 0)
    chips = flow([shown(label) for label in view.keys[:special]], width("keys", 11) + 10, room)
    top = head + (chips[-1][2] + CHIP if chips else CHIP) + 8
    bar_left, bar_height = math.ceil(right + wide + 22), max(100, min(260, high))
    explained = entries(leaks, forbidden)
    full = math.ceil(max(bar_left + bar_room(colours), PAD + width(title, 16), right + room, 420) + PAD)
    footer = ["the colours span what this query gives to patches", *footer]
    small = small_print(pen_type, footer, (*map(shown, view.keys[:special]), title), full - 2 * PAD)
    legend_at = top + max(high, bar_height) + 22
    small_at = legend_at + (24 if explained else 0)

    pen = pen_type((full, math.ceil(small_at + 14 * len(small) + PAD - 8)), palette)
    if title:
        pen.text(PAD, PAD + 8, title, 16, palette.text)
    pen.image(left, top, veiled(plain(picture, place, palette), place, palette))
    weighed = painted(picture, place, palette, colours, values[patches], forbidden[patches], leaks[patches])
    pen.image(right, top, veiled(weighed, place, palette))
    for x in (left, right):
        pen.frame(x, top, wide, high, palette.ink(0.25))
        x0, y0, x1, y1 = (side / RATIO for side in place.covered)
        pen.frame(x + x0, top + y0, x1 - x0, y1 - y0, palette.ink(0.45))

    middle = head + CHIP / 2
    pen.text(left, middle, "query", 11, palette.ink(0.6))
    pen.text(right, middle, "keys", 11, palette.ink(0.6))
    start = left + width("query", 11) + 10
    if query < special:
        label = fit(shown(view.queries[row]), 12, room - 80)
        chip = (start, head, math.ceil(width(label, 12)) + 20, CHIP)
        pen.pill(*chip, palette.ink(0.07))
        pen.text(start + 10, middle, label, 12, palette.ink(0.9))
        pen.outline(*chip, palette.text, 1.5, CHIP / 2)
    else:
        y, x = divmod(query - special, grid[1])
        pen.text(start, middle, f"patch in row {y}, column {x}", 12, palette.ink(0.9))
        for panel in (left, right):
            x0, y0, x1, y1 = (side / RATIO for side in place.patch(query - special))
            around = (panel + x0 - 0.75, top + y0 - 0.75, x1 - x0 + 1.5, y1 - y0 + 1.5)
            pen.outline(*around, palette.background, 2.5)  # a halo keeps the line apart from any picture
            pen.outline(*around, palette.text, 1.5)
    for index, (label, x, y, w) in enumerate(chips):
        value, bare = values[index], not math.isfinite(values[index]) or (forbidden[index] and not leaks[index])
        fill = palette.alarm if leaks[index] else palette.empty if bare else palette.table[colours.index(value)]
        pen.pill(right + x - 0.5, head + y - 0.5, w + 1, CHIP + 1, palette.ink(0.3))
        pen.pill(right + x + 0.5, head + y + 0.5, w - 1, CHIP - 1, fill)
        ink = palette.ink(0.9) if bare else palette.on(fill)
        pen.text(right + x + 10, head + y + CHIP / 2, label, 12, ink)
        pen.text(
            right + x + w - 10, head + y + CHIP / 2, "–" if bare else brief(value).replace("-", "−"), 11, ink, "end"
        )

    name = NAMES[quantity] + (", log" if colours.log else "")
    draw_bar(pen, bar_left, top, bar_height, colours, palette, name)
    draw_legend(pen, PAD, legend_at, explained, palette)
    draw_small_print(pen, PAD, small_at, small, palette)
    return pen.finish(title or "Attention of one query over its picture", stamp)


def shown(label: str) -> str:
    """A name, not a token: its spaces are spaces."""
    return HIDDEN.sub("◌", label)


def flow(labels: Sequence[str], start: float, room: float) -> list[tuple[str, float, float, float]]:
    """Chips for labels and their values in lines → (text, x, y, width) of each, from the corner of a panel."""
    chips, x, y = [], start, 0
    for label in labels:
        text = fit(label, 12, 100)
        wide = min(room, math.ceil(width(text, 12)) + 28 + 40)  # the widest value has 40
        if x + wide > room and x > start:
            x, y = start, y + CHIP + 5
        chips.append((text, x, y, wide))
        x += wide + 6
    return chips


def plain(picture: PixelGrid, place: Place, palette: Palette) -> np.ndarray:
    """The picture in its panel → uint8 (h, w, 3) device pixels; what lies beyond it is empty."""
    left, top, right, bottom = place.own
    how = Image.Resampling.NEAREST if place.enlarged else Image.Resampling.LANCZOS
    panel = Image.new("RGB", place.size, palette.empty)
    panel.paste(Image.fromarray(picture.pixels).resize((right - left, bottom - top), how), (left, top))
    return np.array(panel)


def painted(
    picture: PixelGrid,
    place: Place,
    palette: Palette,
    colours: Scale,
    values: np.ndarray,
    forbidden: np.ndarray,
    leaks: np.ndarray,
) -> np.ndarray:
    """The grey picture under the weights of its patches (rows · columns,) → uint8 (h, w, 3) device pixels.

    A patch is like ink on paper, or light in the dark: what is weak leaves the picture as it is.
    """
    luma = np.floor(picture.pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    grey = PixelGrid(np.repeat(luma[..., None], 3, -1), picture.box)
    panel = FADE * np.array(palette.background, float) + (1 - FADE) * plain(grey, place, palette)
    hatch = hatching(*np.mgrid[: panel.shape[0], : panel.shape[1]])[..., None] * palette.hatch
    for number, value in enumerate(values):
        left, top, right, bottom = place.patch(number)
        under = panel[top:bottom, left:right]
        if leaks[number]:
            under[:] = palette.alarm
        elif forbidden[number]:
            under += hatch[top:bottom, left:right] * (np.array(palette.text) - under)
        elif math.isfinite(value):
            colour = palette.table[colours.index(value)] / 255
            under[:] = 255 - (255 - under) * (1 - colour) if palette.dark else under * colour
    return np.rint(panel).astype(np.uint8)


def veiled(panel: np.ndarray, place: Place, palette: Palette) -> np.ndarray:
    """A panel in which the page lies, hatched, over what no patch covers."""
    left, top, right, bottom = place.covered
    page = VEIL * np.array(palette.background, float) + (1 - VEIL) * panel
    hatch = hatching(*np.mgrid[: panel.shape[0], : panel.shape[1]])[..., None] * palette.hatch
    page += hatch * (np.array(palette.text) - page)
    page[top:bottom, left:right] = panel[top:bottom, left:right]
    return np.rint(page).astype(np.uint8)
