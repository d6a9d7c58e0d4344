"""Experiments with what stays the same: two runs, two lengths, two batch sizes, two modes, a loss."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from headwise.interp.check.errors import Refused
from headwise.interp.check.gaps import ACROSS_SHAPES, gap
from headwise.interp.check.probes.labels import SHIFTED_INSIDE, SHIFTED_OUTSIDE
from headwise.interp.check.reproducing.contents import SHORT
from headwise.interp.check.reproducing.scene import Scene, Script, tried
from headwise.interp.check.target import BASE, Batch, other_modes
from headwise.interp.check.target.resetting import Reset, resetting

ACROSS = ACROSS_SHAPES[torch.float32]  # between runs of different shapes
SIZES = (1, 2, 3, 4, 5, 8)


def lengths(scene: Scene) -> list[int]:
    """Lengths to try, the shortest first."""
    bench = scene.bench
    if bench.expect.size is not None or not scene.target.feed.cuts:
        return [bench.length]
    return [t for t in SHORT if t < bench.length] + [bench.length]


def finite(scene: Scene) -> Iterator[Script]:
    """Every output is a number."""
    for length in lengths(scene):
        x = scene.draw(scene.bench.expect.batch or 1, length)
        out = tried(scene, x)
        if out is not None and not bool(out.isfinite().all()):
            script = Script(scene)
            script.run("out", x)
            script.add('assert out.isfinite().all(), "the output has NaN or infinite values"')
            yield script
            return


def twice(scene: Scene) -> Iterator[Script]:
    """One input, run twice, after a reset where there is one, then with other random numbers."""
    x, reset = scene.draw(scene.bench.expect.batch or 1, lengths(scene)[0]), resetting(scene.target)
    for seed, says in ((0, "the second time"), (1, "with another random seed")):
        with scene.target.untouched():
            script = _first(scene, x, reset)
            raises = script.raises(x)
        if raises:
            yield script
            return
        with scene.target.untouched():
            script = _first(scene, x, reset)
            script.run("two", x, seed=seed)
        script.add(f'assert one.shape == two.shape, "the same input gives an output of another shape {says}"')
        script.compares(
            "one",
            "two",
            tells=f"the same input gives an output that differs by {{moved:.2g}} {says}",
            wrong=f"the same input gives another output {says}",
            most=1e-6,
        )
        yield script


def _first(scene: Scene, x: Batch, reset: Reset | None) -> Script:
    """A first run, of the module as it came, and a reset after it."""
    script = Script(scene)
    script.run("one", x)
    if reset is not None:
        reset()
        script.add(*resets(scene, reset))
    return script


def resets(scene: Scene, reset: Reset) -> list[str]:
    """Lines that begin a new sequence."""
    if reset.told is not None:
        return [f"{scene.sources.name(reset.told)}(model)"]
    paths = {id(m): path for path, m in scene.target.module.named_modules()}
    return [f"model.get_submodule({paths[id(m)]!r}).{n}()" if paths[id(m)] else f"model.{n}()" for m, n in reset.owners]


def sizes_in_turn(scene: Scene) -> Iterator[Script]:
    """An input before and after one of another length, or of another batch size."""
    bench = scene.bench
    if len(lengths(scene)) == 1:
        return
    n, half = bench.length, max(2, bench.length // 2)
    pairs = [
        ((1, 4), (1, 8)),
        ((1, 8), (1, 4)),
        ((1, half), (1, n)),
        ((1, n), (1, half)),
        ((3, 4), (1, 4)),
        ((1, 4), (3, 4)),
    ]
    for one, two in pairs:
        x, between = scene.draw(*one), scene.draw(*two, seed=9)
        script = Script(scene)
        with scene.target.untouched():
            try:
                script.run("before", x)
                script.run("between", between)
                if script.raises(x):
                    yield script
                    continue
                script.run("after", x)
            except Refused:
                continue
        script.compares(
            "before",
            "after",
            tells=f"after an input of batch {two[0]} and length {two[1]} it differs by {{moved:.2g}}",
            wrong="what is kept of one size changes the answer to another",
            most=1e-6,
        )
        yield script


def growth(scene: Scene) -> Iterator[Script]:
    """The first outputs stay as they are when more inputs follow."""
    bench = scene.bench
    if not bench.expect.is_causal():
        return
    for length in lengths(scene)[1:]:
        x = scene.draw(1, length)
        whole = tried(scene, x)
        for n in dict.fromkeys((max(2, length // 2), length - 1)):
            part = tried(scene, x.cut(0, n))
            if whole is None or part is None or whole.shape[1] != length or part.shape[1] != n:
                continue
            if float(gap(whole[:, :n], part).max()) <= 10 * ACROSS:
                continue
            script = Script(scene)
            script.run("whole", x)
            script.run("part", x.cut(0, n))
            script.compares(
                f"whole[:, :{n}]",
                "part",
                tells=f"the first {n} outputs differ by {{moved:.2g}} when {length - n} more inputs follow",
                wrong="outputs change with the number of inputs that follow",
                most=ACROSS,
            )
            yield script
            return


def alone(scene: Scene) -> Iterator[Script]:
    """A sample by itself gives what it gives in company."""
    for length in lengths(scene):
        for batch in (2, scene.bench.batch):
            x = scene.draw(batch, length)
            together, one = tried(scene, x), tried(scene, x[:1])
            if together is None or one is None or batch < 2:
                continue
            same = one.shape == together[:1].shape
            if same and float(gap(together[:1], one).max()) <= 10 * ACROSS:
                continue
            script = Script(scene)
            script.run("together", x)
            script.run("alone", x[:1])
            script.add('assert alone.shape == together[:1].shape, "a sample alone gives an output of another shape"')
            script.compares(
                "together[:1]",
                "alone",
                tells=f"a sample alone differs by {{moved:.2g}} from itself among {batch}",
                wrong="a sample alone gives another output than in company",
                most=ACROSS,
            )
            yield script
            return


def sizes(scene: Scene) -> Iterator[Script]:
    """It runs for every batch size."""
    for length in (5, 7, scene.bench.length):
        for batch in SIZES:
            script = Script(scene)
            if script.raises(scene.draw(batch, length)):
                yield script
                return


def modes(scene: Scene) -> Iterator[Script]:
    """The same answer in every mode."""
    for length in lengths(scene):
        x = scene.draw(scene.bench.expect.batch or 1, length)
        base = tried(scene, x)
        for mode in other_modes(scene.target):
            out = tried(scene, x, mode=mode)
            if base is None or out is None or (out.shape == base.shape and float(gap(base, out).max()) <= 10 * ACROSS):
                continue
            script = Script(scene)
            script.run("one", x)
            script.run("two", x, mode=mode)
            script.add('assert one.shape == two.shape, "two modes give outputs of different shapes"')
            script.compares(
                "one",
                "two",
                tells=f"{BASE} and {mode} differ by {{moved:.2g}}",
                wrong="two modes that should agree do not",
                most=ACROSS,
            )
            yield script
            return


def loss(scene: Scene) -> Iterator[Script]:
    """The loss is the cross-entropy with the next token."""
    bench, target = scene.bench, scene.target
    name = next((n for n in (*SHIFTED_INSIDE, *SHIFTED_OUTSIDE) if n in target.parameters), None)
    if name is None or target.feed.alphabet is None:
        return
    x = scene.draw(1, bench.length)
    script = Script(scene)
    logits = script.run("logits", x)
    given = x.first
    try:
        raw = target.raw(x, **{name: given})
    except Refused:
        return
    where = _loss(raw)
    if where is None or logits.ndim != 3:
        return
    shift = 0 if target.decodes_a_source or not bench.expect.is_causal() or name in SHIFTED_OUTSIDE else 1
    ids = script.let(name, given)
    argument = next(iter(target.parameters))
    script.add(
        f"loss = model({argument}={ids}, {name}={ids}){where}",
        f"right = torch.nn.functional.cross_entropy(logits[0, : {bench.length - shift}], {ids}[0, {shift}:])",
        'print(f"the loss is {float(loss):.4f}, the cross-entropy with the right tokens {float(right):.4f}")',
        'assert abs(float(loss) - float(right)) <= 1e-3 * max(1.0, float(right)), "the labels are not shifted by one"',
    )
    yield script


def _loss(raw) -> str | None:
    """Where the loss is in an answer."""
    if isinstance(raw, Tensor):
        return "" if raw.numel() == 1 else None
    items = [(f"[{k!r}]", v) for k, v in raw.items()] if isinstance(raw, dict) else []
    items += [(f"[{i}]", v) for i, v in enumerate(raw)] if isinstance(raw, list | tuple) else []
    return next((step for step, v in items if isinstance(v, Tensor) and v.numel() == 1), None)
