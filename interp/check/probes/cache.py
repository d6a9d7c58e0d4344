"""C: decoding with a cache – prefill, one position at a time, chunks, a batch of one, a second sequence, padding –
against the full forward."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from headwise.interp.check.bench import Bench
from headwise.interp.check.errors import DoesNotApply, Refused
from headwise.interp.check.findings import found
from headwise.interp.check.probes.cached_cause import Place, located
from headwise.interp.check.probes.cached_left import left_behind
from headwise.interp.check.probes.cached_padded import padded
from headwise.interp.check.probes.decoding import Decoded, Plan, decode, few
from headwise.interp.check.report import Finding
from headwise.interp.check.target.stepping import stepping
from headwise.interp.check.target.steps import Stepping


@dataclass
class Tally:
    """What came of the plans: gaps (B, T) to the full forward, or what the model raised."""

    gaps: dict[Plan, Tensor] = field(default_factory=dict)
    refused: dict[Plan, str] = field(default_factory=dict)
    keeps: bool = False  # steps leave no cache: the model keeps it to itself


def cache(bench: Bench):
    way = _way(bench)
    bench.only_without(besides=("labels", "padding", "position-ids", "state"))
    tally = Tally(keeps=way.keeps)
    for plan in _plans(bench, way):
        if plan.alone and any(ran.alone for ran in tally.gaps):
            continue
        if (wrong := _one(bench, way, plan, tally)) is not None:
            yield wrong
            return f"stopped at {plan.name}"
    if not tally.gaps:
        plan, error = next(iter(tally.refused.items()))
        if bench.target.step is None:
            raise DoesNotApply(f"decoding with a cache raised {error}")
        yield _raises("cache-raises", plan, error)
        return "no plan ran"
    for plan, error in tally.refused.items():
        if bench.target.step is not None and "position" in plan.name:
            yield _raises("cache-raises-on-one", plan, error)
            return f"stopped at {plan.name}"
        bench.notes.append(f"cache, {plan.name}: {error}")
    done = "; ".join(p.name for p in tally.gaps)
    before = len(bench.findings)
    if not any(f.cls == "state" for f in bench.findings):
        shortest = min(tally.gaps, key=lambda plan: (plan.alone, len(plan.chunks)))
        again = yield from left_behind(bench, way, tally.keeps, done=shortest)
        done += f"; {again}" if again else ""
    if len(bench.findings) == before:
        done += yield from padded(bench, way)
    return f"{done} (by {way.name})" if bench.target.step is None else done


def _way(bench: Bench) -> Stepping:
    target = bench.target
    if not target.feed.positional or not bench.per_output:
        raise DoesNotApply("the output has no time axis to decode along")
    if target.step is None and bench.expect.free:
        raise DoesNotApply("both directions are promised: an output waits for what comes after it", moot=True)
    if target.inner is not None:
        raise DoesNotApply("it gives one output a sequence, so there are no steps")
    if bench.unit is None:
        raise DoesNotApply(f"{len(bench.positions)} outputs for {bench.length} inputs: steps do not fall on outputs")
    if target.step is None and not target.hugging and not bench.expect.is_causal(bench.length):
        raise DoesNotApply("an output may wait for what comes after it", moot=True)
    if target.step is None and target.feed.grid:
        raise DoesNotApply("the positions are a grid, which has no next one")
    return stepping(target, bench.x, bench.out, bench.unit, tries=max(6, bench.affordable(0.1) // 6))


def _plans(bench: Bench, way: Stepping) -> list[Plan]:
    """How many inputs a step takes; where several make an output, as many."""
    plans = _in_outputs(bench, way, len(bench.positions))
    return [replace(plan, chunks=tuple(n * bench.unit for n in plan.chunks)) for plan in plans]


def _in_outputs(bench: Bench, way: Stepping, length: int) -> list[Plan]:
    half = max(1, length // 2)
    ones = (1,) * length
    if way.single:
        return [Plan("one position at a time", ones), Plan("one position at a time, a batch of one", ones, alone=True)]
    if few(bench):
        return [
            Plan("prefill, then one position at a time", (length - 3, 1, 1, 1)),
            Plan("prefill, then a chunk", (half, length - half - 2, 2)),
        ]
    rest = length - half
    plans = [
        Plan("one position at a time", ones),
        Plan("prefill, then one position at a time", (half, *ones[:rest])),
        Plan("chunks of 3", _chunks(length, 3)),
        Plan("prefill, then chunks of 4", (half, *_chunks(rest, 4))),
    ]
    if bench.batch > 1 and bench.expect.batch is None:
        mixed = tuple(n for n in (half, 1, 1, rest - 2) if n > 0)
        plans.append(Plan("prefill, two singles and the rest, a batch of one", mixed, alone=True))
        plans.append(Plan("prefill, then one position at a time, a batch of one", (half, *ones[:rest]), alone=True))
    return plans


def _chunks(length: int, size: int) -> tuple[int, ...]:
    return (size,) * (length // size) + ((length % size,) if length % size else ())


def _one(bench: Bench, way: Stepping, plan: Plan, tally: Tally) -> Finding | None:
    """Decode by a plan, and say where it differs."""
    try:
        made = decode(bench, way, plan)
    except Refused as refusal:
        tally.refused[plan] = refusal.brief()
        return None
    tally.keeps |= made.kept and bench.target.step is not None
    if made.out.shape != made.full.shape:
        given, wanted = tuple(made.out.shape[:2]), tuple(made.full.shape[:2])
        return found("cache-outputs", probe="C", effect=1.0, plan=plan.name, given=given, wanted=wanted)
    worst, tally.gaps[plan] = bench.across(made.full, made.out)
    return _mismatch(bench, way, plan, made=made, gaps=tally.gaps[plan]) if worst else None


def _mismatch(bench: Bench, way: Stepping, plan: Plan, *, made: Decoded, gaps: Tensor) -> Finding:
    worst = float(gaps.max())
    first = int((gaps.isinf().any(0) if worst == float("inf") else gaps.amax(0) > worst / 50).nonzero()[0])
    index, start = plan.at(first * bench.unit)
    place = located(bench, way, plan, index) or Place(None)
    kind, known = place.cause or ("cache-differs", {"why": _seen(bench, way, plan, first)})
    return found(
        kind,
        probe="C",
        module=place.module,
        layer=place.layer,
        inside=place.inside,
        effect=worst,
        smallest={
            "batch": made.full.shape[0],
            "chunks": list(plan.chunks[: index + 1]),
            "position": first,
            "step": way.call,
        },
        plan=plan.name,
        position=first,
        start=start,
        n=plan.chunks[index],
        **known,
    )


def _seen(bench: Bench, way: Stepping, plan: Plan, first: int) -> str:
    """What is known of a difference whose cause is not: which steps agree."""
    if plan.alone:
        return "the same steps agree in a batch of several"
    index, start = plan.at(first * bench.unit)
    n = plan.chunks[index]
    if index == 0:
        return f"the first chunk, of {n}, already differs, with nothing before it"
    if n == bench.unit:
        return "a step of one position differs"
    singles = Plan("", (bench.unit,) * len(bench.positions))
    try:
        made = decode(bench, way, singles)
        agree = made.out.shape == made.full.shape and not bench.across(made.full, made.out)[0]
    except Refused:
        return f"a chunk of {n} differs"
    if not agree:
        return f"a chunk of {n} differs, and so do steps of one position"
    if first * bench.unit > start:
        return f"steps of one position agree, and so does the first of a chunk of {n}; those behind it differ"
    return f"steps of one position agree, a chunk of {n} differs from its first position on"


def _raises(kind: str, plan: Plan, error: str) -> Finding:
    return found(kind, probe="C", effect=1.0, smallest={"chunks": list(plan.chunks[:4])}, plan=plan.name, error=error)
