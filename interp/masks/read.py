"""Mask tensors from files and from pasted text, read without running anything in them."""

from __future__ import annotations

import io
import re

import numpy as np
import torch
from torch import Tensor

from headwise.interp.errors import InputError

LARGEST = 4096  # positions a side

WORDS = {
    "true": 1.0,
    "false": 0.0,
    "t": 1.0,
    "f": 0.0,
    "■": 1.0,
    "⬚": 0.0,
    "-inf": -np.inf,
    "inf": np.inf,
    "nan": np.nan,
}


def read_mask(name: str, data: bytes) -> Tensor:
    """A mask from the bytes of a .npy, .pt or .csv file, or of plain text → tensor of 2 to 4 axes, bool where the
    file says so.

    .npy without pickles, .pt with ``weights_only=True``. Raises InputError, one sentence a user can act on.
    """
    if not data:
        raise InputError(f"{name or 'The mask'} is empty. Give a .npy, .pt or .csv file, or paste rows of numbers.")
    try:
        if name.endswith(".npy"):
            mask = torch.from_numpy(np.ascontiguousarray(np.load(io.BytesIO(data), allow_pickle=False)))
        elif name.endswith((".pt", ".pth")):
            mask = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        else:
            return parse_mask(data.decode("utf-8"))
    except InputError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is no text. Give a .npy or .pt file by that ending, or a .csv of numbers.") from error
    except (
        Exception
    ) as error:  # numpy and torch raise a dozen kinds for broken or hostile files; all mean the same here
        raise InputError(f"{name} could not be read as a tensor: save one with numpy.save or torch.save.") from error
    if not isinstance(mask, Tensor):
        raise InputError(f"{name} holds a {type(mask).__name__}, not a tensor. Save the mask tensor alone.")
    return _sized(mask)


def parse_mask(text: str) -> Tensor:
    """Rows of numbers, True/False or ■⬚, separated by spaces, commas or semicolons → (Q, K), bool when only words
    or ■⬚ were used.

    >>> parse_mask("1 0\\n1 1").tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    >>> parse_mask("■⬚\\n■■").dtype
    torch.bool
    """
    rows = []
    for line in text.strip().splitlines():
        line = re.sub(r"tensor\(|device=.*|dtype=.*|[\[\]()]", " ", line)
        line = re.sub("([■⬚])", r" \1 ", line)
        if cells := re.split(r"[\s,;]+", line.strip().strip(",;")):
            rows.append([c for c in cells if c])
    rows = [row for row in rows if row]
    if not rows:
        raise InputError("There is no mask here. Paste rows of numbers, True/False or ■⬚, one query a line.")
    if len({len(row) for row in rows}) > 1:
        raise InputError(
            "The rows have different lengths "
            f"({', '.join(str(n) for n in sorted({len(r) for r in rows})[:4])}). Give every query the same keys."
        )
    words = all(cell.lower() in WORDS and cell.lower() not in ("inf", "-inf", "nan") for row in rows for cell in row)
    try:
        values = [[WORDS.get(cell.lower()) if cell.lower() in WORDS else float(cell) for cell in row] for row in rows]
    except ValueError as error:
        raise InputError(
            f"{str(error).split(': ')[-1]} is no number. Paste rows of numbers, True/False or ■⬚."
        ) from error
    mask = torch.tensor(values)
    return _sized(mask.bool() if words else mask)


def _sized(mask: Tensor) -> Tensor:
    if mask.ndim > 4 or max(mask.shape, default=0) > LARGEST:
        raise InputError(
            f"A mask has 2 to 4 axes of at most {LARGEST:,} positions; this one is "
            f"{' × '.join(map(str, mask.shape)) or 'a single number'}."
        )
    return mask
