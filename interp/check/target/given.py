"""Inputs as the caller gave them: which are streams of one sequence, which stand still beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from headwise.interp.check.errors import CheckError
from headwise.interp.check.target.layout import Layout, Said, grid, plain, time_first
from headwise.interp.check.target.masking import MASKS
from headwise.interp.check.target.streams import Stream
from headwise.interp.check.target.vocabulary import Vocabulary
from headwise.interp.subject import Inputs, Subject

MAIN = ("decoder_input_ids", "input_ids", "inputs_embeds", "tgt", "x")  # the sequence among several inputs
BESIDE = re.compile(r"^(src|source|memory|context|cond|prompt|encoder)(_|$)", re.IGNORECASE)  # seen as a whole
STILL = re.compile(r"pos(ition)?(_?ids?|s)?$|^labels?$|^targets?$", re.IGNORECASE)  # no content


def as_mapping(inputs: Any, names: Sequence[str], subject: Subject | None) -> dict[str | None, Any]:
    """By argument; the main stream's tensor alone is under None. Raises CheckError for what is no input."""
    if isinstance(inputs, str) and subject is not None:
        inputs = subject.encode(inputs)
    if isinstance(inputs, Inputs):
        inputs = dict(inputs.kwargs)
    if isinstance(inputs, Tensor):
        return {None: inputs}
    if isinstance(inputs, tuple | list) and inputs and all(isinstance(t, Tensor) for t in inputs):
        inputs = dict(zip(names, inputs, strict=False))
    if not isinstance(inputs, Mapping) or not any(isinstance(v, Tensor) for v in inputs.values()):
        raise CheckError(
            f"inputs= expects a tensor (B, T, …), a tuple of tensors or a dict of tensors, got {type(inputs).__name__}."
        )
    return dict(inputs)


def main_of(given: Mapping[str | None, Any], told: Said | None = None) -> str | None:
    """The argument that carries the sequence: one whose layout was told, or whose name says so, or at least does not
    say that it stands beside."""
    tensors = [n for n, v in given.items() if isinstance(v, Tensor)]
    named = [n for n, _ in told.inputs if n in tensors] if told else []
    content = [n for n in tensors if not (BESIDE.search(str(n)) or STILL.search(str(n)) or n in MASKS)]
    return (named or [n for n in MAIN if n in tensors] or content or tensors)[0]


def layouts(main: Tensor, module: nn.Module, size: int | None) -> Iterator[Layout]:
    """Layouts that the main stream may have, the likeliest first. ``size``: positions that the promise, or a square
    beside the stream, fixes."""
    floats, n = main.is_floating_point() or main.is_complex(), main.ndim
    if n < 2:
        raise CheckError(
            f"inputs= expects a batch axis: (B, T) ids or (B, T, C) floats, got shape {tuple(main.shape)}."
        )
    if not main.numel():
        raise CheckError(f"inputs= holds nothing, its shape is {tuple(main.shape)}: give a sample of some positions.")
    for first in (1, 2):
        if size and n >= first + 2 and main.shape[first] * main.shape[first + 1] == size != main.shape[1]:
            yield grid(n, first)
    if size and main.shape[0] == size != main.shape[1]:
        yield time_first(n)
    channels_first = Layout(("B", "C", "T")) if floats and n == 3 else None
    if channels_first is not None and _convolves(module, main.shape):
        yield channels_first
    yield plain(n)
    if channels_first is not None:
        yield channels_first
    if floats and n == 4:
        yield grid(n)
        yield grid(n, 2)


def streams(
    given: Mapping[str | None, Any], main: str | None, layout: Layout, *, vocabulary: Vocabulary, told: Told
) -> tuple[list[Stream], dict[str, Any]]:
    """(the streams of the sequence, the main one first; what stands still beside it)."""
    first = given[main]
    batch, sizes = first.shape[layout.samples or 0], layout.sizes(first.shape)
    known = main is None or main in MAIN or len(vocabulary.tables) == 1  # is the table its own?
    made, rest = [_stream(main, first, layout, alphabet=_ids(first, vocabulary, known), told=told)], {}
    for index, (name, value) in enumerate(given.items()):
        if name == main:
            continue
        own = told.layout.of(name, index) if told.layout else None
        if own is None and isinstance(value, Tensor):
            own = _aligned(value, batch, sizes, layout)
        if own is None or (BESIDE.search(str(name)) and name not in told.ahead and not told.layout):
            rest[name] = value
        else:
            made.append(_stream(name, value, own, alphabet=_ids(value, vocabulary, name in MAIN), told=told))
    return made, rest


class Told:
    """What the caller said of inputs: their layout, those known ahead, the one that is a padding mask."""

    def __init__(self, layout: Said | None, ahead: Sequence[str], padding: str | None):
        self.layout, self.ahead, self.padding = layout, tuple(ahead), padding

    def still(self, name: str | None) -> bool:
        """Is it never changed?"""
        return name is not None and (
            name in self.ahead or name == self.padding or name in MASKS or bool(STILL.search(name))
        )


def _ids(value: Tensor, vocabulary: Vocabulary, known: bool) -> Tensor | None:
    """What may stand in place of ids, ``known``: those of the module's table; None of floats."""
    numbers = value.is_floating_point() or value.is_complex()
    return None if numbers else vocabulary.of(value, known)


def _stream(name: str | None, value: Tensor, layout: Layout, *, alphabet: Tensor | None, told: Told) -> Stream:
    if len(layout.axes) != value.ndim:
        raise CheckError(
            f"layout= {layout} has {len(layout.axes)} axes, but {name or 'the input'} has shape {tuple(value.shape)}."
        )
    x = layout.one_order(value, value.shape[layout.samples or 0])
    return Stream(name, layout, alphabet=alphabet, features=tuple(x.shape[2:]), given=x, changes=not told.still(name))


def _aligned(value: Tensor, batch: int, sizes: tuple[int, ...], main: Layout) -> Layout | None:
    """The layout of a tensor with the same samples and positions as the main stream; None of any other."""
    n = len(sizes)
    if value.ndim < 1 + n:
        return None
    if value.shape[0] == batch and tuple(value.shape[1 : 1 + n]) == sizes:
        rest = "CDEFG"[: value.ndim - 1 - n]
        return Layout(("B", *main.positions, *rest), main.positions)
    if n == 1 and value.ndim == 3 and value.shape[0] == batch and value.shape[2] == sizes[0]:
        return Layout(("B", "C", "T"))
    if n == 1 and main.axes[:2] == ("T", "B") and tuple(value.shape[:2]) == (sizes[0], batch):
        return Layout(("T", "B", *"CDEFG"[: value.ndim - 2]))
    return None


def _convolves(module: nn.Module, shape) -> bool:
    """Is the first layer a convolution over time that takes (B, C, T)?"""
    first = next((m for m in module.modules() if isinstance(m, nn.Conv1d | nn.Linear)), None)
    return isinstance(first, nn.Conv1d) and first.in_channels == shape[1]
