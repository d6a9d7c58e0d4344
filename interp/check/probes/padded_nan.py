"""B: real positions that become NaN once something is padded."""

from __future__ import annotations

from headwise.interp.attention.call import AttentionCall
from headwise.interp.check.bench import Bench
from headwise.interp.check.expectation import Expectation
from headwise.interp.check.findings import found, of
from headwise.interp.check.locate import watch
from headwise.interp.check.probes.sides import Padded, Side
from headwise.interp.check.report import Finding, edges
from headwise.interp.check.told import told


def broken(bench: Bench, padded: Padded) -> Finding:
    """The first attention whose real queries are cut off, else one whose padding queries see no key."""
    made = padded.made
    _, watcher, _ = watch(bench.target, padded.x, padded.mask, **padded.extra)
    calls = [c for c in watcher.finished("self")[0] if c.kind == "self" and c.queries == c.keys == bench.length]
    b = bench.batch - 1
    for call in calls:
        if (cut := _cut_off(bench, made, call, b)) is not None:
            return cut
    culprit = next((c for c in calls if bool((~told(c, b).any(-1)).any())), calls[0] if calls else None)
    return found(
        "padding-nan",
        probe="N",
        module=culprit.name if culprit else None,
        layer=culprit.layer if culprit else None,
        inside="attention" if culprit else "",
        effect=float("inf"),
        smallest={"length": bench.length, "padding": bench.length - made.lengths[b]},
        side=made.name,
    )


def _cut_off(bench: Bench, made: Side, call: AttentionCall, b: int) -> Finding | None:
    """Real queries that see the padding only, or nothing."""
    real = made.mask[b].bool().cpu()
    allowed = told(call, b)[0]
    across = allowed[real]
    expected = Expectation(tuple(m & made.promise for m in bench.expect.masks)).layer(call.layer, bench.length, b)
    place = {
        "module": call.name,
        "layer": call.layer,
        "inside": "attention",
        "effect": float("inf"),
        "picture": edges(allowed, expected, of("keys", module=call.name)),
    }
    if bool(across[:, ~real].any()) and not bool(across[:, real].any()):
        return found("padding-inverted", probe="B", smallest={"length": bench.length}, **place)
    if bool(across.any(-1).all()):
        return None
    convention = not bench.target.padding.hides and not bool(across[:, real].any())
    return found(
        "padding-hides-real",
        cls="mask-convention" if convention else "",
        probe="N",
        smallest={"length": bench.length, "padding": bench.length - made.lengths[b]},
        side=made.name,
        **place,
    )
