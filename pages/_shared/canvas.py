"""The browser canvas: every head as a picture; one head as a matrix, as edges, or over the picture it looks at.

`grid` and `head` draw with one Streamlit component (`assets/canvas`, plain JavaScript, no build step).
Python only packs: colours, scales, labels and hovering are the browser's, so the mouse costs no rerun.
"""

import base64
import gzip
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

from headwise.assets import ASSETS
from headwise.interp.attention.axes import PixelGrid, Score, Series, Sound
from headwise.interp.drawing.matrix import Matrix

CANVAS = ASSETS / "canvas"
MODULES = (  # dependencies first
    *("pack", "colour", "text", "legend", "sound", "track", "matrix", "pins", "figure"),
    *("grid", "heatmap", "bipartite", "picture", "main"),
)
FILES = tuple(CANVAS / f"{name}.js" for name in MODULES)
EMPTY = 255  # the thumbnail byte that stands for NaN
LARGEST_HEAD = 512  # rows and columns of one head; pool or crop above
LARGEST_PICTURE = 592  # positions of a head over its picture: 24 × 24 patches and some special tokens
LARGEST_THUMB = 64
LARGEST_STRIP = (144, 1000)  # a spectrogram's rows and columns: about the pixels it is drawn on
MESSAGE = 1_500_000  # bytes of a picture with its matrix,
LEAST_PIXELS = 30_000  # unless so few pixels are left that nobody would recognise it
VIEWS = ("heatmap", "bipartite", "picture")
SCALES = ("linear", "log")

UNREAD = re.compile(r"^[ \t]*(/\*\*(?s:.*?)\*/[ \t]*\n|//.*\n)?", re.MULTILINE)

# Streamlit serves a component's own files only for an installed distribution that ships a pyproject.toml naming them.
# A checkout is none, and one way for both is one thing to test. So the modules travel inline with every message,
# gzipped to a quarter of their size, and the browser links them once.
LOADER = r"""
const packed = Uint8Array.from(atob("%s"), (letter) => letter.charCodeAt(0));
const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
const urls = {};
for (const [name, text] of await new Response(plain).json()) {
  const linked = text.replace(/"\.\/(\w+\.js)"/g, (_, other) => `"${urls[other]}"`);
  const named = linked + `\n//# sourceURL=headwise/${name}`;
  urls[name] = URL.createObjectURL(new Blob([named], { type: "text/javascript" }));
}
const { default: mount } = await import(urls["main.js"]);
export default mount;
"""


def script(paths: Iterable[Path] = FILES) -> str:
    """A component's JavaScript as it is sent: modules, of which the last is main.js, in one inline module, without
    their comments and indents, which nobody reads there. (No module has a string that goes over lines.)"""
    files = [(path.name, UNREAD.sub("", path.read_text("utf-8"))) for path in paths]
    packed = gzip.compress(json.dumps(files).encode(), mtime=0)
    return LOADER % base64.b64encode(packed).decode()


_component = st.components.v2.component("headwise_canvas", js=script(), css=(CANVAS / "canvas.css").read_text("utf-8"))


def pack(header: Mapping[str, Any], **arrays: np.ndarray) -> bytes:
    """Pack a JSON-able header and arrays (float32 or uint8, any shape) into the one blob a message may be.

    uint32 length of the header (little-endian), the header as ASCII JSON, the arrays' raw little-endian
    bytes, each starting on a multiple of 4. The header gains `arrays`, a list of
    {name, dtype "f4" | "u1", shape, offset into what follows the header}.
    """
    table: list[dict[str, Any]] = []
    body = bytearray()
    for name, array in arrays.items():
        if array.dtype not in (np.float32, np.uint8):
            raise TypeError(f"{name}: expected float32 or uint8, got {array.dtype}; convert it first")
        dtype = array.dtype.newbyteorder("<").str[1:]
        table.append({"name": name, "dtype": dtype, "shape": array.shape, "offset": len(body)})
        body += array.astype(f"<{dtype}", copy=False).tobytes()
        body += bytes(-len(body) % 4)
    text = json.dumps({**header, "arrays": table}, allow_nan=False).encode("ascii")
    text += b" " * (-len(text) % 4)
    return len(text).to_bytes(4, "little") + text + bytes(body)


def event(key: str) -> dict[str, Any]:
    """What the user just did in the picture `key`, or {}: what `grid` or `head` will return in this run.

    Ask before drawing, because the answer usually changes what is drawn (`selected`, a zoom).
    """
    return _told(_raw_event(key))


def turn(key: str) -> int | None:
    """The browser's own count of what was done in the picture `key`, to be sent back with the answer: an answer to an
    early act must not undo what a later one chose."""
    return _raw_event(key).get("turn")


@dataclass(frozen=True)
class Heads:
    """All heads of a stack as small pictures, ready for `grid`.

    pictures: (L, H, t, t) float, t ≤ 64, in [0, 1]; NaN is drawn as nothing (forbidden or not computed).
    rows, columns: L and H labels; a plain number is read out as "layer 3", "head 5".
    marks: {layer: text or (text, tooltip)} beside a row, such as "GQA 3 kv".
    captions: {(layer, head): text} for the hover, such as "entropy 2.1 bits".

    layer and head are places in pictures, 0 … L−1 and 0 … H−1; what they are called is up to the labels.
    Raises ValueError where shapes or labels do not fit together.
    """

    pictures: np.ndarray
    rows: Sequence[str]
    columns: Sequence[str]
    marks: Mapping[int, str | tuple[str, str]] = field(default_factory=dict)
    captions: Mapping[tuple[int, int], str] = field(default_factory=dict)

    def __post_init__(self):
        shape = self.pictures.shape
        if len(shape) != 4 or shape[2] != shape[3] or shape[3] > LARGEST_THUMB:
            raise ValueError(f"pictures: expected (L, H, t, t) with t ≤ {LARGEST_THUMB}, got {shape}")
        for name, labels, count in (("rows", self.rows, shape[0]), ("columns", self.columns, shape[1])):
            if len(labels) != count:
                raise ValueError(f"{name}: expected {count} labels, one for each, got {len(labels)}")


def grid(
    heads: Heads,
    *,
    key: str,
    selected: tuple[int, int],
    order: Sequence[tuple[int, int]] | None = None,
    height: int | None = None,
    compact: bool = False,
) -> dict[str, int] | None:
    """Draw all heads as one picture of thumbnails, and return the head just chosen, once.

    selected: (layer, head), outlined. The browser outlines a choice at once; yours counts when it changes.
    order: (layer, head) pairs, all or some: the grid is wrapped in that order, with captions like "3.5".
    height: pixels; a taller grid scrolls.
    compact: in a narrow window it leaves room for what stands below it.

    Returns {"layer": int, "head": int} in the run that a click or a key started, else None.
    """
    layers, count = heads.pictures.shape[:2]
    header = {
        "view": "grid",
        "title": "",
        "label": f"Attention heads: {layers} layers by {count} heads. Arrow keys choose a head.",
        "selected": [int(i) for i in selected],
        "turn": turn(key),
        "rows": list(heads.rows),
        "columns": list(heads.columns),
        "marks": {int(i): [m, m] if isinstance(m, str) else list(m) for i, m in heads.marks.items()},
        "order": None if order is None else [[int(i), int(j)] for i, j in order],
        "captions": {f"{i}.{j}": text for (i, j), text in heads.captions.items()},
        "height": height,
        "compact": compact,
    }
    # One byte a pixel: 0 … 254 is [0, 1], a step too small to see in a thumbnail.
    scaled = np.nan_to_num(np.clip(heads.pictures, 0, 1), nan=EMPTY / (EMPTY - 1)) * (EMPTY - 1)
    return _mount(key, pack(header, thumbs=np.rint(scaled).astype(np.uint8)))


@dataclass(frozen=True)
class Picking:
    """Cells of a heatmap that carry a cross, as positions (query, key), and what a click on a cell does, such as
    "forbid this edge"; "" leaves clicks as they are. ``back`` is what it does to one with a cross, ``hint`` is said
    while nothing is pointed at."""

    verb: str = ""
    marks: Sequence[tuple[int, int]] = ()
    hint: str = ""
    back: str = ""


def head(
    matrix: Matrix,
    *,
    key: str,
    view: str = "heatmap",
    scale: str = "linear",
    selected: Mapping[str, Any] | None = None,
    height: int | None = None,
    picking: Picking | None = None,
) -> dict[str, Any] | None:
    """Draw a matrix, and return what the user just did in it, once.

    matrix: at most 512 × 512 cells (as a picture 592 × 592); NaN is a cell without a value. Nothing but its
        `forbidden` decides what is drawn as forbidden; weight on it is painted in the alarm colour. Positions that are
        frames of a recording are called by their times instead of labels, and above a heatmap stands the spectrogram
        of the keys shown. A series or a score is drawn along both edges.
    view: "heatmap" | "bipartite" | "picture": the keys of one query, painted over the picture they lie on. Queries
        and keys are then the same positions, special ones first, then the patches, and the matrix is whole.
    scale: "linear" | "log" (five decades; scores stay linear).
    selected: the pinned token, as returned below, or None; it counts when it changes.
    height: of the cells, of the scrolling list, or of the picture at most, in pixels.
    picking: of a heatmap, the cells that carry a cross, and whether a click on a cell picks it instead of pinning.

    Returns one of these in the run that the user's act started, else None. All numbers are positions in the
    full sequence:
        {"zoom": [q0, q1, k0, k1]}   a rectangle, ends not included; {"zoom": None}: zoom out
        {"token": {"axis": "query" | "key", "index": int}}   pinned; {"token": None}: unpinned; with "key": int where
                                                             it was a cell's query
        {"cell": [q, k]}   picked, single positions only; {"done": True}: Escape ended the picking
    Raises ValueError where the matrix is too large, or cannot be drawn over a picture.
    """
    for name, value, known in (("view", view, VIEWS), ("scale", scale, SCALES)):
        if value not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    cells = tuple(matrix.values.shape)
    most = LARGEST_PICTURE if view == "picture" else LARGEST_HEAD
    if not all(0 < size <= most for size in cells):
        raise ValueError(f"matrix: expected (Q, K), each 1 … {most}, got {cells}; pool or crop it first")
    header, arrays = _head_message(matrix, view)
    header |= {
        "scale": scale,
        "selected": None if selected is None else {"axis": selected["axis"], "index": int(selected["index"])},
        "height": height,
    }
    if picking is not None and view == "heatmap":
        header |= _picking(picking)
    if view == "picture":
        where, pixels = _over_picture(matrix, MESSAGE - sum(array.nbytes for array in arrays.values()))
        header |= where
        arrays["pixels"] = pixels
    return _mount(key, pack(header, **arrays))


def rows(matrix: Matrix, *, key: str, selected: int, height: int) -> dict[str, Any] | None:
    """Draw a matrix whose rows are chosen, not zoomed into. ``selected`` is the position whose row is outlined; the
    one just chosen is returned as ``head`` returns a pinned query."""
    header, arrays = _head_message(matrix, "heatmap")
    pinned = {"axis": "query", "index": int(selected)}
    header |= {"name": "headwise-map", "zooms": False, "scale": "linear", "selected": pinned, "height": height}
    return _mount(key, pack(header, **arrays))


def numbers(matrix: Matrix, *, key: str, picking: Picking, height: int) -> dict[str, Any] | None:
    """Draw a small matrix that is no head, such as a number for each layer and head; what is picked is returned as
    ``head`` returns it."""
    header, arrays = _head_message(matrix, "heatmap")
    header |= {"name": "headwise-numbers", "named": True, "scale": "linear", "selected": None, "height": height}
    return _mount(key, pack(header | _picking(picking), **arrays))


def _picking(picking: Picking) -> dict[str, Any]:
    return {
        "picks": picking.verb or None,
        "undoes": picking.back,
        "hint": picking.hint,
        "marks": [[int(query), int(key)] for query, key in picking.marks],
    }


def _head_message(matrix: Matrix, view: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the browser is told of a matrix, whatever it is drawn as."""
    quantity, (rows, columns) = matrix.quantity, matrix.spans
    value_name = f"{quantity.name}, {matrix.of}" if matrix.signed and matrix.of else quantity.name
    size = " by ".join(f"{span.whole} {span.name.split()[-1]}" for span in matrix.spans)  # "5 queries by 7 keys"
    header: dict[str, Any] = {
        "view": view,
        "title": matrix.title,
        "label": f"{matrix.title or 'attention head'}: {value_name} of {size}, {view}. "
        "Arrow keys read it, Enter pins, Escape goes back.",
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


def _over_picture(matrix: Matrix, room: int) -> tuple[dict[str, Any], np.ndarray]:
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


def _raw_event(key: str) -> dict[str, Any]:
    return dict(st.session_state.get(key) or {}).get("event") or {}


def _told(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "turn"}  # the browser's own count


def _mount(key: str, message: bytes) -> dict[str, Any] | None:
    return _told(_component(key=key, data=message, on_event_change=lambda: None).event or {}) or None
