"""R: the same input twice, from the same random streams and from others; a short input before a long one."""

from __future__ import annotations

import math

from torch import Tensor

from headwise.interp.check.bench import Bench
from headwise.interp.check.errors import Refused
from headwise.interp.check.findings import found
from headwise.interp.check.gaps import gap
from headwise.interp.check.locate import watch
from headwise.interp.check.state import Snapshot, fingerprint, same_bits
from headwise.interp.run.parts import layer_number


def repeat(bench: Bench):
    target = bench.target
    short = max(2, bench.length // 2)
    with target.untouched() as held:
        first = bench.run(bench.x)
        again = bench.run(bench.x)
        other = target.run(bench.x, seed=1)
        changed, random = float(gap(first, again).max()), float(gap(again, other).max())
        stale = _stale(bench, held, first, short)
    target.stateless = changed == 0 and _unchanged(bench, held)
    here = {"batch": bench.batch, "length": bench.length}
    if changed > bench.rounding:
        name = _first_difference(bench)
        yield found(
            "state-kept",
            probe="R",
            module=name,
            layer=layer_number(name) if name else None,
            inside="outside attention",
            effect=changed,
            smallest={**here, "calls": 2},
        )
    elif stale > bench.rounding:
        lengths = {"batch": bench.batch, "lengths": f"{short}, then {bench.length}"}
        yield found("state-of-a-length", probe="R", effect=stale, smallest=lengths)
    if random > bench.rounding and changed <= bench.rounding:
        yield found("random-in-eval", probe="R", effect=random, smallest=here)
    return "two runs, another random stream, another length before"


def _stale(bench: Bench, held: Snapshot, first: Tensor, length: int) -> float:
    """How much an input of another length, run before, changes the output; ∞ where it makes the model raise."""
    target = bench.target
    if bench.expect.size is not None or not target.feed.cuts or target.feed.forced:
        return 0.0
    short = target.feed.draw(bench.batch, length, seed=9)
    try:
        held.restore()
        fresh = bench.run(short)  # before anything longer
        after = bench.run(bench.x)
        later = bench.run(short)
        return max(_gap(first, after), _gap(fresh, later))
    except Refused as refusal:
        held.restore()
        if not bench.takes(short):
            return 0.0
        held.restore()
        bench.notes.append(f"after an input of another length it raises {refusal.kind}: {str(refusal)[:120]}")
        return math.inf


def _gap(a: Tensor, b: Tensor) -> float:
    return float(gap(a, b).max()) if a.shape == b.shape else math.inf


def _unchanged(bench: Bench, snapshot: Snapshot) -> bool:
    """Does a run leave the module as it was? Then there is no need to restore it before each."""
    snapshot.restore()
    before = fingerprint(bench.target.module)
    bench.run(bench.x)
    same = before == fingerprint(bench.target.module)
    snapshot.restore()
    return same


def _first_difference(bench: Bench) -> str | None:
    """The module whose output differs first between two runs of one input."""
    with bench.target.untouched():
        _, one, _ = watch(bench.target, bench.x, operations=False)
        _, two, _ = watch(bench.target, bench.x, operations=False)
    for a, c in zip(one.visits_made, two.visits_made, strict=False):
        if any(p.shape != q.shape or not same_bits(p, q) for p, q in zip(a.outputs, c.outputs, strict=False)):
            return a.name
    return None
