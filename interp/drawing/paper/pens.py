"""What a figure is drawn with: ``Svg`` keeps shapes and text, ``Png`` makes pixels. Places are in CSS pixels."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from headwise.interp.drawing.paper.colour import COLOURS, RGB, Palette, css
from headwise.interp.drawing.paper.text import MARKS, face_runs, font, width

RATIO = 2  # device pixels for each CSS pixel
FINER = 4  # round shapes are drawn so much larger first
HATCH = 6  # CSS pixels from line to line
POINT = 0.75  # points a CSS pixel is printed as
DENSE = 300  # pixels for each inch, wanted where a width is
VECTOR_CELLS = 96  # a larger matrix becomes one picture inside the SVG


def number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def crossed(*sides: float) -> str:
    return " ".join(f'{name}="{number(side)}"' for name, side in zip(("x", "y", "width", "height"), sides, strict=True))


def hatching(rows: np.ndarray, columns: np.ndarray, ratio: int = RATIO) -> np.ndarray:
    """How strong a diagonal hatch is at device pixels: 0 between its lines … 1 on them."""
    period = HATCH * ratio
    distance = np.abs((rows + columns + 1) % period - period / 2) - period / 2  # along a row, to the nearest line
    return (1 + (distance + ratio * 0.7)).clip(0, 1)


def png_bytes(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", optimize=True)
    return stream.getvalue()


class Svg:
    """Draws as vectors; text stays text."""

    FAMILY = "Aileron, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"

    def __init__(self, size: tuple[int, int], palette: Palette, point: float = POINT, ratio: int = RATIO):
        self.size, self.palette, self.parts = size, palette, []
        self.sides = [number(side) if point == POINT else f"{number(side * point)}pt" for side in size]
        self.rect(0, 0, *size, palette.background)

    def rect(self, x, y, w, h, colour: RGB) -> None:
        self.parts.append(f'<rect {crossed(x, y, w, h)} fill="{css(colour)}"/>')

    def frame(self, x, y, w, h, colour: RGB) -> None:
        self.parts.append(f'<rect {crossed(x - 0.5, y - 0.5, w + 1, h + 1)} fill="none" stroke="{css(colour)}"/>')

    def hatch(self, x, y, w, h) -> None:
        self.rect(x, y, w, h, self.palette.background)
        self.parts.append(f'<rect {crossed(x, y, w, h)} fill="url(#forbidden)"/>')

    def lines(self, segments: Sequence[tuple[float, float, float, float]], colour: RGB) -> None:
        path = "".join(f"M{number(x0)} {number(y0)}L{number(x1)} {number(y1)}" for x0, y0, x1, y1 in segments)
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="{css(colour)}" stroke-width="1" stroke-linecap="square"/>'
        )

    def cells(self, x, y, w, h, pixels: np.ndarray) -> None:
        """pixels: uint8 (rows, columns, RGBA), each w × h large; transparent ones are left out."""
        rows, columns = pixels.shape[:2]
        if max(rows, columns) > VECTOR_CELLS:
            self._embed(x, y, columns * w, rows * h, pixels, 'style="image-rendering:pixelated" ')
            return
        self.parts.append('<g shape-rendering="crispEdges">')
        for row, column in zip(*np.nonzero(pixels[..., 3]), strict=True):
            self.rect(x + column * w, y + row * h, w, h, pixels[row, column])
        self.parts.append("</g>")

    def image(self, x, y, pixels: np.ndarray) -> None:
        """pixels: uint8 (height, width, RGB), RATIO of them for each CSS pixel."""
        self._embed(x, y, pixels.shape[1] / RATIO, pixels.shape[0] / RATIO, pixels)

    def _embed(self, x, y, w, h, pixels: np.ndarray, style: str = "") -> None:
        data = base64.b64encode(png_bytes(pixels)).decode()
        self.parts.append(
            f'<image {crossed(x, y, w, h)} preserveAspectRatio="none" {style}'
            f'xlink:href="data:image/png;base64,{data}"/>'
        )

    def outline(self, x, y, w, h, colour: RGB, line: float, radius: float = 0) -> None:
        """A line of any width, its middle on the edge."""
        self.parts.append(
            f'<rect {crossed(x, y, w, h)} rx="{number(radius)}" fill="none" stroke="{css(colour)}" '
            f'stroke-width="{number(line)}"/>'
        )

    def pill(self, x, y, w, h, colour: RGB) -> None:
        """A filled shape with round ends."""
        self.parts.append(f'<rect {crossed(x, y, w, h)} rx="{number(h / 2)}" fill="{css(colour)}"/>')

    def curve(self, points: Sequence[tuple[float, float]], colour: RGB, line: float) -> None:
        """A Bézier curve from the first of four points to the last."""
        (x0, y0), *rest = points
        path = f"M{number(x0)} {number(y0)}C" + " ".join(f"{number(x)} {number(y)}" for x, y in rest)
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="{css(colour)}" stroke-width="{number(line)}" '
            'stroke-linecap="round"/>'
        )

    def text(self, at, text: str, size: float, colour: RGB, anchor="start", angle=0, faint: RGB | None = None) -> None:
        """From ``at`` (x, y), vertically centred on y; turned ``angle`` degrees counter-clockwise about it."""
        x, y = at
        content = html.escape(text)
        if faint:
            content = MARKS.sub(rf'<tspan fill="{css(faint)}">\1</tspan>', content)
        place = f'x="{number(x)}" y="{number(y + 0.35 * size)}"'
        if angle:
            place = f'y="{number(0.35 * size)}" transform="translate({number(x)} {number(y)}) rotate({-angle})"'
        self.parts.append(
            f'<text {place} font-size="{size}" fill="{css(colour)}" text-anchor="{anchor}">{content}</text>'
        )

    def finish(self, title: str, stamp: dict) -> bytes:
        w, h = self.size
        wide, high = self.sides
        ink = css(self.palette.ink(self.palette.hatch))
        return "\n".join(
            [
                '<?xml version="1.0" encoding="UTF-8"?>',
                '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'role="img" width="{wide}" height="{high}" viewBox="0 0 {w} {h}" font-family="{self.FAMILY}">',
                f"<title>{html.escape(title)}</title>",
                f"<metadata>{html.escape(json.dumps(stamp))}</metadata>",
                '<defs><pattern id="forbidden" width="6" height="6" patternUnits="userSpaceOnUse">'
                f'<path d="M-1 1L1 -1M0 6L6 0M5 7L7 5" stroke="{ink}"/></pattern></defs>',
                *self.parts,
                "</svg>",
            ]
        ).encode()


class Png:
    """Draws pixels, ``ratio`` for each CSS pixel."""

    def __init__(self, size: tuple[int, int], palette: Palette, point: float = POINT, ratio: int = RATIO):
        self.palette, self.point, self.ratio = palette, point, ratio
        self.sheet = Image.new("RGB", tuple(round(s * ratio) for s in size), palette.background)
        self.pen = ImageDraw.Draw(self.sheet)

    def rect(self, x, y, w, h, colour: RGB) -> None:
        x0, y0, x1, y1 = (round(side * self.ratio) for side in (x, y, x + w, y + h))
        if x1 > x0 and y1 > y0:
            self.pen.rectangle((x0, y0, x1 - 1, y1 - 1), fill=tuple(int(c) for c in colour[:3]))

    def frame(self, x, y, w, h, colour: RGB) -> None:
        self.lines(
            [(x - 0.5, a, x + w + 0.5, a) for a in (y - 0.5, y + h + 0.5)]
            + [(a, y - 0.5, a, y + h + 0.5) for a in (x - 0.5, x + w + 0.5)],
            colour,
        )

    def hatch(self, x, y, w, h) -> None:
        x0, y0, x1, y1 = (round(side * self.ratio) for side in (x, y, x + w, y + h))
        strength = hatching(*np.mgrid[y0:y1, x0:x1], self.ratio)[..., None]
        back, ink = (np.array(c, float) for c in (self.palette.background, self.palette.ink(self.palette.hatch)))
        self.sheet.paste(Image.fromarray((back + strength * (ink - back)).round().astype(np.uint8)), (x0, y0))

    def lines(self, segments: Sequence[tuple[float, float, float, float]], colour: RGB) -> None:
        for x0, y0, x1, y1 in segments:  # horizontal or vertical, one CSS pixel thick
            self.rect(x0 - 0.5, y0 - 0.5, x1 - x0 + 1, y1 - y0 + 1, colour)

    def cells(self, x, y, w, h, pixels: np.ndarray) -> None:
        rows, columns = pixels.shape[:2]
        cells = Image.fromarray(pixels).resize(
            (round(columns * w * self.ratio), round(rows * h * self.ratio)), Image.Resampling.NEAREST
        )
        self.sheet.paste(cells, (round(x * self.ratio), round(y * self.ratio)), cells)

    def image(self, x, y, pixels: np.ndarray) -> None:
        image = Image.fromarray(pixels)
        if self.ratio != RATIO:
            image = image.resize([round(side * self.ratio / RATIO) for side in image.size], Image.Resampling.LANCZOS)
        self.sheet.paste(image, (round(x * self.ratio), round(y * self.ratio)))

    def outline(self, x, y, w, h, colour: RGB, line: float, radius: float = 0) -> None:
        def draw(pen: ImageDraw.ImageDraw, left, top, right, bottom, unit) -> None:
            for grow, ink in ((line / 2 * unit, 255), (-line / 2 * unit, 0)):
                sides = (left - grow, top - grow, right + grow - 1, bottom + grow - 1)
                pen.rounded_rectangle(sides, max(0, radius * unit + grow) if radius else 0, fill=ink)

        self._smooth(x, y, w, h, line, colour, draw)

    def pill(self, x, y, w, h, colour: RGB) -> None:
        def draw(pen: ImageDraw.ImageDraw, left, top, right, bottom, unit) -> None:
            pen.rounded_rectangle((left, top, right - 1, bottom - 1), h / 2 * unit, fill=255)

        self._smooth(x, y, w, h, 0, colour, draw)

    def curve(self, points: Sequence[tuple[float, float]], colour: RGB, line: float) -> None:
        steps = np.linspace(0, 1, 48)[:, None]
        weights = np.hstack([(1 - steps) ** 3, 3 * steps * (1 - steps) ** 2, 3 * steps**2 * (1 - steps), steps**3])
        way = weights @ np.array(points, float)  # (48, 2)
        low, high = way.min(0), way.max(0)

        def draw(pen: ImageDraw.ImageDraw, left, top, right, bottom, unit) -> None:
            along = [(left + (x - low[0]) * unit, top + (y - low[1]) * unit) for x, y in way]
            pen.line(along, fill=255, width=max(1, round(line * unit)), joint="curve")

        self._smooth(*low, *(high - low), line, colour, draw)

    def _smooth(self, x, y, w, h, line, colour: RGB, draw) -> None:
        """Paste a shape that was drawn larger, so that its round parts are smooth."""
        left, top = math.floor((x - line) * self.ratio), math.floor((y - line) * self.ratio)
        right, bottom = math.ceil((x + w + line) * self.ratio), math.ceil((y + h + line) * self.ratio)
        mask = Image.new("L", ((right - left) * FINER, (bottom - top) * FINER))
        corners = [(s * self.ratio - o) * FINER for s, o in ((x, left), (y, top), (x + w, left), (y + h, top))]
        draw(ImageDraw.Draw(mask), *corners, self.ratio * FINER)
        self.sheet.paste(tuple(map(int, colour)), (left, top), mask.reduce(FINER))

    def text(self, at, text: str, size: float, colour: RGB, anchor="start", angle=0, faint: RGB | None = None) -> None:
        x, y, size = at[0] * self.ratio, at[1] * self.ratio, size * self.ratio
        length = width(text, size)
        begin = {"start": 0, "middle": -length / 2, "end": -length}[anchor]
        if not angle:
            self._write(self.pen, x + begin, y + 0.35 * size, text, size, colour, faint or colour)
            return
        # Written on a sheet of its own, around its middle, which is then turned.
        half = math.ceil(length + size)
        for part_ink, rest in ((colour, 0), (faint, 255)) if faint else ((colour, 255),):
            sheet = Image.new("L", (2 * half, 2 * half))
            first, second = (255, rest) if part_ink is colour else (0, 255)
            self._write(ImageDraw.Draw(sheet), half + begin, half + 0.35 * size, text, size, first, second)
            sheet = sheet.rotate(angle, Image.Resampling.BICUBIC)
            self.sheet.paste(part_ink, (round(x) - half, round(y) - half), sheet)

    def _write(self, pen, x, baseline, text, size, colour, faint) -> None:
        for face, part in face_runs(text):
            letters = font(face, size)
            for run in filter(None, MARKS.split(part)):
                pen.text((x, baseline), run, faint if MARKS.match(run) else colour, letters, anchor="ls")
                x += letters.getlength(run)

    def finish(self, title: str, stamp: dict) -> bytes:
        info = PngInfo()
        info.add_itxt("Title", title)
        info.add_text("Software", "Headwise")
        info.add_text("headwise", json.dumps(stamp))
        stream = io.BytesIO()
        self.sheet.save(stream, "PNG", pnginfo=info, dpi=(72 / self.point * self.ratio,) * 2)
        return stream.getvalue()


@dataclass(frozen=True)
class Paper:
    """What a paper asks of its figures: ``width`` in centimetres over all (None: as wide as it comes), ``font`` the
    size of its labels in points, ``colours`` one of ``COLOURS`` and ``top`` the value at the end of the colour scale,
    so that several figures can be compared (None: the largest). Raises ValueError for what no figure can have."""

    width: float | None = None
    font: float = 12 * POINT
    colours: str = COLOURS[0]
    top: float | None = None

    def __post_init__(self):
        for name, value, low, high in (("width", self.width, 2, 120), ("font", self.font, 3, 40)):
            if value is not None and not low <= value <= high:
                unit = "centimetres" if name == "width" else "points"
                raise ValueError(f"{name} expects {low} … {high} {unit}; got {value:g}.")
        if self.colours not in COLOURS:
            raise ValueError(f"colours expects one of {', '.join(COLOURS)}; got {self.colours!r}.")
        if self.top is not None and not 0 < self.top < math.inf:
            raise ValueError(f"top expects a number above 0, the value at the end of the scale; got {self.top:g}.")


@dataclass(frozen=True)
class Print:
    """How a figure is put on paper. ``stamp`` goes into the file, ``footer`` are the parts of the small print."""

    pen: type
    scale: str = "linear"
    theme: str = "light"
    stamp: Mapping[str, Any] = field(default_factory=dict)
    footer: Sequence[str] = ()
    paper: Paper = field(default_factory=Paper)

    @property
    def point(self) -> float:
        """Points a CSS pixel is printed as: labels are written in 12 pixels."""
        return self.paper.font / 12

    @property
    def across(self) -> int | None:
        """CSS pixels that the figure is wide, where that is asked for."""
        return None if self.paper.width is None else round(self.paper.width / 2.54 * 72 / self.point)

    def sheet(self, size: tuple[int, int], palette: Palette):
        """A pen, with ``size`` CSS pixels to draw on. A figure that was not laid out for the width asked for is scaled
        to it, letters and all."""
        if self.paper.width is None:
            return self.pen(size, palette, self.point, RATIO)
        point = self.paper.width / 2.54 * 72 / size[0]
        return self.pen(size, palette, point, max(RATIO, math.ceil(DENSE * point / 72)))
