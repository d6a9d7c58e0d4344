"""One head as a figure for print: a heat map with labels, colour bar, mask border and stamp, as SVG or PNG.

``draw`` lays the figure out once, in CSS pixels; a pen (``Svg`` or ``Png``) puts it on paper. Colours, scale
and what counts as forbidden or leaked are those of the browser canvas (``assets/canvas``); a test compares
the colours.
"""

from __future__ import annotations

import base64
import bisect
import html
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from interp.view import FORBIDDEN, LEAK, LEAKED, HeadView

SCALES = ("linear", "log")
THEMES = ("light", "dark")
NAMES = {"weights": "weight", "scores": "score", "value_weighted": "‖weight · value‖"}
DECADES = 5  # of a logarithmic scale
VECTOR_CELLS = 96  # a larger matrix becomes one picture inside the SVG

PAD, LINE, SLANT = 20, 14, 50  # CSS pixels; degrees of key labels
LARGEST_CELL, PLOT = 34, 640  # a cell's side and the matrix's longer side, at most
STEPS = (1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 50, 64, 100, 128, 200, 256, 512)
MOST_LINES = 20_000  # a speckled mask has no outline to draw

RGB = tuple[int, int, int]


# -- colour --------------------------------------------------------------------------------------------------
def oklch(lightness, chroma, hue) -> np.ndarray:
    """OKLCH, hue in degrees → uint8 (…, 3) sRGB (B. Ottosson, "A perceptual color space …", 2020)."""
    a, b = chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.707614701 * short,
        ],
        -1,
    ).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.floor(255 * encoded + 0.5).astype(np.uint8)


@lru_cache
def sequential(theme: str) -> np.ndarray:
    """The 256 colours from nothing to the largest value → uint8 (256, 3)."""
    t = np.arange(256) / 255
    arc = np.sin(np.pi * t)
    if theme == "dark":
        return oklch(0.215 + 0.745 * t, 0.03 + 0.02 * t + 0.09 * arc, 285 - 125 * t)
    return oklch(0.985 - 0.69 * t, 0.006 + 0.1 * t + 0.055 * arc, 200 + 70 * t)


@dataclass(frozen=True)
class Palette:
    """A theme's colours; ``table`` (256, 3) is the colour scale."""

    background: RGB
    text: RGB
    alarm: RGB
    hatch: float  # how strong the ink of the forbidden hatch is
    lift: int  # from the background to a cell without a value
    table: np.ndarray

    @classmethod
    def of(cls, theme: str) -> Palette:
        if theme not in THEMES:
            raise ValueError(f"theme expects one of {', '.join(THEMES)}; got {theme!r}.")
        if theme == "dark":
            return cls((18, 23, 29), (228, 233, 238), (255, 85, 48), 0.17, 9, sequential(theme))
        return cls((255, 255, 255), (29, 39, 51), (224, 52, 11), 0.15, -12, sequential(theme))

    def ink(self, alpha: float) -> RGB:
        """The text colour at ``alpha`` over the background, as a solid colour."""
        return tuple(round(alpha * t + (1 - alpha) * b) for t, b in zip(self.text, self.background, strict=True))

    @property
    def empty(self) -> RGB:
        return tuple(min(255, max(0, b + self.lift)) for b in self.background)


@dataclass(frozen=True)
class Scale:
    """Values to places 0 … 1 on the colour scale. ``positive``: weights, which start at zero and can leak."""

    low: float
    high: float
    log: bool
    positive: bool

    @classmethod
    def of(cls, view: HeadView, scale: str, quantity: str) -> Scale:
        if scale not in SCALES:
            raise ValueError(f"scale expects one of {', '.join(SCALES)}; got {scale!r}.")
        if quantity not in NAMES:
            raise ValueError(f"quantity expects one of {', '.join(NAMES)}; got {quantity!r}.")
        matrix, forbidden = arrays(view)
        shown = matrix[np.isfinite(matrix) & ~forbidden]
        low, high = (float(shown.min()), float(shown.max())) if shown.size else (0.0, 1.0)
        positive = quantity != "scores"
        if positive:
            low, high = 0.0, high if high > 0 else 1.0
        log = positive and scale == "log"
        return cls(high * 10.0**-DECADES if log else low, high if high > low else low + 1, log, positive)

    def place(self, values: np.ndarray) -> np.ndarray:
        if self.log:
            t = np.log(np.maximum(values, self.low) / self.low) / math.log(self.high / self.low)
        else:
            t = (values - self.low) / (self.high - self.low)
        return t.clip(0, 1)

    def index(self, values: np.ndarray) -> np.ndarray:
        """Rows of the colour table."""
        return (self.place(values) * 255 + 0.5).astype(np.uint8)

    def ticks(self) -> list[tuple[float, str]]:
        """(place, number) for the colour bar: decades or round numbers, and the largest value."""
        if self.log:
            first = math.ceil(math.log10(self.low) - 1e-9)
            values = 10.0 ** np.arange(first, math.floor(math.log10(self.high) + 1e-9) + 1)
        else:
            span = self.high - self.low
            size = 10.0 ** math.floor(math.log10(span / 4))
            step = next(size * m for m in (1, 2, 2.5, 5, 10) if span / (size * m) <= 5)
            values = step * np.arange(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)
        found = [(float(self.place(v)), f"{v + 0.0:.4g}") for v in values]
        if self.log and found[0][0] < 0.06:
            found[0] = (0.0, "≤ " + found[0][1])
        elif self.log:
            found.insert(0, (0.0, "≤ " + brief(self.low)))
        found = [tick for tick in found if tick[0] < 0.94] + [(1.0, brief(self.high))]
        return [(t, text.replace("e-0", "e-").replace("-", "−")) for t, text in found]


def arrays(view: HeadView) -> tuple[np.ndarray, np.ndarray]:
    """The values, float64 (R, K), and where the mask forbids, bool."""
    return view.matrix.detach().cpu().double().numpy(), view.forbidden.cpu().numpy() == FORBIDDEN


# -- text ----------------------------------------------------------------------------------------------------
HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufffe\uffff]")
MARKS = re.compile(r"([·⏎⇥◌]+)")


def visible(token: str) -> str:
    """A token with its whitespace made visible; those that would reorder, hide or break text become ◌."""
    marked = token[:200].replace(" ", "·").replace("\r\n", "⏎").replace("\n", "⏎").replace("\r", "⏎").replace("\t", "⇥")
    return HIDDEN.sub("◌", marked)


def brief(value: float) -> str:
    """A value for a crowded place: 2 significant digits, no trailing zeros."""
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-3 or size >= 1e5:
        digits, exponent = f"{value:.0e}".split("e")
        return f"{digits}e{int(exponent)}"
    return f"{value:.3g}" if size >= 100 else f"{value:.2g}"


FACES = (  # Pillow looks for these in the system's font folders; the first that has a text's letters draws it
    "LiberationSans-Regular.ttf", "Arial.ttf", "NotoSans-Regular.ttf", "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "PingFang.ttc", "msyh.ttc", "msgothic.ttc", "malgun.ttf",
    "AppleSDGothicNeo.ttc", "NotoSansArabic-Regular.ttf", "NotoSansHebrew-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf", "NotoSansThai-Regular.ttf", "seguisym.ttf", "Symbola.ttf",
    "NotoEmoji-Regular.ttf", "Arial Unicode.ttf",
)  # fmt: skip


@lru_cache(maxsize=128)
def font(face: str | None, size: float):
    """A face at a size, Pillow's own (ASCII) for None; None when this machine does not have it."""
    if face is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(face, size)
    except OSError:
        return None


@lru_cache
def faces() -> tuple[str | None, ...]:
    found = [face for face in FACES if font(face, 16)]
    bundled = find_spec("matplotlib")  # brings DejaVu Sans to machines without fonts, such as a bare container
    if "DejaVuSans.ttf" not in found and bundled is not None and bundled.origin:
        path = Path(bundled.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        found += [str(path)] if path.exists() else []
    return (None, *found)


@lru_cache(maxsize=4096)
def has(face: str | None, letter: str) -> bool:
    if letter.isspace():
        return True
    drawn = font(face, 16)
    missing = drawn.getmask("\U000ffffd")
    mask = drawn.getmask(letter)
    return (mask.size, bytes(mask)) != (missing.size, bytes(missing))


def face_runs(text: str) -> list[tuple[str | None, str]]:
    """Split into (face, part): one face for all of it where one has every letter."""
    for face in faces():
        if all(has(face, letter) for letter in text):
            return [(face, text)]
    runs: list[tuple[str | None, str]] = []
    for letter in text:
        face = next((f for f in faces() if has(f, letter)), None)
        if runs and runs[-1][0] == face:
            runs[-1] = (face, runs[-1][1] + letter)
        else:
            runs.append((face, letter))
    return runs


def undrawable(text: str) -> bool:
    """Is there a letter that no font of this machine has?"""
    return any(not any(has(face, letter) for face in faces()) for letter in set(text))


def width(text: str, size: float) -> float:
    """Measured large and scaled down: hinting makes small letters narrower than they will be printed."""
    return sum(font(face, 64).getlength(part) for face, part in face_runs(text)) * size / 64


def fit(text: str, size: float, room: float) -> str:
    """The longest start of ``text`` that fits, with an ellipsis if cut."""
    if width(text, size) <= room:
        return text
    cut = bisect.bisect(range(1, len(text)), room, key=lambda length: width(text[:length] + "…", size))
    return text[:cut] + "…"


def wrapped(parts: Sequence[str], size: float, room: float) -> list[str]:
    """Words put into lines of at most ``room``; parts are joined by " · "."""
    lines: list[str] = []
    for word in " · ".join(parts).split(" "):
        if lines and width(f"{lines[-1]} {word}", size) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(fit(word, size, room))
    return lines


# -- pens ----------------------------------------------------------------------------------------------------
def css(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{int(c):02x}" for c in colour[:3])


def number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def crossed(*sides: float) -> str:
    return " ".join(f'{name}="{number(side)}"' for name, side in zip(("x", "y", "width", "height"), sides, strict=True))


class Svg:
    """Draws as vectors; text stays text."""

    FAMILY = "Aileron, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"

    def __init__(self, size: tuple[int, int], palette: Palette):
        self.size, self.palette, self.parts = size, palette, []
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
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG", optimize=True)
            data = base64.b64encode(stream.getvalue()).decode()
            self.parts.append(
                f'<image {crossed(x, y, columns * w, rows * h)} preserveAspectRatio="none" '
                f'style="image-rendering:pixelated" xlink:href="data:image/png;base64,{data}"/>'
            )
            return
        self.parts.append('<g shape-rendering="crispEdges">')
        for row, column in zip(*np.nonzero(pixels[..., 3]), strict=True):
            self.rect(x + column * w, y + row * h, w, h, pixels[row, column])
        self.parts.append("</g>")

    def text(
        self, x, y, text: str, size: float, colour: RGB, anchor="start", angle=0, faint: RGB | None = None
    ) -> None:
        """Vertically centred on y; turned ``angle`` degrees counter-clockwise about (x, y)."""
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
        ink = css(self.palette.ink(self.palette.hatch))
        return "\n".join(
            [
                '<?xml version="1.0" encoding="UTF-8"?>',
                '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'role="img" width="{w}" height="{h}" viewBox="0 0 {w} {h}" font-family="{self.FAMILY}">',
                f"<title>{html.escape(title)}</title>",
                f"<metadata>{html.escape(json.dumps(stamp))}</metadata>",
                '<defs><pattern id="forbidden" width="6" height="6" patternUnits="userSpaceOnUse">'
                f'<path d="M-1 1L1 -1M0 6L6 0M5 7L7 5" stroke="{ink}"/></pattern></defs>',
                *self.parts,
                "</svg>",
            ]
        ).encode()


class Png:
    """Draws pixels, two for each CSS pixel."""

    RATIO = 2

    def __init__(self, size: tuple[int, int], palette: Palette):
        self.palette = palette
        self.image = Image.new("RGB", tuple(round(s * self.RATIO) for s in size), palette.background)
        self.pen = ImageDraw.Draw(self.image)

    def rect(self, x, y, w, h, colour: RGB) -> None:
        x0, y0, x1, y1 = (round(side * self.RATIO) for side in (x, y, x + w, y + h))
        if x1 > x0 and y1 > y0:
            self.pen.rectangle((x0, y0, x1 - 1, y1 - 1), fill=tuple(int(c) for c in colour[:3]))

    def frame(self, x, y, w, h, colour: RGB) -> None:
        self.lines(
            [(x - 0.5, a, x + w + 0.5, a) for a in (y - 0.5, y + h + 0.5)]
            + [(a, y - 0.5, a, y + h + 0.5) for a in (x - 0.5, x + w + 0.5)],
            colour,
        )

    def hatch(self, x, y, w, h) -> None:
        x0, y0, x1, y1 = (round(side * self.RATIO) for side in (x, y, x + w, y + h))
        row, column = np.mgrid[y0:y1, x0:x1]
        period = 6 * self.RATIO
        distance = np.abs((row + column + 1) % period - period / 2) - period / 2  # along a row, to the nearest line
        strength = (1 + (distance + self.RATIO * 0.7)).clip(0, 1)[..., None]
        back, ink = (np.array(c, float) for c in (self.palette.background, self.palette.ink(self.palette.hatch)))
        self.image.paste(Image.fromarray((back + strength * (ink - back)).round().astype(np.uint8)), (x0, y0))

    def lines(self, segments: Sequence[tuple[float, float, float, float]], colour: RGB) -> None:
        for x0, y0, x1, y1 in segments:  # horizontal or vertical, one CSS pixel thick
            self.rect(x0 - 0.5, y0 - 0.5, x1 - x0 + 1, y1 - y0 + 1, colour)

    def cells(self, x, y, w, h, pixels: np.ndarray) -> None:
        rows, columns = pixels.shape[:2]
        cells = Image.fromarray(pixels).resize(
            (round(columns * w * self.RATIO), round(rows * h * self.RATIO)), Image.Resampling.NEAREST
        )
        self.image.paste(cells, (round(x * self.RATIO), round(y * self.RATIO)), cells)

    def text(
        self, x, y, text: str, size: float, colour: RGB, anchor="start", angle=0, faint: RGB | None = None
    ) -> None:
        x, y, size = x * self.RATIO, y * self.RATIO, size * self.RATIO
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
            self.image.paste(part_ink, (round(x) - half, round(y) - half), sheet)

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
        self.image.save(stream, "PNG", pnginfo=info, dpi=(96 * self.RATIO, 96 * self.RATIO))
        return stream.getvalue()


# -- layout --------------------------------------------------------------------------------------------------
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
    def of(cls, view: HeadView, title: str) -> Layout:
        rows, columns = view.matrix.shape
        w, h = min(LARGEST_CELL, PLOT / columns), min(LARGEST_CELL, PLOT / rows)
        if rows < 3 * columns and columns < 3 * rows:  # a diagonal should look like one
            w = h = min(w, h)
        else:
            w, h = min(w, 3 * h), min(h, 3 * w)
        w, h = (max(0.5, math.floor(2 * side) / 2) for side in (w, h))  # whole pixels of the PNG: equal, crisp cells
        row_room = max(width(text, 12) for _, text in ticks(view, 0, h))
        column_room = min(110, max(width(text, 12) for _, text in ticks(view, 1, w)))
        row_room = min(150, row_room)
        left = math.ceil(PAD + max(44, row_room) + 10)
        slanted = column_room * math.sin(math.radians(SLANT)) + 16
        return cls(
            left,
            math.ceil(PAD + (28 if title else 0) + max(slanted, 34)),
            w,
            h,
            rows,
            columns,
            row_room,
            column_room,
        )

    def x(self, column: float) -> float:
        return self.left + column * self.w

    def y(self, row: float) -> float:
        return self.top + row * self.h


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
    title: str,
    scale: str,
    theme: str,
    quantity: str,
    stamp: dict,
    footer: Sequence[str],
) -> bytes:
    """The whole figure. ``footer`` are the parts of the small print."""
    palette, colours = Palette.of(theme), Scale.of(view, scale, quantity)
    matrix, forbidden = arrays(view)
    leaks = forbidden & (matrix > LEAK) | (view.forbidden.cpu().numpy() == LEAKED)
    leaks &= colours.positive  # a score is no weight, wherever it stands
    title = HIDDEN.sub("◌", title)
    place = Layout.of(view, title)
    right, bottom = place.x(place.columns), place.y(place.rows)
    bar_left, bar_height = right + 22, max(100, min(260, bottom - place.top))
    numbers = colours.ticks()
    number_room = max(width(text, 11) for _, text in numbers)
    overhang = place.column_room * math.cos(math.radians(SLANT))
    wide = math.ceil(max(bar_left + 12 + 8 + number_room + 26, right + overhang, PAD + width(title, 16), 420) + PAD)
    footer = list(footer)
    if pen_type is Png and undrawable("".join(map(visible, view.queries + view.keys)) + title + "".join(footer)):
        footer.append("letters that no font here has are drawn as boxes; the SVG keeps them")
    small = wrapped([HIDDEN.sub("◌", part) for part in footer], 10.5, wide - 2 * PAD)
    legend_at = max(bottom, place.top + bar_height) + 22
    small_at = legend_at + (24 if forbidden.any() or leaks.any() else 0)
    tall = math.ceil(small_at + 14 * len(small) + PAD - 8)

    pen = pen_type((wide, tall), palette)
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
    _draw_numbers(pen, place, matrix, forbidden & ~leaks, leaks, palette, colours)
    _draw_labels(pen, place, view, palette)
    if leaks.any() and place.w <= 6:  # tiny cells: ticks beside their rows and columns keep them findable
        for row in np.nonzero(leaks.any(1))[0]:
            pen.rect(place.left - 6, place.y(row), 5, max(1.5, place.h), palette.alarm)
        for column in np.nonzero(leaks.any(0))[0]:
            pen.rect(place.x(column), place.top - 6, max(1.5, place.w), 5, palette.alarm)

    step = bar_height / 256
    bar = np.dstack([palette.table[::-1, None], np.full((256, 1, 1), 255, np.uint8)])
    if pen_type is Svg:
        for i in range(256):  # each a little taller than its step, so that no seam shows
            pen.rect(bar_left, place.top + i * step, 12, min(2 * step, bar_height - i * step), bar[i, 0])
    else:
        pen.cells(bar_left, place.top, 12, step, bar)
    pen.frame(bar_left, place.top, 12, bar_height, palette.ink(0.3))
    for t, text in numbers:
        y = place.top + (1 - t) * bar_height
        pen.lines([(bar_left + 13, y, bar_left + 16, y)], palette.ink(0.5))
        pen.text(bar_left + 21, y, text, 11, palette.ink(0.75))
    name = NAMES[quantity] + (", log" if colours.log else "")
    pen.text(
        bar_left + 21 + number_room + 14,
        place.top + bar_height / 2,
        name,
        12,
        palette.ink(0.75),
        "middle",
        90,
    )

    _draw_legend(pen, place.left, legend_at, forbidden, leaks, palette)
    for i, line in enumerate(small):
        pen.text(PAD, small_at + 4 + 14 * i, line, 10.5, palette.ink(0.55))
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


def _draw_numbers(pen, place: Layout, matrix, hidden, leaks, palette: Palette, colours: Scale) -> None:
    """In a small matrix there is room for the numbers themselves."""
    if place.w < 28 or place.h < 16:
        return
    luma = palette.table @ np.array([0.299, 0.587, 0.114]) / 255
    for row, column in zip(*np.nonzero(np.isfinite(matrix) & ~hidden & (np.abs(matrix) >= 0.005)), strict=True):
        value = matrix[row, column]
        text = re.sub(r"^(-?)0\.", r"\1.", f"{value:.2f}") if abs(value) < 10 else brief(value)
        pale = leaks[row, column] or luma[colours.index(value)] < 0.5
        pen.text(
            place.x(column + 0.5),
            place.y(row + 0.5),
            text,
            10,
            (240, 242, 245) if pale else (10, 14, 30),
            "middle",
        )


def _draw_labels(pen, place: Layout, view: HeadView, palette: Palette) -> None:
    ink, faint = palette.ink(0.8), palette.ink(0.4)
    for row, text in ticks(view, 0, place.h):
        pen.text(place.left - 8, place.y(row + 0.5), fit(text, 12, place.row_room), 12, ink, "end", faint=faint)
    for column, text in ticks(view, 1, place.w):
        x, y = place.x(column + 0.5) + 1, place.top - 9
        pen.text(x, y, fit(text, 12, place.column_room), 12, ink, "start", SLANT, faint)
    pen.text(place.left - 8, place.top - 27, "keys →", 11, palette.ink(0.55), "end")
    pen.text(place.left - 8, place.top - 12, "queries ↓", 11, palette.ink(0.55), "end")


def _draw_legend(pen, x: float, y: float, forbidden: np.ndarray, leaks: np.ndarray, palette: Palette) -> None:
    if leaks.any():
        text = f"weight on forbidden positions ({int(leaks.sum()):,})"
        pen.rect(x, y - 6, 12, 12, palette.alarm)
        pen.text(x + 18, y, text, 11.5, palette.ink(0.9))
        x += 18 + width(text, 11.5) * 1.06 + 22
    if not forbidden.any():
        return
    pen.hatch(x, y - 6, 12, 12)
    pen.frame(x, y - 6, 12, 12, palette.ink(0.35))
    pen.text(x + 18, y, "forbidden by the mask", 11.5, palette.ink(0.75))
