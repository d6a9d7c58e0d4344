"""The workbench of one check: the target at work, the base run, the budget, and what was found so far."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from headwise.interp.attention.call import AttentionCall
from headwise.interp.check import strides
from headwise.interp.check.errors import CheckError, DoesNotApply, OutOfTime, Refused, crashed
from headwise.interp.check.expectation import Expectation, Unfit
from headwise.interp.check.gaps import ACROSS_SHAPES, CLEAR, gap, rounding
from headwise.interp.check.locate import watch
from headwise.interp.check.report import FAILED, Finding, Probed
from headwise.interp.check.state import Snapshot
from headwise.interp.check.target import BASE, Batch, Mode, Target
from headwise.interp.check.target.hiding import settle_padding
from headwise.interp.check.target.layout import plain, time_first
from headwise.interp.check.target.turning import turned
from headwise.interp.run.parts import modules_below

LARGE = 50_000_000  # parameters above which no copy is made
CONFIRMED = 4  # of changes that rounding might explain the largest that are looked at again


@dataclass(frozen=True)
class Draw:
    """How what may not be seen is replaced."""

    seed: int = 1
    scale: float = 1.0
    only: int | None = None  # one stream of several


@dataclass
class Leak:
    """Content at ``where`` (B, T) changed output ``query`` of sample ``b``, which may not see it."""

    query: int
    b: int
    effect: float
    x: Batch
    other: Batch
    where: Tensor
    only: int | None = None  # the stream that was changed, where it was one of several
    double: bool = False  # it was confirmed in float64, and is looked for there


class Bench:
    def __init__(self, target: Target, expect: Expectation):
        self.target, self.expect, self.options = target, expect, target.options
        self.started = time.monotonic()
        self.findings: list[Finding] = []
        self.advice: list[Finding] = []
        self.failed: list[Probed] = []  # what failed in our own code beside the probes
        self.notes: list[str] = target.notes
        self.tolerated = 0.0
        target.deadline = self._deadline
        self._set_up()

    # -- setting up -------------------------------------------------------------------------------------------------
    def _set_up(self) -> None:
        target = self.target
        if target.snapshot is None:  # before the first run: what a module builds or keeps in a run is undone
            target.snapshot = Snapshot(target.module)
        self.refused: list[tuple[int, int, Exception]] = []  # (B, T, what the model raised)
        self._counts: dict[int, int | None] = {}
        self._first_run()
        self.answer = self.out  # the model's own, also where a module inside is watched
        self._look_inside()
        self.per_output = target.feed.positional and not target.pooled
        self.seconds_a_run = self._pace()
        settle_padding(target, self.x)
        self.positions = self._output_positions(self.options.positions)
        self.calls = self.watched_calls()
        self.own = [c for c in self.calls if c.kind == "self" and c.queries == c.keys == self.length]
        if target.decodes_a_source:
            self.own = [c for c in self.own if not c.stack.startswith("enc")]
        self.layers = (max(c.layer for c in self.own) + 1) if self.own else None
        self.reach = self._reach() if self.per_output else None  # (B, T', T)

    def _reach(self) -> Tensor:
        return torch.stack([self.expect.reach(self.layers, self.length, b)[self.positions] for b in range(self.batch)])

    def _first_run(self) -> None:
        """Sets ``x``, the first input that the model takes, ``out``, its output, and their ``batch`` and ``length``."""
        target, feed, crash = self.target, self.target.feed, None
        for b, t in target.candidates(self.expect.batch, self.options.length, self.expect.size):
            try:
                x = feed.draw(b, t)
                raw = target.raw(x)
                if target.last_only(raw, x):
                    raw = target.raw(x)
                target.settle(raw, x)
                if self.expect.size is None and turned(target, x, free=self.expect.free):
                    x = target.feed.anew(b, t)
                    raw = target.raw(x)
                    target.settle(raw, x)
                if feed.positional:
                    self.expect = self.expect.fitted(x.size, x.length, feed.grid)
                self.out = target.read(raw, x)
                self.x, self.batch, self.length = x, x.size, x.length
                return
            except (Unfit, Refused) as why:
                self.refused.append((b, t, getattr(why, "error", why)))
            except (OutOfTime, CheckError):
                raise
            except Exception as error:  # ours: another way to feed it may do
                crash = crash or error
        if crash is not None:
            raise CheckError(f"{target.name} could not be set up: {crashed(crash)}.") from crash
        raise CheckError(target.refusal(self.refused))

    def _look_inside(self) -> None:
        """Of one output a sequence: the last module with an output at each position is watched in its place."""
        target = self.target
        if not (target.feed.positional and target.pooled) or self.expect.free:
            return
        try:
            _, watcher, _ = watch(target, self.x, operations=False)
        except Refused:
            return
        for visit in reversed(watcher.visits_made):
            for t in visit.outputs if visit.name else []:
                for layout in (plain(t.ndim), time_first(t.ndim)) if t.ndim >= 3 and t.is_floating_point() else ():
                    if tuple(t.shape[layout.axes.index(axis)] for axis in "BT") == (self.batch, self.length):
                        target.look_inside(visit.name, layout)
                        self.out = target.run(self.x)
                        return

    @contextmanager
    def answering(self):
        """What is read is the model's own answer, also where a module inside it is watched."""
        out, per_output = self.out, self.per_output
        if self.target.inner is not None:
            self.out, self.per_output = self.answer, False
        try:
            with self.target.answering():
                yield
        finally:
            self.out, self.per_output = out, per_output

    def _pace(self) -> float:
        start = time.monotonic()
        out = self.target.run(self.x)
        gap(out, out + 1 if out.is_floating_point() else out)
        return time.monotonic() - start

    def _output_positions(self, positions) -> Tensor:
        """Input position that each output stands at: its own, or, for fewer outputs, the last input it waits for."""
        given = self.out.shape[1]
        if positions is not None:
            index = torch.as_tensor([positions(j) for j in range(given)] if callable(positions) else positions)
            if len(index) != given:
                raise CheckError(
                    f"positions= expects one input position an output, got {len(index)} for {given} outputs."
                )
            return index.clamp(0, self.length - 1)
        if not self.per_output or given == self.length:
            return torch.arange(given)
        index = strides.waits(given, self.length, self.outputs_of)
        step = int(index.diff().max()) if given > 1 else self.length
        self.notes.append(
            f"{given} outputs for {self.length} inputs: output j was taken to stand at input {step}·j + "
            f"{int(index[0])}, the last one it waits for; say positions= to change that"
        )
        return index

    @property
    def unit(self) -> int | None:
        """How many inputs make an output, where that is the same everywhere."""
        return strides.unit(self.positions, self.length)

    def outputs_of(self, length: int) -> int | None:
        """How many outputs a sequence of this length has; None where it cannot be run."""
        if length == self.length:
            return self.out.shape[1]
        if length not in self._counts:
            try:
                self._counts[length] = self.run(self.x.cut(0, length)).shape[1] if self.target.feed.cuts else None
            except Refused:
                self._counts[length] = None
        return self._counts[length]

    def real_outputs(self, real: Tensor) -> Tensor:
        """Outputs (B, T') that stand at real positions (B, T) of a row padded on one side."""
        given = self.out.shape[1]
        if given == self.length or not self.per_output:
            return real if given == self.length else torch.ones(len(real), given, dtype=torch.bool)
        return strides.at_real(real, given, self.outputs_of)

    def watched_calls(self) -> list[AttentionCall]:
        """The attention calls of a run of ``x``, as far as they can be seen."""
        if not self.target.feed.positional:
            return []
        try:
            _, recorder, _ = watch(self.target, self.x)
            calls, unseen = recorder.finished("self")
        except OutOfTime:
            raise
        except Refused as refusal:
            self.notes.append(
                f"attention could not be watched ({refusal.kind}: {refusal}); findings are located by module only"
            )
            return []
        except Exception as error:  # ours
            self.failed.append(Probed("watching", "–", "watching attention", status=FAILED, detail=crashed(error)))
            return []
        if unseen:
            names = ", ".join(u.name or "the module itself" for u in unseen[:3])
            self.notes.append(f"attention not seen in {names}: its heads are not named")
        return calls

    # -- time -----------------------------------------------------------------------------------------------------
    def _deadline(self) -> None:
        if time.monotonic() - self.started > self.options.budget:
            raise OutOfTime

    def affordable(self, share: float) -> int:
        """How many runs fit into this share of the budget."""
        return max(6, int(self.options.budget * share / max(self.seconds_a_run, 1e-4)))

    def only_without(self, *, besides: tuple[str, ...] = ()) -> None:
        """What a probe asks makes no sense while another promise is broken, these classes aside."""
        for finding in self.findings:
            if finding.cls not in besides:
                raise DoesNotApply(f"repair what was found first: {finding.cls}")

    def only_promised(self) -> None:
        """Is there anything an output may not see?"""
        if not self.target.feed.positional:
            raise DoesNotApply("the input is one whole, not a sequence", moot=self.expect.free)
        if not self.per_output:
            raise DoesNotApply("the output has no time axis to cut at", moot=self.expect.free)
        if bool(self.reach.all()):
            raise DoesNotApply("every output may see every input", moot=True)

    def only_with_outputs(self) -> None:
        """What depends on outputs that hold makes no sense while they do not."""
        if not self.per_output:
            raise DoesNotApply("the output has no time axis")
        self.only_without()

    # -- comparing ------------------------------------------------------------------------------------------------
    def run(self, x: Batch, mask: Tensor | None = None, mode: Mode = BASE, **extra) -> Tensor:
        return self.target.run(x, mask, mode=mode, **extra)

    def takes(self, x: Batch) -> bool:
        """Does the model run on ``x``?"""
        try:
            self.run(x)
        except Refused:
            return False
        return True

    @property
    def rounding(self) -> float:
        return rounding(self.out.dtype if self.out.is_floating_point() else torch.float32)

    def across(self, a: Tensor, b: Tensor, where: Tensor | None = None) -> tuple[float, Tensor]:
        """(gap beyond the tolerance between runs of different shapes, or 0; all gaps (B, T))."""
        gaps = gap(a, b, where)
        worst = float(gaps.max()) if gaps.numel() else 0.0
        if worst <= ACROSS_SHAPES.get(self.target.feed.dtype, 2e-4):
            self.tolerated = max(self.tolerated, worst)
            return 0.0, gaps
        return worst, gaps

    def draws(self) -> list[Draw]:
        """Ways to replace what may not be seen: all streams at once, and each of several alone."""
        hot = self.target.feed.hot
        large = 1.0 if all(self.target.feed.streams[i].alphabet is not None for i in hot) else 30.0
        alone = [Draw(1, 1.0, i) for i in hot] if len(hot) > 1 else []
        return [Draw(), Draw(2, large), *alone]

    # -- leaks ----------------------------------------------------------------------------------------------------
    def queries(self, share: float) -> list[int]:
        """Outputs to look at: all, or as many as fit, spread so that both ends and neighbours are among them."""
        total = len(self.positions)
        n = min(total, self.affordable(share))
        if n == total:
            return list(range(total))
        spread = torch.linspace(0, total - 1, max(2, n // 2)).round().int().tolist()
        return sorted({*spread, *(min(total - 1, s + 1) for s in spread)})[:n]

    def leaks(self, queries: list[int], mode: Mode = BASE, *, draw: Draw, x: Batch | None = None) -> Iterator[Leak]:
        """For each query: replace everything it may not see, and watch every output that may see none of it."""
        x = self.x if x is None else x
        base = self.run(x, mode=mode)
        if base.shape[1] != self.reach.shape[1]:
            raise Refused(ValueError(f"{base.shape[1]} outputs for {self.reach.shape[1]}"))
        faint: list[Leak] = []
        for query in queries:
            where = ~self.reach[:, query]  # (B, T)
            if not bool(where.any()):
                continue
            other = self.target.feed.perturb(x, where, seed=draw.seed, scale=draw.scale, only=draw.only)
            gaps = self._held(base, self.run(other, mode=mode), where)
            leak = Leak(*_largest(gaps), x=x, other=other, where=where, only=draw.only)
            if leak.effect > CLEAR:
                yield leak
            elif leak.effect > self.rounding:
                faint.append(leak)
            else:
                self.tolerated = max(self.tolerated, leak.effect)
        yield from self._confirmed(sorted(faint, key=lambda leak: -leak.effect), mode)

    def _confirmed(self, faint: list[Leak], mode: Mode) -> Iterator[Leak]:
        """Of changes that rounding might explain those that are as large in float64. Where it cannot be run in that,
        they are taken as they are."""
        if not faint:
            return
        with self.doubled() as took:
            for leak in faint[:CONFIRMED]:
                gaps = self._in_double(leak, mode) if took else None
                if gaps is None:
                    yield from faint[:1]
                    return
                query, b, effect = _largest(gaps)
                if effect > max(rounding(torch.float64), leak.effect / 1000):
                    yield replace(leak, query=query, b=b, effect=effect, double=True)
                    return
        self.tolerated = max(self.tolerated, faint[0].effect)

    def shows(self, leak: Leak, mode: Mode) -> bool:
        """Does the same change leak in this mode, too?"""
        with self.doubled() if leak.double else nullcontext():
            try:
                base, out = (self.run(x.to(self.target.feed.dtype), mode=mode) for x in (leak.x, leak.other))
            except Refused:
                return False
        return float(self._held(base, out, leak.where).max()) > self.rounding

    def _held(self, base: Tensor, out: Tensor, where: Tensor) -> Tensor:
        """Changes (B, T') of outputs that may see none of what changed ``where`` (B, T)."""
        hold = ~(self.reach & where[:, None, :]).any(-1)
        return gap(base, out, hold.to(base.device)).cpu()

    def _in_double(self, leak: Leak, mode: Mode) -> Tensor | None:
        """The same changes in float64; None where the model does not run in it, or computes in less."""
        try:
            base, out = (self.run(x.to(torch.float64), mode=mode) for x in (leak.x, leak.other))
        except Refused:
            return None
        return self._held(base, out, leak.where) if base.dtype == torch.float64 else None

    def dependency(self, x: Batch | None = None, mode: Mode = BASE, b: int = 0, seed: int = 3) -> Tensor:
        """Output × input: change one position at a time → bool (T', T)."""
        x = self.x[b : b + 1] if x is None else x[b : b + 1]
        length = x.length
        base = self.run(x, mode=mode)
        seen = torch.zeros(base.shape[1], length, dtype=torch.bool)
        for key in range(length):
            where = torch.zeros(1, length, dtype=torch.bool)
            where[:, key] = True
            for scale in (1.0, 8.0) if self.target.feed.alphabet is None else (1.0,):
                out = self.run(self.target.feed.perturb(x, where, seed=seed, scale=scale), mode=mode)
                seen[:, key] |= (gap(base, out)[0] > self.rounding / 8).cpu()
        return seen

    @contextmanager
    def doubled(self):
        """Runs in float64, on a copy of the model; yields False where it cannot be copied."""
        target = self.target
        if target.feed.dtype not in (torch.float32, torch.bfloat16, torch.float16) or target.parameters_n > LARGE:
            yield False
            return
        try:
            module = copy.deepcopy(target.module).double()
        except (RuntimeError, TypeError, NotImplementedError, ValueError, AttributeError):  # not every module can be
            yield False
            return
        with target.as_copy(module, torch.float64):
            yield True

    @contextmanager
    def amplified(self, size: float = 300.0):
        """Attention scores as large as ``size``, as trained models with confident heads have: the weights inside
        attention grow.
        """
        factor = min(size**0.5, 1000.0, max(2.0, (size / max(self._largest_score(), 1e-3)) ** 0.5))
        grown = self._attention_weights()
        copies = [(p, p.detach().clone()) for p in grown]
        snapshot = self.target.snapshot
        try:
            with torch.no_grad():
                for p in grown:
                    p.mul_(factor)
            self.target.snapshot = Snapshot(self.target.module)
            yield factor
        finally:
            self.target.snapshot = snapshot
            with torch.no_grad():
                for p, copy in copies:
                    p.copy_(copy)

    def _largest_score(self) -> float:
        """Over the first and last head of each layer, where the promise lets a query look."""
        scores = [
            float(c.scores(h)[0][self.expect.layer(c.layer, self.length)].abs().max())
            for c in self.own
            for h in (0, c.heads - 1)
        ]
        largest = max(scores, default=1.0)
        return largest if math.isfinite(largest) else 1.0

    def _attention_weights(self) -> list[nn.Parameter]:
        paths = list(dict.fromkeys(c.name for c in self.own))
        if not paths:
            raise DoesNotApply("no attention call was seen whose weights could be scaled")
        chosen: dict[int, nn.Parameter] = {}
        for path in paths:
            for module in modules_below(self.target.module, path):
                if not isinstance(module, nn.Embedding):
                    own = module.parameters(recurse=False)
                    chosen.update({id(p): p for p in own if p.ndim >= 2 and p.is_floating_point()})
        return list(chosen.values())


def _largest(gaps: Tensor) -> tuple[int, int, float]:
    """(query, sample, effect) of changes (B, T')."""
    b, query = divmod(int(gaps.argmax()), gaps.shape[1])
    return query, b, float(gaps.max())
