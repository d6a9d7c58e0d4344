"""Experiments with a cache: chunks decoded one after another give what the whole gives at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from headwise.interp.check.errors import DoesNotApply, Refused
from headwise.interp.check.gaps import gap
from headwise.interp.check.probes.sides import position_ids, side
from headwise.interp.check.reproducing.scene import Scene, Script, path
from headwise.interp.check.reproducing.spelling import Unspelled
from headwise.interp.check.reproducing.states import ACROSS, lengths, resets
from headwise.interp.check.state import seed_everything
from headwise.interp.check.target import BASE, Batch
from headwise.interp.check.target.stepping import stepping
from headwise.interp.check.target.steps import Stepping
from headwise.interp.run.tap import Recorder, listen

DIFFERS = (
    'assert decoded.shape == whole.shape, "decoding with a cache gives outputs of another shape"',
    "moved = gap(whole, decoded)",
    'print(f"decoded with a cache, outputs differ by {moved:.2g} of their scale from those of the whole")',
    f'assert moved <= {ACROSS}, "decoding with a cache differs from the full run"',
)


class Told(Recorder):
    """Hears what the whole module is given, and what it returns."""

    def __init__(self, root: nn.Module, batch: int):
        super().__init__(root, batch)
        self.calls_of_root: list[tuple[tuple, dict, Any]] = []

    def leave(self, module, args, kwargs, output):
        if module is self.root:
            self.calls_of_root.append((args, kwargs, output))
        return super().leave(module, args, kwargs, output)


@dataclass(frozen=True, eq=False)
class Steps:
    """A sequence decoded in chunks: outputs (B, T, F), each call of the module, and what each step returned."""

    out: Tensor
    calls: list[tuple[tuple, dict, Any]]
    raws: list[Any]


def decoding(scene: Scene) -> Iterator[Script]:
    """One sequence, by the shortest plan that shows it."""
    if (way := _way(scene)) is None:
        return
    for length in (t for t in lengths(scene) if t >= 4):
        half, rest = length // 2, length - length // 2
        plans = (
            [(1,) * length] if way.single else [(1,) * length, (half, *(1,) * rest), (half, rest - 1, 1), (half, rest)]
        )
        for batch in dict.fromkeys((scene.bench.expect.batch or 1, scene.bench.batch)):
            for plan in plans:
                if (script := _decoded(scene, way, scene.draw(batch, length), plan)) is not None:
                    yield script
                    return


def second(scene: Scene) -> Iterator[Script]:
    """A sequence after another one."""
    if (way := _way(scene)) is None:
        return
    for length in (t for t in lengths(scene) if t >= 4):
        plan = (1,) * length if way.single else (length - 2, 1, 1)
        before = scene.draw(scene.bench.expect.batch or 1, length, seed=9)
        if (script := _decoded(scene, way, scene.draw(before.size, length), plan, before)) is not None:
            yield script
            return


def _way(scene: Scene) -> Stepping | None:
    bench = scene.bench
    if not bench.per_output:
        return None
    try:
        return stepping(bench.target, bench.x, bench.out, bench.unit)
    except (DoesNotApply, Refused):
        return None


def _decoded(
    scene: Scene, way: Stepping, x: Batch, plan: tuple[int, ...], before: Batch | None = None
) -> Script | None:
    """The script, where decoding differs. ``before``: decoded first, on the same model."""
    script, target = Script(scene), scene.target
    try:
        whole = script.run("whole", x, model="copy.deepcopy(model)" if way.keeps else "model")
        with target.untouched(), target.in_mode(BASE):
            for sequence in [x] if before is None else [before, x]:
                made = _made(scene, way, sequence, plan)
                if way.reset is not None and way.keeps and sequence is before:
                    way.reset()
    except Refused:
        return None
    if made.out.shape == whole.shape and float(gap(whole, made.out).max()) <= 10 * ACROSS:
        return None
    axis, name = target.feed.streams[0].layout.timed[0], target.feed.stream or "x"
    script.add(
        "",
        f"def decode({name}):",
        f'    """In chunks of {", ".join(map(str, plan))}."""',
        "    cache, parts, at = None, [], 0",
        f"    for chunk in {name}.split({list(plan)}, dim={axis}):",
        *(f"        {line}" for line in _step(scene, way, made, axis)),
        "        parts.append(out)",
        f"        at += chunk.shape[{axis}]",
        "    return torch.cat(parts, 1)",
        "",
    )
    if before is not None:
        script.add(f"decode({script.let('before', target.feed.arguments(before)[0])})")
        script.add(*(resets(scene, way.reset) if way.reset is not None and way.keeps else []))
    script.add(f"decoded = decode({script.let(name, target.feed.arguments(x)[0])})", *DIFFERS)
    return script


def _made(scene: Scene, way: Stepping, x: Batch, plan: tuple[int, ...], *more) -> Steps:
    """Decode; ``more``: for each chunk, what a step is given beside it."""
    target, state, at = scene.target, None, 0
    parts, raws, calls = [], [], []
    for i, n in enumerate(plan):
        chunk, told = x.cut(at, n), Told(target.module, x.size)
        seed_everything(0)
        mask, extra = more[i] if more else (None, {})
        with listen(told, operations=False):
            raw, state = way.step(chunk, state, mask, **extra) if more else way.step(chunk, state)
        calls += told.calls_of_root
        raws.append(raw)
        parts.append(target.read(raw, chunk))
        at += n
    return Steps(torch.cat(parts, 1), calls, raws)


def _step(scene: Scene, way: Stepping, made: Steps, axis: int) -> list[str]:
    """The body of the loop over chunks."""
    target, keeps = scene.target, way.keeps
    if target.step is not None:
        lines = [f"out{'' if keeps else ', cache'} = {scene.sources.name(target.step)}(model, chunk, cache)"]
        after = scene.reading(made.raws[0], 1)
    elif way.single:
        lines, after = _method(way, axis), []
    elif len(made.calls) == len(made.raws) > 1:
        given, kept = _call(scene, made)
        lines = [f"out = model({', '.join(given)})"]
        after = [*([f"cache = out{kept}"] if kept and not keeps else []), *scene.reading(made.raws[0], 1)]
    else:
        raise Unspelled("a step is not one call of the model")
    return ["torch.manual_seed(0)", "with torch.no_grad():", *(f"    {line}" for line in lines), *after]


def _method(way: Stepping, axis: int) -> list[str]:
    """A step by a method of the model, as ``steps`` tries it."""
    if not isinstance(way.step, partial):
        raise Unspelled("how a step is made is not known")
    _, name, squeezed, begin, keeps = way.step.args
    chunk = f"chunk.squeeze({axis})" if squeezed else "chunk"
    lines = [f"cache = model.{begin}(len(chunk)) if cache is None else cache"] if begin else []
    lines.append(f"out = model.{name}({chunk})" if keeps else f"out, cache = model.{name}({chunk}, cache)")
    return lines + ([f"out = out.unsqueeze({axis})"] if squeezed else [])


def _call(scene: Scene, made: Steps) -> tuple[list[str], str]:
    """(arguments of a step, where in what it returned the cache for the next one is)."""
    target, kept = scene.target, ""
    (_, start, before), (args, kwargs, _) = made.calls[:2]
    texts = ["chunk" for _ in args]
    for name, value in kwargs.items():
        simple = value is None or isinstance(value, bool | int | float | str)
        if name == target.feed.stream:
            texts.append(f"{name}=chunk")
        elif not simple and (place := path(before, value)) is not None:
            kept = place
            texts.append(f"{name}=cache")
        elif type(value) is int and start.get(name) == 0 and value > 0:
            texts.append(f"{name}=at")
        elif isinstance(value, Tensor):
            raise Unspelled(f"{name} changes from step to step")
        elif value is not None:
            texts.append(f"{name}={scene.sources.value(value)}")
    return texts, kept


def padded(scene: Scene) -> Iterator[Script]:
    """A row padded on the left, decoded in two chunks."""
    target, bench, way = scene.target, scene.bench, _way(scene)
    if way is None or not way.masked or target.padding.name is None:
        return
    for length in (t for t in lengths(scene) if t >= 5):
        x, made = scene.draw(1, length), side("left", (1, length), bench.x.device)
        places = position_ids(bench, made)
        half, real = length // 2, made.mask[0].nonzero().flatten().tolist()
        for whole in (True, False):
            given = [
                (made.mask[:, (0 if whole else a) : b], {n: p[:, a:b] for n, p in places.items()})
                for a, b in ((0, half), (half, length))
            ]
            script = Script(scene)
            try:
                full = script.run("whole", x, made.mask, **places)
                with target.untouched(), target.in_mode(BASE):
                    steps = _made(scene, way, x, (half, length - half), *given)
            except Refused:
                continue
            if float(gap(full[:, real], steps.out[:, real]).max()) > 10 * ACROSS:
                script.add("", *_spelled(scene, script, steps), "decoded = torch.cat([first, second], 1)")
                script.add(f"whole, decoded = whole[:, {real[0]}:], decoded[:, {real[0]}:]  # real positions", *DIFFERS)
                yield script
                break
        else:
            continue
        return


def _spelled(scene: Scene, script: Script, made: Steps) -> list[str]:
    """Two steps, call by call."""
    lines, before = ["torch.manual_seed(0)"], None
    for name, (args, kwargs, raw) in zip(("first", "second"), made.calls, strict=True):
        texts = [script.let("chunk", a) for a in args]
        for key, value in kwargs.items():
            simple = value is None or isinstance(value, bool | int | float | str)
            if before is not None and not simple and (place := path(before, value)) is not None:
                texts.append(f"{key}=out{place}")
            elif isinstance(value, Tensor):
                texts.append(f"{key}={script.let(key, value)}")
            elif value is not None:
                texts.append(f"{key}={scene.sources.value(value)}")
        lines += ["with torch.no_grad():", f"    out = model({', '.join(texts)})"]
        lines += [f"{name} = out"] + [
            line.replace("out = out", f"{name} = {name}", 1) for line in scene.reading(raw, 1)
        ]
        before = raw
    return lines
