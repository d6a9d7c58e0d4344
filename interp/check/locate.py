"""Where a leak enters: the first module whose output changed at positions that its own inputs cannot explain.

Two runs differ only in content that some outputs may not see. Every module is watched: positions that changed going
in, positions that changed coming out. A module may carry a change from key to query only where the mask of the
attention inside it allows. The first module (by the time it finished, so the deepest) that does more is where the
leak enters.
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from headwise.interp.attention.call import AttentionCall
from headwise.interp.check.errors import CheckError, OutOfTime, Refused, handed
from headwise.interp.check.expectation import Expectation
from headwise.interp.check.state import same_bits
from headwise.interp.check.target import BASE, Batch, Mode, Target
from headwise.interp.run.parts import layer_number
from headwise.interp.run.tap import Recorder, listen

ATTENTION = re.compile(r"att(entio)?n(?!.*norm)|Transformer(En|De)coderLayer", re.IGNORECASE)
ROUTES = ("rout", "gate", "expert", "moe")  # in the name of a module that chooses
SORTS = {
    "topk",
    "sort",
    "argsort",
    "argmax",
    "argmin",
    "kthvalue",
    "median",
    "unique",
    "bincount",
    "multinomial",
    "msort",
}
POOLS = {
    "mean",
    "sum",
    "amax",
    "amin",
    "max",
    "min",
    "std",
    "var",
    "norm",
    "logsumexp",
    "cumsum",
    "cummax",
    "flip",
    "fft",
    "rfft",
    "roll",
    "layer_norm",
    "batch_norm",
    "instance_norm",
    "group_norm",
    "conv1d",
    "conv2d",
    "avg_pool1d",
    "max_pool1d",
    "interpolate",
    "linear",
    "adaptive_avg_pool1d",
    "adaptive_max_pool1d",
    "lstm",
    "gru",
    "normalize",
    "var_mean",
    "std_mean",
}
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
        if name in SORTS or name in POOLS or name in COMBINES or "softmax" in name:
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


def locate(
    target: Target, expect: Expectation, x: Batch, other: Batch, b: int, mode: Mode = BASE, mask: Tensor | None = None
) -> Evidence | None:
    """Where content that differs between ``x`` and ``other`` first reaches a position of sample ``b`` that may not see
    it. ``mask`` (B, T) is the padding mask the runs are given: only its real positions count.
    """
    length = x.length
    rows = mask[b].bool().cpu() if mask is not None else torch.ones(length, dtype=torch.bool)
    look = Look(expect, length, b, rows=rows)
    for operations in (True, False):  # the tap closes torch's fused paths: a leak in one shows without it only
        try:
            _, first, noted = watch(target, x, mask, mode=mode, operations=operations)
            _, second, _ = watch(target, other, mask, mode=mode, operations=operations)
        except Refused:
            if operations:
                continue  # it runs on its fused path only
            return None
        calls, _ = first.finished("self") if operations else ([], [])
        culprit = _first(look, first, second, layers=layer_of(calls))
        if culprit is not None:
            inner = {(c.name, c.occurrence) for c in first.calls[slice(*culprit.calls)]}
            inside = [c for c in calls if (c.name, c.occurrence) in inner]
            return _evidence(look, culprit, inside, calls=calls, operations=noted.seen if noted else [])
    return None


@dataclass(frozen=True)
class Look:
    """What is looked at: sample ``b`` of runs of length T under a promise; ``rows`` (T,) are its real positions."""

    expect: Expectation
    length: int
    b: int
    rows: Tensor

    def breaking(self, call: AttentionCall) -> tuple[list[int], Tensor, Tensor]:
        return breaking_heads(call, self.expect, self.b, rows=self.rows)

    def fits(self, call: AttentionCall) -> bool:
        return call.kind == "self" and call.queries == call.keys == self.length


def layer_of(calls: list[AttentionCall]) -> dict[tuple[str, int], int]:
    return {(c.name, c.occurrence): c.layer for c in calls if c.kind == "self"}


def _first(look: Look, first: Watcher, second: Watcher, *, layers: dict) -> Visit | None:
    closure, length, b = look.expect.reach(None, look.length, look.b), look.length, look.b
    for one, two in zip(first.visits_made, second.visits_made, strict=False):
        if one.name != two.name:
            return one  # the data chose another path
        out = changed_positions(one.outputs, two.outputs, length=length, b=b, batch=first.batch)
        if not bool(out.any()):
            continue
        if _unplaced(one.inputs, two.inputs, length):
            continue  # something without a time axis changed: whether that was allowed, the parent tells
        into = changed_positions(one.inputs, two.inputs, length=length, b=b, batch=first.batch)
        inner = [c for c in first.calls[slice(*one.calls)] if look.fits(c)]
        found = sorted(layers.get((c.name, c.occurrence), 0) for c in inner)
        step = look.expect.between(found[0], found[-1] + 1, length=length, b=b) if found else closure
        if bool((out & look.rows & ~((step & into).any(1) | into)).any()):
            return one
    return None


def changed_positions(one: list[Tensor], two: list[Tensor], *, length: int, b: int, batch: int) -> Tensor:
    """Positions of sample ``b`` at which any of these tensors changed beyond rounding → bool (T,)."""
    changed = torch.zeros(length, dtype=torch.bool)
    for a, c in zip(one, two, strict=False):
        if a.shape != c.shape or length not in a.shape:
            continue
        axes = [i for i, n in enumerate(a.shape) if n == length]
        axis = 1 if 1 in axes and a.shape[0] != length else axes[0]
        if a.shape[0] == batch and axis != 0:
            a, c, axis = a[b], c[b], axis - 1
        elif axis == 0 and a.ndim > 1 and a.shape[1] == batch:
            a, c = a[:, b], c[:, b]
        a, c = (t.movedim(axis, 0).reshape(length, -1) for t in (a, c))
        differs = (a != c) & ~((a != a) & (c != c))
        if a.is_floating_point() and bool(differs.any()):
            scale = a[a.isfinite()].abs().max() if bool(a.isfinite().any()) else 1.0
            differs &= ~((a - c).abs() <= torch.finfo(a.dtype).eps * scale)
        changed |= differs.any(1).cpu()
    return changed


def _unplaced(one: list[Tensor], two: list[Tensor], length: int) -> bool:
    """Did an input change that has no time axis, such as a padded, cut or pooled sequence?"""
    return any(
        length not in a.shape and (a.shape != c.shape or not same_bits(a, c)) for a, c in zip(one, two, strict=False)
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
        named = ATTENTION.search(culprit.type) or ATTENTION.search(path.rpartition(".")[2])
        squares = any("softmax" in o.name and o.shape.count(look.length) >= 2 for o in operations)
        evidence.inside = "attention" if named or squares else evidence.inside
        return evidence
    heads, weights, expected = look.breaking(call)
    evidence.call, evidence.weights, evidence.expected = call, weights, expected
    evidence.observed = (weights[heads[0]] if heads else weights.amax(0)) > 0
    if heads:
        evidence.inside, evidence.module = "attention", call.name or path
        evidence.heads = tuple(heads) if len(heads) < call.heads else ()
    others = [c for c in calls if c is not call and look.fits(c) and c.name != call.name]
    evidence.also = tuple(dict.fromkeys(c.name for c in others if look.breaking(c)[0]))
    return evidence


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
