"""What carried a leak, by experiment: which operations, or which attention without its mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from headwise.interp.attention.call import AttentionCall
from headwise.interp.check.experiments import Bed, Clean, Instead, Keep, Restore, Step, applied, whole
from headwise.interp.check.findings.operations import CHOOSES, KIND_OF
from headwise.interp.check.rows import differs
from headwise.interp.run.parts import named_parts
from headwise.interp.run.tap.recorder import within

MOST = 24  # operations that are tried one by one


@dataclass(frozen=True)
class Proof:
    """With this put right the leak is gone, and the model still works."""

    kind: str  # of findings.operations, or "mask"
    operations: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()  # where they ran


Marked = tuple[Step, int, Tensor]  # an operation, which of its results, what is taken from the unchanged run


def of_attention(bed: Bed, calls: list[AttentionCall], allowed: Callable[[AttentionCall], Tensor]) -> Proof | None:
    """Is the leak gone when these calls see only what is ``allowed`` (B, H | 1, Q, K)?"""
    if not calls:
        return None
    base, other = bed.masked(bed.x, {}), bed.masked(bed.other, {})
    before = bed.effects(base, other)
    for opens in (False, True):
        changes = {
            (c.name, c.occurrence): applied(lambda mask, c=c: allowed(c).to(mask.device).expand(mask.shape), opens)
            for c in calls
        }
        one, two = (bed.masked(x, changes) for x in (bed.x, bed.other))
        if bed.mended(one, two, before):
            return Proof("mask", modules=tuple(dict.fromkeys(c.name for c in calls)))
    return None


def of_operations(bed: Bed, path: str, kind: type, attends: bool) -> Proof | None:
    """Which operations, in the module at ``path`` and others of its kind, carried the leak. One that ``attends`` may
    turn the sequence for the sake of its windows: other reasons come first.
    """
    alike = [name for name, m in named_parts(bed.target.module) if type(m) is kind] if path else [""]

    def scope(where: str) -> bool:
        return any(within(where, name) for name in alike)

    if (start := whole(bed, scope)) is None:
        return None
    keep, base, before = start
    clean = Clean(keep, bed.places, bed.held.positions)
    bed.run(bed.other, scope, clean)
    if (pooled := _pooled(bed, scope, before)) is not None:
        return pooled
    if (padded := _padded(bed, scope, before)) is not None:
        return padded

    def mends(marked: list[Marked]) -> bool:
        marks = {(o.index, i): mark for o, i, mark in marked}
        return bool(marks) and bed.mended(base, bed.run(bed.other, scope, Restore(keep, marks)), before)

    for strictly, turns in product((True, False), (not attends, True)):
        marked = [m for m in _marked(bed, scope, keep, clean, strictly) if turns or KIND_OF[m[0].name] != "turn"]
        first = marked[0][0].name if marked else ""
        for chosen in ([m for m in marked if m[0].name == first], marked):
            if len(chosen) <= MOST and mends(chosen):
                return _proof(_needed(chosen, mends))
    return None


def _proof(marked: list[Marked]) -> Proof | None:
    kinds = dict.fromkeys(KIND_OF[o.name] for o, _, _ in marked)
    names = dict.fromkeys(o.name.strip("_") for o, _, _ in marked)
    modules = dict.fromkeys(o.module for o, _, _ in marked)
    return Proof(next(iter(kinds)), tuple(names), tuple(modules)) if len(kinds) == 1 else None


def _needed(marked: list[Marked], mends: Callable[[list[Marked]], bool]) -> list[Marked]:
    """Those without which the leak is back."""
    for one in list(marked):
        rest = [m for m in marked if m is not one]
        if rest and mends(rest):
            marked = rest
    return marked


def _marked(bed: Bed, scope, keep: Keep, clean: Clean, strictly: bool) -> list[Marked]:
    """Operations that mix positions and carried the change, and what of their results is to be taken from before:
    rows that must not change; of results without positions, what both sides reach, or all where any is; choices as a
    whole."""
    keeps = {"other": Keep(), "held": Keep()}
    held = bed.target.feed.perturb(bed.x, bed.held.positions, seed=61)
    for name, x in (("other", bed.other), ("held", held)):
        bed.run(x, scope, keeps[name])
    marked = []
    for step, i in sorted({(id(e), e[1]): e for e in (*clean.entries, *clean.unplaced)}.values(), key=_order):
        kept = [k.results[step.index] if step.index < len(k.results) else [] for k in (keep, *keeps.values())]
        if not all(len(k) > i and k[i].shape == kept[0][i].shape for k in kept):
            continue
        before, other, mine = (k[i] for k in kept)
        rows = bed.places.where(before, bed.held.positions)
        if not _names(step, bed.places.length, placed=rows is not None):
            continue
        changed = differs(before, other)
        if step.name in CHOOSES:
            mark = torch.ones_like(changed)
        elif rows is not None:
            mark = changed & rows.to(changed.device)
        else:
            mixed = changed & differs(before, mine)
            mark = changed if bool(mixed.any()) and not strictly else mixed
        if bool(mark.any()):
            marked.append((step, i, mark))
    return marked


def _order(entry: tuple[Step, int]) -> tuple[int, int]:
    return entry[0].index, entry[1]


def _names(step: Step, length: int, *, placed: bool) -> bool:
    """May it be named? Not a norm over features, a recurrence that reads forwards, nor a layer on what was folded into
    features before.
    """
    kind = KIND_OF.get(step.name)
    if kind == "recurrence":
        flags = [a for a in step.args if isinstance(a, bool)]  # biases, training, bidirectional, …
        return len(flags) > 2 and flags[2]
    if step.name in ("layer_norm", "rms_norm"):
        shape = step.args[1] if len(step.args) > 1 else step.kwargs.get("normalized_shape", ())
        return len(shape) > 1 or tuple(shape) == (length,)
    if kind == "product" and not placed:
        return not any(isinstance(a, nn.Parameter) for a in step.args)
    if kind == "pad":
        return False  # its experiment is its own
    return kind is not None


def _padded(bed: Bed, scope, before: tuple[float, float]) -> Proof | None:
    """Is the leak gone with zeros where the model pads with mirrored, repeated or wrapped values?"""
    acts = [Instead(zeros), Instead(zeros)]
    one, two = (bed.run(x, scope, act) for x, act in zip((bed.x, bed.other), acts, strict=True))
    if not acts[0].used or not bed.mended(one, two, before):
        return None
    modes = dict.fromkeys(padding_mode(o) for o in acts[0].used)
    return Proof("pad", tuple(modes), tuple(dict.fromkeys(o.module for o in acts[0].used)))


def padding_mode(step: Step) -> str:
    args, kwargs = step.args, step.kwargs
    return str(kwargs.get("mode", args[2] if len(args) > 2 else "constant"))


def zeros(step: Step) -> tuple[tuple, dict] | None:
    """``F.pad`` with zeros in place of what it pads with."""
    if step.name != "pad" or padding_mode(step) == "constant":
        return None
    kwargs = {k: v for k, v in step.kwargs.items() if k not in ("mode", "value")}
    return step.args[:2], {**kwargs, "mode": "constant", "value": 0.0}


def _pooled(bed: Bed, scope, before: tuple[float, float]) -> Proof | None:
    """Of one answer a sequence: is the leak gone when what is taken over positions is taken over the real ones?"""
    if bed.mask is None or bed.held.hold.shape[1] != 1:
        return None
    held = bed.target.feed.perturb(bed.x, bed.held.positions, seed=61)
    acts = [Instead(lambda step: over_real(step, bed.mask)) for _ in range(3)]
    one, two, three = (bed.run(x, scope, act) for x, act in zip((bed.x, bed.other, held), acts, strict=True))
    if not acts[0].used or not bed.mended(one, two, (before[0], 0.0), life=bed.effects(one, three)[0]):
        return None
    names, modules = (dict.fromkeys(getattr(s, of) for s in acts[0].used) for of in ("name", "module"))
    return Proof("statistic", tuple(names), tuple(modules))


def over_real(step: Step, mask: Tensor) -> tuple[tuple, dict] | None:
    """A mean, sum or maximum over the positions of (B, T, C), of the real ones."""
    x = step.args[0] if step.args else None
    fits = isinstance(x, Tensor) and x.ndim == 3 and x.shape[:2] == mask.shape
    if not fits or step.name not in ("mean", "sum", "amax"):
        return None
    dim = step.kwargs.get("dim", step.args[1] if len(step.args) > 1 else None)
    if dim not in (1, -2, (1,), [1], (-2,), [-2]):
        return None
    real = mask.bool()[..., None]
    if step.name == "mean":
        x = x * (x.shape[1] / real.sum(1, keepdim=True))
    return (x.masked_fill(~real, -torch.inf if step.name == "amax" else 0), *step.args[1:]), step.kwargs
