"""All heads of a stack in one message, so that the browser can turn from head to head by itself; and the text that they
look at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headwise.interp.attention.axes import Axis
from headwise.interp.attention.call import AttentionCall
from headwise.interp.drawing.canvas.message import LARGEST_HEAD, drawn_message, head_message, over_picture
from headwise.interp.drawing.canvas.packing import pack
from headwise.interp.drawing.matrix import FORBIDDEN, Matrix, head_view, recorded, side_names
from headwise.interp.drawing.words import groups_of
from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture

MOST = 4 * 2**20  # bytes of all heads together; above, a head travels when somebody looks at it
EXACT = 500_000  # bytes up to which numbers keep their float32
LARGEST_HALF = 65_504.0
PIXELS = 200_000  # bytes of the picture that heads lie over


@dataclass(frozen=True)
class Look:
    """How all heads are looked at: ``words`` merges tokens, ``special=False`` leaves the tokenizer's own out, and
    ``silence`` shows the padding behind the end of a recording."""

    words: bool = False
    special: bool = True
    silence: bool = False

    def at(self, cap: Capture, call: AttentionCall) -> dict[str, Any]:
        """The same for ``head_view``."""
        region = None if self.silence else recorded(cap, call)
        return {"words": self.words and call.key_axis.track is None, "special": self.special, "region": region}


@dataclass(frozen=True)
class Packed:
    """All heads as one message; ``id`` tells it from others, and other messages speak of it by that."""

    id: str
    message: bytes

    @property
    def nbytes(self) -> int:
        return len(self.message)


def all_heads(
    cap: Capture, stack: str | None = None, quantity: str = "weights", look: Look | None = None, *, explorer: str
) -> Packed | None:
    """Every head of a stack as one message to the ``explorer`` of that name, numbers in half precision where float32
    would be large. None where they are too large even so, too long for a picture without pooling, or cannot be looked
    at like this."""
    look = look or Look()
    calls = cap.stack(stack)
    cells = sum(call.heads * call.queries * call.keys for call in calls)
    if not calls or 2 * cells > MOST or max(max(call.queries, call.keys) for call in calls) > LARGEST_HEAD:
        return None
    heads = _Heads(np.float32 if 4 * cells <= EXACT else np.float16, [call.layer for call in calls])
    try:
        for row, call in enumerate(calls):
            for head in range(call.heads):
                heads.add(row, head, head_view(cap, call, head, quantity, **look.at(cap, call)))
    except (ValueError, InputError):
        return None
    return heads.packed(explorer)


@dataclass
class _Heads:
    """The message as it grows. Labels and masks that heads share are sent once."""

    dtype: type
    layers: list[int]
    entries: list[list[Any]] = field(default_factory=list)  # row, head, its axes, its mask or −1, first cell, title
    axes: dict[str, int] = field(default_factory=dict)  # a header as JSON → its number
    masks: dict[bytes, int] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    values: list[np.ndarray] = field(default_factory=list)
    cells: int = 0

    def add(self, row: int, head: int, matrix: Matrix) -> None:
        header, arrays = head_message(matrix, "heatmap")
        title, values = header.pop("title"), arrays.pop("matrix")
        forbidden = arrays.pop("forbidden", None)
        if self.dtype is np.float16:
            values = self._halved(values, forbidden)
        header["cells"] = list(values.shape)
        if (
            matrix.columns.picture is not None
            and matrix.columns.grid is not None
            and values.shape[0] == values.shape[1]
        ):
            where, arrays["pixels"] = over_picture(matrix, PIXELS)
            header |= where
        number = self.axes.setdefault(json.dumps(header), len(self.axes))
        self.arrays |= {f"{number}.{name}": array for name, array in arrays.items()}
        mask = -1
        if forbidden is not None:
            mask = self.masks.setdefault(forbidden.tobytes(), len(self.masks))
            self.arrays[f"mask.{mask}"] = forbidden
        self.entries.append([row, head, number, mask, self.cells, title])
        self.values.append(values.ravel())
        self.cells += values.size

    @staticmethod
    def _halved(values: np.ndarray, forbidden: np.ndarray | None) -> np.ndarray:
        """In half precision. A score that stands for “never” on a forbidden cell may be endless there."""
        within = np.abs(values) <= LARGEST_HALF
        if forbidden is not None:
            within |= forbidden == FORBIDDEN
        if not np.all(within | ~np.isfinite(values)):
            raise ValueError("numbers beyond half precision")
        return np.clip(values, -LARGEST_HALF, LARGEST_HALF).astype(np.float16)

    def packed(self, explorer: str) -> Packed:
        header = {
            "view": "heads",
            "explorer": explorer,
            "layers": self.layers,
            "axes": [json.loads(text) for text in self.axes],
            "entries": self.entries,
            "exact": self.dtype is np.float32,
        }
        arrays = {"values": np.concatenate(self.values), **self.arrays}
        id = hashlib.blake2b(pack(header, **arrays), digest_size=8).hexdigest()
        return Packed(id, pack(header | {"id": id}, **arrays))


# -- what is chosen ----------------------------------------------------------------------------------------------
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


def large_message(
    explorer: Explorer, matrix: Matrix | None, view: str = "heatmap", scale: str = "linear"
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the large head is told. Its ``matrix`` travels only where all heads do not."""
    packed = explorer.heads
    header, arrays = ({"view": view, "scale": scale}, {}) if packed else drawn_message(matrix, view, scale)
    header |= {
        "explorer": explorer.name,
        "heads": packed.id if packed else None,
        "chosen": [int(i) for i in explorer.chosen],
        "beside": [[int(row), int(head)] for row, head in explorer.beside],
        "selected": token(explorer.pinned),
        "zoom": None if explorer.zoom is None else [int(i) for i in explorer.zoom],
    }
    return header, arrays


def token(selected: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A pinned token, JSON-able."""
    return None if selected is None else {"axis": selected["axis"], "index": int(selected["index"])}


# -- the text -----------------------------------------------------------------------------------------------------
def running_text(
    cap: Capture, call: AttentionCall, look: Look | None = None, written: int = 0
) -> dict[str, Any] | None:
    """What a call's queries and keys are, as text that runs on: {"query", "key": None where it is the same, "names"},
    each text {"words", "special": which of them the tokenizer added, "written": from which on the model wrote it
    itself}. None where they are no text. ``written`` counts the tokens at the end that the model wrote."""
    look, axes = look or Look(), (call.query_axis, call.key_axis)
    if not all(_is_text(axis) for axis in axes):
        return None
    query = _words(axes[0], look, written)
    both = call.kind == "cross" or len(axes[1]) < len(axes[0])
    names = dict(zip(("query", "key"), side_names(cap, call), strict=True))
    return {"query": query, "key": _words(axes[1], look, 0) if both else None, "names": names}


def _is_text(axis: Axis) -> bool:
    lies = axis.grid is not None or axis.sound is not None or axis.track is not None
    return not lies and axis.labels != tuple(map(str, range(len(axis))))


def _words(axis: Axis, look: Look, written: int) -> dict[str, Any]:
    groups, _ = groups_of(axis, look.words, look.special)
    first = len(axis) - written
    special = axis.special or (False,) * len(axis)
    spaced = axis.offsets is None and not any(label.startswith((" ", "▁")) for label in axis.labels)
    words, end = [], 0
    for group in groups:
        text, end = _read(axis, group, end)
        words.append(f" {text}" if spaced and words and len(axis.labels[group[0]]) > 1 else text)
    return {
        "words": words,
        "special": [place for place, group in enumerate(groups) if special[group[0]]],
        "written": next((place for place, group in enumerate(groups) if group[-1] >= first), None),
    }


def _read(axis: Axis, group: list[int], end: int) -> tuple[str, int]:
    """How a token, or a word of several, reads in its text, what stands before it included, and where it ends. A token
    without a place of its own, such as a part of a character, is called by its label."""
    label = axis.labels[group[0]]
    if axis.offsets is None or axis.text is None:
        return label, end
    start, stop = axis.offsets[group[0]][0], axis.offsets[group[-1]][1]
    shared = any(
        0 <= other < len(axis) and axis.offsets[other] == axis.offsets[group[0]]
        for other in (group[0] - 1, group[-1] + 1)
    )
    if start >= stop or (shared and len(group) == 1):
        return label, max(end, stop)
    return axis.text[min(end, start) : stop], max(end, stop)
