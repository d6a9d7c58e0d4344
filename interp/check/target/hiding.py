"""Which argument says what is padding, told by what it does where no name tells: it takes 0 and 1 for each position,
and what it hides reaches no other output."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from headwise.interp.check.errors import Refused
from headwise.interp.check.gaps import gap, rounding
from headwise.interp.check.target.masking import PaddingArgument
from headwise.interp.check.target.streams import Batch
from headwise.interp.check.target.target import Target

OTHER = re.compile(
    r"past|cache|state|label|target|memory|source|src|embed|pos|segment|type|doc|ids|hidden|output|return|use|is_|weight",
    re.IGNORECASE,
)  # names of arguments that are no mask of positions
TRIED = 4  # arguments at most


def settle_padding(target: Target, x: Batch) -> None:
    """Sets ``target.padding`` where an argument is found."""
    if target.padding.name is not None or target.forward is not None or not target.feed.cuts or x.length < 4:
        return
    for argument in _candidates(target):
        target.padding = argument
        if _settled(target, x):
            feed = target.feed
            feed.streams = [replace(s, changes=s.changes and s.name != argument.name) for s in feed.streams]
            real = 1 if target.padding.keeps else 0
            target.notes.append(
                f"{argument.name} was taken for the padding mask, {real} = real: what it hides reaches no other output"
            )
            return
    target.padding = PaddingArgument()


def _candidates(target: Target) -> Iterator[PaddingArgument]:
    """Streams of two values beside the main one; arguments that may be left out."""
    feed = target.feed
    for stream in feed.streams[1:]:
        given = stream.given
        if given is not None and not stream.features and bool(((given == 0) | (given == 1)).all()):
            yield PaddingArgument(stream.name, dtype=given.dtype)
    free = [
        n for n, p in target.parameters.items() if p.default is None and n not in feed.names and not OTHER.search(n)
    ]
    for name in free[:TRIED]:
        yield from (PaddingArgument(name, dtype=dtype) for dtype in (torch.bool, torch.long))


def _settled(target: Target, x: Batch) -> bool:
    """Is the argument a padding mask, in one polarity and not in both? Both: it tells documents apart."""
    ways = []
    for keeps in (True, False):
        target.padding.keeps = keeps
        try:
            if _hides(target, x):
                ways.append(keeps)
        except Refused:
            continue
    target.padding.keeps = ways == [True]
    target.padding.settled = len(ways) == 1
    return len(ways) == 1


def _hides(target: Target, x: Batch) -> bool:
    """Does other content where the mask hides it leave all other outputs as they are, and only then?"""
    ones = torch.ones(x.size, x.length, dtype=torch.long, device=x.device)
    plain = target.run(x, ones)
    tolerance = rounding(plain.dtype if plain.is_floating_point() else torch.float32)
    left_out = target.padding.name not in target.feed.names
    if left_out and float(gap(target.run(x), plain).max()) > tolerance:
        return False  # a mask of ones says what no mask says
    index = torch.arange(x.length, device=x.device)
    for hidden in (index < x.length // 3, index % 3 == 1):
        where = hidden.expand(x.size, -1)
        other = target.feed.perturb(x, where, seed=61)
        shown = _change(plain, target.run(other, ones), ~where)
        mask = (~where).long()
        kept = _change(target.run(x, mask), target.run(other, mask), ~where)
        if shown > 100 * tolerance and kept <= tolerance:
            return True
    return False


def _change(a: Tensor, b: Tensor, where: Tensor) -> float:
    """Of outputs at the positions that count; of the last output, where outputs stand at others."""
    return float((gap(a, b, where) if a.shape[1] == where.shape[1] else gap(a, b)[:, -1:]).max())
