"""The third pen: a PDF page of vectors, whose text stays text in fonts that travel with it. Matplotlib writes it."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np

from headwise.interp.drawing.paper.colour import RGB, Palette, css
from headwise.interp.drawing.paper.pens import HATCH, POINT, RATIO, VECTOR_CELLS
from headwise.interp.drawing.paper.text import MARKS, face_runs, font

WRITER = {"pdf.fonttype": 42, "path.simplify": False}  # TrueType: what journals take, and what can be edited


class Pdf:
    """Draws on a page of ``point`` points for each CSS pixel, y downwards."""

    def __init__(self, size: tuple[int, int], palette: Palette, point: float = POINT, ratio: int = RATIO):
        from matplotlib.figure import Figure  # a third of a second, for those who ask for a PDF

        self.size, self.palette, self.point = size, palette, point
        self.page = Figure(figsize=[side * point / 72 for side in size], facecolor=css(palette.background))
        self.axes = self.page.add_axes((0, 0, 1, 1), xlim=(0, size[0]), ylim=(size[1], 0))
        self.axes.set_axis_off()
        self.order = 0

    def rect(self, x, y, w, h, colour: RGB) -> None:
        from matplotlib.patches import Rectangle

        self._add(Rectangle((x, y), w, h, facecolor=css(colour), linewidth=0, antialiased=False))

    def frame(self, x, y, w, h, colour: RGB) -> None:
        self.outline(x - 0.5, y - 0.5, w + 1, h + 1, colour, 1)

    def hatch(self, x, y, w, h) -> None:
        self.rect(x, y, w, h, self.palette.background)
        sums = HATCH * np.arange(math.ceil((x + y) / HATCH), math.floor((x + w + y + h) / HATCH) + 1)
        left, right = np.maximum(x, sums - y - h), np.minimum(x + w, sums - y)  # where x + y is a multiple
        lines = np.stack([np.stack([left, sums - left], 1), np.stack([right, sums - right], 1)], 1)
        self._stroke(lines[right > left], self.palette.ink(self.palette.hatch), "butt")

    def lines(self, segments: Sequence[tuple[float, float, float, float]], colour: RGB) -> None:
        self._stroke(np.reshape(np.array(segments, float), (-1, 2, 2)), colour, "projecting")

    def cells(self, x, y, w, h, pixels: np.ndarray) -> None:
        """pixels: uint8 (rows, columns, RGBA), each w × h large; transparent ones are left out."""
        from matplotlib.collections import PolyCollection

        rows, columns = pixels.shape[:2]
        if max(rows, columns) > VECTOR_CELLS:
            self._embed(x, y, columns * w, rows * h, pixels)
            return
        row, column = np.nonzero(pixels[..., 3])
        corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], float) * (w, h)
        at = np.stack([x + column * w, y + row * h], 1)[:, None] + corners  # (cells, 4, 2)
        self._add(PolyCollection(at, facecolors=pixels[row, column] / 255, linewidths=0, antialiaseds=False))

    def image(self, x, y, pixels: np.ndarray) -> None:
        """pixels: uint8 (height, width, RGB), RATIO of them for each CSS pixel."""
        self._embed(x, y, pixels.shape[1] / RATIO, pixels.shape[0] / RATIO, pixels)

    def _embed(self, x, y, w, h, pixels: np.ndarray) -> None:
        self.order += 1
        self.axes.imshow(
            pixels, extent=(x, x + w, y + h, y), interpolation="none", aspect="auto", zorder=self.order, resample=False
        )
        self.axes.set(xlim=(0, self.size[0]), ylim=(self.size[1], 0))

    def outline(self, x, y, w, h, colour: RGB, line: float, radius: float = 0) -> None:
        self._box(x, y, w, h, radius, facecolor="none", edgecolor=css(colour), linewidth=line * self.point)

    def pill(self, x, y, w, h, colour: RGB) -> None:
        self._box(x, y, w, h, h / 2, facecolor=css(colour), linewidth=0)

    def _box(self, x, y, w, h, radius: float, **look) -> None:
        from matplotlib.patches import FancyBboxPatch

        shape = f"round,pad=0,rounding_size={radius}" if radius else "square,pad=0"
        self._add(FancyBboxPatch((x, y), w, h, boxstyle=shape, **look))

    def curve(self, points: Sequence[tuple[float, float]], colour: RGB, line: float) -> None:
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path as Way

        way = Way(points, [Way.MOVETO, Way.CURVE4, Way.CURVE4, Way.CURVE4])
        look = {"edgecolor": css(colour), "linewidth": line * self.point, "capstyle": "round"}
        self._add(PathPatch(way, facecolor="none", **look))

    def text(self, at, text: str, size: float, colour: RGB, anchor="start", angle=0, faint: RGB | None = None) -> None:
        x, y = at
        parts = [(face, run) for face, part in face_runs(text) for run in MARKS.split(part) if run]
        lengths = [font(face, 64).getlength(run) * size / 64 for face, run in parts]
        along = {"start": 0, "middle": -sum(lengths) / 2, "end": -sum(lengths)}[anchor]
        turn = math.radians(angle)
        for (face, run), length in zip(parts, lengths, strict=True):
            dx, dy = along, 0.35 * size  # the baseline's start, before it is turned
            ink = faint if faint and MARKS.match(run) else colour
            self.order += 1
            self.axes.text(
                x + dx * math.cos(turn) + dy * math.sin(turn), y - dx * math.sin(turn) + dy * math.cos(turn), run,
                color=css(ink), fontsize=size * self.point, font=_path(face), ha="left",
                va="baseline", rotation=angle, rotation_mode="anchor", parse_math=False, zorder=self.order,
            )  # fmt: skip
            along += length

    def finish(self, title: str, stamp: dict) -> bytes:
        from matplotlib import rc_context

        stream = io.BytesIO()
        about = {"Title": title, "Creator": "Headwise", "Keywords": json.dumps(stamp), "CreationDate": None}
        with rc_context(WRITER):
            self.page.savefig(stream, format="pdf", metadata=about, facecolor=self.page.get_facecolor())
        return stream.getvalue()

    def _stroke(self, lines: np.ndarray, colour: RGB, ends: str) -> None:
        """Lines (n, 2, 2), one CSS pixel thick."""
        from matplotlib.collections import LineCollection

        self._add(LineCollection(lines, colors=css(colour), linewidths=self.point, capstyle=ends))

    def _add(self, artist) -> None:
        """What comes later lies above."""
        self.order += 1
        artist.set_zorder(self.order)
        self.axes.add_artist(artist)


@lru_cache
def _path(face: str | None) -> Path:
    """The file of a face. Pillow's own has none until it is written to one."""
    drawn = font(face, 16)
    if face is not None:
        return Path(drawn.path)
    with NamedTemporaryFile(suffix=".ttf", delete=False) as file:
        file.write(drawn.font_bytes)
    return Path(file.name)
