"""What the colours mean, and the small print under a figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from headwise.interp.drawing.paper.colour import Palette, Scale
from headwise.interp.drawing.paper.pens import Png, Svg
from headwise.interp.drawing.paper.text import HIDDEN, undrawable, width, wrapped

BAR, SMALL = 12, 10.5  # a colour bar's width, and the small print's size


def bar_room(colours: Scale) -> float:
    """How wide a colour bar is with its numbers and its name."""
    return BAR + 8 + max(width(text, 11) for _, text in colours.ticks()) + 26


def draw_bar(pen, x: float, y: float, height: float, colours: Scale, palette: Palette, name: str) -> None:
    bar = np.dstack([palette.table[::-1, None], np.full((256, 1, 1), 255, np.uint8)])
    step = height / 256
    if isinstance(pen, Png):
        pen.cells(x, y, BAR, step, bar)
    else:
        for i in range(256):  # each a little taller than its step, so that no seam shows
            pen.rect(x, y + i * step, BAR, min(2 * step, height - i * step), bar[i, 0])
    pen.frame(x, y, BAR, height, palette.ink(0.3))
    for t, text in colours.ticks():
        at = y + (1 - t) * height
        pen.lines([(x + 13, at, x + 16, at)], palette.ink(0.5))
        pen.text((x + 21, at), text, 11, palette.ink(0.75))
    pen.text((x + bar_room(colours) - 11, y + height / 2), name, 12, palette.ink(0.75), "middle", 90)


def entries(leaks: np.ndarray, forbidden: np.ndarray, seconds: float | None = None) -> list[tuple[str, str]]:
    """(kind, words) of what is really there; ``seconds`` where a recording ends in sight."""
    found = []
    if leaks.any():
        found.append(("alarm", f"weight on forbidden positions ({int(leaks.sum()):,})"))
    if forbidden.any():
        found.append(("hatch", "forbidden by the mask"))
    if seconds is not None:
        found.append(("end", f"end of the recording, {seconds:.2f} s"))
    return found


def draw_legend(pen, x: float, y: float, explained: Sequence[tuple[str, str]], palette: Palette) -> None:
    for kind, words in explained:
        if kind == "alarm":
            pen.rect(x, y - 6, 12, 12, palette.alarm)
        elif kind == "hatch":
            pen.hatch(x, y - 6, 12, 12)
            pen.frame(x, y - 6, 12, 12, palette.ink(0.35))
        else:
            pen.lines([(x + 6, from_, x + 6, to) for from_, to in dashes(y - 8, y + 9)], palette.ink(0.75))
        pen.text((x + 18, y), words, 11.5, palette.ink(0.9 if kind == "alarm" else 0.75))
        x += 18 + width(words, 11.5) * 1.06 + 22


def dashes(start: float, end: float) -> Iterator[tuple[float, float]]:
    """A dashed line's pieces: 4 on, 3 off."""
    while start < end:
        yield start, min(start + 3, end)  # a line's square ends add the fourth
        start += 7


def small_print(pen_type: type, footer: Sequence[str], texts: Sequence[str], room: float) -> list[str]:
    """The lines of the small print. ``texts``: what else stands in the figure."""
    footer = list(footer)
    if pen_type is not Svg and undrawable("".join((*texts, *footer))):
        footer.append("letters that no font here has are drawn as boxes; the SVG keeps them")
    return wrapped([HIDDEN.sub("◌", part) for part in footer], SMALL, room)


def draw_small_print(pen, x: float, y: float, lines: Sequence[str], palette: Palette) -> None:
    for i, line in enumerate(lines):
        pen.text((x, y + 4 + 14 * i), line, SMALL, palette.ink(0.55))
