"""The canvas's colours and scales (``assets/canvas/colour.js``), which a test compares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from headwise.interp.drawing.paper.text import brief

SCALES = ("linear", "log")
THEMES = ("light", "dark")
COLOURS = ("headwise", "grey", "viridis")  # of weights and scores; a difference always has two
DECADES = 5  # of a logarithmic scale
KNEE = 1e3  # of a signed one: below the thousandth part of its end it is linear

RGB = tuple[int, int, int]


def css(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{int(c):02x}" for c in colour[:3])


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


@lru_cache
def grey(theme: str) -> np.ndarray:
    """The same without colour, for those who print in black."""
    t = np.arange(256) / 255
    return oklch(0.215 + 0.745 * t if theme == "dark" else 0.985 - 0.785 * t, 0.0, 0.0)


@lru_cache
def viridis(theme: str) -> np.ndarray:
    """Matplotlib's (S. van der Walt and N. Smith 2015): bright where there is much, on every page."""
    from matplotlib import colormaps  # a third of a second, for those who ask for it

    return np.rint(np.array(colormaps["viridis"].colors) * 255).astype(np.uint8)


@lru_cache
def diverging(theme: str) -> np.ndarray:
    """The 256 colours from −1 over nothing, between the middle two, to 1 → uint8 (256, 3)."""
    t = np.linspace(-1, 1, 256)
    size = np.abs(t)
    if theme == "dark":
        return oklch(0.235 + 0.66 * size, 0.105 * size**0.8, np.where(t < 0, 75, 225))
    return oklch(0.975 - 0.6 * size, 0.105 * size**0.8, np.where(t < 0, 65, 238))


@dataclass(frozen=True)
class Palette:
    """A theme's colours; ``table`` (256, 3) is the colour scale."""

    background: RGB
    text: RGB
    alarm: RGB
    hatch: float  # how strong the ink of the forbidden hatch is
    lift: int  # from the background to a cell without a value
    table: np.ndarray
    dark: bool

    @classmethod
    def of(cls, theme: str, signed: bool = False, colours: str = COLOURS[0]) -> Palette:
        if theme not in THEMES:
            raise ValueError(f"theme expects one of {', '.join(THEMES)}; got {theme!r}.")
        plain = {"headwise": sequential, "grey": grey, "viridis": viridis}[colours]
        table = diverging(theme) if signed else plain(theme)
        if theme == "dark":
            return cls((18, 23, 29), (228, 233, 238), (255, 85, 48), 0.17, 9, table, True)
        return cls((255, 255, 255), (29, 39, 51), (224, 52, 11), 0.15, -12, table, False)

    def ink(self, alpha: float) -> RGB:
        """The text colour at ``alpha`` over the background, as a solid colour."""
        return tuple(round(alpha * t + (1 - alpha) * b) for t, b in zip(self.text, self.background, strict=True))

    def on(self, colour: Sequence[int]) -> RGB:
        """Writing that can be read on ``colour``."""
        red, green, blue = (int(c) for c in colour[:3])
        dark = (red, green, blue) == self.alarm or 0.299 * red + 0.587 * green + 0.114 * blue < 127.5
        return (240, 242, 245) if dark else (10, 14, 30)

    @property
    def empty(self) -> RGB:
        return tuple(min(255, max(0, b + self.lift)) for b in self.background)


@dataclass(frozen=True)
class Scale:
    """Values to places 0 … 1 on the colour scale.

    ``signed``: differences, whose zero stands in the middle; their logarithmic scale is linear around it.
    ``below``, ``above``: are there values beyond its ends?
    """

    low: float
    high: float
    log: bool
    below: bool = False
    above: bool = False
    signed: bool = False

    @classmethod
    def of(
        cls, values: np.ndarray, scale: str, kind: str, apart: Sequence[float] = (), top: float | None = None
    ) -> Scale:
        """The scale that spans ``values``, whose ``kind`` is a ``Quantity``'s, or that ends at ``top``; those that
        stand ``apart`` are painted too, and may lie beyond its ends."""
        if scale not in SCALES:
            raise ValueError(f"scale expects one of {', '.join(SCALES)}; got {scale!r}.")
        shown = values[np.isfinite(values)]
        low, high = (float(shown.min()), float(shown.max())) if shown.size else (0.0, 1.0)
        if top is not None:
            apart, low, high = [*apart, low, high], -top if kind == "signed" else min(low, top - 1e-9), top
        if kind == "signed":
            high = max(abs(low), abs(high)) or 1.0
            return cls(-high, high, scale == "log", min(apart, default=0) < -high, max(apart, default=0) > high, True)
        positive = kind == "weight"
        if positive:
            low, high = 0.0, high if high > 0 else 1.0
        log = positive and scale == "log"
        low, high = high * 10.0**-DECADES if log else low, high if high > low else low + 1
        apart = [value for value in apart if math.isfinite(value)]
        return cls(low, high, log, log or min(apart, default=low) < low, max(apart, default=high) > high)

    def place(self, values: np.ndarray) -> np.ndarray:
        if self.signed and self.log:
            part = np.asarray(values) / self.high
            t = 0.5 + 0.5 * np.sign(part) * np.log1p(np.abs(part) * KNEE) / math.log1p(KNEE)
        elif self.log:
            t = np.log(np.maximum(values, self.low) / self.low) / math.log(self.high / self.low)
        else:
            t = (values - self.low) / (self.high - self.low)
        return t.clip(0, 1)

    def index(self, values: np.ndarray) -> np.ndarray:
        """Rows of the colour table."""
        return (self.place(values) * 255 + 0.5).astype(np.uint8)

    def ticks(self) -> list[tuple[float, str]]:
        """(place, number) for the colour bar: decades or round numbers, and the largest value."""
        if self.signed and self.log:
            top = math.floor(math.log10(self.high) + 1e-9)
            decades = 10.0 ** np.arange(top - 2, top + 1)
            values = np.concatenate([-decades[::-1], [0.0], decades])
        elif self.log:
            first = math.ceil(math.log10(self.low) - 1e-9)
            values = 10.0 ** np.arange(first, math.floor(math.log10(self.high) + 1e-9) + 1)
        else:
            span = self.high - self.low
            size = 10.0 ** math.floor(math.log10(span / 4))
            step = next(size * m for m in (1, 2, 2.5, 5, 10) if span / (size * m) <= 5)
            values = step * np.arange(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)
        found = [(float(self.place(v)), f"{v + 0.0:.4g}") for v in values]
        if self.below:
            found = [(0.0, f"≤ {brief(self.low)}"), *(tick for tick in found if tick[0] >= 0.06)]
        elif self.signed:
            found = [(0.0, brief(self.low)), *(tick for tick in found if tick[0] > 0.06)]
        found = [tick for tick in found if tick[0] < 0.94] + [(1.0, ("≥ " if self.above else "") + brief(self.high))]
        return [(t, text.replace("e-0", "e-").replace("-", "−")) for t, text in found]
