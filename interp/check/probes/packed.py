"""K: documents packed into one row against the same documents apart."""

from __future__ import annotations

import torch
from torch import Tensor

from headwise.interp.check.bench import Bench, DoesNotApply
from headwise.interp.check.causes import explain
from headwise.interp.check.expectation import Expectation
from headwise.interp.check.gaps import gap
from headwise.interp.check.locate import Evidence, locate
from headwise.interp.check.probes.content import finding
from headwise.interp.check.report import Finding, picture_of
from headwise.interp.check.target import BASE
from headwise.interp.masks import Packed


def packed(bench: Bench):
    target = bench.target
    if bench.findings and bench.findings[0].cls not in ("labels", "padding", "state", "cache"):
        raise DoesNotApply(f"a {bench.findings[0].cls} was found: repair that first")
    given = target.packed is not None
    if not given and not (target.hugging and target.position_name == "position_ids" and bench.expect.is_causal()):
        raise DoesNotApply("no packed(model, x, segment_ids) is given")
    if (
        not bench.per_output
        or bench.expect.size is not None
        or bench.expect.batch is not None
        or len(bench.positions) != bench.length
    ):
        raise DoesNotApply("the promise fixes its lengths")
    length = bench.length
    sizes = _sizes(length)
    ids = torch.tensor([i for i, n in enumerate(sizes) for _ in range(n)])  # (T,)
    x = bench.x[:1]
    call = _caller(bench, ids)
    try:
        base = call(x)
    except (RuntimeError, ValueError, IndexError, AssertionError, TypeError) as error:
        raise DoesNotApply(f"a packed row raised {type(error).__name__}: {str(error)[:120]}") from error
    expect = Expectation(tuple(m & Packed(ids.tolist()) for m in bench.expect.masks))
    ends = torch.tensor(sizes).cumsum(0).tolist()
    leaks = []
    for document, (end, size) in enumerate(zip(ends, sizes, strict=True)):
        where = torch.zeros(1, length, dtype=torch.bool)
        where[:, end - size : end] = True
        for seed, scale in ((41, 1.0), (42, 30.0)):
            other = target.perturb(x, where, seed, scale)
            gaps = gap(base, call(other), (~where).to(base.device))
            if float(gaps.max()) > bench.rounding:
                leaks.append((float(gaps.max()), document, int(gaps[0].argmax()), other))
    if leaks and not given:
        raise DoesNotApply("position_ids that restart are not read as documents by this architecture")
    if leaks:
        yield _leak(bench, expect, x, ids, leaks)
        return f"documents of {sizes}"
    for end, size in zip(ends, sizes, strict=True):
        part = x.narrow(target.time, end - size, size)
        alone = _caller(bench, torch.zeros(size, dtype=torch.long))(part)
        worst, _ = bench.across(alone, base[:, end - size : end])
        if worst:
            yield Finding(
                "position-ids" if end > size else "packed",
                f"The document at {end - size}…{end - 1} gives another answer packed "
                f"than alone, though no other document changes it: "
                "its positions, or its mask, are not its own.",
                "K",
                effect=worst,
                smallest={"documents": sizes, "differs": f"{end - size}…{end - 1}"},
                cause="positions run on over the row instead of starting anew in each document",
                fix="position_ids restart at 0 in each document",
                sure="likely",
            )
            return f"documents of {sizes}"
    return f"documents of {sizes} changed in turn, and each alone" + ("" if given else ", told by position_ids")


def _sizes(length: int) -> list[int]:
    first, last = max(1, length // 3), max(1, length // 4)
    return [first, length - first - last, last]


def _caller(bench: Bench, ids: Tensor):
    """x → output (1, T, F) of a row packed by ``ids``."""
    target = bench.target
    segments = ids[None].to(bench.x.device)
    if target.packed is not None:

        def call(x):
            target.deadline()
            if target.snapshot is not None:
                target.snapshot.restore()
            with target.in_mode(BASE):
                return target.read(target.packed(target.module, x, segments), x)

        return call
    starts = torch.cat([torch.zeros(1, dtype=torch.long), (ids[1:] != ids[:-1]).long().cumsum(0)])
    position = torch.arange(len(ids)) - torch.tensor([int((starts < s).sum()) for s in starts])
    return lambda x: bench.run(x, position_ids=position[None].to(x.device))


def _leak(bench: Bench, expect: Expectation, x, ids, leaks) -> Finding:
    effect, document, query, other = max(leaks, key=lambda leak: leak[0])
    target = bench.target
    forward, name = target.forward, target.mask_name
    segments = ids[None].to(x.device)
    target.forward = lambda module, given: target.packed(module, given, segments)
    try:
        evidence = locate(target, expect, x, other, 0) or Evidence(
            "", type(target.module).__name__, None, "outside attention"
        )
    finally:
        target.forward, target.mask_name = forward, name
    square = expect.reach(None, bench.length)
    verdict = explain(evidence, expect, ~square)
    if verdict.cls == "future-leak":
        verdict = type(verdict)("packed", verdict.says, verdict.cause, verdict.fix, verdict.sure)
    picture = (
        picture_of(evidence.observed, evidence.expected, f"weights of {evidence.module}")
        if evidence.observed is not None
        else None
    )
    return finding(
        bench,
        verdict,
        evidence,
        "K",
        effect,
        picture,
        {"documents": torch.bincount(ids).tolist(), "changed document": document, "query": query},
        f"output {query} depends on document {document}, which is not its own",
    )
