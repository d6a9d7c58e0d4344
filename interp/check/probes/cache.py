"""C: decoding with a cache – prefill, one token at a time, chunks – against the full forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from headwise.interp.check.bench import Bench
from headwise.interp.check.errors import DoesNotApply, Refused
from headwise.interp.check.findings import found, why
from headwise.interp.check.gaps import gap
from headwise.interp.check.locate import Watcher, watch
from headwise.interp.check.probes.sides import position_ids, side
from headwise.interp.check.report import Finding
from headwise.interp.check.state import seed_everything
from headwise.interp.check.target import BASE, Batch
from headwise.interp.run.parts import layer_number
from headwise.interp.run.tap import listen


@dataclass(frozen=True)
class Plan:
    """How a sequence is cut into chunks."""

    name: str
    chunks: tuple[int, ...]

    def at(self, position: int) -> tuple[int, int]:
        """(index of the chunk that holds the position, where that chunk starts)."""
        ends = torch.tensor(self.chunks).cumsum(0).tolist()
        index = next(i for i, end in enumerate(ends) if position < end)
        return index, ends[index] - self.chunks[index]


def cache(bench: Bench):
    target = bench.target
    step = stepper(bench)
    bench.only_without(besides=("labels", "padding", "position-ids", "state"))
    x, full = bench.x, bench.run(bench.x)
    ran: list[str] = []
    refused: dict[Plan, str] = {}
    for plan in _plans(bench):
        try:
            out = torch.cat(_decode(bench, step, plan), 1)
        except Refused as refusal:
            refused[plan] = refusal.brief()
            continue
        ran.append(plan.name)
        if out.shape != full.shape:
            given, wanted = tuple(out.shape[:2]), tuple(full.shape[:2])
            yield found("cache-outputs", probe="C", effect=1.0, plan=plan.name, given=given, wanted=wanted)
            return plan.name
        worst, gaps = bench.across(full, out)
        if worst:
            yield _mismatch(bench, step, plan, gaps)
            return f"stopped at {plan.name}"
    if not ran:
        plan, error = next(iter(refused.items()))
        if target.step is None:
            raise DoesNotApply(f"decoding with a cache raised {error}")
        yield _raises("cache-raises", plan, error)
        return "no plan ran"
    for plan, error in refused.items():
        if target.step is not None and "token" in plan.name:
            yield _raises("cache-raises-on-one", plan, error)
            return f"stopped at {plan.name}"
        bench.notes.append(f"cache, {plan.name}: {error}")
    done = "; ".join(ran)
    masked = target.padding.name in ("attention_mask", "decoder_attention_mask")
    if target.hugging and target.step is None and masked and bench.expect.size is None:
        yield from _padded(bench, x)
        done += "; left-padded"
    return done


def _plans(bench: Bench) -> list[Plan]:
    length = bench.length
    half = max(1, length // 2)
    if length > bench.affordable(0.2):
        return [
            Plan("prefill, then one at a time", (length - 3, 1, 1, 1)),
            Plan("prefill, then a chunk", (half, length - half - 2, 2)),
        ]
    return [
        Plan("one token at a time", (1,) * length),
        Plan("prefill, then one at a time", (half, *(1,) * (length - half))),
        Plan("chunks of 3", _chunks(length, 3)),
        Plan("prefill, then chunks of 4", (half, *_chunks(length - half, 4))),
    ]


def _chunks(length: int, size: int) -> tuple[int, ...]:
    return (size,) * (length // size) + ((length % size,) if length % size else ())


def _raises(kind: str, plan: Plan, error: str) -> Finding:
    return found(kind, probe="C", effect=1.0, smallest={"chunks": list(plan.chunks[:4])}, plan=plan.name, error=error)


def stepper(bench: Bench) -> Callable:
    """``step(x_chunk, cache) → (raw output, cache)``, from the caller or from the module's own cache argument."""
    target = bench.target
    if not target.feed.positional or not bench.per_output:
        raise DoesNotApply("the output has no time axis to decode along")
    if target.step is not None:
        return target.stepped
    if bench.expect.free:
        raise DoesNotApply("both directions are promised: an output waits for what comes after it")
    if target.forward is not None or not target.hugging:
        raise DoesNotApply("no step(model, x, cache) is given")
    if "past_key_values" not in target.parameters and not target.open:
        raise DoesNotApply("the module takes no past_key_values")
    try:
        first = target.raw(bench.x.cut(0, 2), use_cache=True)
    except Refused as refusal:
        if isinstance(refusal.error, TypeError):
            raise DoesNotApply(f"the module takes no use_cache ({refusal})") from refusal
        raise
    if getattr(first, "past_key_values", None) is None:
        raise DoesNotApply("the module returns no past_key_values")

    def step(chunk, state):
        held = {} if state is None else {"past_key_values": state}
        out = target.raw(chunk, use_cache=True, **held)
        return out, out.past_key_values

    return step


def _decode(bench: Bench, step: Callable, plan: Plan, until: int | None = None) -> list[Tensor]:
    """Outputs of each chunk, (B, chunk, F). The module starts from its own state and keeps what it keeps between
    steps.
    """
    target = bench.target
    state, at, parts = None, 0, []
    with target.untouched(), target.in_mode(BASE):
        for n in plan.chunks[:until]:
            target.deadline()
            chunk = bench.x.cut(at, n)
            seed_everything(0)
            out, state = step(chunk, state)
            parts.append(target.read(out, chunk))
            at += n
    return parts


def _mismatch(bench: Bench, step: Callable, plan: Plan, gaps: Tensor) -> Finding:
    worst = float(gaps.max())
    wrong = gaps.isinf().any(0) if worst == float("inf") else gaps.amax(0) > worst / 50
    first = int(wrong.nonzero()[0])
    index, start = plan.at(first)
    n = plan.chunks[index]
    where, layer = _located(bench, step, plan, index)
    cause = "prefill" if index == 0 else "step" if n == 1 else "chunk"
    return found(
        "cache-differs",
        probe="C",
        module=where,
        layer=layer,
        inside="attention" if where and "att" in where.lower() else "",
        effect=worst,
        smallest={"batch": bench.batch, "chunks": list(plan.chunks[: index + 1]), "position": first},
        plan=plan.name,
        position=first,
        why=why(cause, n=n, start=start),
    )


def _located(bench: Bench, step: Callable, plan: Plan, index: int) -> tuple[str | None, int | None]:
    """The first module whose output for this chunk differs from its output in the full run."""
    n, start = plan.chunks[index], sum(plan.chunks[:index])
    try:
        _, one, _ = watch(bench.target, bench.x)
        watcher = _watched(bench, step, plan, index)
    except Refused:
        return None, None
    full: dict[str, list] = {}
    for visit in one.visits_made:
        full.setdefault(visit.name, []).append(visit)
    numbered = {(c.name, c.occurrence): c.layer for c in one.finished("self")[0]}
    seen: dict[str, int] = {}
    for visit in watcher.visits_made:
        nth = seen.get(visit.name, 0)
        seen[visit.name] = nth + 1
        twin = full.get(visit.name, [])[nth : nth + 1]
        if not twin:
            continue
        wide = [t for t in twin[0].outputs if t.ndim >= 2 and t.shape[1] == bench.length]
        narrow = [t for t in visit.outputs if t.ndim >= 2 and t.shape[1] == n]
        part = [t[:, start : start + n] for t in wide[:1]]
        if part and narrow and part[0].shape == narrow[0].shape and float(gap(part[0], narrow[0]).max()) > 1e-4:
            inner = [numbered.get((c.name, c.occurrence)) for c in one.calls[slice(*twin[0].calls)]]
            return visit.name, next((v for v in inner if v is not None), layer_number(visit.name))
    return None, None


def _watched(bench: Bench, step: Callable, plan: Plan, index: int) -> Watcher:
    """What the modules did with chunk ``index``."""
    watcher = Watcher(bench.target.module, bench.batch, plan.chunks[index])
    steps = 0

    def watched(chunk, state):
        nonlocal steps
        steps += 1
        if steps - 1 != index:
            return step(chunk, state)
        with listen(watcher):
            return step(chunk, state)

    _decode(bench, watched, plan, until=index + 1)
    return watcher


def _padded(bench: Bench, x: Batch):
    """Left padding and a cache together, as batched generation does."""
    target, half = bench.target, bench.length // 2
    made = side("left", (bench.batch, bench.length), x.device)
    positions = position_ids(bench, made)
    try:
        full = bench.run(x, made.mask, **positions)
        first = target.raw(
            x.cut(0, half), made.mask[:, :half], use_cache=True, **{name: p[:, :half] for name, p in positions.items()}
        )
        rest = target.raw(
            x.cut(half, bench.length - half),
            made.mask,
            use_cache=True,
            past_key_values=first.past_key_values,
            **{name: p[:, half:] for name, p in positions.items()},
        )
    except Refused as refusal:
        bench.notes.append(f"cache with left padding raised {refusal.brief()}")
        return
    out = torch.cat([target.read(first, x.cut(0, half)), target.read(rest, x.cut(half, bench.length - half))], 1)
    worst, _ = bench.across(full, out, made.mask.bool())
    if worst:
        chunks = {
            "batch": bench.batch,
            "chunks": [half, bench.length - half],
            "padding": bench.length - made.lengths[-1],
        }
        yield found("cache-padded", probe="C", effect=worst, smallest=chunks)
