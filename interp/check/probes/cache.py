"""C: decoding with a cache – prefill, one token at a time, chunks – against the full forward."""

from __future__ import annotations

import torch
from torch import Tensor

from headwise.interp.check.bench import Bench, DoesNotApply
from headwise.interp.check.gaps import gap
from headwise.interp.check.locate import Watcher, layer_number, watch
from headwise.interp.check.report import Finding
from headwise.interp.check.state import seed_everything
from headwise.interp.check.target import BASE
from headwise.interp.run.tap import listen


def cache(bench: Bench):
    target = bench.target
    step = stepper(bench)
    if bench.findings and bench.findings[0].cls not in ("labels", "padding", "position-ids", "state"):
        raise DoesNotApply(f"a {bench.findings[0].cls} was found: repair that first")
    x, length = bench.x, bench.length
    full = bench.run(x)
    half = max(1, length // 2)
    plans = {
        "one token at a time": [1] * length,
        "prefill, then one at a time": [half] + [1] * (length - half),
        "chunks of 3": _chunks(length, 3),
        "prefill, then chunks of 4": [half, *_chunks(length - half, 4)],
    }
    if length > bench.affordable(0.2):
        plans = {
            "prefill, then one at a time": [length - 3, 1, 1, 1],
            "prefill, then a chunk": [half, length - half - 2, 2],
        }
    ran, refused = [], {}
    for name, plan in plans.items():
        try:
            parts = _decode(bench, step, x, plan)
        except (
            RuntimeError,
            ValueError,
            IndexError,
            AssertionError,
            TypeError,
            NotImplementedError,
            AttributeError,
        ) as error:
            refused[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
            continue
        ran.append(name)
        out = torch.cat(parts, 1)
        if out.shape != full.shape:
            yield Finding(
                "cache",
                f"Decoding ({name}) gives {tuple(out.shape[:2])} outputs for {tuple(full.shape[:2])}.",
                "C",
                effect=1.0,
                cause="a step returns outputs for the whole cache",
                fix="return the new positions only",
            )
            return name
        worst, gaps = bench.across(full, out)
        if worst:
            yield _mismatch(bench, step, x, full, name, plan, gaps, worst)
            return f"stopped at {name}"
    if not ran:
        name, why = next(iter(refused.items()))
        if target.step is not None:
            yield Finding(
                "cache",
                f"Decoding raises ({name}): {why}.",
                "C",
                effect=1.0,
                cause="step fails on a chunk of the sequence",
                smallest={"chunks": plans[name][:4]},
            )
            return "no plan ran"
        raise DoesNotApply(f"decoding with a cache raised {why}")
    for name, why in refused.items():
        if target.step is not None and "token" in name:
            yield Finding(
                "cache",
                f"Decoding raises ({name}): {why}.",
                "C",
                effect=1.0,
                cause="the mask does not fit one query against a longer cache",
                smallest={"chunks": plans[name][:4]},
                fix="build the mask for (queries, cache + queries)",
            )
            return f"stopped at {name}"
        bench.notes.append(f"cache, {name}: {why}")
    done = "; ".join(ran)
    masked = target.mask_name in ("attention_mask", "decoder_attention_mask")
    if target.hugging and target.step is None and masked and bench.expect.size is None:
        yield from _padded(bench, x)
        done += "; left-padded"
    return done


def stepper(bench: Bench):
    """``step(x_chunk, cache) → (raw output, cache)``, from the caller or from the module's own cache argument."""
    target = bench.target
    if not target.positional or not bench.per_output:
        raise DoesNotApply("the output has no time axis to decode along")
    if target.step is not None:
        return lambda chunk, state, **extra: target.step(target.module, chunk, state)
    if bench.expect.free:
        raise DoesNotApply("both directions are promised: an output waits for what comes after it")
    if target.forward is not None or not target.hugging:
        raise DoesNotApply("no step(model, x, cache) is given")
    if "past_key_values" not in target.parameters and not target.open:
        raise DoesNotApply("the module takes no past_key_values")
    try:
        first = target.raw(bench.x.narrow(target.time, 0, 2), use_cache=True)
    except TypeError as error:
        raise DoesNotApply(f"the module takes no use_cache ({error})") from error
    if getattr(first, "past_key_values", None) is None:
        raise DoesNotApply("the module returns no past_key_values")

    def step(chunk, state, **extra):
        out = (
            target.raw(chunk, use_cache=True, past_key_values=state, **extra)
            if state is not None
            else target.raw(chunk, use_cache=True, **extra)
        )
        return out, out.past_key_values

    return step


def _decode(bench: Bench, step, x: Tensor, plan: list[int], until: int | None = None) -> list[Tensor]:
    """Outputs of each chunk, (B, chunk, F). The module starts from its own state and keeps what it keeps between
    steps.
    """
    target = bench.target
    if target.snapshot is not None:
        target.snapshot.restore()
    held, target.snapshot = target.snapshot, None  # a cache may live on the module: keep it while decoding
    state, at, parts = None, 0, []
    try:
        with target.in_mode(BASE):
            for n in plan[:until]:
                target.deadline()
                chunk = x.narrow(target.time, at, n)
                seed_everything(0)
                out, state = step(chunk, state)
                parts.append(target.read(out, chunk))
                at += n
    finally:
        target.snapshot = held
        if held is not None:
            held.restore()
    return parts


def _chunks(length: int, size: int) -> list[int]:
    return [size] * (length // size) + ([length % size] if length % size else [])


def _mismatch(bench: Bench, step, x, full, name, plan, gaps, worst) -> Finding:
    ends = torch.tensor(plan).cumsum(0).tolist()
    first = (
        int((gaps.amax(0) > worst / 50).nonzero()[0])
        if worst != float("inf")
        else int(gaps.isinf().any(0).nonzero()[0])
    )
    index = next(i for i, end in enumerate(ends) if first < end)
    start = ends[index] - plan[index]
    where, layer = _located(bench, step, x, plan, index, start)
    if index == 0:
        cause = (
            f"the prefill of {plan[0]} tokens already differs: the path with "
            "a cache builds another mask or other positions"
        )
    elif plan[index] == 1:
        cause = "a step does not continue where the cache ends: its position, or the cache's alignment, is off"
    else:
        cause = (
            f"a chunk of {plan[index]} queries against a cache of {start} "
            "keys is masked as if it began at 0, or not at all"
        )
    fix = (
        "mask by absolute position: query start + i sees keys up to start + i; count positions from the cache's length"
    )
    return Finding(
        "cache",
        f"Decoding ({name}) differs from the full forward from position "
        f"{first} on{', first at ' + where if where else ''}.",
        "C",
        where,
        layer,
        (),
        "attention" if where and "att" in where.lower() else "",
        worst,
        None,
        {"batch": bench.batch, "chunks": plan[: index + 1], "position": first},
        cause,
        fix,
        "likely",
    )


def _located(bench: Bench, step, x, plan, index, start) -> tuple[str | None, int | None]:
    """The first module whose output for this chunk differs from its output in the full run."""
    target = bench.target
    n = plan[index]
    try:
        _, one, _ = watch(target, x, None, BASE)
    except RuntimeError:
        return None, None
    watcher = Watcher(target.module, x.shape[0], n)

    def watched(chunk, state):
        at[0] += 1
        if at[0] - 1 != index:
            return step(chunk, state)
        with listen(watcher):
            return step(chunk, state)

    at = [0]
    _decode(bench, watched, x, plan, index + 1)
    full = {}
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


def _padded(bench: Bench, x: Tensor):
    """Left padding and a cache together, as batched generation does."""
    target = bench.target
    from headwise.interp.check.probes.padding import side

    made = side("left", bench.batch, bench.length, x.device)
    extra = {target.position_name: made.positions} if target.position_name else {}
    half = bench.length // 2
    try:
        full = bench.run(x, made.mask, **extra)
        first = target.raw(
            x[:, :half],
            made.mask[:, :half],
            use_cache=True,
            **{name: positions[:, :half] for name, positions in extra.items()},
        )
        rest = target.raw(
            x[:, half:],
            made.mask,
            use_cache=True,
            past_key_values=first.past_key_values,
            **{name: positions[:, half:] for name, positions in extra.items()},
        )
    except (RuntimeError, ValueError, IndexError, AssertionError, TypeError, NotImplementedError) as error:
        bench.notes.append(
            f"cache with left padding raised {type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
        )
        return
    out = torch.cat([target.read(first, x[:, :half]), target.read(rest, x[:, half:])], 1)
    worst, _ = bench.across(full, out, made.mask.bool())
    if worst:
        yield Finding(
            "cache",
            "With left padding, a chunk decoded from the cache differs from the full forward.",
            "C",
            effect=worst,
            smallest={
                "batch": bench.batch,
                "chunks": [half, bench.length - half],
                "padding": bench.length - made.lengths[-1],
            },
            cause="the padding mask or the positions of the cached part are not carried on",
            fix="pass the whole attention_mask with every step",
        )
