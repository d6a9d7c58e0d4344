"""T, E: the same answer in every mode and implementation."""

from __future__ import annotations

from torch import Tensor

from headwise.interp.attention.call import AttentionCall
from headwise.interp.check.bench import Bench
from headwise.interp.check.errors import DoesNotApply, Refused
from headwise.interp.check.findings import found, why
from headwise.interp.check.gaps import gap
from headwise.interp.check.locate import watch
from headwise.interp.check.report import Finding
from headwise.interp.check.target import BASE, Mode, other_modes
from headwise.interp.check.told import hides_all
from headwise.interp.run.parts import layer_number


def modes(bench: Bench):
    """Eval and train (dropout stilled), with and without gradient, weights, a mask of ones; eager and sdpa."""
    target = bench.target
    bench.only_without(besides=("labels", "window", "prefix"))
    tried, skipped = [], []
    for mode in other_modes(target):
        try:
            out = bench.run(bench.x, mode=mode)
            if mode.train and float(gap(out, target.run(bench.x, mode=mode, seed=1)).max()) > bench.rounding:
                skipped.append(f"{mode} draws random numbers")
                continue
        except Refused as refusal:
            skipped.append(f"{mode} raised {refusal.kind}")
            continue
        if out.shape != bench.out.shape:
            if mode.train:  # in training a model may answer more, or less
                skipped.append(f"{mode} gives another shape")
                continue
            yield _reshaped(bench, mode, out)
            return "stopped at the first mode that differs"
        worst, _ = bench.across(bench.out, out)
        if worst and mode.ones and (call := _all_hidden(bench, mode)) is not None:
            yield _ones(bench, call, worst)
            return "a mask of ones hides everything"
        if worst:
            yield _differs(bench, mode, worst)
            return "stopped at the first mode that differs"
        tried.append(str(mode))
    if not tried:
        raise DoesNotApply("; ".join(skipped) or "it has one mode")
    return f"{len(tried)} modes agree with {BASE}" + (f"; {'; '.join(skipped)}" if skipped else "")


def _ones(bench: Bench, call: AttentionCall, worst: float) -> Finding:
    return found(
        "ones-hide-all",
        probe="T",
        module=call.name,
        layer=call.layer,
        inside="attention",
        effect=worst,
        smallest={"batch": bench.batch, "length": bench.length},
    )


def _differs(bench: Bench, mode: Mode, worst: float) -> Finding:
    name = _apart(bench, mode) if not mode.eager else None
    return found(
        "modes-differ",
        probe="T",
        module=name,
        layer=layer_number(name) if name else None,
        effect=worst,
        smallest={"batch": bench.batch, "length": bench.length},
        mode=str(mode),
        base=BASE,
        why=_cause(mode),
    )


def _reshaped(bench: Bench, mode: Mode, out: Tensor) -> Finding:
    return found(
        "modes-shapes-differ",
        probe="T",
        effect=1.0,
        smallest={"batch": bench.batch, "length": bench.length},
        mode=str(mode),
        base=BASE,
        here=tuple(out.shape),
        there=tuple(bench.out.shape),
        why=_cause(mode),
    )


def _cause(mode: Mode) -> str:
    if mode.weights:
        return why("weights-asked")
    if mode.ones:
        return why("ones")
    return why("implementation", implementation=mode.eager) if mode.eager else why("branch")


def _apart(bench: Bench, mode: Mode) -> str | None:
    """The first module whose output differs between the base mode and ``mode``."""
    _, one, _ = watch(bench.target, bench.x, operations=False)
    _, two, _ = watch(bench.target, bench.x, mode=mode, operations=False)
    for a, c in zip(one.visits_made, two.visits_made, strict=False):
        if a.name == c.name and any(
            p.shape == q.shape and p.ndim >= 2 and float(gap(p, q).max()) > 1e-4
            for p, q in zip(a.outputs, c.outputs, strict=False)
        ):
            return a.name
    return None


def _all_hidden(bench: Bench, mode: Mode) -> AttentionCall | None:
    """The first attention call that hides all its keys in ``mode``."""
    _, watcher, _ = watch(bench.target, bench.x, mode=mode)
    calls = [c for c in watcher.finished("self")[0] if c.kind == "self" and c.queries == c.keys == bench.length]
    return next((c for c in calls if hides_all(c)), None)
