"""A matrix as a message to the browser: its numbers, what stands along its edges, and the picture that it lies over."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image

from headwise.interp.attention.axes import PixelGrid, Score, Series, Sound
from headwise.interp.drawing.matrix import Matrix

LARGEST_HEAD = 512  # rows and columns of one head; pool or crop above
LARGEST_PICTURE = 592  # positions of a head over its picture: 24 × 24 patches and some special tokens
LARGEST_STRIP = (144, 1000)  # a spectrogram's rows and columns: about the pixels it is drawn on
MESSAGE = 1_500_000  # bytes of a picture with its matrix,
VIEWS = ("heatmap", "bipartite", "picture")
SCALES = ("linear", "log")
LEAST_PIXELS = 30_000  # unless so few pixels are left that nobody would recognise it


def head_message(matrix: Matrix, view: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the browser is told of a matrix, whatever it is drawn as."""
    quantity, (rows, columns) = matrix.quantity, matrix.spans
    value_name = f"{quantity.name}, {matrix.of}" if matrix.signed and matrix.of else quantity.name
    header: dict[str, Any] = {
        "view": view,
        "title": matrix.title,
        "extent": " by ".join(f"{span.whole} {span.name.split()[-1]}" for span in matrix.spans),
        "kind": quantity.kind,
        "value_name": value_name,
        **({"no": quantity.no} if quantity.no else {}),
        "query_labels": list(rows.labels),
        "key_labels": list(columns.labels),
        "origin": [int(i) for i in matrix.origin],
        "factor": [int(i) for i in matrix.factor],
        "shape": [int(i) for i in matrix.shape],
        "axis_names": [span.name for span in matrix.spans],
        "early": matrix.early,
    }
    arrays = {"matrix": np.asarray(matrix.values.cpu(), np.float32)}
    if bool(matrix.forbidden.any()):
        arrays["forbidden"] = np.asarray(matrix.forbidden.cpu(), np.uint8)
    for name, span in (("query_sound", rows), ("key_sound", columns)):
        if span.sound is not None:
            header[name] = {"step": float(span.sound.step), "seconds": float(span.sound.seconds)}
    for name, span in (("query", rows), ("key", columns)):
        if span.track is not None:
            header[f"{name}_track"], arrays[f"{name}_values"] = _track(span.track)
    if columns.sound is not None and view == "heatmap":
        where, strip = _strip(columns.sound, columns.origin, columns.end)
        header["key_sound"] |= where
        arrays |= strip
    return header, arrays


def drawn_message(matrix: Matrix, view: str, scale: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The same with its scale of colours and, over a picture, its pixels. Raises ValueError where the matrix is too
    large, or cannot be drawn over a picture."""
    for name, value, known in (("view", view, VIEWS), ("scale", scale, SCALES)):
        if value not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    cells = tuple(matrix.values.shape)
    most = LARGEST_PICTURE if view == "picture" else LARGEST_HEAD
    if not all(0 < size <= most for size in cells):
        raise ValueError(f"matrix: expected (Q, K), each 1 … {most}, got {cells}; pool or crop it first")
    header, arrays = head_message(matrix, view)
    header["scale"] = scale
    if view == "picture":
        where, arrays["pixels"] = over_picture(matrix, MESSAGE - sum(array.nbytes for array in arrays.values()))
        header |= where
    return header, arrays


def over_picture(matrix: Matrix, room: int) -> tuple[dict[str, Any], np.ndarray]:
    """`_picture` of a matrix that shows all positions."""
    shown = tuple(matrix.values.shape)
    if matrix.origin != (0, 0) or matrix.factor != (1, 1) or matrix.shape != shown:
        raise ValueError(
            f"matrix: expected all positions for a picture, got origin {matrix.origin}, factor {matrix.factor} "
            f"and {shown} of {matrix.shape}; neither pool nor crop it"
        )
    return _picture(matrix.columns.picture, matrix.columns.grid, shown, room)


def _picture(
    picture: PixelGrid | None, grid: tuple[int, int] | None, shape: tuple[int, int], room: int
) -> tuple[dict[str, Any], np.ndarray]:
    """Where the patches lie, and the picture's pixels (h, w, 3), fewer of them where they would not fit in the room."""
    if picture is None or grid is None:
        raise ValueError("picture: view 'picture' expects picture and grid, got None; use another view")
    pixels, box = picture.pixels, picture.box
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise ValueError(f"picture: expected pixels (height, width, 3) uint8, got {pixels.shape} {pixels.dtype}")
    if not (box[0] < box[2] and box[1] < box[3]):
        raise ValueError(f"picture: expected a box (left, top, right, bottom) with an area, got {tuple(box)}")
    patches = grid[0] * grid[1]
    if shape[0] != shape[1] or not 0 < patches <= shape[0]:
        raise ValueError(f"grid: expected rows·columns positions or more, queries as keys, got {grid} for {shape}")
    height, width = pixels.shape[:2]
    header = {"grid": [int(n) for n in grid], "box": [float(x) for x in box], "size": [width, height]}
    shrink = (max(room, LEAST_PIXELS * 3) / pixels.nbytes) ** 0.5
    if shrink < 1:
        size = max(1, int(width * shrink)), max(1, int(height * shrink))
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    return header, pixels


def _strip(sound: Sound, first: int, end: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """The spectrogram over positions first … end − 1: when it starts, seconds a column, and its bytes (bins, columns).

    Of columns that share one the loudest counts, as it does for pooled weights. 0 … 255 spans the whole recording,
    so that a silence stays silent when one looks at nothing else.
    """
    left = int(first * sound.step / sound.hop + 1e-6)
    right = min(sound.spectrogram.shape[1], math.ceil(end * sound.step / sound.hop - 1e-6))
    seen = np.isfinite(sound.spectrogram)
    if right <= left or not seen.any():
        return {}, {}
    low, high = sound.spectrogram[seen].min(), sound.spectrogram[seen].max()
    part = np.nan_to_num(sound.spectrogram[:, left:right], nan=low, posinf=high, neginf=low)
    pooled = [-(-size // most) for size, most in zip(part.shape, LARGEST_STRIP, strict=True)]
    for axis, group in enumerate(pooled):
        part = np.maximum.reduceat(part, range(0, part.shape[axis], group), axis=axis)
    scaled = np.rint((part - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    return {"start": left * sound.hop, "hop": pooled[1] * sound.hop}, {"spectrogram": scaled}


def _track(track: Series | Score) -> tuple[dict[str, Any], np.ndarray]:
    """A series or a score along an axis: its words, and its values (T, 1), or notes (N, 4) as in ``Score``."""
    header: dict[str, Any] = {"marks": [[int(at), text] for at, text in track.marks], "written": track.written}
    if isinstance(track, Series):
        return header | {"kind": "series", "unit": track.unit}, track.values.astype(np.float32)[:, None]
    voices = "".join(voice[0].upper() for voice in track.voices)
    return header | {"kind": "score", "voices": voices}, track.notes.astype(np.float32)
