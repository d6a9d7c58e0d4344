"""A table of small cells with tokens or numbers in them, such as the logit lens."""

from __future__ import annotations

import math

import numpy as np

from headwise.interp.drawing.paper.colour import Palette
from headwise.interp.drawing.paper.legend import draw_small_print, small_print
from headwise.interp.drawing.paper.pens import Print
from headwise.interp.drawing.paper.text import HIDDEN, fit, visible, width
from headwise.interp.drawing.streams import Cells

PAD, ROW, GAP, BARE = 20, 22, 2, 20  # CSS pixels: margins, a row, between cells, a cell without text
WIDEST, HEAD = 64, 20  # a cell at most, and the row of column names


def draw(cells: Cells, title: str, how: Print) -> bytes:
    """The whole figure."""
    palette, title = Palette.of(how.theme, cells.signed), HIDDEN.sub("◌", title)
    names, columns = list(cells.rows), [visible(name) for name in cells.columns]
    texts = [[visible(text) for text in row] for row in cells.texts or ()]
    room = max([0, *(width(text, 11) for row in (columns, *texts) for text in row)])
    cell = min(WIDEST, max(BARE, math.ceil(room) + 8))
    left = math.ceil(PAD + max(width(name, 11) for name in names) + 8)
    top = PAD + (28 if title else 0) + 22
    right, bottom = left + len(columns) * (cell + GAP), top + HEAD + len(names) * (ROW + GAP)
    wide = math.ceil(max(right, PAD + width(title, 16), 420) + PAD)
    words = (*columns, *(text for row in texts for text in row), title)
    small = small_print(how.pen, how.footer, words, wide - 2 * PAD)

    pen = how.sheet((wide, math.ceil(bottom + 16 + 14 * len(small) + PAD - 8)), palette)
    if title:
        pen.text((PAD, PAD + 8), title, 16, palette.text)
    _draw_legend(pen, cells, max(right - GAP, wide - PAD if right < 420 else 0), top - 12, palette)
    for c, name in enumerate(columns):
        spot = (left + c * (cell + GAP) + cell / 2, top + HEAD / 2)
        pen.text(spot, fit(name, 11, cell), 11, palette.ink(0.65), "middle")
    for r, name in enumerate(names):
        y = top + HEAD + r * (ROW + GAP)
        pen.text((left - 8, y + ROW / 2), name, 11, palette.ink(0.65), "end")
        for c, shade in enumerate(cells.shades[r]):
            x = left + c * (cell + GAP)
            known = bool(np.isfinite(shade))
            under = palette.table[round(255 * min(1.0, max(0.0, float(shade))))] if known else palette.empty
            pen.rect(x, y, cell, ROW, under)
            if texts and texts[r][c]:
                pen.text((x + cell / 2, y + ROW / 2), fit(texts[r][c], 11, cell - 4), 11, palette.on(under), "middle")
    draw_small_print(pen, PAD, bottom + 14, small, palette)
    return pen.finish(title or cells.quantity, how.stamp)


def _draw_legend(pen, cells: Cells, right: float, y: float, palette: Palette) -> None:
    """What the colours mean, on one line that ends at the right."""
    ink, bar = palette.ink(0.65), 80
    pen.text((right, y), cells.high, 11, ink, "end")
    x = right - width(cells.high, 11) - 6 - bar
    pen.cells(x, y - 4, bar / 32, 8, np.dstack([palette.table[None, ::8], np.full((1, 32, 1), 255, np.uint8)]))
    pen.text((x - 6, y), f"{cells.quantity}  {cells.low}", 11, ink, "end")
