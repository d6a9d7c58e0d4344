"""The browser canvas: every head as a picture; one head as a matrix, as edges, or over the picture it looks at.

`grid` and `head` draw with one Streamlit component (`assets/canvas`, plain JavaScript, no build step).
Python only packs: colours, scales, labels and hovering are the browser's, so the mouse costs no rerun.

An `Explorer` is several pictures that belong together (`assets/explorer`): all heads travel once (`heads`), and grid,
large head (`large`) and text (`words`) turn from head to head without asking. They stand wherever the page puts them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import streamlit as st

from headwise.interp.drawing.canvas import (
    LARGEST_HEAD,
    LARGEST_PICTURE,
    MESSAGE,
    SHEETS,
    Packed,
    head_message,
    over_picture,
    pack,
    script,
)
from headwise.interp.drawing.matrix import Matrix

EMPTY = 255  # the thumbnail byte that stands for NaN
LARGEST_THUMB = 64
VIEWS = ("heatmap", "bipartite", "picture")
SCALES = ("linear", "log")

# A component's script travels with every message of it. So the modules come by one that never says anything else, which
# Streamlit sends once, and the pictures' own script only waits for them.
SHARED = (
    "const shared = (globalThis.headwise ??= {});\nshared.canvas ??= new Promise((done) => (shared.arrived = done));\n"
)
WAITS = f"{SHARED}const mount = await shared.canvas;\nexport default mount;\n"

_modules = st.components.v2.component("headwise_modules", js=f"{SHARED}{script()}shared.arrived?.(mount);\n")
_component = st.components.v2.component(
    "headwise_canvas", js=WAITS, css="".join(sheet.read_text("utf-8") for sheet in SHEETS)
)


def modules() -> None:
    """Send what all pictures draw with. Every page that has some calls this once, at its top."""
    _modules(key="canvas-modules")


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
    selected: tuple[int, int] | str,
    order: Sequence[tuple[int, int]] | None = None,
    height: int | None = None,
    compact: bool = False,
) -> dict[str, int] | None:
    """Draw all heads as one picture of thumbnails, and return the head just chosen, once.

    selected: (layer, head), outlined. The browser outlines a choice at once; yours counts when it changes. Or the name
        of the explorer that knows: then its large head tells what is chosen, and nothing is returned here.
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
        **({"explorer": selected} if isinstance(selected, str) else _chosen(selected, key)),
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


def _chosen(selected: tuple[int, int], key: str) -> dict[str, Any]:
    return {"selected": [int(i) for i in selected], "turn": turn(key)}


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
    header, arrays = _head(matrix, view, scale)
    header |= {"selected": _token(selected), "height": height, **_picking(picking, view)}
    return _mount(key, pack(header, **arrays))


def _head(matrix: Matrix, view: str, scale: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
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


def _token(selected: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if selected is None else {"axis": selected["axis"], "index": int(selected["index"])}


@dataclass(frozen=True)
class Explorer:
    """Pictures that belong together, and what is chosen in them.

    name: where they meet in the browser.
    heads: all of them, where they can travel; else Python sends each when it is chosen.
    chosen: (row, head) as in the grid. beside: up to four that stand beside each other.
    pinned: the token, as ``head`` returns it. zoom: the region (q0, q1, k0, k1), or None.
    """

    name: str
    heads: Packed | None
    chosen: tuple[int, int]
    beside: Sequence[tuple[int, int]] = ()
    pinned: Mapping[str, Any] | None = None
    zoom: Sequence[int] | None = None


def heads(packed: Packed, *, key: str) -> None:
    """Send all heads. Nothing is shown where this stands; the same ones are sent once."""
    _mount(key, packed.message)


def words(text: Mapping[str, Any], explorer: str, *, key: str) -> None:
    """Draw the text of `running_text`, coloured by what the chosen head looks at."""
    _mount(key, pack({"view": "words", "explorer": explorer, **text}))


def large(
    explorer: Explorer,
    matrix: Matrix,
    *,
    key: str,
    view: str = "heatmap",
    scale: str = "linear",
    picking: Picking | None = None,
) -> dict[str, Any] | None:
    """Draw the chosen head, and those beside it, from all heads. Its ``matrix`` travels only where these do not; it is
    then drawn as `head` does.

    Returns what was done in any of the explorer's pictures once the hand has rested, as `head` does, and with
    {"layer": row, "head": int}: another head; {"beside": [[row, head], …]}: which ones stand beside each other now.
    """
    packed = explorer.heads
    header, arrays = ({"view": view, "scale": scale}, {}) if packed else _head(matrix, view, scale)
    header |= {
        "explorer": explorer.name,
        "heads": packed.id if packed else None,
        "chosen": [int(i) for i in explorer.chosen],
        "beside": [[int(row), int(head)] for row, head in explorer.beside],
        "selected": _token(explorer.pinned),
        "zoom": None if explorer.zoom is None else [int(i) for i in explorer.zoom],
        "turn": turn(key),
        **_picking(picking, view),
    }
    return _mount(key, pack(header, **arrays))


def rows(matrix: Matrix, *, key: str, selected: int, height: int) -> dict[str, Any] | None:
    """Draw a matrix whose rows are chosen, not zoomed into. ``selected`` is the position whose row is outlined; the
    one just chosen is returned as ``head`` returns a pinned query."""
    header, arrays = head_message(matrix, "heatmap")
    pinned = {"axis": "query", "index": int(selected)}
    header |= {"name": "headwise-map", "zooms": False, "scale": "linear", "selected": pinned, "height": height}
    return _mount(key, pack(header, **arrays))


def numbers(matrix: Matrix, *, key: str, picking: Picking, height: int) -> dict[str, Any] | None:
    """Draw a small matrix that is no head, such as a number for each layer and head; what is picked is returned as
    ``head`` returns it."""
    header, arrays = head_message(matrix, "heatmap")
    header |= {"name": "headwise-numbers", "named": True, "scale": "linear", "selected": None, "height": height}
    return _mount(key, pack(header | _picking(picking, "heatmap"), **arrays))


def _picking(picking: Picking | None, view: str) -> dict[str, Any]:
    if picking is None or view != "heatmap":
        return {}
    return {
        "picks": picking.verb or None,
        "undoes": picking.back,
        "hint": picking.hint,
        "marks": [[int(query), int(key)] for query, key in picking.marks],
    }


def _raw_event(key: str) -> dict[str, Any]:
    return dict(st.session_state.get(key) or {}).get("event") or {}


def _told(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "turn"}  # the browser's own count


def _mount(key: str, message: bytes) -> dict[str, Any] | None:
    return _told(_component(key=key, data=message, on_event_change=lambda: None).event or {}) or None
