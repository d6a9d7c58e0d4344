"""C, a second sequence after a first: nothing of the first may be left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headwise.interp.check.bench import Bench
from headwise.interp.check.errors import Refused
from headwise.interp.check.findings import found
from headwise.interp.check.gaps import gap
from headwise.interp.check.probes.decoding import Plan, few, given, steps
from headwise.interp.check.report import Finding
from headwise.interp.check.state import marks
from headwise.interp.check.target import BASE, Batch
from headwise.interp.check.target.steps import Stepping
from headwise.interp.run.parts import layer_number


def left_behind(bench: Bench, way: Stepping, keeps: bool, *, done: Plan):
    """Decode the same sequence twice, a shorter one after another, and run the whole after steps."""
    if keeps and way.reset is None:
        bench.notes.append(
            "no method that begins a new sequence was found, so none was decoded after another; name it with reset="
        )
        return ""
    length, unit, first = bench.length, bench.unit, done.chunks
    half = max(2, len(bench.positions) // 2)
    if way.single:
        parts = (1,) * min(length, 6)
    else:
        parts = (half - 1, 1) if few(bench) else (max(1, half - 3), *(1,) * min(3, half - 1))
    parts = tuple(n * unit for n in parts)
    second = bench.target.feed.draw(bench.batch, length, seed=9) if bench.target.feed.cuts else bench.x
    seconds = [("a shorter sequence after another one", second, Plan("", parts))]
    seconds += [] if few(bench) else [("the same sequence a second time", bench.x, Plan("", first))]
    reset = way.reset if keeps else None
    for name, before, plan in seconds:
        try:
            wrong = _second(bench, way, reset, name=name, before=(before, first), plan=plan)
        except Refused as refusal:
            bench.notes.append(f"cache, {name}: {refusal.brief()}")
            continue
        if wrong is not None:
            yield wrong
            return name
    return "; ".join(name for name, _, _ in seconds)


@dataclass(frozen=True, eq=False)
class Sequel:
    """A sequence decoded after another: what the first left, and whether putting it back makes the second right."""

    bench: Bench
    way: Stepping
    reset: Callable[[], None] | None
    before: tuple[Batch, tuple[int, ...]]
    x: Batch
    chunks: tuple[int, ...]
    full: Tensor

    def run(self, but: nn.Module | None = None, restore: bool = False) -> tuple[Tensor, dict[nn.Module, list[str]]]:
        """(its outputs, module → the attributes that the first sequence changed). ``restore`` puts every module's state
        back in between, that of ``but`` aside."""
        target = self.bench.target
        with target.untouched() as held, target.in_mode(BASE):
            fresh = {m: marks(m) for m in target.module.modules()}
            steps(self.bench, self.way.step, *self.before)
            if self.reset is not None:
                self.reset()
            left = {m: [n for n, v in marks(m).items() if fresh[m].get(n) != v] for m in fresh}
            for m in fresh if restore and held is not None else ():
                if m is not but:
                    held.restore_one(m)
            out = torch.cat(steps(self.bench, self.way.step, self.x, self.chunks)[0], 1)
        return out, {m: names for m, names in left.items() if names}

    def guilty(self, left: dict[nn.Module, list[str]]) -> tuple[str | None, list[str]]:
        """(the first module whose state, left as it is, makes the second sequence wrong by itself, its attributes)."""
        names = {id(m): name for name, m in self.bench.target.module.named_modules()}
        if self._wrong(None):
            return None, []
        for module in left:
            if self._wrong(module):
                return names[id(module)], left[module]
        return None, []

    def _wrong(self, but: nn.Module | None) -> bool:
        out, _ = self.run(but, restore=True)
        return out.shape != self.full.shape or float(gap(self.full, out).max()) > 1e-3


def _second(bench: Bench, way: Stepping, reset, *, name: str, before: tuple, plan: Plan) -> Finding | None:
    x, full = given(bench, plan)
    sequel = Sequel(bench, way, reset, before=before, x=x, chunks=plan.chunks, full=full)
    out, left = sequel.run()
    worst, gaps = bench.across(full, out)
    if not worst:
        return None
    module, names = sequel.guilty(left)
    first = int((gaps.amax(0) > min(worst, 1e6) / 50).nonzero()[0])
    return found(
        "cache-left",
        probe="C",
        module=module,
        layer=layer_number(module) if module else None,
        effect=worst,
        smallest={"batch": bench.batch, "sequences": 2, "chunks": list(plan.chunks[:4]), "position": first},
        what=name,
        kept=", ".join(names),
        reset="after a reset" if reset is not None else "begun anew",
        position=first,
    )
