"""R: the same input twice, from the same random streams and from others; an input of another size before."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from headwise.interp.check.bench import Bench
from headwise.interp.check.errors import Refused
from headwise.interp.check.findings import found
from headwise.interp.check.gaps import gap
from headwise.interp.check.locate import watch
from headwise.interp.check.report import Finding
from headwise.interp.check.state import Snapshot, fingerprint, same_bits
from headwise.interp.check.target import Batch
from headwise.interp.check.target.resetting import resetting
from headwise.interp.run.parts import layer_number


def repeat(bench: Bench):
    target = bench.target
    here = {"batch": bench.batch, "length": bench.length}
    with target.untouched() as held:
        first = bench.run(bench.x)
        try:
            again = bench.run(bench.x)
        except Refused as refusal:
            yield found("state-raises", probe="R", effect=1.0, smallest={**here, "calls": 2}, error=refusal.brief())
            return "two runs, of which the second raised"
        other = target.run(bench.x, seed=1)
    changed, random = _gap(first, again), _gap(again, other)
    target.stateless = changed == 0 and _unchanged(bench, held)
    kept = changed > bench.rounding
    stale = None if kept else _stale(bench, held, first)
    if kept and (reset := resetting(target)) is not None:
        yield from _after_reset(bench, reset, first)
    elif kept:
        yield _kept(bench, first, again)
    elif stale is not None:
        what, effect, sizes = stale
        yield found("state-of-a-length", probe="R", effect=effect, smallest=sizes, what=what)
    if random > bench.rounding and not kept:
        yield found("random-in-eval", probe="R", effect=random, smallest=here)
    return "two runs, another random stream, another length and another batch size before"


def _kept(bench: Bench, first: Tensor, again: Tensor) -> Finding:
    here = {"batch": bench.batch, "length": bench.length, "calls": 2}
    if first.shape != again.shape:
        shapes = {"first": tuple(first.shape[:2]), "again": tuple(again.shape[:2])}
        return found("state-of-a-shape", probe="R", effect=math.inf, smallest=here, **shapes)
    name = _first_difference(bench)
    return found(
        "state-kept",
        probe="R",
        module=name,
        layer=layer_number(name) if name else None,
        inside="outside attention",
        effect=_gap(first, again),
        smallest=here,
    )


def _after_reset(bench: Bench, reset: Callable[[], None], first: Tensor):
    """A model may keep its state between calls if it can begin anew."""
    with bench.target.untouched():
        bench.run(bench.x)
        reset()
        again = bench.run(bench.x)
    effect = _gap(first, again)
    if effect <= bench.rounding:
        bench.notes.append("it keeps its state between calls and begins anew where it is reset")
        return
    name = _first_difference(bench, reset)
    yield found(
        "state-after-reset",
        probe="R",
        module=name,
        layer=layer_number(name) if name else None,
        inside="outside attention",
        effect=effect,
        smallest={"batch": bench.batch, "length": bench.length, "calls": 2},
    )


def _stale(bench: Bench, held: Snapshot, first: Tensor) -> tuple[str, float, dict] | None:
    """(what, by how much, the sizes) where an input of another length or batch, run before, changes the output; ∞ where
    it makes the model raise."""
    target, length = bench.target, max(2, bench.length // 2)
    others: list[tuple[str, Batch, dict]] = []
    if bench.expect.size is None and target.feed.cuts and not target.feed.forced:
        short = target.feed.draw(bench.batch, length, seed=9)
        others.append(("length", short, {"batch": bench.batch, "lengths": f"{length}, then {bench.length}"}))
    if bench.expect.batch is None and bench.batch > 1 and not target.feed.fixed(1):
        others.append(("batch", bench.x[:1], {"batches": f"1, then {bench.batch}", "length": bench.length}))
    for what, x, sizes in others:
        effect = _staled(bench, held, first, x)
        if effect > bench.rounding:
            return what, effect, sizes
    return None


def _staled(bench: Bench, held: Snapshot, first: Tensor, small: Batch) -> float:
    try:
        with bench.target.untouched():
            fresh = bench.run(small)  # before anything larger
            after = bench.run(bench.x)
            later = bench.run(small)
        return max(_gap(first, after), _gap(fresh, later))
    except Refused as refusal:
        held.restore()
        if not bench.takes(small):
            return 0.0
        bench.notes.append(f"after an input of another size it raises {refusal.kind}: {str(refusal)[:120]}")
        return math.inf


def _gap(a: Tensor, b: Tensor) -> float:
    return float(gap(a, b).max()) if a.shape == b.shape else math.inf


def _unchanged(bench: Bench, snapshot: Snapshot) -> bool:
    """Does a run leave the module as it was? Then there is no need to restore it before each."""
    snapshot.restore()
    with bench.target.untouched():
        before = fingerprint(bench.target.module)
        bench.run(bench.x)
        return before == fingerprint(bench.target.module)


def _first_difference(bench: Bench, reset: Callable[[], None] | None = None) -> str | None:
    """The module whose output differs first between two runs of one input."""
    with bench.target.untouched():
        _, one, _ = watch(bench.target, bench.x, operations=False)
        if reset is not None:
            reset()
        _, two, _ = watch(bench.target, bench.x, operations=False)
    for a, c in zip(one.visits_made, two.visits_made, strict=False):
        if any(p.shape != q.shape or not same_bits(p, q) for p, q in zip(a.outputs, c.outputs, strict=False)):
            return a.name
    return None
