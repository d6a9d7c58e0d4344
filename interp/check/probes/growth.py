"""G: a causal model's answer to the first n inputs does not change when more follow."""

from __future__ import annotations

from headwise.interp.check.bench import Bench
from headwise.interp.check.errors import DoesNotApply, Refused
from headwise.interp.check.findings import found
from headwise.interp.check.gaps import gap
from headwise.interp.check.locate import watch
from headwise.interp.check.target import Batch
from headwise.interp.run.parts import layer_number


def growth(bench: Bench):
    if (
        not bench.per_output
        or not bench.expect.is_causal()
        or bench.expect.size is not None
        or not bench.target.feed.cuts
    ):
        raise DoesNotApply("only a causal promise without fixed lengths says so")
    if bench.target.feed.told.ahead:
        raise DoesNotApply("what is known ahead would be cut along with the rest")
    bench.only_without()
    tried = []
    for length in dict.fromkeys((max(2, bench.length // 2), bench.length - 1)):
        x = bench.x.cut(0, length)
        try:
            short = bench.run(x)
        except Refused as refusal:
            bench.notes.append(f"length {length} raised {refusal.kind}")
            continue
        n = int((bench.positions < length).sum())
        if short.shape[1] < n or short.shape[1] == 1:
            continue
        worst, _ = bench.across(bench.out[:, :n], short[:, :n])
        if worst:
            name = _grown(bench, x, length)
            yield found(
                "length-enters",
                probe="G",
                module=name,
                layer=layer_number(name) if name else None,
                inside="outside attention",
                effect=worst,
                smallest={"lengths": f"{length} against {bench.length}"},
                length=length,
                more=bench.length - length,
            )
            return "stopped at the first length that differs"
        tried.append(length)
    if not tried:
        raise DoesNotApply("no shorter input could be run")
    return f"the first {' and '.join(map(str, tried))} of {bench.length}"


def _grown(bench: Bench, x: Batch, length: int) -> str | None:
    """The first module whose output at the first ``length`` positions differs."""
    _, one, _ = watch(bench.target, bench.x)
    _, two, _ = watch(bench.target, x)
    for a, c in zip(one.visits_made, two.visits_made, strict=False):
        for p, q in zip(a.outputs, c.outputs, strict=False):
            timed = p.ndim == q.ndim == 3 and p.shape[1] == bench.length and q.shape[1] == length
            if timed and float(gap(q, p[:, :length]).max()) > 1e-4:
                return a.name
    return None
