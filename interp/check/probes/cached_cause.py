"""C: the module in which a step leaves the full forward, and why, where an experiment proves it.

An attention of the step is laid beside the same rows of the full run. What differs – which keys are seen, a bias, the
queries, the keys, the values – is the suspect; it is the cause if the step agrees once it is given the full run's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from headwise.interp.attention.call import AttentionCall
from headwise.interp.check.bench import Bench
from headwise.interp.check.errors import Refused, handed, theirs
from headwise.interp.check.locate import Visit, Watcher, watch
from headwise.interp.check.probes.decoding import Plan, given, samples, steps
from headwise.interp.check.target import BASE
from headwise.interp.check.target.steps import Stepping
from headwise.interp.check.told import FAR
from headwise.interp.run.outputs import primary
from headwise.interp.run.parts import layer_number
from headwise.interp.run.tap import listen
from headwise.interp.run.tap.changes import Act, CallChanges

CLOSE = 1e-4
Cause = tuple[str, dict]  # a kind of finding, and what its texts name


@dataclass(frozen=True)
class Place:
    module: str | None
    layer: int | None = None
    inside: str = ""
    cause: Cause | None = None


@dataclass(frozen=True)
class Chunk:
    """The positions of one step."""

    index: int
    start: int
    n: int
    unit: int = 1  # inputs an output

    @property
    def end(self) -> int:
        return self.start + self.n

    def rows(self, whole: Tensor, part: Tensor) -> Tensor | None:
        """Of a tensor of the full run, those that ``part`` has in the step; None where their shapes do not tell."""
        if whole.ndim != part.ndim:
            return None
        differ = [i for i, (a, b) in enumerate(zip(whole.shape, part.shape, strict=True)) if a != b]
        for unit in dict.fromkeys((1, self.unit)) if len(differ) == 1 else ():
            if part.shape[differ[0]] == self.n // unit and whole.shape[differ[0]] >= self.end // unit:
                return whole.narrow(differ[0], self.start // unit, self.n // unit)
        return None


def located(bench: Bench, way: Stepping, plan: Plan, index: int) -> Place | None:
    """The first module whose output for this chunk differs from its output in the full run."""
    chunk = Chunk(index, sum(plan.chunks[:index]), plan.chunks[index], bench.unit)
    try:
        full = _full(bench, plan)
        step = _watched(bench, way, plan, chunk)
    except Refused:
        return None
    met = _first(full, step, chunk)
    if met is None:
        return None
    whole, part = met
    numbered = {(c.name, c.occurrence): c.layer for c in full.finished("self")[0]}
    calls = full.calls[slice(*whole.calls)]
    inner = [numbered.get((c.name, c.occurrence)) for c in calls]
    return Place(
        part.name,
        layer=next((v for v in inner if v is not None), layer_number(part.name)),
        inside="attention" if calls else "",
        cause=_cause(bench, way, plan, chunk=chunk, full=full, step=step, met=met) or _faded(bench, chunk, *met),
    )


def _full(bench: Bench, plan: Plan) -> Watcher:
    x, _ = given(bench, plan)
    with samples(bench, plan):
        return watch(bench.target, x)[1]


def _watched(bench: Bench, way: Stepping, plan: Plan, chunk: Chunk, changes: dict | None = None) -> Watcher:
    """What the modules did in this step."""
    x, _ = given(bench, plan)
    watcher = Watcher(bench.target.module, x.size, chunk.n)
    watcher.changes = changes or {}
    count = 0

    def watched(part, state):
        nonlocal count
        count += 1
        if count - 1 != chunk.index:
            return way.step(part, state)
        with listen(watcher):
            return way.step(part, state)

    target = bench.target
    with samples(bench, plan), target.untouched(), target.in_mode(BASE):
        steps(bench, watched, x, plan.chunks[: chunk.index + 1])
        watcher.keep_apart()
    return watcher


def _first(full: Watcher, step: Watcher, chunk: Chunk) -> tuple[Visit, Visit] | None:
    """(its visit in the full run, in the step) of the first module that differs while what it was given does not."""
    twins: dict[str, list[Visit]] = {}
    for visit in full.visits_made:
        twins.setdefault(visit.name, []).append(visit)
    for visit in step.visits_made:
        queue = twins.get(visit.name)
        if not queue:
            continue
        twin = queue.pop(0)
        if _differ(twin.outputs[:1], visit.outputs[:1], chunk) and not _differ(twin.inputs, visit.inputs, chunk):
            return twin, visit
    return None


def _differ(whole: list[Tensor], part: list[Tensor], chunk: Chunk) -> bool:
    rows = [(chunk.rows(a, b), b) for a, b in zip(whole, part, strict=False)]
    return any(_far(a, b) for a, b in rows if a is not None)


def _far(a: Tensor, b: Tensor) -> bool:
    a, b = a.double(), b.double()
    return float((a - b).abs().max()) > CLOSE * max(float(a.abs().max()), 1e-3)


# -- why --------------------------------------------------------------------------------------------------------------
def _cause(bench, way, plan, *, chunk: Chunk, full: Watcher, step: Watcher, met: tuple[Visit, Visit]) -> Cause | None:
    """What differs in the first attention that does, proven by giving the step what the full run had, there and, if
    that is not enough, where the same differs."""
    whole, part = met
    pairs = zip(full.calls[slice(*whole.calls)], step.calls[slice(*part.calls)], strict=False)
    suspects = {(two.name, two.occurrence): found for one, two in pairs if (found := _suspect(one, two, chunk))}
    if not suspects:
        return None
    first, (cause, act) = next(iter(suspects.items()))
    if not act:  # what is gone cannot be given back
        return cause
    same = {at: CallChanges(acts=acts) for at, ((kind, _), acts) in suspects.items() if kind == cause[0]}
    for changes in ({first: same[first]}, same):
        try:
            mended = _first(full, _watched(bench, way, plan, chunk, changes), chunk)
        except (Refused, RuntimeError, ValueError):  # an attention that cannot be changed at this seam
            return None
        if mended is None or mended[1].name != part.name:
            return cause
    return None


def _faded(bench: Bench, chunk: Chunk, whole: Visit, part: Visit) -> Cause | None:
    """Is what came before the chunk only weighed wrongly? The module is run again with a state of zeros: what the full
    run has beyond that is then a multiple, one for each position, of what the state added."""
    out, right = part.outputs[0], chunk.rows(whole.outputs[0], part.outputs[0])
    states = [t.ndim < 2 or t.shape[1] != chunk.n for t in part.inputs]
    if right is None or out.ndim != 3 or out.shape[1] != chunk.n or not any(states) or part.calls[0] != part.calls[1]:
        return None
    afresh = [torch.zeros_like(t) if state else t for t, state in zip(part.inputs, states, strict=True)]
    try:
        with bench.target.untouched(), bench.target.in_mode(BASE), theirs():
            fresh = primary(handed(part.module, *afresh))
    except (Refused, TypeError):
        return None
    added, missing = out - fresh, right - fresh  # (B, n, C)
    factors = (added * missing).sum((0, 2)) / added.pow(2).sum((0, 2)).clamp(min=1e-12)
    if _far(missing, added * factors[:, None]) or bool(((factors - 1).abs() < 1e-3).all()):
        return None
    return "cache-faded", {"factors": ", ".join(f"{f:.3g}" for f in factors.tolist())}


def _suspect(one: AttentionCall, two: AttentionCall, chunk: Chunk) -> tuple[Cause, dict[str, list[Act]]] | None:
    """(what differs, what the step is given in its place) between an attention of the full run and of the step."""
    fits = (one.batch, one.heads, two.queries) == (two.batch, two.heads, chunk.n)
    if not fits or one.queries < chunk.end or one.keys < chunk.end or one.linear or two.linear:
        return None
    end, keys = chunk.end, two.keys
    a = one.score_band(chunk.start, end)[..., :end].float()
    b = two.score_band(0, chunk.n).float()
    right = one.band(chunk.start, end)[..., :end]
    seen_a, seen_b = a > FAR, b > FAR
    give = {"pattern": [lambda t: t.copy_(_fitted(right, keys).to(t.dtype))]}
    if keys < end:
        lost = int((seen_a[..., : end - keys]).any((0, 1, 2)).sum())
        return (("cache-keys-gone", {"keys": keys, "end": end}), {}) if lost else None
    if bool(seen_b[..., end:].any()):
        return ("cache-slots", {"keys": keys, "extra": keys - end}), give
    seen_b, b = seen_b[..., :end], b[..., :end]
    if bool((seen_a != seen_b).any()):
        more = bool((seen_b & ~seen_a).any())
        row, key = ((seen_b & ~seen_a) if more else (seen_a & ~seen_b)).any(1).any(0).nonzero()[0].tolist()
        return ("cache-sees-more" if more else "cache-sees-less", {"query": chunk.start + row, "key": key}), give
    return _other(one, two, chunk, difference=_centred(b - a, seen_a), give=give)


def _other(one: AttentionCall, two: AttentionCall, chunk: Chunk, *, difference: Tensor, give: dict):
    """The same keys are seen: is it a bias, the queries, the keys or the values?"""
    size, end = float(difference.abs().max()), chunk.end
    if size < 1e-3:
        if one.v is None or two.v is None or one.v.shape[:2] != two.v.shape[:2]:
            return None
        if two.v.shape[2] != end or not _far(one.v[:, :, :end], two.v):
            return None
        return ("cache-values", {}), {"value": [lambda t: t.copy_(one.v[:, :, :end])]}
    if one.batch > 1 and float((difference - difference[:1]).abs().max()) < 1e-3 * size:
        return ("cache-bias", {"size": size}), give
    for what in ("queries", "keys"):
        a, b = _vectors(one, what), _vectors(two, what)
        if a is None or b is None:
            return None
        a, b = (a[:, :, chunk.start : end], b) if what == "queries" else (a[:, :, :end], b[:, :, :end])
        if a.shape != b.shape or not _far(a, b):
            continue
        turned = float((a.norm(dim=-1) - b.norm(dim=-1)).abs().max()) < CLOSE * float(a.norm(dim=-1).max())
        return ("cache-turned" if turned else "cache-scores", {"what": what}), give
    return None


def _vectors(call: AttentionCall, what: str) -> Tensor | None:
    """Queries or keys as they met, (B, H, positions, D); None where only their scores were seen."""
    read = call.query_vectors if what == "queries" else call.key_vectors
    try:
        return torch.stack([read(head) for head in range(call.heads)], 1)
    except ValueError:
        return None


def _centred(difference: Tensor, seen: Tensor) -> Tensor:
    """Without what is the same for all keys of a row, which a softmax does not notice."""
    d = difference.masked_fill(~seen, 0.0)
    return (d - d.sum(-1, keepdim=True) / seen.sum(-1, keepdim=True).clamp(min=1)).masked_fill(~seen, 0.0)


def _fitted(weights: Tensor, keys: int) -> Tensor:
    """For as many keys, those added unseen."""
    return torch.nn.functional.pad(weights, (0, keys - weights.shape[-1]))
