"""Values as Python text: what a person would have typed, where that is possible."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

WRITTEN = 600  # numbers that are written out; more are packed
PACKED = 65_536  # bytes that are packed into the text; more is not spelled
PLAIN = (bool, int, str, bytes, complex, type(None), type(...))


class Unspelled(ValueError):
    """A value that has no text. The message says which."""


def literal(value) -> str:
    """A number, a word, a dtype, or containers of them. Raises Unspelled.

    >>> literal((1, float("inf"), {"a": [None]}))
    "(1, float('inf'), {'a': [None]})"
    """
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else f"float('{value}')"
    if type(value) in PLAIN:
        return repr(value)
    if isinstance(value, torch.dtype | torch.device):
        return repr(value) if isinstance(value, torch.dtype) else f"torch.{value!r}"
    if isinstance(value, slice):
        return f"slice({literal(value.start)}, {literal(value.stop)}, {literal(value.step)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()) + "}"
    if type(value) in (list, tuple, set, frozenset, torch.Size):
        inner = ", ".join(map(literal, value))
        if isinstance(value, set | frozenset):
            return f"{type(value).__name__}([{inner}])"
        return f"[{inner}]" if type(value) is list else f"({inner}{',' if len(value) == 1 else ''})"
    raise Unspelled(f"a {type(value).__name__} cannot be written down")


def tensor(t: Tensor) -> str:
    """Its exact values: as ones, a triangle, a count, numbers, or packed. Raises Unspelled for what is too large."""
    t = t.detach().cpu()
    shape, dtype = ", ".join(map(str, t.shape)), _dtype(t)
    if t.numel() and bool((t == t.flatten()[0]).all()):
        value = t.flatten()[0].item()
        return f"torch.full(({shape}{',' if t.ndim == 1 else ''}), {literal(value)}{dtype or _named(t)})"
    if t.ndim >= 2 and bool(torch.equal(t, torch.ones_like(t).tril())):
        return f"torch.ones({shape}{dtype}).tril()"
    if t.ndim == 1 and torch.equal(t, torch.arange(len(t), dtype=t.dtype)):
        return f"torch.arange({len(t)}{dtype if t.dtype != torch.long else ''})"
    if t.numel() <= WRITTEN:
        given = dtype if t.dtype not in (torch.bool, torch.long) else ""
        return f"torch.tensor({_numbers(t.tolist())}{given})"
    data = zlib.compress(t.contiguous().view(torch.uint8).numpy().tobytes(), 9)
    if len(data) > PACKED:
        raise Unspelled(f"a tensor of shape ({shape}) is too large to be written down")
    text = base64.b64encode(data).decode()
    return f'unpacked("{text}", ({shape}{"," if t.ndim == 1 else ""}), {t.dtype})'


UNPACKED = '''
def unpacked(text, shape, dtype):
    """A tensor from its packed bytes."""
    data = bytearray(zlib.decompress(base64.b64decode(text)))
    return torch.frombuffer(data, dtype=dtype).reshape(shape).clone()
'''


def _dtype(t: Tensor) -> str:
    return "" if t.dtype == torch.float32 else f", dtype={t.dtype}"


def _named(t: Tensor) -> str:
    return f", dtype={t.dtype}"


def _numbers(values) -> str:
    if isinstance(values, list):
        return "[" + ", ".join(map(_numbers, values)) + "]"
    if isinstance(values, float) and math.isfinite(values):
        return f"{values:.8g}" if not values.is_integer() else f"{values:.1f}"
    return literal(values)


def index(places: Sequence[int], size: int) -> str:
    """Places along an axis as one would index them.

    >>> index([0, 1, 2], 9), index([4], 9), index([7, 8], 9), index([1, 3], 9)
    (':3', '4:5', '7:', '[1, 3]')
    """
    places = list(places)
    if places == list(range(size)):
        return ":"
    if places == list(range(places[0], places[-1] + 1)):
        start = str(places[0]) if places[0] else ""
        stop = str(places[-1] + 1) if places[-1] + 1 < size else ""
        return f"{start}:{stop}"
    return str(places)


def spoken(places: Sequence[int], what: str) -> str:
    """ "input 3", "inputs 3…7" or "inputs 1, 4 and 6"."""
    places = list(places)
    if len(places) == 1:
        return f"{what} {places[0]}"
    if places == list(range(places[0], places[-1] + 1)):
        return f"{what}s {places[0]}…{places[-1]}"
    return f"{what}s {', '.join(map(str, places[:-1]))} and {places[-1]}"
