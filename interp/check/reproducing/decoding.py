"""Experiments with a cache: chunks decoded one after another give what the whole gives at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headwise.interp.check.errors import DoesNotApply, Refused
from headwise.interp.check.gaps import gap
from headwise.interp.check.probes.cache import stepper
from headwise.interp.check.reproducing.scene import Scene, Script, path
from headwise.interp.check.reproducing.spelling import Unspelled
from headwise.interp.check.reproducing.states import ACROSS, lengths
from headwise.interp.check.state import seed_everything
from headwise.interp.check.target import BASE, Batch
from headwise.interp.run.tap import Recorder, listen


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
    """A sequence decoded in chunks: outputs (B, T, F), and each call of the module."""

    out: Tensor
    calls: list[tuple[tuple, dict, Any]]
    raws: list[Any]


def decoding(scene: Scene) -> Iterator[Script]:
    """By the plan that was found wrong, and by others, the shortest first."""
    try:
        step = stepper(scene.bench)
    except (DoesNotApply, Refused):
        return
    for length in (t for t in lengths(scene) if t >= 4):
        half, rest = length // 2, length - length // 2
        for plan in ((1,) * length, (half, *(1,) * rest), (half, rest - 1, 1), (half, rest)):
            if (script := _decoded(scene, step, scene.draw(1, length), plan)) is not None:
                yield script
                return


def _decoded(scene: Scene, step, x: Batch, plan: tuple[int, ...]) -> Script | None:
    """The script, where decoding differs."""
    script = Script(scene)
    try:
        whole = script.run("whole", x)
        made = _made(scene, step, x, plan)
    except Refused:
        return None
    if made.out.shape == whole.shape and float(gap(whole, made.out).max()) <= 10 * ACROSS:
        return None
    ids = script.let(scene.target.feed.stream or "x", scene.target.feed.arguments(x)[0])
    axis = scene.target.feed.streams[0].layout.timed[0]
    script.add(
        "",
        f"cache, parts, at = None, [], 0  # the same in chunks of {', '.join(map(str, plan))}",
        f"for chunk in {ids}.split({list(plan)}, dim={axis}):",
        *(f"    {line}" for line in _step(scene, made)),
        "    parts.append(out)",
        f"    at += chunk.shape[{axis}]",
        "",
        "decoded = torch.cat(parts, 1)",
        'assert decoded.shape == whole.shape, "decoding with a cache gives outputs of another shape"',
        "moved = gap(whole, decoded)",
        'print(f"decoded with a cache, outputs differ by {moved:.2g} of their scale from those of the whole")',
        f'assert moved <= {ACROSS}, "decoding with a cache differs from the full run"',
    )
    return script


def _made(scene: Scene, step, x: Batch, plan: tuple[int, ...]) -> Steps:
    target, state, at = scene.target, None, 0
    parts, raws, calls = [], [], []
    with target.untouched(), target.in_mode(BASE):
        for n in plan:
            chunk, told = x.cut(at, n), Told(target.module, x.size)
            seed_everything(0)
            with listen(told, operations=False):
                raw, state = step(chunk, state)
            calls += told.calls_of_root
            raws.append(raw)
            parts.append(target.read(raw, chunk))
            at += n
    return Steps(torch.cat(parts, 1), calls, raws)


def _step(scene: Scene, made: Steps) -> list[str]:
    """The body of the loop over chunks."""
    target = scene.target
    reading = scene.reading(made.raws[0], 1)
    if target.step is not None:
        lines = [f"out, cache = {scene.sources.name(target.step)}(model, chunk, cache)"]
    elif len(made.calls) == len(made.raws) and len(made.calls) > 1:
        given, kept = _call(scene, made)
        lines = [f"out = model({', '.join(given)})"]
        reading = [*([f"cache = out{kept}"] if kept else []), *reading]
    else:
        raise Unspelled("a step is not one call of the model")
    return ["torch.manual_seed(0)", "with torch.no_grad():", *(f"    {line}" for line in lines), *reading]


def _call(scene: Scene, made: Steps) -> tuple[list[str], str]:
    """(arguments of a step, where in what it returned the cache for the next one is)."""
    target, kept = scene.target, ""
    args, kwargs, _ = made.calls[1]
    texts = ["chunk" for _ in args]
    start = made.raws and made.calls[0][1]
    for name, value in kwargs.items():
        if name == target.feed.stream:
            texts.append(f"{name}=chunk")
        elif (place := path(made.calls[0][2], value)) is not None and not isinstance(value, bool | int):
            kept = place
            texts.append(f"{name}=cache")
        elif type(value) is int and start.get(name) == 0 and value > 0:
            texts.append(f"{name}=at")
        elif isinstance(value, Tensor):
            raise Unspelled(f"{name} changes from step to step")
        elif value is not None:
            texts.append(f"{name}={scene.sources.value(value)}")
    return texts, kept
