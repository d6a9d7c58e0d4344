"""The browser canvas: every head as a picture; one head as a matrix, as edges, or over the picture it looks at.

All draw with one Streamlit component (`assets/canvas`, plain JavaScript, no build step).
Python only packs: colours, scales, labels and hovering are the browser's, so the mouse costs no rerun.

An `Explorer` is several pictures that belong together (`assets/explorer`): all heads travel once (`heads`), and grid,
large head (`large`) and text (`words`) turn from head to head without asking. They stand wherever the page puts them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from headwise.interp.drawing.canvas import (
    SHEETS,
    Explorer,
    Heads,
    Packed,
    drawn_message,
    grid_message,
    head_message,
    large_message,
    pack,
    script,
    token,
)
from headwise.interp.drawing.matrix import Matrix

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
    """What the user just did in the picture `key`, or {}: what the picture will return in this run.

    Ask before drawing, because the answer usually changes what is drawn (`selected`, a zoom).
    """
    return _told(_raw_event(key))


def turn(key: str) -> int | None:
    """The browser's own count of what was done in the picture `key`, to be sent back with the answer: an answer to an
    early act must not undo what a later one chose."""
    return _raw_event(key).get("turn")


def packed_grid(
    heads: Heads,
    *,
    key: str,
    selected: tuple[int, int] | str,
    order: Sequence[tuple[int, int]] | None = None,
    height: int | None = None,
    compact: bool = False,
    means: bool = False,
) -> bytes:
    """All heads as one picture of thumbnails, to be `send`-t; that returns {"layer": int, "head": int} in the run that
    a click or a key started.

    selected: (layer, head), outlined. The browser outlines a choice at once; yours counts when it changes. Or the name
        of the explorer that knows: then its large head tells what is chosen, nothing is returned here, and the message
        is the same for any choice.
    order: (layer, head) pairs, all or some: the grid is wrapped in that order, with captions like "3.5".
    height: pixels; a taller grid scrolls.
    compact: in a narrow window it leaves room for what stands below it.
    means: over all heads, over a layer's and over all layers', where the explorer has all heads.
    """
    header, arrays = grid_message(heads, order)
    header |= {"height": height, "compact": compact, "means": means}
    header |= {"explorer": selected} if isinstance(selected, str) else _chosen(selected, key)
    return pack(header, **arrays)


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
    header, arrays = drawn_message(matrix, view, scale)
    header |= {"selected": token(selected), "height": height, **_picking(picking, view)}
    return send(key, pack(header, **arrays))


def heads(packed: Packed, *, key: str) -> None:
    """Send all heads. Nothing is shown where this stands; the same ones are sent once."""
    send(key, packed.message)


def words(text: Mapping[str, Any], explorer: str, *, key: str) -> None:
    """Draw the text of `running_text`, coloured by what the chosen head looks at."""
    send(key, pack({"view": "words", "explorer": explorer, **text}))


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
    header, arrays = large_message(explorer, matrix, view, scale)
    return send(key, pack(header | {"turn": turn(key), **_picking(picking, view)}, **arrays))


def rows(matrix: Matrix, *, key: str, selected: int, height: int) -> dict[str, Any] | None:
    """Draw a matrix whose rows are chosen, not zoomed into. ``selected`` is the position whose row is outlined; the
    one just chosen is returned as ``head`` returns a pinned query."""
    header, arrays = head_message(matrix, "heatmap")
    pinned = {"axis": "query", "index": int(selected)}
    header |= {"name": "headwise-map", "zooms": False, "scale": "linear", "selected": pinned, "height": height}
    return send(key, pack(header, **arrays))


def numbers(matrix: Matrix, *, key: str, picking: Picking, height: int) -> dict[str, Any] | None:
    """Draw a small matrix that is no head, such as a number for each layer and head; what is picked is returned as
    ``head`` returns it."""
    header, arrays = head_message(matrix, "heatmap")
    header |= {"name": "headwise-numbers", "named": True, "scale": "linear", "selected": None, "height": height}
    return send(key, pack(header | _picking(picking, "heatmap"), **arrays))


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


def send(key: str, message: bytes) -> dict[str, Any] | None:
    """Draw what a message says, and return what was done in it, once."""
    return _told(_component(key=key, data=message, on_event_change=lambda: None).event or {}) or None
