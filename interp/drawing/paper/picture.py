"""One query of a head over the picture its keys lie on: left as it is, right in faint grey under the weights.

The colours span the weights of the patches that are shown: beside the strongest of all queries most would be too faint
to see. Positions before the patches, such as CLS, have no place in the picture: they are chips above it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from headwise.interp.attention.axes import PixelGrid
from headwise.interp.drawing.matrix import Matrix
from headwise.interp.drawing.paper.colour import Palette, Scale
from headwise.interp.drawing.paper.heatmap import PAD, Cells
from headwise.interp.drawing.paper.legend import bar_room, draw_bar, draw_legend, draw_small_print, entries, small_print
from headwise.interp.drawing.paper.pens import RATIO, Print, hatching
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


def row_of(matrix: Matrix, query: int) -> int:
    """The row of the matrix that is ``query``'s. Raises ValueError unless the keys lie on a picture and the matrix has
    that row and all keys, one a cell."""
    picture, grid = matrix.columns.picture, matrix.columns.grid
    if picture is None or grid is None:
        raise ValueError(
            "A figure over a picture expects keys that are patches of one, of a view in which no special token is left "
            "out; draw this one as a matrix."
        )
    height, width, channels = (*picture.pixels.shape, 0)[:3]
    if picture.pixels.ndim != 3 or channels != 3 or not height * width:
        raise ValueError(f"picture expects pixels (height, width, 3); got {picture.pixels.shape}.")
    if not (picture.box[0] < picture.box[2] and picture.box[1] < picture.box[3]):
        raise ValueError(f"picture expects a box (left, top, right, bottom) with an area; got {picture.box}.")
    queries, keys = matrix.shape
    if queries != keys or not 0 < grid[0] * grid[1] <= keys:
        raise ValueError(
            f"A figure over a picture expects a patch for each query and key; got a grid of {grid[0]} × {grid[1]} "
            f"for {queries} queries and {keys} keys."
        )
    if not 0 <= query < queries:
        raise ValueError(f"query expects a position 0 … {queries - 1}; got {query}.")
    if matrix.signed:
        raise ValueError("A figure over a picture expects one head, not a difference; draw the difference as a matrix.")
    row = query - matrix.rows.origin
    if matrix.factor != (1, 1) or len(matrix.columns) != keys or not 0 <= row < len(matrix.rows):
        raise ValueError(
            f"A figure over a picture expects all keys of query {query}, neither pooled nor cropped; make the view "
            f"with region=({query}, {query + 1}, 0, {keys}) and size={keys}."
        )
    return row


Chip = tuple[str, float, float, float]  # text, x, y, width


@dataclass(frozen=True)
class Spread:
    """Where the two panels and the chips above them stand, in CSS pixels: the panels at (left | right, top)."""

    left: float
    right: float
    head: float
    top: float
    wide: float
    high: float
    room: float
    chips: Sequence[Chip]

    @classmethod
    def of(cls, place: Place, special: Sequence[str], titled: bool) -> Spread:
        wide, high = (side / RATIO for side in place.size)
        room = math.ceil(max(wide, NARROWEST) if special else wide)
        head = PAD + (28 if titled else 0)
        chips = flow(special, width("keys", 11) + 10, room)
        top = head + (chips[-1][2] + CHIP if chips else CHIP) + 8
        return cls(PAD, PAD + room + GAP, head, top, wide, high, room, chips)


def draw(matrix: Matrix, query: int, how: Print) -> bytes:
    """The whole figure."""
    palette, row = Palette.of(how.theme), row_of(matrix, query)
    picture, grid = matrix.columns.picture, matrix.columns.grid
    cells, special = Cells.of(matrix)[row], len(matrix.columns) - grid[0] * grid[1]  # (K,)
    before, patches = cells[:special], cells[special:]
    apart = before.values[~before.forbidden]
    colours = Scale.of(patches.values[~patches.forbidden], how.scale, matrix.quantity.kind, apart)
    title, names = shown(matrix.caption), [shown(label) for label in matrix.columns.labels[:special]]
    place = Place.of(picture, grid)
    at = Spread.of(place, names, bool(title))
    bar_left, bar_height = math.ceil(at.right + at.wide + 22), max(100, min(260, at.high))
    explained = entries(cells.leaks, cells.forbidden)
    full = math.ceil(max(bar_left + bar_room(colours), PAD + width(title, 16), at.right + at.room, 420) + PAD)
    footer = ["the colours span what this query gives to patches", *how.footer]
    small = small_print(how.pen, footer, (*names, title), full - 2 * PAD)
    legend_at = at.top + max(at.high, bar_height) + 22
    small_at = legend_at + (24 if explained else 0)

    pen = how.sheet((full, math.ceil(small_at + 14 * len(small) + PAD - 8)), palette)
    if title:
        pen.text((PAD, PAD + 8), title, 16, palette.text)
    pen.image(at.left, at.top, veiled(plain(picture, place, palette), place, palette))
    pen.image(at.right, at.top, veiled(painted(picture, place, palette, colours, patches), place, palette))
    for x in (at.left, at.right):
        pen.frame(x, at.top, at.wide, at.high, palette.ink(0.25))
        x0, y0, x1, y1 = (side / RATIO for side in place.covered)
        pen.frame(x + x0, at.top + y0, x1 - x0, y1 - y0, palette.ink(0.45))
    for x, word in ((at.left, "query"), (at.right, "keys")):
        pen.text((x, at.head + CHIP / 2), word, 11, palette.ink(0.6))
    if query < special:
        _draw_special(pen, at, shown(matrix.rows.labels[row]), palette)
    else:
        _draw_patch(pen, at, place, query - special, palette)
    _draw_chips(pen, at, before, palette, colours)

    name = matrix.quantity.name + (", log" if colours.log else "")
    draw_bar(pen, bar_left, at.top, bar_height, colours, palette, name)
    draw_legend(pen, PAD, legend_at, explained, palette)
    draw_small_print(pen, PAD, small_at, small, palette)
    return pen.finish(title or "Attention of one query over its picture", how.stamp)


def _draw_special(pen, at: Spread, name: str, palette: Palette) -> None:
    """The chosen query, which has no place in the picture."""
    start, label = at.left + width("query", 11) + 10, fit(name, 12, at.room - 80)
    chip = (start, at.head, math.ceil(width(label, 12)) + 20, CHIP)
    pen.pill(*chip, palette.ink(0.07))
    pen.text((start + 10, at.head + CHIP / 2), label, 12, palette.ink(0.9))
    pen.outline(*chip, palette.text, 1.5, CHIP / 2)


def _draw_patch(pen, at: Spread, place: Place, patch: int, palette: Palette) -> None:
    """The chosen query, outlined in both panels."""
    row, column = divmod(patch, len(place.xs) - 1)
    spot = (at.left + width("query", 11) + 10, at.head + CHIP / 2)
    pen.text(spot, f"patch in row {row}, column {column}", 12, palette.ink(0.9))
    for panel in (at.left, at.right):
        x0, y0, x1, y1 = (side / RATIO for side in place.patch(patch))
        around = (panel + x0 - 0.75, at.top + y0 - 0.75, x1 - x0 + 1.5, y1 - y0 + 1.5)
        pen.outline(*around, palette.background, 2.5)  # a halo keeps the line apart from any picture
        pen.outline(*around, palette.text, 1.5)


def _draw_chips(pen, at: Spread, cells: Cells, palette: Palette, colours: Scale) -> None:
    """What the special tokens get."""
    for (label, x, y, w), value, forbidden, leak in zip(
        at.chips, cells.values, cells.forbidden, cells.leaks, strict=True
    ):
        bare = not math.isfinite(value) or (forbidden and not leak)
        fill = palette.alarm if leak else palette.empty if bare else palette.table[colours.index(value)]
        left, top = at.right + x, at.head + y
        pen.pill(left - 0.5, top - 0.5, w + 1, CHIP + 1, palette.ink(0.3))
        pen.pill(left + 0.5, top + 0.5, w - 1, CHIP - 1, fill)
        ink, middle = palette.ink(0.9) if bare else palette.on(fill), top + CHIP / 2
        pen.text((left + 10, middle), label, 12, ink)
        pen.text((left + w - 10, middle), "–" if bare else brief(value).replace("-", "−"), 11, ink, "end")


def shown(label: str) -> str:
    """A name, not a token: its spaces are spaces."""
    return HIDDEN.sub("◌", label)


def flow(labels: Sequence[str], start: float, room: float) -> list[Chip]:
    """Chips for labels and their values in lines, from the corner of a panel."""
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


def painted(picture: PixelGrid, place: Place, palette: Palette, colours: Scale, cells: Cells) -> np.ndarray:
    """The grey picture under the weights of its patches (rows · columns,) → uint8 (h, w, 3) device pixels.

    A patch is like ink on paper, or light in the dark: what is weak leaves the picture as it is.
    """
    luma = np.floor(picture.pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    grey = PixelGrid(np.repeat(luma[..., None], 3, -1), picture.box)
    panel = FADE * np.array(palette.background, float) + (1 - FADE) * plain(grey, place, palette)
    hatch = hatching(*np.mgrid[: panel.shape[0], : panel.shape[1]])[..., None] * palette.hatch
    for number, value in enumerate(cells.values):
        left, top, right, bottom = place.patch(number)
        under = panel[top:bottom, left:right]
        if cells.leaks[number]:
            under[:] = palette.alarm
        elif cells.forbidden[number]:
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
