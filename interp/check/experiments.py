"""Runs in which one thing is put right, to see whether the leak is gone while the model still works.

Two inputs differ in what some outputs may not see. An operation's result is taken from the unchanged run, a mask is
applied inside one attention call, a padding is made of zeros: where those outputs then hold still and the others still
follow their input, it is proven what carried the leak.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from headwise.interp.check.errors import Refused, handed
from headwise.interp.check.gaps import gap, rounding
from headwise.interp.check.rows import Places, differs
from headwise.interp.check.target import BASE, Batch, Mode, Target
from headwise.interp.errors import InputError
from headwise.interp.run.tap import Recorder, listen
from headwise.interp.run.tap.changes import CallChanges, Changes
from headwise.interp.run.tap.places import named, writes_into

KEPT = 300 * 2**20  # bytes of results that are kept of one run
STILL = 0.05  # of its change an output that may follow the input must keep, or the model was only switched off


@dataclass(frozen=True, eq=False)
class Held:
    """What must not happen: content ``where`` (B, T) reaches outputs ``hold`` (B, T'), which stand at ``outputs``
    (T',)."""

    where: Tensor
    hold: Tensor
    outputs: Tensor

    @property
    def positions(self) -> Tensor:
        """Those that must not hear of it, as input positions (B, T)."""
        return self.hold if self.hold.shape == self.where.shape else ~self.where


@dataclass
class Step:
    """One operation of a run, the ``index``-th that made a tensor."""

    index: int
    name: str
    module: str
    args: tuple
    kwargs: dict


class Act:
    """What is done at each operation of a run. Nothing."""

    def called(self, step: Step, func: Callable):
        return handed(func, *step.args, **step.kwargs)

    def made(self, step: Step, results: list[Tensor]) -> list[Tensor]:
        return results


@dataclass
class Keep(Act):
    """Keeps what every operation makes, up to a size."""

    results: list[list[Tensor]] = field(default_factory=list)
    size: int = 0

    def made(self, step, results):
        self.size += sum(t.numel() * t.element_size() for t in results)
        self.results.append([t.detach().clone() for t in results] if self.size < KEPT else [])
        return results


@dataclass
class Clean(Act):
    """Puts every row that must not have changed back as it was, the moment it changes, and notes where that was."""

    base: Keep
    places: Places
    held: Tensor  # (B, T)
    entries: list[tuple[Step, int]] = field(default_factory=list)  # and which of its results
    unplaced: list[tuple[Step, int]] = field(default_factory=list)  # what changed and has no positions

    def made(self, step, results):
        return [self._one(step, i, t, before) for i, (t, before) in enumerate(self._pairs(step, results))]

    def _pairs(self, step, results):
        kept = self.base.results[step.index] if step.index < len(self.base.results) else []
        return zip(results, kept if len(kept) == len(results) else [None] * len(results), strict=True)

    def _one(self, step, i: int, t: Tensor, before: Tensor | None) -> Tensor:
        if before is None or before.shape != t.shape or not bool((changed := differs(before, t)).any()):
            return t
        mine = self.places.where(t, self.held)
        if mine is None:
            self.unplaced.append((step, i))
            return t
        wrong = changed & mine.to(t.device)
        if not bool(wrong.any()):
            return t
        self.entries.append((step, i))
        return torch.where(wrong, before, t)


@dataclass
class Restore(Act):
    """Takes some results from the unchanged run, where they are marked."""

    base: Keep
    marks: Mapping[tuple[int, int], Tensor]  # (operation, which of its results) → what is taken, bool

    def made(self, step, results):
        return [
            torch.where(mark, self.base.results[step.index][i], t)
            if (mark := self.marks.get((step.index, i))) is not None and mark.shape == t.shape
            else t
            for i, t in enumerate(results)
        ]


class Instead(Act):
    """Calls some operations otherwise: ``change(step)`` gives new arguments, or None."""

    def __init__(self, change: Callable[[Step], tuple[tuple, dict] | None]):
        self.change, self.used = change, []

    def called(self, step, func):
        new = self.change(step)
        if new is None:
            return handed(func, *step.args, **step.kwargs)
        self.used.append(step)
        return handed(func, *new[0], **new[1])


class Trace(TorchFunctionMode):
    """Hands every operation inside some modules to an Act."""

    def __init__(self, recorder: Recorder, scope: Callable[[str], bool], act: Act):
        super().__init__()
        self.recorder, self.scope, self.act, self.count = recorder, scope, act, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not self.scope(self.recorder.where):
            return handed(func, *args, **kwargs)
        step = Step(self.count, named(func), self.recorder.where, args, kwargs)
        out = self.act.called(step, func)
        over = args[0] if args and writes_into(step.name, {}) and isinstance(args[0], Tensor) else None
        results = [over] if over is not None else _tensors(out)
        if not results or any(t.is_nested for t in results):
            return out
        self.count += 1
        new = self.act.made(step, results)
        if all(a is b for a, b in zip(new, results, strict=True)):
            return out
        if over is not None:
            over.copy_(new[0])
            return out
        return _rebuilt(out, new)


@dataclass(frozen=True, eq=False)
class Bed:
    """Two inputs of one model, and what of the one must not reach the other's outputs."""

    target: Target
    x: Batch
    other: Batch
    held: Held
    mask: Tensor | None = None  # of the padding, (B, T)
    mode: Mode = BASE

    @property
    def places(self) -> Places:
        return Places(self.x.size, self.x.length, self.held.outputs, self.target.feed.grid)

    def run(self, x: Batch, scope: Callable[[str], bool], act: Act) -> Tensor | None:
        """The output of one run; None where the model does not take what is done to it."""
        recorder = Recorder(self.target.module, x.size)
        try:
            with listen(recorder, operations=False), Trace(recorder, scope, act):
                return self.target.run(x, self.mask, mode=self.mode)
        except Refused:
            return None

    def masked(self, x: Batch, changes: Mapping[tuple[str, int], CallChanges]) -> Tensor | None:
        """The output of a run in which attention calls are changed."""
        recorder = Recorder(self.target.module, x.size, keep_calls=False, changes=Changes(dict(changes)))
        try:
            with listen(recorder):
                return self.target.run(x, self.mask, mode=self.mode)
        except (Refused, InputError):
            return None

    def effects(self, base: Tensor | None, out: Tensor | None) -> tuple[float, float]:
        """(largest change of outputs that must hold still, of those that may change)."""
        fits = base is not None and out is not None and base.shape == out.shape
        if not fits or base.shape[:2] != self.held.hold.shape:
            return float("inf"), 0.0
        hold = self.held.hold.to(base.device)
        real = torch.ones_like(hold) if self.mask is None or hold.shape != self.mask.shape else self.mask.bool()
        return float(gap(base, out, hold & real).max()), float(gap(base, out, ~hold).max())

    def mended(
        self, base: Tensor | None, out: Tensor | None, before: tuple[float, float], life: float | None = None
    ) -> bool:
        """Is the leak gone, while the model still works? ``life``: how far its answers move with what they may see."""
        leak, moves = self.effects(base, out)
        moves, least = (moves, STILL * before[1]) if life is None else (life, STILL * before[0])
        noise = rounding(base.dtype if base is not None and base.is_floating_point() else torch.float32)
        alive = base is not None and bool(base[self.held.hold.to(base.device)].isfinite().all())
        return leak <= noise < before[0] and alive and moves >= least > 0


def applied(allowed: Callable[[Tensor], Tensor], opens: bool = False) -> CallChanges:
    """Change of one call: it sees what ``allowed`` (bool, of the shape of its mask) says, or no more than that."""

    def act(mask: Tensor) -> None:
        may = allowed(mask)
        mask.copy_(may if opens else mask & may)

    return CallChanges(masks=[("the promised mask", act)])


def _tensors(out) -> list[Tensor]:
    if isinstance(out, Tensor):
        return [out]
    return [t for t in out if isinstance(t, Tensor)] if isinstance(out, tuple | list) else []


def _rebuilt(out, new: list[Tensor]):
    if isinstance(out, Tensor):
        return new[0]
    made = iter(new)
    parts = [next(made) if isinstance(t, Tensor) else t for t in out]
    return type(out)(parts) if type(out) in (tuple, list) or not hasattr(out, "_fields") else type(out)(*parts)


def whole(bed: Bed, scope: Callable[[str], bool]) -> tuple[Keep, Tensor, tuple[float, float]] | None:
    """(what the unchanged run made, its output, the effects of the change); None where no leak is seen so."""
    keep = Keep()
    base = bed.run(bed.x, scope, keep)
    before = bed.effects(base, bed.run(bed.other, scope, Act()))
    if base is None or not 0 < before[0] < float("inf"):
        return None
    return keep, base, before
