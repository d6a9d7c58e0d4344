"""C with padding on the left, as batched generation has it: a chunk from the cache against the full forward."""

from __future__ import annotations

import torch
from torch import Tensor

from headwise.interp.check.bench import Bench
from headwise.interp.check.errors import Refused
from headwise.interp.check.findings import found
from headwise.interp.check.probes.sides import Side, position_ids, side
from headwise.interp.check.target import BASE, Batch
from headwise.interp.check.target.steps import Stepping


def padded(bench: Bench, way: Stepping):
    """Yields what is found; returns what it did, as an addition to a list."""
    target = bench.target
    told = target.padding.name is not None and target.padding.tells_sides
    broken = any(f.cls in ("padding", "position-ids") for f in bench.findings)
    if broken or not way.masked or not told or bench.unit != 1 or bench.expect.size is not None:
        return ""
    for batch in dict.fromkeys((bench.batch, 1)):
        if batch != bench.batch and bench.expect.batch is not None:
            continue
        made = side("left", (batch, bench.length), bench.x.device)
        try:
            with target.alone(0, bench.batch) if batch != bench.batch else target.beside(target.feed.fixed):
                worst = _worst(bench, way, bench.x[:batch], made)
        except Refused as refusal:
            bench.notes.append(f"cache with left padding raised {refusal.brief()}")
            return ""
        if worst:
            half = bench.length // 2
            smallest = {"batch": batch, "chunks": [half, bench.length - half]}
            yield found("cache-padded", probe="C", effect=worst, smallest=smallest | {"padding": _most(made)})
            return ""
    return "; left-padded"


def _most(made: Side) -> int:
    return made.mask.shape[1] - made.lengths[-1]


def _worst(bench: Bench, way: Stepping, x: Batch, made: Side) -> float:
    """The gap on real positions, by the whole mask so far or by the chunk's own, whichever the model means."""
    positions, real = position_ids(bench, made), made.mask.bool()
    full = bench.run(x, made.mask, **positions)
    worst, refusal = [], None
    for whole in (True,) if bench.target.hugging else (True, False):
        try:
            out = _decoded(bench, way, x, made=made, positions=positions, whole=whole)
        except Refused as error:
            refusal = error
            continue
        worst.append(bench.across(full, out, real)[0])
        if not worst[-1]:
            break
    if not worst:
        raise refusal
    return min(worst)


def _decoded(bench: Bench, way: Stepping, x: Batch, *, made: Side, positions: dict, whole: bool) -> Tensor:
    target, length = bench.target, bench.length
    state, parts, half = None, [], length // 2
    with target.untouched(), target.in_mode(BASE):
        for start, end in ((0, half), (half, length)):
            chunk = x.cut(start, end - start)
            mask = made.mask[:, (0 if whole else start) : end]
            own = {name: p[:, start:end] for name, p in positions.items()}
            raw, state = way.step(chunk, state, mask, **own)
            parts.append(target.read(raw, chunk))
    return torch.cat(parts, 1)
