"""P, A: does an output depend on content that its mask forbids?

P replaces all an output may not see and wants the same bits back, for every output, so at every cut, in every mode.
A does the same with attention scores made much larger, where a finite sentinel gives way.
"""

from __future__ import annotations

from math import prod

from headwise.interp.check.bench import Bench, Draw, Leak
from headwise.interp.check.describe import describe
from headwise.interp.check.errors import DoesNotApply, Refused
from headwise.interp.check.findings import reworded, why
from headwise.interp.check.target import BASE, Mode, batch_statistics, other_modes

SCORES = (300.0, 3e4)  # as confident heads have; and as a sentinel of −1e4 needs to be outscored


def content(bench: Bench):
    """P, in every mode (T, E)."""
    bench.only_promised()
    if any(f.probe == "N" for f in bench.findings):
        raise DoesNotApply("repair what was found first: rows that see nothing")
    queries = bench.queries(0.08)
    draws = bench.draws()
    leaking: dict[Mode, Leak | None] = {
        BASE: _worst(leak for draw in draws for leak in bench.leaks(queries, draw=draw))
    }
    refused: dict[Mode, str] = {}
    few = queries if len(queries) * bench.seconds_a_run < 2 else queries[:: max(1, len(queries) // 4)]
    for mode in (*other_modes(bench.target), *batch_statistics(bench.target)):
        try:
            leaking[mode] = _worst(bench.leaks(few, mode, draw=Draw()))
        except Refused as refusal:
            refused[mode] = refusal.brief()
    yield from _reported(bench, leaking, refused)
    streams = f" of {len(bench.target.feed.hot)} streams" if len(bench.target.feed.hot) > 1 else ""
    return f"{len(queries)} cuts × {len(draws)} draws{streams}, {len(leaking)} modes" + (
        f" ({len(refused)} refused)" if refused else ""
    )


def _reported(bench: Bench, leaking: dict[Mode, Leak | None], refused: dict[Mode, str]):
    bad = [m for m, leak in leaking.items() if leak is not None]
    if not bad:
        return
    mode = BASE if leaking[BASE] is not None else bad[0]
    if all(m.statistics for m in bad) and not bench.shows(leaking[mode], BASE):
        yield from _in_training(bench, leaking[mode], mode)
        return
    good = [m for m in leaking if leaking[m] is None and not bench.shows(leaking[mode], m)]
    finding = describe(bench, leaking[mode], mode, probe="P")
    fails = [m for m in refused if m.train != mode.train]
    hint = bool(fails) and finding.inside != "outside attention" and "causal" in refused[fails[0]]
    if good or hint:
        outside = bool(finding.module) and finding.inside == "outside attention"
        finding = reworded(
            finding,
            "mixes-in-a-mode" if outside else "holds-in-another-mode",
            mode="; ".join(map(str, bad)),
            here=mode,
            other=f"holds in {good[0]}" if good else f"raises in {fails[0]} ({refused[fails[0]]})",
            why=finding.cause if outside else _path(mode, good, list(refused)),
        )
    yield finding


def _in_training(bench: Bench, leak: Leak, mode: Mode):
    """With its statistics frozen it holds, so they carry the leak. It is one where the model learns to say its own
    next input; elsewhere it is worth knowing."""
    finding = reworded(describe(bench, leak, mode, probe="P"), "in-training-only", mode=str(mode))
    if _predicts_its_input(bench):
        yield finding
    else:
        bench.advice.append(finding)


def _predicts_its_input(bench: Bench) -> bool:
    """Has the output a score for each id, or as many numbers a position as an input?"""
    streams, width = bench.target.feed.streams, bench.out.shape[-1]
    ids = [int(s.alphabet.max()) < width for s in streams if s.hot and s.alphabet is not None]
    return any(ids) or any(prod(s.features) == width for s in streams if s.hot and s.alphabet is None)


def _path(mode: Mode, good: list[Mode], refused: list[Mode]) -> str:
    """The path on which the mask is not applied."""
    if mode == BASE and all(m.train or m.grad for m in [*good, *refused]):
        return why("path-fused")
    if mode.weights:
        return why("path-weights")
    if mode.ones:
        return why("path-ones")
    if mode.eager:
        return why("path-implementation", implementation=mode.eager)
    if mode == BASE and all(m.ones for m in good):
        return why("path-no-mask")
    if mode == BASE and all(m.weights for m in good):
        return why("path-no-weights")
    return why("path-training" if mode.train != any(m.train for m in good) else "path-gradient")


def _worst(leaks) -> Leak | None:
    return max(leaks, key=lambda leak: leak.effect, default=None)


def amplified(bench: Bench):
    """A: P again with scores of several hundred, and inputs 30 times larger."""
    bench.only_promised()
    bench.only_without()
    queries = bench.queries(0.04)
    reached = []
    for size in SCORES:
        with bench.amplified(size) as factor:
            if factor is None or not bool(bench.run(bench.x).isfinite().all()):
                continue
            reached.append(size)
            leak = _worst(bench.leaks(queries, draw=Draw(4, 30.0)))
            if leak is not None:
                yield describe(bench, leak, BASE, probe="A")
                break
    return f"{len(queries)} cuts with scores of up to {max(reached, default=0):,.0f}"
