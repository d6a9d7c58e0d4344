"""B of one answer a sequence: which position of a padded row is it read at?"""

from __future__ import annotations

import torch

from headwise.interp.check.bench import Bench
from headwise.interp.check.findings import found, why
from headwise.interp.check.gaps import gap
from headwise.interp.check.lookups import read_at
from headwise.interp.check.probes.sides import Padded
from headwise.interp.check.report import Finding


def looked_up(bench: Bench, padded: Padded) -> Finding | None:
    """An answer that is read at a position other than the last real one, although without padding it is read at the
    last. In a causal model that is the last position on whose content it depends.
    """
    made, length = padded.made, bench.length
    if bench.target.inner is not None or bench.per_output or not bench.expect.is_causal():
        return None
    if 2 * length > bench.affordable(0.05) or _read_at(bench, padded=None) != [length - 1] * bench.batch:
        return None
    read, real = _read_at(bench, padded), list(made.lengths)
    last = [start + n - 1 for start, n in zip(made.promise.starts, real, strict=True)]
    if read == last or None in read:
        return None
    b = next(b for b in range(bench.batch) if read[b] != last[b])
    if not _right_at_last(bench, padded, torch.tensor(last), b):
        return None  # a mean, or something else that reads the padding
    by = "by-count" if read == [n - 1 for n in real] else "by-row" if set(read) == {length - 1} else ""
    return found(
        "answer-looked-up",
        probe="B",
        module="",
        inside="outside attention",
        effect=1.0,
        smallest={"batch": 1, "length": real[b], "padding": length - real[b]},
        side=made.name,
        at=read[b],
        last=last[b],
        why=why(by) if by else "",
    )


def _right_at_last(bench: Bench, padded: Padded, last: torch.Tensor, b: int) -> bool:
    """Does the model answer as it does for sample ``b`` alone, when the answer is read at the last real position?"""
    target, n, start = bench.target, padded.made.lengths[b], padded.made.promise.starts[b]
    out = read_at(target, padded.x, padded.mask, last, **padded.extra)
    if out is None or padded.extra:
        return out is not None
    with target.alone(b, bench.batch):
        return not bench.across(bench.run(padded.x[b : b + 1].cut(start, n)), out[b : b + 1])[0]


def _read_at(bench: Bench, padded: Padded | None) -> list[int | None]:
    """The last position whose content changes each sample's answer."""
    x, mask = (bench.x, None) if padded is None else (padded.x, padded.mask)
    extra = {} if padded is None else padded.extra
    base, read = bench.run(x, mask, **extra), [None] * bench.batch
    for position in reversed(range(bench.length)):
        where = torch.zeros(bench.batch, bench.length, dtype=torch.bool)
        where[:, position] = True
        out = bench.run(bench.target.feed.perturb(x, where, seed=25), mask, **extra)
        moved = (gap(base, out).amax(1) > bench.rounding).tolist()
        read = [position if at is None and moves else at for at, moves in zip(read, moved, strict=True)]
        if None not in read:
            break
    return read
