"""Which position of one input stands for which of another, and where the two differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from headwise.interp.attention.axes import Axis, numbered
from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture

NAMED = 3  # differences that a sentence names


@dataclass(frozen=True, eq=False)
class Alignment:
    """Two sequences laid beside each other.

    ``pairs`` (position in the clean one, in the corrupted one), in order · ``differs``, for each pair, whether not the
    same thing stands there. Positions without a partner are in no pair.
    """

    clean: Axis
    corrupted: Axis
    pairs: tuple[tuple[int, int], ...]
    differs: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.pairs)

    @cached_property
    def alone(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Positions without a partner: of the clean sequence, and of the corrupted one."""
        paired = [{pair[side] for pair in self.pairs} for side in (0, 1)]
        sizes = (len(self.clean), len(self.corrupted))
        return tuple(tuple(p for p in range(n) if p not in has) for n, has in zip(sizes, paired, strict=True))

    @property
    def whole(self) -> bool:
        """Whether both are equally long, and each position has a partner."""
        return self.alone == ((), ())

    def partner(self, position: int) -> int | None:
        """Where in the corrupted sequence that stands which the clean one has at ``position``."""
        return dict(self.pairs).get(position)

    @property
    def sentence(self) -> str:
        """How many positions differ, which, and what has no partner."""
        noun = "patch" if self.clean.grid else "frame" if self.clean.sound else "token" if self.clean.text else ""
        changed = [pair for pair, differs in zip(self.pairs, self.differs, strict=True) if differs]
        told = f"{len(changed):,} of {_counted(len(self.pairs), noun)} differ{'s' if len(changed) == 1 else ''}"
        if changed and noun in ("token", ""):
            named = [f"{_said(self.clean, c)} → {_said(self.corrupted, k)}" for c, k in changed[:NAMED]]
            told += f": {', '.join(named)}{' …' if len(changed) > NAMED else ''}"
        for axis, alone, name in zip((self.clean, self.corrupted), self.alone, ("clean", "corrupted"), strict=True):
            if alone:
                named = ", ".join(_said(axis, p) for p in alone[:NAMED]) + (" …" if len(alone) > NAMED else "")
                told += f"; {_counted(len(alone), noun)} of the {name} input without a partner: {named}"
        return told if told.endswith("…") else f"{told}."


def align(clean: Capture, corrupted: Capture, sequence: str | None = None) -> Alignment:
    """The positions of two runs, one of their sequences: "input", "source", "target" …, the first by default.

    Inputs of one length are aligned position by position. Of others, what both have in the same order is paired;
    between, the last of what stands instead is paired with the last, since that is where a model gathers what a word
    of several tokens says. Raises InputError for a sequence that is not there, and where nothing is alike.
    """
    axes = []
    for cap in (clean, corrupted):
        name = sequence or next(iter(cap.axes), None)
        if name is None:
            axes.append(numbered(max((call.queries for call in cap.calls), default=0)))
        elif name in cap.axes:
            axes.append(cap.axes[name])
        else:
            raise InputError(
                f"There is no sequence {name!r} in this run; it has {', '.join(cap.axes) or 'none named'}."
            )
    pairs = aligned(*axes)
    shown = _pixels(clean, corrupted, axes[0]) if pairs.whole else None
    if shown is None:
        return pairs
    return Alignment(*axes, pairs.pairs, tuple(shown.tolist()))


def aligned(clean: Axis, corrupted: Axis) -> Alignment:
    """The same of two axes, by what their positions are called."""
    if len(clean) == len(corrupted):
        pairs = [(p, p) for p in range(len(clean))]
    else:
        pairs = [*_paired(clean.labels, corrupted.labels)]
        if not pairs:
            raise InputError("The two inputs have nothing in common, so their positions cannot be aligned.")
    differs = tuple(clean.labels[c] != corrupted.labels[k] for c, k in pairs)
    return Alignment(clean, corrupted, tuple(pairs), differs)


def _paired(clean: tuple[str, ...], corrupted: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    for _, c0, c1, k0, k1 in SequenceMatcher(None, clean, corrupted, autojunk=False).get_opcodes():
        both = min(c1 - c0, k1 - k0)
        yield from zip(range(c1 - both, c1), range(k1 - both, k1), strict=True)


def _pixels(clean: Capture, corrupted: Capture, axis: Axis) -> Tensor | None:
    """Where the two pictures or recordings differ, bool (T,); None for what is neither."""
    if axis.grid is None and axis.sound is None:
        return None
    for name, mine in clean.inputs.kwargs.items():
        other = corrupted.inputs.kwargs.get(name)
        floats = isinstance(mine, Tensor) and isinstance(other, Tensor) and mine.is_floating_point()
        if floats and mine.shape == other.shape and mine.ndim == (4 if axis.grid else 3):
            gap = (mine[0] - other[0]).abs().float()
            if axis.grid:
                cells = adaptive_max_pool2d(gap.amax(0)[None], axis.grid).flatten() > 0
            else:
                cells = adaptive_max_pool2d(gap.amax(0)[None, None], (1, len(axis))).flatten() > 0
            special = torch.zeros(len(axis) - len(cells), dtype=torch.bool)  # such as CLS, which comes first
            return torch.cat([special, cells.cpu()])
    return None


def _said(axis: Axis, position: int) -> str:
    return f"{axis.labels[position].strip() or repr(axis.labels[position])} ({position})"


def _counted(count: int, noun: str) -> str:
    noun = noun or "position"
    return f"{count:,} {noun if count == 1 else noun + ('es' if noun.endswith('ch') else 's')}"
