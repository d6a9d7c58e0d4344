"""D: half precision must stay finite where single precision is, and keep the mask."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from headwise.interp.check.bench import Bench
from headwise.interp.check.errors import DoesNotApply, Refused, first_line
from headwise.interp.check.findings import found
from headwise.interp.check.gaps import gap, rounding
from headwise.interp.check.locate import watch
from headwise.interp.check.probes.sides import side
from headwise.interp.check.raising import innermost_broken
from headwise.interp.check.report import Finding
from headwise.interp.check.target import Batch
from headwise.interp.run.parts import layer_number

HALVES = (torch.bfloat16, torch.float16)
LARGE = 400e6  # parameters above which no copy is made unless dtypes= asks for it


def precision(bench: Bench):
    target = bench.target
    bench.only_without(besides=("labels",))
    tried, skipped = [], []
    for dtype in _wanted(bench):
        try:
            module = copy.deepcopy(target.module).to(dtype)
        except (RuntimeError, TypeError, NotImplementedError) as error:  # not every module can be copied
            skipped.append(f"{short(dtype)}: the module could not be copied ({type(error).__name__})")
            continue
        with target.as_copy(module, dtype):
            broken, why = _one(bench, bench.x.to(dtype), dtype)
        if broken is not None:
            yield broken
            return f"stopped at {short(dtype)}"
        if why:
            skipped.append(f"{short(dtype)}: {why}")
        else:
            tried.append(short(dtype))
    if not tried:
        raise DoesNotApply("; ".join(skipped))
    return ", ".join(tried) + (f"; {'; '.join(skipped)}" if skipped else "")


def _wanted(bench: Bench) -> list[torch.dtype]:
    """Raises DoesNotApply where there is nothing to try."""
    target, dtypes = bench.target, bench.options.dtypes
    own = target.feed.dtype
    wanted = [d for d in (HALVES if dtypes is None else tuple(dtypes)) if d != own]
    if not wanted or own not in (torch.float32, torch.float64):
        raise DoesNotApply("no other dtype was asked for")
    if sum(p.numel() for p in target.module.parameters()) > LARGE and dtypes is None:
        raise DoesNotApply("the model is large: name dtypes= to copy it")
    return wanted


def _one(bench: Bench, x: Batch, dtype: torch.dtype) -> tuple[Finding | None, str]:
    """(what is broken in this dtype, why it could not be told)."""
    for mask in _masks(bench, x):
        try:
            out = bench.run(x, mask)
        except Refused as refusal:
            text = first_line(refusal.error)
            if "overflow" in text:
                name = innermost_broken(bench, x, mask)
                largest = torch.finfo(dtype).max
                return found("half-raises", **_place(name, dtype), error=text[:140], largest=largest), ""
            if mask is None:
                return None, refusal.brief(100)
            continue
        if out.is_floating_point() and _not_finite(bench, out, mask):
            single = bench.out if mask is None else None
            if single is not None and bool(single.abs().max() > torch.finfo(dtype).max / 10):
                return None, "the values themselves are beyond its range"
            name = _first_bad(bench, x, mask)
            padding = None if mask is None else "padding"
            return found("half-not-finite", **_place(name, dtype), padding=padding), ""
    return _leak(bench, x, dtype), ""


def _masks(bench: Bench, x: Batch) -> list[Tensor | None]:
    """No mask, and padding where the model takes it."""
    target = bench.target
    if not (target.padding.name and target.feed.cuts) or target.decodes_a_source:
        return [None]
    where = "left" if bench.expect.is_causal() else "right"
    return [None, side(where, (bench.batch, bench.length), x.device).mask]


def _place(name: str | None, dtype: torch.dtype) -> dict:
    return {
        "probe": "D",
        "module": name,
        "layer": layer_number(name) if name else None,
        "inside": "attention" if name and "att" in name.lower() else "",
        "effect": float("inf"),
        "smallest": {"dtype": short(dtype)},
        "dtype": short(dtype),
    }


def _not_finite(bench: Bench, out: Tensor, mask: Tensor | None) -> bool:
    """At real positions."""
    bad = (~out.isfinite()).any(-1).cpu()
    padded = mask is not None and out.shape[1] == bench.length
    return bool(bad[mask.bool().cpu()].any() if padded else bad.any())


def _leak(bench: Bench, x: Batch, dtype: torch.dtype) -> Finding | None:
    """P again, at a few cuts."""
    if not bench.per_output or bool(bench.reach.all()):
        return None
    base = bench.run(x)
    for query in bench.queries(0.02)[::3]:
        where = ~bench.reach[:, query]
        if not bool(where.any()):
            continue
        out = bench.run(bench.target.feed.perturb(x, where, seed=51))
        hold = ~(bench.reach & where[:, None, :]).any(-1)
        effect = float(gap(base, out, hold.to(base.device)).max())
        if effect > rounding(dtype):
            smallest = {"dtype": short(dtype)}
            return found("half-leak", probe="D", effect=effect, smallest=smallest, dtype=short(dtype), query=query)
    return None


def _first_bad(bench: Bench, x: Batch, mask: Tensor | None) -> str | None:
    """The first module with an output that is not finite at a real position."""
    real = None if mask is None else mask.bool()
    _, watcher, _ = watch(bench.target, x, mask)
    for visit in watcher.visits_made:
        for t in visit.outputs:
            if t.is_floating_point() and t.ndim == 3 and t.shape[1] == bench.length and t.shape[0] == bench.batch:
                bad = ~t.isfinite().all(-1)
                if bool((bad & real).any() if real is not None else bad.any()):
                    return visit.name
    return None


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
