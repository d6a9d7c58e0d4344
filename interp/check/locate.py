"""Where a leak enters: the first module whose output changed at positions that its own inputs cannot explain.

Two runs differ only in content that some outputs may not see. Every module is watched: positions that changed going
in, positions that changed coming out. A module may carry a change from key to query only where the mask of the
attention inside it allows. The first module (by the time it finished, so the deepest) that does more is where the
leak enters.
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from headwise.interp.attention.call import AttentionCall
from headwise.interp.check.errors import CheckError, OutOfTime, Refused, handed
from headwise.interp.check.expectation import Expectation
from headwise.interp.check.experiments import Bed
from headwise.interp.check.findings.operations import KIND_OF
from headwise.interp.check.proofs import Proof, of_attention, of_operations
from headwise.interp.check.rows import Places, touched
from headwise.interp.check.state import same_bits
from headwise.interp.check.target import BASE, Batch, Mode, Target
from headwise.interp.run.parts import layer_number
from headwise.interp.run.tap import Recorder, listen
from headwise.interp.run.tap.recorder import within

ATTENTION = re.compile(r"att(entio)?n(?!.*norm)|Transformer(En|De)coderLayer", re.IGNORECASE)
ROUTES = ("rout", "gate", "expert", "moe")  # in the name of a module that chooses
COMBINES = {
    "add",
    "mul",
    "masked_fill",
    "where",
    "add_",
    "mul_",
    "masked_fill_",
    "__add__",
    "__mul__",
    "__radd__",
    "__rmul__",
    "__iadd__",
}


@dataclass
class Operation:
    """One torch operation that could mix positions, or that applied a mask."""

    module: str
    name: str
    shape: tuple[int, ...] = ()
    dim: object = None
    mask: Tensor | None = None  # the (…, T, T) operand of add, mul, masked_fill, where
    value: float | None = None  # what masked_fill or where put there


@dataclass
class Visit:
    """One finished call of one module."""

    name: str
    type: str
    module: nn.Module
    inputs: list[Tensor]
    outputs: list[Tensor]
    calls: tuple[int, int]  # attention calls made inside: recorder.calls[start:stop]
    beside: tuple[Visit, ...] = ()  # the same visit in other runs


@dataclass
class Evidence:
    """What is known about a place where a promise breaks."""

    module: str
    type: str
    layer: int | None
    inside: str  # "attention" | "outside attention"
    heads: tuple[int, ...] = ()
    call: AttentionCall | None = None
    weights: Tensor | None = None  # (H, T, T) of the sample looked at
    observed: Tensor | None = None  # bool (T, T): weights > 0 in the worst head
    expected: Tensor | None = None  # bool (T, T)
    operations: list[Operation] = field(default_factory=list)
    also: tuple[str, ...] = ()
    length: int = 0  # T of the watched run
    windows: int | None = None  # keys of a call that attends within windows
    proof: Proof | None = None  # what carried the leak, where an experiment shows it


class Watcher(Recorder):
    """A Recorder that keeps what went into and came out of every module."""

    def __init__(self, root: nn.Module, batch: int, length: int):
        super().__init__(root, batch)
        self.length = length
        self.visits_made: list[Visit] = []
        self.starts: list[int] = []
        self.copies: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def enter(self, module):
        super().enter(module)
        self.starts.append(len(self.calls))

    def leave(self, module, args, kwargs, output):
        depth = len(self.frames)
        super().leave(module, args, kwargs, output)
        start = len(self.calls)
        for _ in range(depth - len(self.frames)):
            start = self.starts.pop()
        name = self.names.get(id(module))
        if name is not None:
            going_in, coming_out = (self._keep(v) for v in ((args, kwargs), output))
            self.visits_made.append(
                Visit(name, type(module).__name__, module, going_in, coming_out, (start, len(self.calls)))
            )

    def keep_apart(self) -> None:
        """The calls are as they were, also when the next run writes into a static cache."""
        self.calls = [call.copied() for call in self.calls]

    def _keep(self, value) -> list[Tensor]:
        return [self._copy(t) for t in tensors(value)]

    def _copy(self, t: Tensor) -> Tensor:
        """One copy for each tensor and version; the original is held so that its id stays its own."""
        key = (id(t), 0 if t.is_inference() else t._version)
        if key not in self.copies:
            self.copies[key] = (t, t.detach().clone())
        return self.copies[key][1]


class Operations(TorchFunctionMode):
    """Notes the operations that mix positions or apply masks, and the module they happen in."""

    def __init__(self, recorder: Recorder, length: int):
        super().__init__()
        self.recorder, self.length, self.seen = recorder, length, []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in KIND_OF or name in COMBINES:
            self._note(name, args, kwargs)
        return handed(func, *args, **kwargs)

    def _note(self, name, args, kwargs):
        given = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]
        if not given:
            return
        shape = tuple(given[0].shape)
        at = 2 if name in ("topk", "kthvalue") else 1  # their first argument is k
        dim = kwargs.get("dim", args[at] if len(args) > at and isinstance(args[at], int | tuple | list) else None)
        operation = Operation(self.recorder.where, name, shape, dim)
        if name in COMBINES:
            squares = [t for t in given if t.ndim >= 2 and tuple(t.shape[-2:]) == (self.length, self.length)]
            masks = [t for t in squares if t.dtype == torch.bool or _few_values(t)]
            if not masks:
                return
            operation.mask = masks[-1].detach().clone()
            numbers = [a for a in (*args, *kwargs.values()) if isinstance(a, float | int) and not isinstance(a, bool)]
            operation.value = float(numbers[-1]) if numbers else None
        elif self.length not in shape:
            return
        self.seen.append(operation)


def _few_values(t: Tensor) -> bool:
    """A mask or an additive bias of two or three constants, not data."""
    return (t.is_floating_point() and len(torch.unique(t.detach()[(0,) * (t.ndim - 2)])) <= 2) or t.dtype in (
        torch.long,
        torch.int,
    )


class Silent(TorchFunctionMode):
    """Hears every operation and does nothing: torch refuses its fused paths as it does for a listener."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return handed(func, *args, **(kwargs or {}))


def watch(
    target: Target,
    x: Batch,
    mask: Tensor | None = None,
    *,
    mode: Mode = BASE,
    operations: bool = True,
    length: int | None = None,
    **extra,
):
    """One watched run → (output (B, T, F), Watcher, Operations | None). Raises Refused where the model raises, by
    itself or for want of torch's fused paths.
    """
    watcher = Watcher(target.module, x.size, length or x.length)
    noted = Operations(watcher, watcher.length) if operations else None
    try:
        with listen(watcher, operations=operations), noted or nullcontext():
            out = target.run(x, mask, mode=mode, **extra)
        watcher.keep_apart()
        return out, watcher, noted
    except (Refused, OutOfTime, CheckError):
        raise
    except Exception:  # in a listener: was it ours, or an operation of the model that the listener passed on?
        if operations:
            with Silent():
                target.run(x, mask, mode=mode, **extra)
        raise


def locate(bed: Bed, expect: Expectation, b: int) -> Evidence | None:
    """Where content that differs between the two inputs of ``bed`` first reaches a position of sample ``b`` that may
    not see it, and what carries it there. Where they are padded only real positions count.
    """
    x, mask = bed.x, bed.mask
    rows = mask[b].bool().cpu() if mask is not None else torch.ones(x.length, dtype=torch.bool)
    look = Look(expect, x.length, b, rows=rows, bed=bed)
    for operations in (True, False):  # the tap closes torch's fused paths: a leak in one shows without it only
        try:
            _, first, noted = watch(bed.target, x, mask, mode=bed.mode, operations=operations)
            _, second, _ = watch(bed.target, bed.other, mask, mode=bed.mode, operations=operations)
            calls, _ = first.finished("self") if operations else ([], [])
            culprit = _first(look, first, second, layers=layer_of(calls), operations=operations)
        except Refused:
            if operations:
                continue  # it runs on its fused path only
            return None
        if culprit is not None:
            inner = {(c.name, c.occurrence) for c in first.calls[slice(*culprit.calls)]}
            inside = [c for c in calls if (c.name, c.occurrence) in inner]
            return _evidence(look, culprit, inside, calls=calls, operations=noted.seen if noted else [])
    return _of_the_whole(look)


def _of_the_whole(look: Look) -> Evidence | None:
    """No module could be named, as where the output has no positions: the operations of all may still tell."""
    module = look.bed.target.module
    proof = of_operations(look.bed, "", type(module), attends=True)
    if proof is None:
        return None
    return Evidence("", type(module).__name__, layer=None, inside="outside attention", length=look.length, proof=proof)


@dataclass(frozen=True)
class Look:
    """What is looked at: sample ``b`` of runs of length T under a promise; ``rows`` (T,) are its real positions."""

    expect: Expectation
    length: int
    b: int
    rows: Tensor
    bed: Bed

    def breaking(self, call: AttentionCall) -> tuple[list[int], Tensor, Tensor]:
        return breaking_heads(call, self.expect, self.b, rows=self.rows)

    def fits(self, call: AttentionCall) -> bool:
        return call.kind == "self" and call.queries == call.keys == self.length

    def allowed(self, call: AttentionCall) -> Tensor:
        """What a call may see by the promise → bool (B, H, T, T)."""
        mask = self.bed.mask
        each = []
        for b in range(call.batch):
            may = torch.stack([self.expect.layer(call.layer, self.length, b, h) for h in range(call.heads)])
            each.append(may if mask is None or b >= len(mask) else may | ~mask[b].bool().cpu()[:, None])
        return torch.stack(each)

    def third(self, operations: bool) -> Watcher:
        """A run with other content where the change may not be heard of."""
        bed = self.bed
        held = bed.target.feed.perturb(bed.x, bed.held.positions, seed=61)
        return watch(bed.target, held, bed.mask, mode=bed.mode, operations=operations)[1]


def layer_of(calls: list[AttentionCall]) -> dict[tuple[str, int], int]:
    return {(c.name, c.occurrence): c.layer for c in calls if c.kind == "self"}


def _first(look: Look, first: Watcher, second: Watcher, *, layers: dict, operations: bool) -> Visit | None:
    closure, places, b, third = look.expect.reach(None, look.length, look.b), look.bed.places, look.b, None
    for index, (one, two) in enumerate(zip(first.visits_made, second.visits_made, strict=False)):
        if one.name != two.name:
            return one  # the data chose another path
        if all(same_bits(a, c) for a, c in zip(one.outputs, two.outputs, strict=False)):
            continue
        if _unplaced(one.inputs, two.inputs, places):  # whether what changed was allowed, rows or the parent tell
            third = third or look.third(operations)
            held = third.visits_made[index] if index < len(third.visits_made) else None
            if (
                held is not None
                and held.name == one.name
                and any(bool(t.mixed.any()) for _, t in touched(one, two, held))
            ):
                return replace(one, beside=(two, held))
            continue
        out, into = places.changed(one.outputs, two.outputs, b), places.changed(one.inputs, two.inputs, b)
        inner = [c for c in first.calls[slice(*one.calls)] if look.fits(c)]
        found = sorted(layers.get((c.name, c.occurrence), 0) for c in inner)
        step = look.expect.between(found[0], found[-1] + 1, length=look.length, b=b) if found else closure
        if bool((out & look.rows & ~((step & into).any(1) | into)).any()):
            return one
    return None


def _unplaced(one: list[Tensor], two: list[Tensor], places: Places) -> bool:
    """Did an input change that has no axis of positions, such as a padded, cut or pooled sequence?"""
    return any(
        places.axes(a) is None and (a.shape != c.shape or not same_bits(a, c)) for a, c in zip(one, two, strict=False)
    )


def _evidence(look: Look, culprit: Visit, inside: list, *, calls: list, operations: list[Operation]) -> Evidence:
    """What is known about the module where a leak enters. ``inside`` are the attention calls made in it."""
    own = [c for c in inside if look.fits(c)]
    call = next((c for c in own if look.breaking(c)[0]), own[0] if own else None)
    path = culprit.name
    operations = [o for o in operations if not path or o.module == path or o.module.startswith(path + ".")]
    evidence = Evidence(
        path,
        culprit.type,
        layer=call.layer if call is not None else layer_number(path),
        inside="outside attention",
        operations=operations,
        length=look.length,
    )
    if call is None:
        _without_weights(look, culprit, inside, evidence)
        return evidence
    heads, weights, expected = look.breaking(call)
    evidence.call, evidence.weights, evidence.expected = call, weights, expected
    evidence.observed = (weights[heads[0]] if heads else weights.amax(0)) > 0
    if heads:
        evidence.inside, evidence.module = "attention", call.name or path
        evidence.heads = tuple(heads) if len(heads) < call.heads else ()
    others = [c for c in calls if c is not call and look.fits(c) and c.name != call.name]
    broken = [c for c in others if look.breaking(c)[0]]
    evidence.also = tuple(dict.fromkeys(c.name for c in broken))
    same = [c for c in calls if look.fits(c) and c.name == call.name] if heads else own
    evidence.proof = of_attention(look.bed, [*same, *broken], look.allowed)
    if evidence.proof is None:
        _by_operations(look, culprit, evidence)
    return evidence


def _without_weights(look: Look, culprit: Visit, inside: list[AttentionCall], evidence: Evidence) -> None:
    """Of a module in which no attention over the whole sequence was seen."""
    named = ATTENTION.search(culprit.type) or ATTENTION.search(culprit.name.rpartition(".")[2])
    squares = any("softmax" in o.name and o.shape.count(look.length) >= 2 for o in evidence.operations)
    windowed = [c for c in inside if c.kind == "self" and c.queries == c.keys] if culprit.beside else []
    if named or squares or windowed:
        evidence.inside = "attention"
    for shape, rows in touched(culprit, *culprit.beside) if windowed else ():
        fits = [c for c in windowed if shape == (c.batch, c.queries)]
        mine, hidden = (rows.before[1] & ~rows.before[0]), rows.before[0]
        if fits and bool(rows.mixed.any()):
            wrong = mine.view(shape)[:, None, :, None] & hidden.view(shape)[:, None, None, :]
            evidence.windows = fits[0].keys
            evidence.proof = of_attention(look.bed, fits, lambda c, wrong=wrong: ~wrong)
            return
    _by_operations(look, culprit, evidence)


def _by_operations(look: Look, culprit: Visit, evidence: Evidence) -> None:
    attends = culprit.calls[1] > culprit.calls[0]
    evidence.proof = of_operations(look.bed, culprit.name, type(culprit.module), attends)
    if evidence.proof is None:
        return
    if evidence.proof.kind == "attention":
        evidence.inside = "attention"
    evidence.also += tuple(m for m in evidence.proof.modules if not within(m, evidence.module))


def breaking_heads(
    call: AttentionCall, expect: Expectation, b: int, rows: Tensor | None = None
) -> tuple[list[int], Tensor, Tensor]:
    """(heads with weight on a forbidden key, weights (H, T, T), what head 0 may see (T, T)) of sample ``b``."""
    weights = call.band(0, call.queries)[min(b, call.batch - 1)].cpu()  # (H, T, T)
    may = torch.stack([expect.layer(call.layer, call.queries, b, h) for h in range(call.heads)])
    if rows is not None and not bool(rows.all()):  # what padding queries see is nobody's business
        may = may | ~rows[:, None]
        weights = weights * rows[:, None]
    broken = ((weights > 0) & ~may).flatten(1).any(1)
    return broken.nonzero().flatten().tolist(), weights, may[int(broken.int().argmax())]


def tensors(value) -> list[Tensor]:
    """All tensors in nested tuples, lists, dicts and Hugging Face outputs."""
    if isinstance(value, Tensor):
        return [] if value.is_nested or value.is_sparse else [value]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [t for child in children for t in tensors(child)]
