"""The graph of one answer: tokens down the side, depth to the right, as the page draws it (``assets/circuit``)."""

from __future__ import annotations

import math

from headwise.interp.drawing.circuits import INTO, Drawn, Place
from headwise.interp.drawing.paper.colour import RGB, Palette
from headwise.interp.drawing.paper.legend import draw_small_print, small_print
from headwise.interp.drawing.paper.pens import Print
from headwise.interp.drawing.paper.text import HIDDEN, width

PAD, COLUMN, LINE, GAP, TALL, OVER = 20, 66, 28, 9, 19, 22  # CSS pixels, as on the page


def draw(drawn: Drawn, title: str, how: Print) -> bytes:
    """The whole figure."""
    palette, title = Palette.of(how.theme, signed=True), HIDDEN.sub("◌", title)
    names = [HIDDEN.sub("◌", name) for _, _, name in drawn.rows]
    answer = next((width(p.label, 12) + 24 for p in drawn.places if p.kind == "logits"), 60)
    left = math.ceil(PAD + max(width(name, 12) for name in names) + 16)
    top = PAD + (30 if title else 0) + OVER
    right = math.ceil(left + COLUMN * (len(drawn.columns) - 1.5) + answer)
    wide = max(right, math.ceil(PAD + width(title, 16))) + PAD
    bottom = top + drawn.lines * LINE + (len(drawn.rows) - 1) * GAP
    small = small_print(how.pen, how.footer, (*names, title), wide - 2 * PAD)
    pen = how.sheet((wide, math.ceil(bottom + 40 + 14 * len(small) + PAD - 8)), palette)
    if title:
        pen.text((PAD, PAD + 8), title, 16, palette.text)
    places = {place.key: place for place in drawn.places}
    layout = _Layout(drawn, left, top)
    for number, ((first, count, _), name) in enumerate(zip(drawn.rows, names, strict=True)):
        y = layout.y(first) - LINE / 2
        if number % 2 == 0:
            pen.rect(PAD / 2, y - GAP / 2, wide - PAD, count * LINE + GAP, palette.ink(0.035))
        pen.text((left - 12, y + count * LINE / 2), name, 12, palette.text, "end")
    for number, over in enumerate(drawn.columns):
        pen.text((layout.x(number), top - OVER / 2), over, 10.5, palette.ink(0.6), "middle")
    for wire in sorted(drawn.wires, key=lambda wire: wire.size):
        colour = _mixed(_rgb(INTO[wire.into][palette.dark]), palette.background)
        pen.curve(layout.curve(places[wire.start], places[wire.end]), colour, 1 + 5 * math.sqrt(wire.size))
    for place in drawn.places:
        if place.kind != "embedding":
            _part(pen, layout, place, palette)
    x = left
    used = {wire.into for wire in drawn.wires}
    for into, (*colours, told) in INTO.items():
        if into in used:
            pen.rect(x, bottom + 19, 18, 3, _rgb(colours[palette.dark]))
            pen.text((x + 24, bottom + 20), told, 11, palette.ink(0.7))
            x += 24 + width(told, 11) + 18
    draw_small_print(pen, PAD, bottom + 40, small, palette)
    return pen.finish(title or "A circuit", how.stamp)


class _Layout:
    """Where columns, lines and ends of edges are."""

    def __init__(self, drawn: Drawn, left: float, top: float):
        self.drawn, self.left, self.top = drawn, left, top

    def x(self, column: int) -> float:
        return self.left + (column - 0.5) * COLUMN

    def y(self, line: float) -> float:
        row = max(number for number, (first, _, _) in enumerate(self.drawn.rows) if first <= line)
        return self.top + (line + 0.5) * LINE + row * GAP

    def half(self, place: Place) -> float:
        return min(COLUMN / 2 - 4, 7 + width(place.label, 11) / 2)

    def box(self, place: Place) -> tuple[float, float]:
        """(left side, width)."""
        if place.kind == "logits":
            return self.x(place.column) - COLUMN / 2 + 4, 16 + width(place.label, 11)
        return self.x(place.column) - self.half(place), 2 * self.half(place)

    def curve(self, start: Place, end: Place) -> list[tuple[float, float]]:
        x0 = self.left - 6 if start.kind == "embedding" else sum(self.box(start))
        x1, y0, y1 = self.box(end)[0], self.y(start.line), self.y(end.line)
        bend, apart = max(14, (x1 - x0) * 0.42), end.column - start.column
        over = -min(19, 5 + 2.4 * apart) if abs(y1 - y0) < 2 and apart > 1 else 0
        return [(x0, y0), (x0 + bend, y0 + over), (x1 - bend, y1 + over), (x1, y1)]


def _part(pen, layout: _Layout, place: Place, palette: Palette) -> None:
    (x, wide), y = layout.box(place), layout.y(place.line)
    strength = 0.08 + 0.44 * math.sqrt(place.weight)
    accent = _rgb("#62b8dd" if palette.dark else "#0b6e99")
    fill = tuple(round(b + (a - b) * strength) for a, b in zip(accent, palette.background, strict=True))
    pen.pill(x, y - TALL / 2, wide, TALL, fill)
    pen.outline(x, y - TALL / 2, wide, TALL, palette.ink(0.25), 1, TALL / 2)
    pen.text((x + wide / 2, y), place.label, 11, palette.text, "middle")


def _rgb(text: str) -> RGB:
    return tuple(int(text[i : i + 2], 16) for i in (1, 3, 5))


def _mixed(colour: RGB, background: RGB) -> RGB:
    """At the strength of the page's edges."""
    return tuple(round(b + (a - b) * 0.65) for a, b in zip(colour, background, strict=True))
