"""Runs of a model as text: inputs, calls and answers, written down as they are made.

A ``Scene`` draws inputs that can be written down; a ``Script`` is the body of ``main(model)``: it names tensors and
runs, and ends in an assertion that fails where the promise is broken.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from headwise.interp.check.bench import Bench
from headwise.interp.check.errors import Refused
from headwise.interp.check.report import Finding
from headwise.interp.check.reproducing.sources import Sources
from headwise.interp.check.reproducing.spelling import WRITTEN, Unspelled, index, tensor
from headwise.interp.check.target import BASE, Batch, Mode
from headwise.interp.check.target.layout import BOTH, Layout

GAP = '''
def gap(one, two):
    """The largest difference, relative to the largest value; infinite where only one is finite."""
    one, two = one.detach().double(), two.detach().double()
    same = (one == two) | (one.isnan() & two.isnan())
    worst = (one - two).abs().masked_fill(same, 0.0).nan_to_num(torch.inf).max()
    return float(worst / (one.nan_to_num(0.0, 0.0, 0.0).abs().max() or 1.0))
'''
Text = Callable[[str, dict[int, str]], list[str]]  # (its name, names of other parts) → lines
MAIN = "x"  # what the main stream is called where its argument has no name


@dataclass(frozen=True)
class Call:
    """What the model was given."""

    args: tuple
    kwargs: dict
    raw: Any


class Heard(Exception):
    """A Stub was called."""


class Stub(nn.Module):
    """Stands in for a model and tells ``hear`` what it would be given. What it heard is none of its state, which a run
    may restore."""

    def __init__(self, hear: Callable[[tuple[tuple, dict]], None]):
        super().__init__()
        self.hear = hear

    def forward(self, *args, **kwargs):
        self.hear((args, kwargs))
        raise Heard

    def get_submodule(self, target):
        return self


class Scene:
    """A bench whose inputs have texts."""

    def __init__(self, bench: Bench, finding: Finding):
        self.bench, self.target, self.finding = bench, bench.target, finding
        self.sources = Sources()
        self._texts: dict[int, tuple[Tensor, Text]] = {}  # id of a part → the part, how it is made

    # -- inputs -------------------------------------------------------------------------------------------------------
    def draw(self, batch: int, length: int, seed: int = 0) -> Batch:
        """A random input; floats are rounded, or, where there are many, drawn as the script will."""
        feed = self.target.feed
        x = feed.draw(batch, length, seed or 3)
        parts = []
        for i, (stream, part) in enumerate(zip(feed.streams, x.parts, strict=True)):
            if part.is_floating_point():
                part = self._floats(stream.layout, part, seed * 10 + i) if stream.changes else part
            parts.append(part)
        return replace(x, parts=tuple(parts))

    def _floats(self, layout: Layout, like: Tensor, seed: int, scale: float = 1.0) -> Tensor:
        if like.numel() <= WRITTEN // 2:
            g = torch.Generator().manual_seed(seed + 11)
            size = max(0.1, float(like.float().std())) if like.numel() > 1 else 1.0
            drawn = torch.randn(like.shape, generator=g) * size * scale
            return drawn.mul(100).round().div(100).to(like)
        own = layout.its_own(like, self.target.feed.grid)
        drawn = torch.randn(own.shape, generator=torch.Generator().manual_seed(seed)) * scale
        made = layout.one_order(drawn, like.shape[0]).to(like)
        shape = ", ".join(map(str, own.shape))
        size = f" * {scale:g}" if scale != 1 else ""
        text = f"torch.randn({shape}, generator=torch.Generator().manual_seed({seed})){size}"
        self._texts[id(made)] = (made, lambda name, names: [f"{name} = {text}"])
        return made

    def changed(self, x: Batch, where: Tensor, seed: int = 1, scale: float = 1.0, only: int | None = None) -> Batch:
        """``x`` with other content at ``where`` (B, T), which can be written down too."""
        feed = self.target.feed
        other = feed.perturb(x, where, seed=seed, scale=scale, only=only)
        parts = list(other.parts)
        for i in feed.hot if only is None else [only]:
            part = parts[i]
            if not part.is_floating_point():
                continue
            drawn = self._floats(feed.streams[i].layout, part, seed * 10 + i + 1, scale)
            spread = where.view(*where.shape, *[1] * (part.ndim - 2)).to(part.device)
            parts[i] = torch.where(spread, drawn, x.parts[i])
            self._kept(parts[i], drawn, x.parts[i], where, feed.streams[i].layout)
        return replace(other, parts=tuple(parts))

    def _kept(self, part: Tensor, drawn: Tensor, base: Tensor, where: Tensor, layout: Layout) -> None:
        """Its text: drawn anew, and as before where nothing changed."""
        if id(drawn) not in self._texts or id(base) not in self._texts:
            return
        axes, same = layout.timed, bool((where == where[:1]).all())
        if not same or len(axes) != 1 or layout.axes[0] == BOTH:
            return
        before = ", ".join([":"] * axes[0] + [index((~where[0]).nonzero().flatten().tolist(), where.shape[1])])
        made = self._texts[id(drawn)][1]

        def text(name: str, names: dict[int, str]) -> list[str]:
            return [*made(name, names), f"{name}[{before}] = {names[id(base)]}[{before}]"]

        self._texts[id(part)] = (part, text)

    def lines(self, part: Tensor, own: Tensor, name: str, names: dict[int, str]) -> list[str]:
        """Lines that make ``own``, the part as the model takes it."""
        kept = self._texts.get(id(part))
        if kept is None or kept[0] is not part:
            return [f"{name} = {tensor(own)}"]
        return kept[1](name, names)

    # -- what a run is given and gives --------------------------------------------------------------------------------
    def call(self, x: Batch, mask: Tensor | None, mode: Mode, extra: dict) -> Call:
        """Run the model and see what it was given. Raises Unspelled where that cannot be seen."""
        try:
            raw = self.target.raw(x, mask, mode=mode, **extra)
        except Refused as refusal:
            raw = refusal
        if self.target.forward is not None:
            parts = self.target.feed.arguments(x)
            names = [s.name for s in self.target.feed.streams]
            given = parts[0] if len(parts) == 1 else dict(zip(names, parts, strict=True))
            return Call((given,), {} if mask is None else {self.target.padding.name: mask}, raw)
        given = []
        with self.target.as_copy(Stub(given.append), self.target.feed.dtype), suppress(Heard):
            self.target.raw(x, mask, mode=replace(mode, eager=None), **extra)
        return Call(*given[0], raw)

    def reading(self, raw: Any, batch: int) -> list[str]:
        """Lines that turn ``out`` into (B, T, …)."""
        out, lines = getattr(raw, "inner", raw) if self.target.inner else raw, []
        if self.target.options.output is not None and self.target.inner is None:
            lines.append(f"out = {self.sources.name(self.target.options.output)}(out)")
        else:
            place = path(out, self.target.picked(raw))
            if place is None:
                raise Unspelled("where in the answer the output is could not be told")
            lines += [f"out = out{place}"] if place else []
        layout = self.target.layout
        shape = self.target.picked(raw).shape
        if layout is None or len(layout.axes) != len(shape):
            return lines
        steps = _in_order(layout, batch)
        return lines + ([f"out = out{steps}"] if steps else [])


def path(raw: Any, wanted: Any) -> str | None:
    """Where in an answer something is, as one writes it: "[0]", ".logits"; None where it is not."""

    def look(value, depth: int) -> str | None:
        if value is wanted or _same(value, wanted):
            return ""
        if depth == 0 or isinstance(value, Tensor):
            return None
        items = [(f"[{k!r}]", v) for k, v in value.items()] if isinstance(value, dict) else []
        items += [(f"[{i}]", v) for i, v in enumerate(value)] if isinstance(value, list | tuple) else []
        items += [(f".{k}", v) for k, v in getattr(value, "__dict__", {}).items()] if not items else []
        for step, inner in items:
            if (rest := look(inner, depth - 1)) is not None:
                return step + rest
        return None

    return look(raw, 4)


def _same(one: Any, two: Any) -> bool:
    """The same numbers in memory, however they are wrapped."""
    if not isinstance(one, Tensor) or not isinstance(two, Tensor):
        return False
    return one.shape == two.shape and one.data_ptr() == two.data_ptr()


def _in_order(layout: Layout, batch: int) -> str:
    """What puts a tensor in this layout into the order (B, T, …)."""
    if layout.axes[0] == BOTH:
        return f".unflatten(0, ({batch}, -1))"
    order = [] if layout.samples is None else [layout.samples]
    order += layout.timed
    order += [i for i in range(len(layout.axes)) if i not in order]
    text = f".permute{tuple(order)}" if order != sorted(order) else ""
    if text and sum(i != o for i, o in enumerate(order)) == 2:
        one, two = [i for i, o in enumerate(order) if i != o]
        text = f".transpose({one}, {two})"
    text += "[None]" if layout.samples is None else ""
    if not layout.timed:
        return text + ".unsqueeze(1)"
    return text + (f".flatten(1, {len(layout.timed)})" if len(layout.timed) > 1 else "")


class Script:
    """The body of ``main(model)`` as it grows."""

    def __init__(self, scene: Scene, says: str = ""):
        self.scene, self.says = scene, says
        self.lines: list[str] = []
        self.runners: dict[tuple, tuple[str, list[str]]] = {}  # what a run is like → (its name, its lines)
        self._named: dict[str, Tensor] = {}
        self._parts: dict[int, str] = {}  # id of a part of an input → its name
        self._held: list[Batch] = []
        self.dtype: torch.dtype | None = None  # in which the model runs

    def add(self, *lines: str) -> None:
        self.lines += lines

    def let(self, name: str, own: Tensor, part: Tensor | None = None) -> str:
        """The name of a variable with this value, made where there is none."""
        for known, value in self._named.items():
            if value.shape == own.shape and value.dtype == own.dtype and torch.equal(value, own):
                return known
        free, n = name, 2
        while free in self._named:
            free, n = f"other_{name}" if n == 2 else f"{name}_{n}", n + 1
        text = [f"{free} = {tensor(own)}"]
        if part is not None:
            text = self.scene.lines(part, own, free, self._parts)
        self.add(*text)
        self._named[free] = own
        return free

    def run(
        self, into: str, x: Batch, mask: Tensor | None = None, *, mode: Mode = BASE, model="model", seed=0, **extra
    ) -> Tensor:
        """Add a run; its output as (B, T, F). ``model`` as text; ``seed``: of the random numbers it draws."""
        scene = self.scene
        self._held.append(x)
        call = scene.call(x, mask, mode, {**extra, "seed": seed})
        if isinstance(call.raw, Refused):
            raise call.raw
        runner = self._runner(mode, call.raw, x.size, seed)
        self.add(f"{into} = {runner}({', '.join([model, *self._given(call, x)])})")
        return scene.target.read(call.raw, x)

    def compares(self, one: str, two: str, *, tells: str, wrong: str, most: float | str) -> None:
        """Add a comparison of two outputs, as text: what is printed of how far they are apart, ``{moved}``, and what is
        wrong beyond ``most``."""
        self.add(f"moved = gap({one}, {two})", f'print(f"{tells}")', f'assert moved <= {most}, "{wrong}"')

    def raises(self, x: Batch, mask: Tensor | None = None, *, mode: Mode = BASE, **extra) -> bool:
        """Add a run that must not raise; does it?"""
        scene = self.scene
        self._held.append(x)
        call = scene.call(x, mask, mode, {**extra, "seed": 0})
        if not isinstance(call.raw, Refused):
            return False
        runner = self._runner(mode, None, x.size, 0)
        self.add(
            "try:",
            f"    {runner}({', '.join(['model', *self._given(call, x)])})",
            "except Exception as error:",
            '    raise AssertionError(f"it raises {type(error).__name__}: {error}") from error',
        )
        return True

    def _given(self, call: Call, x: Batch) -> list[str]:
        """The texts of the arguments."""
        streams = {s.name: p for s, p in zip(self.scene.target.feed.streams, x.parts, strict=True)}
        first = next(iter(x.parts))
        texts = []
        for i, value in enumerate(call.args):
            name = self._word(value, i)
            texts.append(self._argument(name, value, first if i == 0 else None))
        for name, value in call.kwargs.items():
            if value is not None:
                texts.append(f"{name}={self._argument(name, value, streams.get(name))}")
        return texts

    def _word(self, value, position: int) -> str:
        names = list(self.scene.target.parameters)
        named = self.scene.target.forward is None and position < len(names)
        return names[position] if named else MAIN

    def _argument(self, name: str, value, part: Tensor | None) -> str:
        if isinstance(value, Tensor) and value.ndim:
            own = value.detach()
            made = self.let(name, own, part)
            if part is not None:
                self._parts[id(part)] = made
            return made
        if isinstance(value, Tensor):
            return tensor(value)
        if isinstance(value, dict) and value and all(isinstance(v, Tensor) for v in value.values()):
            return "{" + ", ".join(f"{k!r}: {self._argument(k, v, None)}" for k, v in value.items()) + "}"
        return self.scene.sources.value(value)

    def _runner(self, mode: Mode, raw, batch: int, seed: int) -> str:
        """The name of the function that makes such a run."""
        target = self.scene.target
        reading = [] if raw is None else self.scene.reading(raw, batch)
        key = (mode, seed, tuple(reading))
        if key in self.runners:
            return self.runners[key][0]
        name = "run" if not self.runners else "run_" + _named(mode, seed, len(self.runners))
        if any(name == other for other, _ in self.runners.values()):
            name = f"{name}_{len(self.runners)}"
        lines = [f"torch.manual_seed({seed})", *_moded(mode, target)]
        called = "model(*args, **kwargs)"
        if target.forward is not None:
            called = f"{self.scene.sources.name(target.forward)}(model, *args, **kwargs)"
        within = f"with torch.set_grad_enabled({mode.grad}):" if mode.grad else "with torch.no_grad():"
        if target.inner is not None:
            lines += [
                "seen = []",
                f"inner = model.get_submodule({target.inner!r})",
                "hook = inner.register_forward_hook(lambda module, given, out: seen.append(out))",
                within,
                f"    {called}",
                "hook.remove()",
                "out = seen[-1]",
            ]
        else:
            lines += [within, f"    out = {called}"]
        self.runners[key] = (name, [*lines, *reading, "return out"])
        return name

    @property
    def body(self) -> list[str]:
        """The lines of ``main(model)``."""
        return ([f"model = model.to({self.dtype})"] if self.dtype else []) + self.lines

    @property
    def functions(self) -> str:
        made = []
        for name, lines in self.runners.values():
            head = f'def {name}(model, *args, **kwargs):\n    """One run: what the model answers, (B, T, …)."""\n'
            made.append(head + "\n".join("    " + line for line in lines))
        return "\n\n\n".join(made)


def _named(mode: Mode, seed: int, n: int) -> str:
    if mode.train:
        return "in_training"
    if mode.grad:
        return "with_gradient"
    if mode.weights:
        return "asked_for_weights"
    return "again" if seed else mode.eager or f"{n + 1}"


def _moded(mode: Mode, target) -> list[str]:
    """Lines that put the model into a mode. Dropout draws the same in runs from one seed."""
    lines = ["model.train()" if mode.train else "model.eval()"]
    norms = [m for m in target.module.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
    if mode.train and not mode.statistics and any(m.track_running_stats for m in norms):
        lines += [
            "for module in model.modules():",
            "    if isinstance(module, nn.modules.batchnorm._NormBase):",
            "        module.eval()  # running statistics",
        ]
    if mode.eager:
        lines.append(f"model.set_attn_implementation({mode.eager!r})")
    return lines


def tried(scene: Scene, x: Batch, mask: Tensor | None = None, mode: Mode = BASE, **extra) -> Tensor | None:
    """A run that may be refused."""
    try:
        return scene.target.run(x, mask, mode=mode, **extra)
    except Refused:
        return None
