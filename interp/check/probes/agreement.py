"""T, E, G: the same answer in every mode and implementation, and for a prefix of the input as for the whole of it."""

from __future__ import annotations

from headwise.interp.check.bench import Bench, DoesNotApply
from headwise.interp.check.gaps import gap
from headwise.interp.check.locate import layer_number, watch
from headwise.interp.check.report import Finding
from headwise.interp.check.target import BASE, REFUSALS, Mode, other_modes


def modes(bench: Bench):
    """T, E: eval and train (dropout stilled), with and without gradient, weights, a mask of ones; eager and sdpa."""
    target = bench.target
    if any(f.cls not in ("labels", "window", "prefix") for f in bench.findings):
        raise DoesNotApply(f"a {bench.findings[0].cls} was found: repair that first")
    tried, skipped = [], []
    for mode in other_modes(target):
        try:
            out = bench.run(bench.x, mode=mode)
            if mode.train and float(gap(out, target.run(bench.x, mode=mode, seed=1)).max()) > bench.rounding:
                skipped.append(f"{mode} draws random numbers")
                continue
        except REFUSALS as error:
            skipped.append(f"{mode} raised {type(error).__name__}")
            continue
        if out.shape != bench.out.shape:
            skipped.append(f"{mode} gives another shape")
            continue
        worst, _ = bench.across(bench.out, out)
        if worst:
            if mode.ones and (call := _all_hidden(bench, mode)) is not None:
                yield Finding(
                    "mask-convention",
                    f"Layer {call.layer} ({call.name}) hides every key when all "
                    f"are real: its padding mask is inverted.",
                    "T",
                    call.name,
                    call.layer,
                    (),
                    "attention",
                    worst,
                    None,
                    {"batch": bench.batch, "length": bench.length},
                    "True means padding in nn.MultiheadAttention's "
                    "key_padding_mask and real in Hugging Face's attention_mask",
                    "negate the mask with ~",
                    "certain",
                )
                return "a mask of ones hides everything"
            name = _apart(bench, mode) if not mode.eager else None
            yield Finding(
                "mode",
                f"The output in {mode} differs from that in {BASE}{', first at ' + name if name else ''}.",
                "T",
                name,
                layer_number(name) if name else None,
                (),
                "",
                worst,
                None,
                {"batch": bench.batch, "length": bench.length},
                _cause(mode),
                "compute the mask once and pass it on every path",
                "likely",
                str(mode),
            )
            return "stopped at the first mode that differs"
        tried.append(str(mode))
    if not tried:
        raise DoesNotApply("; ".join(skipped) or "it has one mode")
    return f"{len(tried)} modes agree with {BASE}" + (f"; {'; '.join(skipped)}" if skipped else "")


def _cause(mode: Mode) -> str:
    if mode.weights:
        return "asking for the attention weights takes another path"
    if mode.ones:
        return "no mask and a mask of ones are not the same: a mask replaces another one, or polarity differs"
    if mode.eager:
        return f"the {mode.eager} implementation masks or scales differently"
    return "a branch on training or gradient mode"


def _apart(bench: Bench, mode: Mode) -> str | None:
    """The first module whose output differs between the base mode and ``mode``."""
    _, one, _ = watch(bench.target, bench.x, None, BASE, operations=False)
    _, two, _ = watch(bench.target, bench.x, None, mode, operations=False)
    for a, c in zip(one.visits_made, two.visits_made, strict=False):
        if a.name == c.name and any(
            p.shape == q.shape and p.ndim >= 2 and float(gap(p, q).max()) > 1e-4
            for p, q in zip(a.outputs, c.outputs, strict=False)
        ):
            return a.name
    return None


def _all_hidden(bench: Bench, mode: Mode):
    """The first attention call that hides all its keys in ``mode``."""
    _, watcher, _ = watch(bench.target, bench.x, None, mode)
    calls = [c for c in watcher.finished("self")[0] if c.kind == "self" and c.queries == c.keys == bench.length]
    return next(
        (
            c
            for c in calls
            if bool(c.empty_rows().all())
            or float(c.score_band(0, c.queries).max()) < -5_000
            or (c.bias is not None and float(c.bias.max()) < -5_000)
        ),
        None,
    )


def growth(bench: Bench):
    """G: a causal model's answer to the first n inputs does not change when more follow."""
    target = bench.target
    if not bench.per_output or not bench.expect.is_causal() or bench.expect.size is not None:
        raise DoesNotApply("only a causal promise without fixed lengths says so")
    if bench.findings:
        raise DoesNotApply(f"a {bench.findings[0].cls} was found: repair that first")
    full = bench.out
    tried = []
    for length in dict.fromkeys((max(2, bench.length // 2), bench.length - 1)):
        x = bench.x.narrow(target.time, 0, length)
        try:
            short = bench.run(x)
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            bench.notes.append(f"length {length} raised {type(error).__name__}")
            continue
        n = int((bench.positions < length).sum())
        if short.shape[1] < n or short.shape[1] == 1:
            continue
        worst, _ = bench.across(full[:, :n], short[:, :n])
        if worst:
            name = _grown(bench, x, length)
            yield Finding(
                "outside-attention",
                f"The first {length} outputs change when {bench.length - length} more inputs "
                f"follow, whatever these are{', first at ' + name if name else ''}.",
                "G",
                name,
                layer_number(name) if name else None,
                (),
                "outside attention",
                worst,
                None,
                {"lengths": f"{length} against {bench.length}"},
                "the length itself enters: a mean over it, a position counted from the end, a bucket or a scale",
                "count from the start",
                "likely",
            )
            return "stopped at the first length that differs"
        tried.append(length)
    if not tried:
        raise DoesNotApply("no shorter input could be run")
    return f"the first {' and '.join(map(str, tried))} of {bench.length}"


def _grown(bench: Bench, x, length: int) -> str | None:
    _, one, _ = watch(bench.target, bench.x, None, BASE)
    _, two, _ = watch(bench.target, x, None, BASE)
    for a, c in zip(one.visits_made, two.visits_made, strict=False):
        for p, q in zip(a.outputs, c.outputs, strict=False):
            if (
                p.ndim == q.ndim == 3
                and p.shape[1] == bench.length
                and q.shape[1] == length
                and float(gap(q, p[:, :length]).max()) > 1e-4
            ):
                return a.name
    return None
