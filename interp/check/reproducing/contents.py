"""Experiments with content: something that an output may not see is changed, and the output must stay as it is."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from headwise.interp.check.gaps import gap, rounding
from headwise.interp.check.probes.content import SCORES
from headwise.interp.check.reproducing.scene import Scene, Script, tried
from headwise.interp.check.reproducing.spelling import index, spoken
from headwise.interp.check.target import BASE, Batch, Mode

SHORT = (3, 4, 5, 6, 8, 12, 16, 24)  # lengths to try, before the one of the check
CLEAR = 1e-4  # a change that other weights and other machines will show too
PLAIN = 1e-2  # a change that needs no larger one beside it
HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, eq=False)
class Shown:
    """Outputs ``held`` may see nothing of what differs between two inputs, and change by ``effect``."""

    effect: float
    x: Batch
    other: Batch
    where: Tensor  # (B, T)
    held: list[int]


def content(scene: Scene, mode: Mode = BASE) -> Iterator[Script]:
    """In one mode; in float64 where the change is small."""
    for shown in _shown(scene, mode):
        yield _script(scene, shown, mode)
    with scene.bench.doubled() as took:
        if took:
            for shown in _shown(scene, mode, least=1e-10):
                yield _script(scene, shown, mode, dtype=torch.float64)


def amplified(scene: Scene) -> Iterator[Script]:
    """With larger weights inside attention, as confident heads have."""
    for size in SCORES:
        before = {n: p.detach().clone() for n, p in scene.target.module.named_parameters()}
        with scene.bench.amplified(size):
            now = {n: p.detach() for n, p in scene.target.module.named_parameters()}
            grown = {n: float(now[n].flatten()[0] / p.flatten()[0]) for n, p in before.items() if _grew(p, now[n])}
            for shown in _shown(scene, BASE, scales=(1.0, 30.0)):
                yield _script(scene, shown, BASE, grown=grown)


def _grew(before: Tensor, now: Tensor) -> bool:
    return bool(before.numel()) and float(before.flatten()[0]) != 0 and not torch.equal(before, now)


def halves(scene: Scene) -> Iterator[Script]:
    """In half precision: finite where single precision is, and the mask kept."""
    bench = scene.bench
    for dtype in bench.options.dtypes or HALVES:
        with _as(scene, dtype) as x:
            if x is None:
                continue
            x = scene.draw(x.size, x.length)
            script = Script(scene)
            script.dtype = dtype
            if script.raises(x):
                yield script
                continue
            out = script.run("out", x)
            if not bool(out.isfinite().all()):
                script.add(f'assert out.isfinite().all(), "in {dtype} the output is not finite"')
                yield script
            for shown in _shown(scene, BASE, least=float(torch.finfo(dtype).eps) * 16):
                yield _script(scene, shown, BASE, dtype=dtype)


@contextmanager
def _as(scene: Scene, dtype: torch.dtype) -> Iterator[Batch | None]:
    """Runs of a copy in ``dtype``; gives the input, or None where there is no copy."""
    target = scene.target
    try:
        module = copy.deepcopy(target.module).to(dtype)
    except (RuntimeError, TypeError, NotImplementedError):  # not every module can be copied
        yield None
        return
    with target.as_copy(module, dtype):
        yield scene.bench.x.to(dtype)


def _shown(scene: Scene, mode: Mode, *, least: float = CLEAR, scales=(1.0,)) -> Iterator[Shown]:
    """The shortest input that shows it, with one place changed where that is enough."""
    bench, batch = scene.bench, scene.bench.expect.batch or 1
    lengths = [bench.length]
    if bench.expect.size is None and scene.target.feed.cuts and bench.options.positions is None:
        lengths = [t for t in SHORT if t < bench.length] + lengths
    for length in lengths:
        for b in dict.fromkeys((batch, bench.batch)):
            x = scene.draw(b, length)
            base = tried(scene, x, mode=mode)
            if base is not None and (reach := _reach(scene, base, length, b)) is not None:
                found = _largest(scene, x, base, mode=mode, reach=reach, scales=scales)
                if found is not None and found.effect > least:
                    yield _fewer(scene, found, base, mode=mode, reach=reach, least=least)
                    break


def _reach(scene: Scene, base: Tensor, length: int, batch: int) -> Tensor | None:
    """What each output may depend on → bool (B, T', T); None where its position is not known."""
    bench = scene.bench
    if base.shape[1] == length:
        positions = torch.arange(length)
    elif length == bench.length and base.shape[1] == len(bench.positions):
        positions = bench.positions
    else:
        return None
    return torch.stack([bench.expect.reach(bench.layers, length, b)[positions] for b in range(batch)])


def _largest(scene: Scene, x: Batch, base: Tensor, *, mode: Mode, reach: Tensor, scales) -> Shown | None:
    best = None
    draws = [(1, s * d.scale, d.only) for s in scales for d in scene.bench.draws()]
    for query in range(reach.shape[1]):
        where = ~reach[:, query]
        if not bool(where.any()):
            continue
        for seed, scale, only in draws:
            shown = _change(scene, x, base, where, mode=mode, reach=reach, draw=(seed, scale, only))
            if shown is not None and (best is None or shown.effect > 2 * best.effect):
                best = shown
        if best is not None and best.effect > PLAIN:
            break
    return best


def _change(scene: Scene, x: Batch, base: Tensor, where: Tensor, *, mode, reach, draw) -> Shown | None:
    seed, scale, only = draw
    other = scene.changed(x, where, seed=seed, scale=scale, only=only)
    out = tried(scene, other, mode=mode)
    if out is None or out.shape != base.shape:
        return None
    hold = ~(reach & where[:, None, :]).any(-1)
    gaps = gap(base, out, hold.to(base.device)).cpu()
    if not bool(hold.all(0).any()):
        return None
    gaps = gaps * hold.all(0)
    return Shown(float(gaps.max()), x, other, where, hold.all(0).nonzero().flatten().tolist())


def _fewer(scene: Scene, shown: Shown, base: Tensor, *, mode: Mode, reach: Tensor, least: float) -> Shown:
    """The same with one place changed, if that shows it as clearly."""
    places = shown.where.any(0).nonzero().flatten().tolist()
    if len(places) == 1:
        return shown
    best = None
    for place in places[:48]:
        where = torch.zeros_like(shown.where)
        where[:, place] = True
        for draw in ((1, 1.0, None), (2, 8.0, None)):
            one = _change(scene, shown.x, base, where, mode=mode, reach=reach, draw=draw)
            if one is not None and one.effect > max(least, shown.effect / 4):
                best = one if best is None or one.effect > best.effect else best
        if best is not None and best.effect > PLAIN:
            break
    return best or shown


def _script(
    scene: Scene, shown: Shown, mode: Mode, *, dtype: torch.dtype | None = None, grown: dict | None = None
) -> Script:
    script = Script(scene)
    script.dtype = dtype
    for name, factor in (grown or {}).items():
        script.add(f"model.get_parameter({name!r}).data.mul_({factor:.4g})  # as confident heads have them")
    one = script.run("one", shown.x, mode=mode)
    changed = spoken(shown.where.any(0).nonzero().flatten().tolist(), "input")
    script.add("", f"# the same but for {changed}, which the outputs compared below may not see")
    script.run("two", shown.other, mode=mode)
    held = index(shown.held, one.shape[1])
    allowed = 16 * rounding(dtype or torch.float32) if shown.effect > 1e-3 else shown.effect / 10
    script.add("")
    script.compares(
        f"one[:, {held}]",
        f"two[:, {held}]",
        tells=f"{spoken(shown.held, 'output')} moved by {{moved:.2g}} of their scale when {changed} changed",
        wrong="an output depends on an input that its mask hides",
        most=f"{allowed:.1g}",
    )
    return script


def missing(scene: Scene) -> Iterator[Script]:
    """An output must move with an input that the promise shows it, and does not."""
    bench = scene.bench
    if not bench.per_output:
        return
    x = scene.draw(1 if bench.expect.batch is None else bench.batch, bench.length)
    base = tried(scene, x)
    reach = None if base is None else _reach(scene, base, bench.length, x.size)
    if reach is None:
        return
    for key in range(bench.length):
        where = torch.zeros(x.size, bench.length, dtype=torch.bool)
        where[:, key] = True
        others = [scene.changed(x, where, seed=s, scale=c) for s, c in ((1, 1.0), (2, 8.0), (3, 8.0))]
        outs = [tried(scene, other) for other in others]
        if any(out is None or out.shape != base.shape for out in outs):
            return
        still = torch.stack([gap(base, out) for out in outs]).amax((0, 1)).cpu() == 0
        queries = (still & reach[0, :, key]).nonzero().flatten().tolist()
        if queries:
            yield _missing(scene, x, others, key=key, query=queries[0])
            return


def _missing(scene: Scene, x: Batch, others: list[Batch], *, key: int, query: int) -> Script:
    script = Script(scene)
    script.run("out", x)
    script.add(f"moved = 0.0  # of output {query}, when input {key}, which it is promised to see, changes")
    for other in others:
        script.run("other", other)
        script.add(f"moved = max(moved, gap(out[:, {query}], other[:, {query}]))")
    script.add(
        f'print(f"output {query} moved by {{moved:.2g}} of its scale when input {key} changed")',
        f'assert moved > 0, "output {query} does not see input {key}, which it is promised to see"',
    )
    return script


def samples(scene: Scene) -> Iterator[Script]:
    """Another sample of the batch is changed."""
    bench = scene.bench
    for length in dict.fromkeys((4, 6, bench.length)) if scene.target.feed.cuts else (bench.length,):
        for batch in dict.fromkeys((2, 3, bench.batch)):
            x = scene.draw(batch, length)
            base = tried(scene, x)
            if base is None or batch < 2:
                continue
            where = torch.zeros(batch, length, dtype=torch.bool)
            where[-1] = True
            for scale in (1.0, 30.0):
                other = scene.changed(x, where, seed=12, scale=scale)
                out = tried(scene, other)
                if out is None or out.shape != base.shape or float(gap(base[:-1], out[:-1]).max()) <= CLEAR:
                    continue
                script = Script(scene)
                script.run("one", x)
                script.add("", f"# the same but for sample {batch - 1}, which is none of the others' business")
                script.run("two", other)
                script.add("")
                script.compares(
                    "one[:-1]",
                    "two[:-1]",
                    tells="the other samples moved by {moved:.2g} of their scale when the last one changed",
                    wrong="samples of a batch see each other",
                    most=1e-5,
                )
                yield script
                return
