"""W: each layer's weights against its own mask, and what the promise says must be seen."""

from __future__ import annotations

import torch
from torch import Tensor

from headwise.interp.attention.call import AttentionCall
from headwise.interp.check.bench import Bench
from headwise.interp.check.causes import explain
from headwise.interp.check.describe import Shown, finding
from headwise.interp.check.errors import DoesNotApply
from headwise.interp.check.expectation import Expectation
from headwise.interp.check.findings import found, of, why
from headwise.interp.check.gaps import gap
from headwise.interp.check.locate import Evidence, breaking_heads
from headwise.interp.check.proofs import Proof
from headwise.interp.check.report import Finding, edges
from headwise.interp.check.told import allowed
from headwise.interp.masks import (
    Bidirectional,
    Causal,
    Chunks,
    Columns,
    Global,
    Packed,
    PerHead,
    Prefix,
    RandomBlocks,
    Segments,
    Strided,
    Window,
    recognise,
)

NARROWER = (
    Window,
    Prefix,
    Packed,
    Strided,
    Global,
    RandomBlocks,
    Segments,
    Columns,
    Chunks,
    PerHead,
)  # promises that say more than causal
FAINT = 1e-4  # weight on hidden keys that outputs need not show


def layers(bench: Bench):
    bench.only_with_outputs()
    expect = bench.expect
    narrow = any(expect.has(kind) for kind in NARROWER) or any(m.size for m in expect.masks)
    if expect.free:
        yield from _one_way(bench)
        return "whether any output sees its future"
    if not bench.own:
        if narrow and bench.length <= bench.affordable(0.1):
            yield from _unseen_reach(bench)
            return "how far the outputs reach"
        raise DoesNotApply("no attention call was seen")
    for b in range(bench.batch):
        for call in bench.own:
            if (wide := _wide(bench, call, b)) is not None:
                yield wide
                return "stopped at the first layer that breaks its mask"
            if not narrow:
                continue
            may, seen = breaking_heads(call, expect, b)[2], allowed(call, b)
            missing = may & ~seen.all(0) & seen.any(-1).all(0)[:, None]
            if bool(missing.any()):
                yield _narrow(bench, call, seen, may)
                return "stopped at the first layer that sees less than promised"
    return f"{len(bench.own)} attention calls, {'exactly as' if narrow else 'within what is'} promised"


def _wide(bench: Bench, call: AttentionCall, b: int) -> Finding | None:
    """Weight on keys that the layer's own mask hides."""
    heads, weights, may = breaking_heads(call, bench.expect, b)
    if not heads:
        return None
    evidence = Evidence(
        call.name,
        "attention",
        layer=call.layer,
        inside="attention",
        heads=tuple(heads) if len(heads) < call.heads else (),
        call=call,
        weights=weights,
        observed=weights[heads[0]] > 0,
        expected=may,
        proof=Proof("mask"),  # the weights themselves
    )
    mass = float((weights * ~may).sum(-1).max())
    if mass < FAINT and bench.expect.plain_causal:
        return None  # A makes scores large, where a sentinel that is too weak shows what it is
    verdict = explain(evidence, bench.expect, evidence.observed & ~may)
    return finding(verdict, evidence, Shown("W", mass, {"length": bench.length}), then="weights")


def _narrow(bench: Bench, call: AttentionCall, seen: Tensor, may: Tensor) -> Finding:
    observed = seen[int((may & ~seen).flatten(1).any(1).int().argmax())]
    pattern, cls = recognise(observed), _class(bench.expect)
    kind, cause = "sees-less", "window-small" if cls == "window" else "other-shape"
    if cls == "prefix" and isinstance(pattern, Causal):
        kind = "prefix-dropped"
    elif cls == "window" and isinstance(pattern, Window):
        cause = "window-by-one"
    return found(
        kind,
        cls=cls,
        probe="W",
        module=call.name,
        layer=call.layer,
        inside="attention",
        picture=edges(observed, may, of("keys", module=call.name)),
        smallest={"length": bench.length},
        found=pattern,
        promised=bench.expect.mask(call.layer),
        why=why(cause),
    )


def _class(expect: Expectation) -> str:
    return "prefix" if expect.has(Prefix) else "packed" if expect.has(Packed) else "window"


def _unseen_reach(bench: Bench):
    """Without seen attention calls, outputs alone tell whether the promise is used up."""
    seen = bench.dependency()
    missing = bench.expect.layer(0, bench.length)[bench.positions] & ~seen
    if bool(missing.any()):
        yield found(
            "outputs-see-less",
            cls=_class(bench.expect),
            probe="W",
            picture=edges(seen, bench.reach[0]),
            smallest={"length": bench.length},
        )


def _one_way(bench: Bench):
    """Promised two ways, but no output sees its future: a causal mask where none belongs."""
    two_ways = all(isinstance(m, Bidirectional) for m in bench.expect.masks)
    if not bench.per_output or len(bench.positions) != bench.length or not two_ways:
        return
    half = bench.length // 2
    where = torch.zeros(bench.batch, bench.length, dtype=torch.bool)
    where[:, half:] = True
    gaps = gap(bench.run(bench.x), bench.run(bench.target.feed.perturb(bench.x, where, seed=6, scale=5.0)))
    if float(gaps[:, :half].max()) > bench.rounding or float(gaps.max()) == 0.0:
        return
    causal = [c for c in bench.own if isinstance(recognise(allowed(c, 0)[0]), Causal)]
    if not causal:
        return
    call, square = causal[0], torch.ones(bench.length, bench.length, dtype=torch.bool)
    yield found(
        "one-way",
        probe="W",
        module=call.name,
        layer=call.layer,
        inside="attention",
        effect=1.0,
        picture=edges(square.tril(), square),
        smallest={"length": bench.length},
        also=tuple(c.name for c in causal[1:]),
    )
