"""All heads as one picture of thumbnails, as a message to the browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

EMPTY = 255  # the thumbnail byte that stands for NaN
LARGEST_THUMB = 64


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


def grid_message(
    heads: Heads, order: Sequence[tuple[int, int]] | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """``order``: (layer, head) pairs, all or some."""
    layers, count = heads.pictures.shape[:2]
    header = {
        "view": "grid",
        "title": "",
        "label": f"Attention heads: {layers} layers by {count} heads. Arrow keys choose a head.",
        "rows": list(heads.rows),
        "columns": list(heads.columns),
        "marks": {int(i): [m, m] if isinstance(m, str) else list(m) for i, m in heads.marks.items()},
        "order": None if order is None else [[int(i), int(j)] for i, j in order],
        "captions": {f"{i}.{j}": text for (i, j), text in heads.captions.items()},
    }
    # One byte a pixel: 0 … 254 is [0, 1], a step too small to see in a thumbnail.
    scaled = np.nan_to_num(np.clip(heads.pictures, 0, 1), nan=EMPTY / (EMPTY - 1)) * (EMPTY - 1)
    return header, {"thumbs": np.rint(scaled).astype(np.uint8)}
