"""What an answer rests on, one method below the other: running text with coloured tokens, a picture under its coloured
patches, bars under a spectrogram."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from headwise.interp.drawing.attributions import Block, Shown, grey
from headwise.interp.drawing.matrix import Span
from headwise.interp.drawing.paper import sound
from headwise.interp.drawing.paper.colour import Palette
from headwise.interp.drawing.paper.legend import draw_small_print, small_print
from headwise.interp.drawing.paper.pens import RATIO, Print
from headwise.interp.drawing.paper.text import HIDDEN, fit, visible, width

PAD, WIDE, HEAD, GAP = 20, 640, 24, 18  # CSS pixels: margins, the maps, a method's heading, between methods
SIZE, LINE, CHIP = 13, 26, 20  # of running text
PICTURE, FAINT = 300, 0.42  # a picture's longer side, and how strong it is over its patches
LANE = 40  # the bars under a spectrogram


def draw(sides: Sequence[Shown], blocks: Sequence[Block], title: str, how: Print) -> bytes:
    """The whole figure."""
    title = HIDDEN.sub("◌", title)
    heights = [_height(block) for block in blocks]
    each = HEAD + sum(heights) + GAP
    top = PAD + (30 if title else 0)
    wide = WIDE + 2 * PAD
    words = (title, *(text for block in blocks for text in block.texts))
    small = small_print(how.pen, how.footer, words, WIDE)
    bottom = top + each * len(sides)
    page = Palette.of(how.theme)
    pen = how.sheet((wide, math.ceil(bottom + 14 * len(small) + PAD - 8)), page)
    if title:
        pen.text((PAD, PAD + 8), fit(title, 16, WIDE), 16, page.text)
    for number, side in enumerate(sides):
        palette, y = Palette.of(how.theme, side.signed), top + each * number
        pen.text((PAD, y + 8), side.name, 13, palette.text)
        _draw_legend(pen, side, y + 8, palette)
        y += HEAD
        for block, height in zip(blocks, heights, strict=True):
            DRAWN[block.kind](pen, block, side, y, palette)
            y += height
    draw_small_print(pen, PAD, bottom + 2, small, page)
    return pen.finish(title or "What the answer rests on", how.stamp)


def _height(block: Block) -> int:
    if block.kind == "picture":
        return PICTURE + 6
    if block.kind == "sound":
        return sound.STRIP + LANE + 20
    return LINE * (1 + max((line for *_, line in _flow(block)), default=0)) + 4


def _draw_legend(pen, side: Shown, y: float, palette: Palette) -> None:
    """What the colours mean, on one line that ends at the right."""
    right, ink, bar = PAD + WIDE, palette.ink(0.65), 80
    pen.text((right, y), side.high, 11, ink, "end")
    x = right - width(side.high, 11) - 6 - bar
    pen.cells(x, y - 4, bar / 32, 8, np.dstack([palette.table[None, ::8], np.full((1, 32, 1), 255, np.uint8)]))
    pen.text((x - 6, y), side.low, 11, ink, "end")


def _flow(block: Block) -> list[tuple[str, float, float, int]]:
    """Where each token stands: (text, x, width, line)."""
    space, x, line, found = width(" ", SIZE), 0.0, 0, []
    for text, before in zip(block.texts, block.before, strict=True):
        shown = fit(visible(text), SIZE, WIDE)
        room = width(shown, SIZE)
        x += space + 2 if before and x else 0
        if x + room > WIDE:
            x, line = 0.0, line + 1
        found.append((shown, x, room, line))
        x += room + 0.5
    return found


def _text(pen, block: Block, side: Shown, top: float, palette: Palette) -> None:
    for unit, (text, x, room, line) in enumerate(_flow(block), block.first):
        shade, y = side.shades[unit], top + LINE * line
        ink = palette.ink(0.55)
        if shade is not None:
            under = palette.table[shade]
            pen.rect(PAD + x - 1, y + (LINE - CHIP) / 2, room + 2, CHIP, under)
            ink = palette.on(under)
        pen.text((PAD + x, y + LINE / 2), text, SIZE, ink)


def _picture(pen, block: Block, side: Shown, top: float, palette: Palette) -> None:
    """The patches' colours, and over them the picture in faint grey."""
    picture, (rows, columns) = block.axis.picture, block.axis.grid
    high, wide = picture.pixels.shape[:2]
    left, above, right, below = picture.box
    corner, end = (min(0, left), min(0, above)), (max(wide, right), max(high, below))
    scale = RATIO * PICTURE / max(end[0] - corner[0], end[1] - corner[1])
    size = [max(1, round((to - start) * scale)) for start, to in zip(corner, end, strict=True)]
    sheet = np.empty((size[1], size[0], 3), float)
    sheet[:] = palette.empty
    xs = np.rint((np.linspace(left, right, columns + 1) - corner[0]) * scale).astype(int)
    ys = np.rint((np.linspace(above, below, rows + 1) - corner[1]) * scale).astype(int)
    for number in range(rows * columns):
        shade, (row, column) = side.shades[block.first + number], divmod(number, columns)
        if shade is not None:
            sheet[ys[row] : ys[row + 1], xs[column] : xs[column + 1]] = palette.table[shade]
    x0, y0 = (round(-start * scale) for start in corner)
    own = max(1, round(wide * scale)), max(1, round(high * scale))
    pixels, strokes = grey(block.axis)
    how = Image.Resampling.NEAREST if scale > 4 else Image.Resampling.BILINEAR
    over = np.asarray(Image.fromarray(pixels).resize(own, how), float)
    part = sheet[y0 : y0 + own[1], x0 : x0 + own[0]]
    part += FAINT * (_blended(part, over[: part.shape[0], : part.shape[1], None], strokes, palette.dark) - part)
    pen.image(PAD, top, sheet.round().astype(np.uint8))


def _blended(under: np.ndarray, over: np.ndarray, strokes: bool, dark: bool) -> np.ndarray:
    """A grey picture over colours, 0 … 255. Strokes on a dark ground leave the colours of the ground as they are."""
    if not strokes:
        return over
    return 255 - (255 - under) * (1 - over / 255) if dark else under * (1 - over / 255)


def _sound(pen, block: Block, side: Shown, top: float, palette: Palette) -> None:
    """A bar a strip, under the part of the recording that it is."""
    heard = block.axis.sound
    count = max(1, math.ceil(heard.seconds / heard.step - 1e-6))
    span = Span(block.axis.labels[:count], "strips", sound=heard)
    timeline = sound.Timeline.of(span)
    pen.image(PAD, top, sound.strip(heard, timeline, WIDE, palette))
    cell = WIDE / timeline.place(timeline.end)
    middle = top + sound.STRIP + 4 + (LANE / 2 if side.signed else LANE)
    for number in range(count):
        shade = side.shades[block.first + number]
        if shade is None:
            continue
        part = shade / 127.5 - 1 if side.signed else shade / 255
        length = abs(part) * (LANE / 2 if side.signed else LANE)
        colour = palette.table[shade if side.signed else 200]
        pen.rect(PAD + number * cell, middle - (length if part > 0 else 0), cell * 0.86, length, colour)
    pen.lines([(PAD, middle, PAD + WIDE, middle)], palette.ink(0.2))
    at = top + sound.STRIP + LANE + 10
    pen.text((PAD, at), "0 s", 10.5, palette.ink(0.6))
    pen.text((PAD + WIDE, at), f"{heard.seconds:.2f} s", 10.5, palette.ink(0.6), "end")


DRAWN = {"text": _text, "picture": _picture, "sound": _sound}
