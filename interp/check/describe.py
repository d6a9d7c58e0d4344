"""From a leak, or a verdict on a place, to a finding: located, explained, drawn and shrunk."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace

from torch import Tensor

from headwise.interp.check.bench import Bench, Leak
from headwise.interp.check.causes import explain
from headwise.interp.check.errors import Refused
from headwise.interp.check.experiments import Bed, Held
from headwise.interp.check.findings import Verdict, consequence, of
from headwise.interp.check.locate import Evidence, locate
from headwise.interp.check.report import Edges, Finding, edges
from headwise.interp.check.target import BASE, Mode

SHORT = (2, 3, 4, 5, 6, 8, 12, 16, 24)  # lengths to try for the smallest input


@dataclass(frozen=True)
class Shown:
    """What was measured where a verdict applies."""

    probe: str  # its letter
    effect: float
    smallest: dict
    picture: Edges | None = None
    mode: Mode = BASE


def describe(bench: Bench, leak: Leak, mode: Mode, probe: str) -> Finding:
    """A leak, located, explained, drawn and shrunk."""
    with bench.doubled() if leak.double else nullcontext():
        x, other = (v.to(bench.target.feed.dtype) for v in (leak.x, leak.other))
        held = Held(leak.where, _hold(bench, leak.where), bench.positions)
        evidence = locate(Bed(bench.target, x, other, held, mode=mode), bench.expect, leak.b)
        seen, smallest = shrunk(bench, replace(leak, x=x, other=other), mode)
    expected = bench.reach[leak.b][: seen.shape[0], : seen.shape[1]]
    evidence = evidence or nowhere(bench)
    verdict = explain(evidence, bench.expect, seen & ~expected if seen.shape == expected.shape else ~expected)
    shown = Shown(probe, leak.effect, smallest, picture=edges(seen, expected), mode=mode)
    return finding(verdict, evidence, shown, then="output", query=leak.query)


def _hold(bench: Bench, where: Tensor) -> Tensor:
    """Outputs (B, T') that may see none of what changed ``where`` (B, T)."""
    return ~(bench.reach & where[:, None, :]).any(-1)


def nowhere(bench: Bench) -> Evidence:
    """No module could be named."""
    return Evidence("", type(bench.target.module).__name__, layer=None, inside="outside attention")


def finding(verdict: Verdict, evidence: Evidence, shown: Shown, then: str, **known) -> Finding:
    """A verdict on a place, and what follows from it: ``then`` names a consequence of the catalogue."""
    place = evidence.module or "The module itself"
    if evidence.inside == "attention" and evidence.layer is not None:
        place = f"Layer {evidence.layer} ({evidence.module or 'the module itself'})"
    if evidence.windows and evidence.windows < evidence.length:
        place += f", attention in windows of {evidence.windows},"
    if evidence.heads:
        place += f", head{'s' if len(evidence.heads) > 1 else ''} {', '.join(map(str, evidence.heads))},"
    picture = shown.picture
    if evidence.observed is not None and evidence.inside == "attention" and picture is None:
        picture = edges(evidence.observed, evidence.expected, of("weights", module=evidence.module))
    return Finding(
        cls=verdict.cls,
        sentence=f"{place} {verdict.says}: {consequence(then, **known)}.",
        probe=shown.probe,
        module=evidence.module,
        layer=evidence.layer,
        heads=evidence.heads,
        inside=evidence.inside,
        effect=shown.effect,
        picture=picture,
        smallest=shown.smallest,
        cause=verdict.cause,
        fix=verdict.fix,
        sure=verdict.sure,
        mode="" if shown.mode == BASE else str(shown.mode),
        also=evidence.also,
    )


def shrunk(bench: Bench, leak: Leak, mode: Mode) -> tuple[Tensor, dict]:
    """The dependency square at the smallest length that still leaks → (bool (T', T), what is smallest)."""
    full, single = bench.length, bench.expect.batch is None
    fixed = bench.expect.size is not None or len(bench.positions) != full or not single or not bench.target.feed.cuts
    for length in [] if fixed else [t for t in SHORT if t < full]:
        x = leak.x.cut(0, length)
        x = x[leak.b : leak.b + 1] if single else x
        reach = bench.expect.reach(bench.layers, length, leak.b)
        try:
            seen = bench.dependency(x, mode, 0 if single else leak.b)
        except Refused:
            continue  # too short for the model, or a batch of one it does not take
        if seen.shape == reach.shape and bool((seen & ~reach).any()):
            query, key = (seen & ~reach).nonzero()[0].tolist()
            return seen, {"batch": 1, "length": length, "query": query, "changed": key}
    return _whole(bench, leak, mode)


def _whole(bench: Bench, leak: Leak, mode: Mode) -> tuple[Tensor, dict]:
    """The same at full length, where nothing shorter leaks or may be tried."""
    where = leak.where[leak.b].nonzero().flatten().tolist()
    smallest = {
        "batch": bench.batch,
        "length": bench.length,
        "query": leak.query,
        "changed": where[0] if len(where) == 1 else f"{where[0]}…{where[-1]}",
    }
    if bench.length <= bench.affordable(0.1):
        try:
            seen = bench.dependency(leak.x, mode, leak.b)
            broken = (seen & ~bench.reach[leak.b]).nonzero()
            if len(broken):
                return seen, smallest | {"batch": 1, "query": int(broken[0, 0]), "changed": int(broken[0, 1])}
        except Refused:
            pass  # a batch of one is not taken: say what was seen
    seen = bench.reach[leak.b].clone()
    seen[leak.query] |= leak.where[leak.b]
    return seen, smallest
