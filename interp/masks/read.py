"""Mask tensors from files and from pasted text, read without running anything in them."""

from __future__ import annotations

import io
import re

import numpy as np
import torch
from torch import Tensor

from headwise.interp.errors import InputError

LARGEST = 4096  # positions a side

WORDS = {"true": 1.0, "false": 0.0, "t": 1.0, "f": 0.0, "■": 1.0, "⬚": 0.0}
ROW = re.compile(r"\[([^\[\]]*)\]")  # a list that holds no list
LISTS = re.compile(r"\[([r,\s]*)\]")  # one whose rows have been read
INFINITE = re.compile(r"float\(\s*['\"]([+-]?\w+)['\"]\s*\)|\b(?:np|numpy|torch|math)\.(?=inf|nan)")  # float("-inf")
BEFORE = re.compile(r"\s*(?:\w+\s*=\s*)?(?:[\w.]+\s*\()?\s*")  # mask = torch.tensor(
AFTER = re.compile(
    r"(?:,?\s*\w+=(?:<[^>]*>|\([^)]*\)|[^,)\s]+))*,?\s*\)?\s*(?:\.\w+\(\)\s*)*"
)  # , dtype=torch.bool).cpu()
KINDS = {"bool": torch.bool, "float": torch.float32, "half": torch.float32, "int": torch.int64, "long": torch.int64}


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
    """A mask as one types or prints it → tensor of 2 to 4 axes: bool when only words or ■⬚ were used, int64 when only
    zeros and ones without a point were, float32 else.

    Nested lists are read by their brackets, however the lines break: Python's, JSON's, and what numpy and torch print,
    with ``array(…)`` or ``tensor(…)`` around them, whose dtype counts. Without brackets a line is a query, its keys
    separated by spaces, commas or semicolons. Raises InputError, one sentence, for what was cut short or is uneven.

    >>> parse_mask("1 0\\n1 1").tolist()
    [[1, 0], [1, 1]]
    >>> parse_mask("[[1., 0.], [1., 1.]]").tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    >>> parse_mask("■⬚\\n■■").dtype
    torch.bool
    >>> parse_mask("tensor([[[ True, False],\\n         [ True,  True]]], device='cuda:0')").shape
    torch.Size([1, 2, 2])
    """
    if "..." in text or "…" in text:
        raise InputError(
            "This mask was cut short by an ellipsis: print it whole, with torch.set_printoptions(threshold=math.inf) "
            "or numpy.set_printoptions(threshold=sys.maxsize), or upload it as a .pt or .npy file."
        )
    text = INFINITE.sub(lambda found: found[1] or "", text.replace("−", "-"))
    listed = "[" in text or "]" in text
    if not listed and "(" in text:  # tuples
        inside = re.sub(r"^\s*(\w+\s*=)?\s*[\w.]*(?=\()", "", text)
        text, listed = inside.replace("(", "[").replace(")", "]"), True
    rows, shape, kind = _listed(text) if listed else ([r for r in text.splitlines() if r.strip()], (), None)
    cells = [_cells(row) for row in rows]
    if not any(cells):
        raise InputError("There is no mask here. Paste rows of numbers, True/False or ■⬚, one query a line.")
    _even([len(row) for row in cells], "rows", "Give every query the same keys")
    mask = _tensor([cell for row in cells for cell in row]).reshape(*(shape or (len(rows),)), -1)
    return _sized(mask if kind is None else mask.to(kind))


def _listed(text: str) -> tuple[list[str], tuple[int, ...], torch.dtype | None]:
    """The innermost lists of a text, how many of them the lists around hold at each level, and the dtype it names."""
    start, end = text.find("["), text.rfind("]") + 1
    before, after = text[: max(start, 0)], text[end:]
    for part, form in ((before, BEFORE), (after, AFTER)):
        if start >= 0 and end and not form.fullmatch(part):
            where = "before the first" if part is before else "after the last"
            raise InputError(
                f"{part.strip()[:40]!r} stands {where} bracket and is not understood. Paste the mask alone, such as "
                "[[1, 0], [1, 1]]."
            )
    rows, text, shape = ROW.findall(text[start:end]), ROW.sub("r", text[start:end]), ()
    while "[" in text and (lists := LISTS.findall(text)):
        counts = [part.count("r") for part in lists]
        _even(counts, "lists", "Give every sample and head as many queries")
        text, shape = LISTS.sub("r", text), (counts[0], *shape)
    if re.sub(r"[r,;\s]", "", text):
        raise InputError(
            "A bracket of this mask has no partner, or something stands between two lists. Paste it whole."
        )
    several = text.count("r")  # lists that stand side by side, such as a row a line
    named = re.search(r"(?:dtype=[\w.]*?|\.)(bool|float|half|int|long)", after)
    return rows, shape if several == 1 else (several, *shape), KINDS[named[1]] if named else None


def _cells(row: str) -> list[str]:
    return [cell for cell in re.split(r"[\s,;]+", row.replace("■", " ■ ").replace("⬚", " ⬚ ")) if cell]


def _even(counts: list[int], what: str, advice: str) -> None:
    if len(set(counts)) > 1:
        raise InputError(
            f"The {what} have different lengths ({', '.join(map(str, sorted(set(counts))[:4]))}). {advice}."
        )


def _tensor(cells: list[str]) -> Tensor:
    kinds = {cell.lower() for cell in set(cells)}
    if kinds <= {"0", "1"}:
        return torch.tensor([int(cell) for cell in cells])
    numbers = {}
    for cell in set(cells):
        try:
            numbers[cell] = WORDS[cell.lower()] if cell.lower() in WORDS else float(cell)
        except ValueError as error:
            raise InputError(f"{cell!r} is no number. Paste rows of numbers, True/False or ■⬚.") from error
    mask = torch.tensor([numbers[cell] for cell in cells])
    return mask.bool() if kinds <= set(WORDS) else mask


def _sized(mask: Tensor) -> Tensor:
    if mask.ndim > 4 or max(mask.shape, default=0) > LARGEST:
        raise InputError(
            f"A mask has 2 to 4 axes of at most {LARGEST:,} positions; this one is "
            f"{' × '.join(map(str, mask.shape)) or 'a single number'}."
        )
    return mask
