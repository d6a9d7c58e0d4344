"""N: NaN in the output, and queries that see no key."""

from __future__ import annotations

import torch
from torch import Tensor

from headwise.interp.attention.call import AttentionCall
from headwise.interp.check.bench import Bench
from headwise.interp.check.causes import inverted, transposed
from headwise.interp.check.describe import Shown, finding
from headwise.interp.check.findings import found, of
from headwise.interp.check.locate import Evidence, watch
from headwise.interp.check.report import Finding, edges
from headwise.interp.check.told import masks_each_sample, told
from headwise.interp.run.parts import layer_number


def numbers(bench: Bench):
    for call in bench.own:
        for b in range(call.batch if masks_each_sample(call) else 1):
            empty = _empty_rows(bench, call, b)
            if empty is not None:
                yield empty
                return "stopped at the first layer with empty rows"
    for call in bench.calls:
        rows = _empty_across(call)
        if rows:
            yield found(
                "empty-rows-across",
                probe="N",
                module=call.name,
                layer=call.layer,
                inside="attention",
                effect=1.0,
                smallest={"queries": call.queries, "keys": call.keys},
                rows=in_words(rows),
                queries=call.queries,
                keys=call.keys,
            )
            return "stopped at the first layer with empty rows"
    bad = ~bench.out.isfinite() if bench.out.is_floating_point() else torch.zeros(1, dtype=torch.bool)
    if bool(bad.any()):
        yield _not_finite(bench, bad)
        return "the output is not finite"
    return f"{len(bench.own)} attention calls, {bench.out.numel():,} numbers"


def _empty_rows(bench: Bench, call: AttentionCall, b: int) -> Finding | None:
    """Queries of a self-attention that see no key though they were promised one."""
    seen = told(call, b)
    empty = ~seen.any(-1)  # (H, Q)
    if not bool(empty.any()):
        return None
    rows = empty.any(0).nonzero().flatten().tolist()
    if call.stack == "query" and len(rows) == 1:  # of two streams: what is predicted first has nothing to see
        return None
    heads = empty.any(1).nonzero().flatten().tolist()
    may = bench.expect.layer(call.layer, bench.length, b)
    if not bool(may[rows].any(-1).any()):
        return None
    evidence = Evidence(
        call.name,
        "attention",
        layer=call.layer,
        inside="attention",
        call=call,
        weights=seen.float(),
        observed=seen[heads[0]],
        expected=may,
    )
    verdict = inverted(evidence, bench.expect) or transposed(evidence, bench.expect)
    if verdict is not None:
        return finding(verdict, evidence, Shown("N", 1.0, {"rows": rows[:8]}), then="rows", rows=in_words(rows))
    return found(
        "empty-rows",
        probe="N",
        module=call.name,
        layer=call.layer,
        heads=tuple(heads) if len(heads) < call.heads else (),
        inside="attention",
        effect=1.0,
        picture=edges(seen[heads[0]], may, of("keys", module=call.name)),
        smallest={"rows": rows[:8]},
        rows=in_words(rows),
    )


def _empty_across(call: AttentionCall) -> list[int]:
    """Queries that see no key, where queries and keys are of different numbers."""
    if not call.told or call.queries == call.keys:
        return []
    return call.empty_rows(0)[0].nonzero().flatten().tolist()


def _not_finite(bench: Bench, bad: Tensor) -> Finding:
    samples = bad.flatten(1).any(1).nonzero().flatten().tolist()[:4]
    weight = next((n for n, p in bench.target.module.named_parameters() if _broken(p)), None)
    if weight is not None:
        place = {"module": weight.rpartition(".")[0], "effect": float("inf"), "smallest": {"weight": weight}}
        return found("weights-not-finite", probe="N", **place, weight=weight, samples=samples)
    _, watcher, _ = watch(bench.target, bench.x)
    first = next((v for v in watcher.visits_made if any(_broken(t) for t in v.outputs)), None)
    name = first.name if first else None
    return found(
        "not-finite",
        probe="N",
        module=name,
        layer=layer_number(name) if name else None,
        inside="attention" if first and first.calls[1] > first.calls[0] else "outside attention",
        effect=float("inf"),
        smallest={"batch": bench.batch, "length": bench.length},
        samples=samples,
        first=name or "the module itself",
    )


def _broken(t: Tensor) -> bool:
    return t.is_floating_point() and not bool(t.isfinite().all())


def in_words(rows: list[int]) -> str:
    """ "query 3", "queries 3…7" or "queries [1, 4]"."""
    if len(rows) == 1:
        return f"query {rows[0]}"
    whole = rows == list(range(rows[0], rows[-1] + 1))
    return f"queries {rows[0]}…{rows[-1]}" if whole else f"queries {rows[:6]}"
