"""K: documents packed into one row against the same documents apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from headwise.interp.check.bench import Bench
from headwise.interp.check.causes import explain
from headwise.interp.check.describe import Shown, finding, nowhere
from headwise.interp.check.errors import DoesNotApply, Refused, handed
from headwise.interp.check.expectation import Expectation
from headwise.interp.check.experiments import Bed, Held
from headwise.interp.check.findings import found, of
from headwise.interp.check.gaps import gap
from headwise.interp.check.locate import locate
from headwise.interp.check.report import Finding, edges
from headwise.interp.check.target import Batch
from headwise.interp.masks import Packed


@dataclass(frozen=True, eq=False)
class Meeting:
    """Output ``query`` changes by ``effect`` with the content of a document that is not its own."""

    effect: float
    document: int
    query: int
    other: Batch


def packed(bench: Bench):
    given = _applies(bench)
    sizes = _sizes(bench.length)
    ids = torch.tensor([i for i, n in enumerate(sizes) for _ in range(n)])  # (T,)
    x, row = bench.x[:1], _caller(bench, ids)
    try:
        base = row(x)
    except Refused as refusal:
        raise DoesNotApply(f"a packed row raised {refusal.kind}: {str(refusal)[:120]}") from refusal
    meetings = list(_meetings(bench, row, base, sizes))
    if meetings and not given:
        raise DoesNotApply("position_ids that restart are not read as documents by this architecture")
    if meetings:
        yield _leak(bench, x, ids, max(meetings, key=lambda m: m.effect))
        return f"documents of {sizes}"
    for end, size in _documents(sizes):
        alone = _caller(bench, torch.zeros(size, dtype=torch.long))(x.cut(end - size, size))
        worst, _ = bench.across(alone, base[:, end - size : end])
        if worst:
            differs = f"{end - size}…{end - 1}"
            yield found(
                "document-alone",
                cls="" if end > size else "packed",
                probe="K",
                effect=worst,
                smallest={"documents": sizes, "differs": differs},
                differs=differs,
            )
            return f"documents of {sizes}"
    return f"documents of {sizes} changed in turn, and each alone" + ("" if given else ", told by position_ids")


def _applies(bench: Bench) -> bool:
    """Raises DoesNotApply; True when the caller gave ``packed``, False when position ids tell the documents."""
    target, expect = bench.target, bench.expect
    bench.only_without(besides=("labels", "padding", "state", "cache"))
    given = target.packed is not None
    if not given and not (target.hugging and target.position_name == "position_ids" and expect.is_causal()):
        raise DoesNotApply("no packed= is given, a function (model, x, segment_ids)")
    fixed = expect.size is not None or expect.batch is not None
    if not bench.per_output or fixed or len(bench.positions) != bench.length or not target.feed.cuts:
        raise DoesNotApply("the promise, or the layout, fixes its lengths")
    return given


def _sizes(length: int) -> list[int]:
    first, last = max(1, length // 3), max(1, length // 4)
    return [first, length - first - last, last]


def _documents(sizes: list[int]) -> list[tuple[int, int]]:
    """(end, size) of each document."""
    return list(zip(torch.tensor(sizes).cumsum(0).tolist(), sizes, strict=True))


def _meetings(bench: Bench, row: Callable, base: Tensor, sizes: list[int]):
    """Changes each document in turn and watches the others."""
    x = bench.x[:1]
    for document, (end, size) in enumerate(_documents(sizes)):
        where = torch.zeros(1, bench.length, dtype=torch.bool)
        where[:, end - size : end] = True
        for seed, scale in ((41, 1.0), (42, 30.0)):
            other = bench.target.feed.perturb(x, where, seed=seed, scale=scale)
            gaps = gap(base, row(other), (~where).to(base.device))
            if float(gaps.max()) > bench.rounding:
                yield Meeting(float(gaps.max()), document, query=int(gaps[0].argmax()), other=other)


def _caller(bench: Bench, ids: Tensor) -> Callable[[Batch], Tensor]:
    """x → output (1, T, F) of a row packed by ``ids``."""
    if bench.target.packed is not None:
        segments = ids[None].to(bench.x.device)
        return lambda x: bench.target.row(x, segments)
    starts = torch.cat([torch.zeros(1, dtype=torch.long), (ids[1:] != ids[:-1]).long().cumsum(0)])
    position = torch.arange(len(ids)) - torch.tensor([int((starts < s).sum()) for s in starts])
    return lambda x: bench.run(x, position_ids=position[None].to(x.device))


def _leak(bench: Bench, x: Batch, ids: Tensor, meeting: Meeting) -> Finding:
    target = bench.target
    expect = Expectation(tuple(m & Packed(ids.tolist()) for m in bench.expect.masks))
    segments, forward = ids[None].to(x.device), target.forward
    target.forward = lambda module, given: handed(target.packed, module, given, segments)
    try:
        where = (ids == meeting.document)[None]
        held = Held(where, ~where, bench.positions)
        evidence = locate(Bed(target, x, meeting.other, held), expect, 0) or nowhere(bench)
    finally:
        target.forward = forward
    verdict = explain(evidence, expect, ~expect.reach(None, bench.length))
    if verdict.cls == "future-leak":
        verdict = replace(verdict, cls="packed")
    picture = None
    if evidence.observed is not None:
        picture = edges(evidence.observed, evidence.expected, of("weights", module=evidence.module))
    documents = {
        "documents": torch.bincount(ids).tolist(),
        "changed document": meeting.document,
        "query": meeting.query,
    }
    shown = Shown("K", meeting.effect, documents, picture=picture)
    return finding(verdict, evidence, shown, then="document", query=meeting.query, document=meeting.document)
