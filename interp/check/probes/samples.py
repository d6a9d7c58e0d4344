"""B, S: other content in one sample must not change the others; a sample alone gives what it gives in company."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from headwise.interp.check.bench import Bench
from headwise.interp.check.errors import DoesNotApply, Refused, first_line
from headwise.interp.check.findings import found
from headwise.interp.check.gaps import gap
from headwise.interp.check.locate import ROUTES, watch
from headwise.interp.check.raising import where_raised
from headwise.interp.check.report import Finding
from headwise.interp.check.rows import changed_positions
from headwise.interp.check.target import Batch
from headwise.interp.run.parts import layer_number

SIZES = (1, 2, 3, 4, 5, 8)  # batches to try where one was refused


def samples(bench: Bench):
    target, x = bench.target, bench.x
    if bench.refused:
        yield from _shape(bench)
        if bench.findings:
            return "the batch sizes it takes"
    if bench.batch == 1:
        try:
            x = target.feed.draw(2, bench.length, seed=11)
            bench.run(x)
        except Refused as refusal:
            raise DoesNotApply(f"it takes a batch of one only ({refusal.kind})") from refusal
    batch = x.size
    base = bench.run(x)
    for changed in range(min(batch, 3)):
        if (joined := _joined(bench, x, base, changed)) is not None:
            yield joined
            return "stopped at the first sample that sees another"
    stateful = any(f.cls == "state" for f in bench.findings)
    if bench.expect.batch is None and not target.decodes_a_source and not stateful:
        yield from _alone(bench, x, base)
    return f"{min(batch, 3)} samples changed in turn, and one alone"


def _alone(bench: Bench, x: Batch, base: Tensor):
    batch, alone = x.size, bench.run(x[:1])
    same = alone.shape == base[:1].shape
    worst = bench.across(base[:1], alone)[0] if same else math.inf
    if worst:
        yield found(
            "sample-alone" if math.isfinite(worst) else "sample-alone-shape",
            probe="B",
            effect=worst,
            smallest={"batch": f"1 against {batch}", "length": bench.length},
            batch=batch,
            together=tuple(base[:1].shape),
            alone=tuple(alone.shape),
        )


def _joined(bench: Bench, x: Batch, base: Tensor, changed: int) -> Finding | None:
    """Another sample that changes with the content of sample ``changed``."""
    where = torch.zeros(x.size, x.length, dtype=torch.bool)
    where[changed] = True
    keep = torch.ones(base.shape[:2], dtype=torch.bool, device=base.device)
    keep[changed] = False
    for seed, scale in ((12, 1.0), (13, 30.0)):
        other = bench.target.feed.perturb(x, where, seed=seed, scale=scale)
        out = bench.run(other)
        if out.shape != base.shape:
            continue
        gaps = gap(base, out, keep)
        worst = float(gaps.max())
        if worst > bench.rounding:
            return _between(bench, x, other, Samples(int(gaps.amax(1).argmax()), changed, worst))
    return None


@dataclass(frozen=True)
class Samples:
    """Sample ``b`` changes by ``effect`` when only sample ``changed`` does."""

    b: int
    changed: int
    effect: float


def _between(bench: Bench, x: Batch, other: Batch, seen: Samples) -> Finding:
    attention, name, layer = _first_joined(bench, x, other, seen.b)
    routing = name is not None and any(w in name.lower() for w in ROUTES)
    return found(
        "samples-in-attention" if attention else "samples-share",
        cls="routing" if routing and not attention else "",
        probe="B",
        module=name,
        layer=layer,
        inside="attention" if attention else "outside attention",
        effect=seen.effect,
        smallest={"batch": x.size, "length": bench.length, "changed sample": seen.changed},
        b=seen.b,
        changed=seen.changed,
        first=name or "the module itself",
        batch=x.size,
    )


def _first_joined(bench: Bench, x: Batch, other: Batch, b: int) -> tuple[bool, str | None, int | None]:
    """(is it attention, module, layer) where another sample's content first reaches sample ``b``."""
    if not bench.target.feed.positional:
        return False, None, None
    calls: list = []
    moved = partial(changed_positions, length=x.length, b=b, batch=x.size)
    for operations in (True, False):
        _, one, _ = watch(bench.target, x, operations=operations)
        _, two, _ = watch(bench.target, other, operations=operations)
        calls = one.finished("self")[0] or calls
        for v, w in zip(one.visits_made, two.visits_made, strict=False):
            if bool(moved(v.outputs, w.outputs).any()) and not bool(moved(v.inputs, w.inputs).any()):
                inner = {(c.name, c.occurrence) for c in one.calls[slice(*v.calls)]}
                call = next((c for c in calls if (c.name, c.occurrence) in inner), None)
                if call is not None:
                    attention = call.queries == x.size or call.batch != x.size
                else:
                    attention = "att" in v.type.lower() or isinstance(v.module, nn.RNNBase)
                return attention, v.name, next((c.layer for c in calls if c.name == v.name), layer_number(v.name))
    return False, None, None


def _shape(bench: Bench):
    """A batch that it refused, while it takes others: a mask that only fits by accident."""
    b, t, error = bench.refused[0]
    if bench.target.feed.forced or t != bench.length or b == bench.batch:
        return
    taken = [n for n in SIZES if bench.takes(_drawn(bench, n))]
    broken = [n for n in SIZES if n not in taken]
    if not broken or not isinstance(error, RuntimeError | ValueError | AssertionError | IndexError):
        return
    module = where_raised(bench, _drawn(bench, b))
    yield found(
        "batch-sizes",
        probe="S",
        module=module,
        layer=layer_number(module) if module else None,
        inside="attention",
        effect=1.0,
        smallest={"batch": broken[0], "length": bench.length},
        taken=", ".join(map(str, taken)),
        broken=", ".join(map(str, broken)),
        accident=bench.batch if bench.batch in {c.heads for c in bench.calls} else None,
        error=first_line(error)[:140],
    )


def _drawn(bench: Bench, batch: int) -> Batch:
    return bench.target.feed.draw(batch, bench.length, seed=14)
