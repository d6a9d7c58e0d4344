"""D: half precision must stay finite where single precision is, and keep the mask."""

from __future__ import annotations

import copy

import torch

from headwise.interp.check.bench import Bench, DoesNotApply
from headwise.interp.check.gaps import gap, rounding
from headwise.interp.check.locate import layer_number
from headwise.interp.check.report import Finding
from headwise.interp.check.target import BASE

HALVES = (torch.bfloat16, torch.float16)


def precision(bench: Bench, dtypes=None):
    target = bench.target
    if any(f.cls != "labels" for f in bench.findings):
        raise DoesNotApply(f"a {bench.findings[0].cls} was found: repair that first")
    wanted = HALVES if dtypes is None else tuple(dtypes)
    wanted = [d for d in wanted if d != target.dtype]
    if not wanted or target.dtype not in (torch.float32, torch.float64):
        raise DoesNotApply("no other dtype was asked for")
    if sum(p.numel() for p in target.module.parameters()) > 400e6 and dtypes is None:
        raise DoesNotApply("the model is large: name dtypes= to copy it")
    module, own = target.module, target.dtype
    snapshot, stateless, fixed = target.snapshot, target.stateless, target.fixed
    tried, skipped = [], []
    try:
        for dtype in wanted:
            try:
                target.module = copy.deepcopy(module).to(dtype)
            except (RuntimeError, TypeError, NotImplementedError) as error:
                skipped.append(f"{_name(dtype)}: the module could not be copied ({type(error).__name__})")
                continue
            target.snapshot, target.stateless, target.dtype = None, True, dtype
            target.fixed = lambda batch, dtype=dtype: {
                k: v.to(dtype) if isinstance(v, torch.Tensor) and v.is_floating_point() else v
                for k, v in fixed(batch).items()
            }
            x = bench.x.to(dtype) if bench.x.is_floating_point() else bench.x
            found, why = _one(bench, x, dtype)
            if found is not None:
                yield found
                return f"stopped at {_name(dtype)}"
            if why:
                skipped.append(f"{_name(dtype)}: {why}")
            else:
                tried.append(_name(dtype))
    finally:
        target.module, target.dtype, target.fixed = module, own, fixed
        target.snapshot, target.stateless = snapshot, stateless
    if not tried:
        raise DoesNotApply("; ".join(skipped))
    return ", ".join(tried) + (f"; {'; '.join(skipped)}" if skipped else "")


def _one(bench: Bench, x, dtype) -> tuple[Finding | None, str]:
    target = bench.target
    masks = [None]
    if target.mask_name and target.positional and bench.expect.size is None and target.stream != "decoder_input_ids":
        from headwise.interp.check.probes.padding import side

        masks.append(side("left" if bench.expect.is_causal() else "right", bench.batch, bench.length, x.device).mask)
    for mask in masks:
        try:
            out = bench.run(x, mask)
        except (RuntimeError, TypeError, NotImplementedError, ValueError, IndexError, AssertionError) as error:
            text = (str(error).splitlines() or [""])[0]
            if "overflow" in text:
                name = _raising(bench, x, mask)
                return Finding(
                    "dtype",
                    f"In {_name(dtype)} it raises: {text[:140]}.",
                    "D",
                    name,
                    layer_number(name) if name else None,
                    (),
                    "attention" if name and "att" in name.lower() else "",
                    float("inf"),
                    None,
                    {"dtype": _name(dtype)},
                    f"a mask value is beyond {_name(dtype)}, whose largest is {torch.finfo(dtype).max:g}",
                    "use −inf or torch.finfo(scores.dtype).min",
                    "certain",
                ), ""
            if mask is None:
                return None, f"{type(error).__name__}: {text[:100]}"
            continue
        real = (
            torch.ones(out.shape[:2], dtype=torch.bool)
            if mask is None or out.shape[1] != bench.length
            else mask.bool().cpu()
        )
        if out.is_floating_point() and bool((~out.isfinite()).any(-1).cpu()[real].any()):
            single = bench.out if mask is None else None
            if single is not None and bool(single.abs().max() > torch.finfo(dtype).max / 10):
                return None, "the values themselves are beyond its range"
            name = _first_bad(bench, x, mask)
            return Finding(
                "dtype",
                f"In {_name(dtype)} the output is not "
                f"finite{' with padding' if mask is not None else ''}{', first after ' + name if name else ''}.",
                "D",
                name,
                layer_number(name) if name else None,
                (),
                "attention" if name and "att" in name.lower() else "",
                float("inf"),
                None,
                {"dtype": _name(dtype)},
                "two mask values added, or one alone, overflow to −inf, and a row of −inf is NaN",
                "combine masks as bool before making them additive",
                "likely",
            ), ""
    if bench.per_output and not bool(bench.reach.all()):
        base = bench.run(x)
        for query in bench.queries(0.02)[::3]:
            where = ~bench.reach[:, query]
            if not bool(where.any()):
                continue
            out = bench.run(target.perturb(x, where, 51))
            hold = ~(bench.reach & where[:, None, :]).any(-1)
            effect = float(gap(base, out, hold.to(base.device)).max())
            if effect > rounding(dtype):
                return Finding(
                    "dtype",
                    f"In {_name(dtype)} output {query} depends on inputs it may not see.",
                    "D",
                    effect=effect,
                    smallest={"dtype": _name(dtype)},
                    cause="the mask's value is not low enough in this dtype",
                    fix="use −inf or torch.finfo(scores.dtype).min",
                ), ""
    return None, ""


def _first_bad(bench: Bench, x, mask) -> str | None:
    from headwise.interp.check.locate import watch

    real = None if mask is None else mask.bool()
    _, watcher, _ = watch(bench.target, x, mask, BASE)
    for visit in watcher.visits_made:
        for t in visit.outputs:
            if t.is_floating_point() and t.ndim == 3 and t.shape[1] == bench.length and t.shape[0] == bench.batch:
                bad = ~t.isfinite().all(-1)
                if bool((bad & real).any() if real is not None else bad.any()):
                    return visit.name
    return None


def _raising(bench: Bench, x, mask) -> str | None:
    from headwise.interp.check.locate import Watcher
    from headwise.interp.run.tap import listen

    watcher = Watcher(bench.target.module, bench.batch, bench.length)
    inner: list[str] = []
    leave = watcher.leave

    def noted(module, args, kwargs, output):
        if output is None and (name := watcher.names.get(id(module))) is not None:
            inner.append(name)
        leave(module, args, kwargs, output)

    watcher.leave = noted
    try:
        with listen(watcher):
            bench.run(x, mask)
    except (RuntimeError, TypeError, ValueError):
        pass
    return inner[0] if inner else None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
