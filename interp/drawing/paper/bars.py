"""Parts that add up, one bar a line, with their sums under a rule."""

from __future__ import annotations

import math
from collections.abc import Sequence

from headwise.interp.drawing.paper.colour import Palette
from headwise.interp.drawing.paper.legend import draw_small_print, small_print
from headwise.interp.drawing.paper.pens import Print
from headwise.interp.drawing.paper.text import HIDDEN, fit, width

PAD, LINE, TRACK, NAMES = 20, 21, 320, 190  # CSS pixels: margins, a line, the bars' room, the names' at most

Row = tuple[str, float, str]  # name, value, and how that is written


def draw(rows: Sequence[Row], sums: Sequence[tuple[str, str]], title: str, how: Print) -> bytes:
    """The whole figure."""
    palette, title = Palette.of(how.theme, signed=True), HIDDEN.sub("◌", title)
    names = [HIDDEN.sub("◌", name) for name, _, _ in rows]
    room = min(NAMES, max([60, *(width(name, 12) for name in (*names, *(name for name, _ in sums)))]))
    left, figures = math.ceil(PAD + room + 12), max(width(text, 12) for _, _, text in rows) + 12
    right = math.ceil(left + TRACK + figures)
    low, high = min(0.0, *(value for _, value, _ in rows)), max(1e-12, *(value for _, value, _ in rows))
    top = PAD + (30 if title else 0)
    rule = top + LINE * len(rows) + 4
    bottom = rule + 4 + LINE * len(sums)
    wide = max(right, math.ceil(PAD + width(title, 16))) + PAD
    small = small_print(how.pen, how.footer, (*names, title), wide - 2 * PAD)

    pen = how.sheet((wide, math.ceil(bottom + 10 + 14 * len(small) + PAD - 8)), palette)
    if title:
        pen.text((PAD, PAD + 8), title, 16, palette.text)
    for number, (name, (_, value, text)) in enumerate(zip(names, rows, strict=True)):
        y = top + LINE * number
        pen.text((PAD, y + LINE / 2), fit(name, 12, room), 12, palette.text)
        pen.rect(left, y + 4, TRACK, LINE - 8, palette.ink(0.05))
        start, end = (left + TRACK * (side - low) / (high - low) for side in (min(0, value), max(0, value)))
        pen.rect(start, y + 5, max(1, end - start), LINE - 10, palette.table[26 if value < 0 else 229])
        pen.text((right, y + LINE / 2), text, 12, palette.text, "end")
    pen.lines([(PAD, rule, right, rule)], palette.ink(0.2))
    for number, (name, text) in enumerate(sums):
        y = rule + 4 + LINE * (number + 0.5)
        pen.text((PAD, y), name, 12, palette.text)
        pen.text((right, y), text, 12, palette.text, "end")
    draw_small_print(pen, PAD, bottom + 10, small, palette)
    return pen.finish(title or "Parts that add up", how.stamp)
