"""Many sets of edits, each on the same input, several edited copies of it in one run.

Copies stand along the batch and each edit acts on its own. Where the residual stream is proven, they are made on the
way: up to the block where the first of them is edited one copy serves all, and there the stream grows (``growth``).
Every way is checked against the plain run and against an edit run alone; one that fails the check is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from headwise.interp.errors import InputError
from headwise.interp.run.acting import Plan
from headwise.interp.run.capture import Capture
from headwise.interp.run.edits import Edit
from headwise.interp.run.memory import peak_of
from headwise.interp.run.outputs import Result
from headwise.interp.run.running import observe
from headwise.interp.run.streaming import growth
from headwise.interp.run.tap.places import Seam
from headwise.interp.subject import Inputs

MEMORY = 512 * 2**20  # bytes that the copies of one run may take
POSITIONS = 2048  # in one run, counted over its copies: more of them are hardly faster, and report progress rarely

Measure = Callable[[Result], Tensor]  # of N copies of a batch of B → (N · B, …)


class Cancelled(Exception):
    """A sweep was told to stop."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a measure said of each set of edits.

    ``figures`` (N, B, …) in the order of the sets · ``plain`` (B, …) of the unedited run · ``way`` "grown", "repeated"
    or "single" · ``copies`` in one run at most · ``bytes`` that one copy takes, as measured · ``gap``: the largest
    difference found between copies and runs of their own.
    """

    figures: Tensor
    plain: Tensor
    way: str
    copies: int
    bytes: int
    gap: float


@dataclass(frozen=True, eq=False)
class _Job:
    """What is to be done, and who is told."""

    cap: Capture
    sets: Sequence[tuple[Edit, ...]]
    measure: Measure
    plain: Tensor
    progress: Callable[[float], None]
    cancel: Callable[[], bool]
    entries: Sequence[int] | None  # for each set the state of the stream up to which it changes nothing


def sweep_edits(
    cap: Capture,
    sets: Sequence[Sequence[Edit]],
    measure: Measure,
    *,
    progress: Callable[[float], None] = lambda fraction: None,
    cancel: Callable[[], bool] = lambda: False,
    memory: int = MEMORY,
) -> Sweep:
    """``measure`` of the capture's input under each set of edits.

    ``measure`` is given the result of N copies and returns N · B rows, such as the logits at one position; nothing else
    of a run is kept. ``progress`` is told the fraction done and ``cancel`` is asked after each run; a True raises
    Cancelled. ``memory`` bounds the bytes of the copies in one run, by what a plain run was seen to take.

    Raises InputError for an edit of what is not there, and where one copy is more than ``memory``.
    """
    sets = [tuple(edits) for edits in sets]
    for edits in sets:
        Plan(cap).add(edits)
    with torch.no_grad():
        (result, _, _), peak = peak_of(lambda: observe(cap.subject, cap.inputs, keep_calls=False))
        plain = measure(result)
    if peak > memory:
        raise InputError(
            f"One run of this input takes about {peak / 2**20:,.0f} MiB, more than the {memory / 2**20:,.0f} MiB a "
            "sweep may use. Give it more memory, or a shorter input."
        )
    positions = cap.inputs.batch * max((call.queries for call in cap.calls), default=1)
    most = max(1, min(memory // max(peak, 1), POSITIONS // positions) - 1)  # beside the copy that is not edited
    job = _Job(cap, sets, measure, plain, progress, cancel, _entries(cap, sets))
    for way, copies in ((_grown, most), (_repeated, most), (_single, 1)):
        done = _swept(job, way, copies)
        if done is not None:
            return replace(done, bytes=peak)
    raise AssertionError("a run of its own for each set is always its own check")


def _entries(cap: Capture, sets: Sequence[tuple[Edit, ...]]) -> Sequence[int] | None:
    """Where the stream may grow; None where it cannot: several samples, several streams, or none that is proven."""
    if cap.inputs.batch != 1 or len(cap.anatomy.streams) != 1:
        return None
    found = [Plan(cap).entry(edits) for edits in sets]
    return None if None in found else found


def _swept(job: _Job, way: Way, copies: int) -> Sweep | None:
    """All sets in one way, or None when it does not come to what a run alone does."""
    figures: list[Tensor | None] = [None] * len(job.sets)
    order, gap = range(len(job.sets)), torch.zeros(())
    if way is _grown:
        if job.entries is None:
            return None
        order = sorted(order, key=job.entries.__getitem__)
    for done in range(0, len(job.sets), copies):
        if job.cancel():
            raise Cancelled("The sweep was cancelled.")
        chosen = order[done : done + copies]
        try:
            unedited, *found = way(job, chosen)
        except InputError:  # the model does not take a longer batch; or the edit does not fit, which one alone tells
            if way is _single:
                raise
            return None
        for index, one in zip(chosen, found, strict=True):
            figures[index] = one
        if way is not _single:
            gap = torch.maximum(gap, _gap(unedited, job.plain))
            if done == 0:
                gap = torch.maximum(gap, _spot_check(job, figures))
            if not gap <= _tolerance(job, figures):
                return None
        job.progress((done + len(chosen)) / len(job.sets))
    if way is not _single and len(job.sets) > copies:
        gap = torch.maximum(gap, _spot_check(job, figures))
        if not gap <= _tolerance(job, figures):
            return None
    made = torch.stack(figures) if figures else job.plain[None][:0]
    return Sweep(made, job.plain, way.__name__.strip("_"), copies, 0, float(gap))


# -- the ways: a job and numbers of its sets → the measure of the unedited copy, then of each set ----------------------
Way = Callable[[_Job, Sequence[int]], Sequence[Tensor]]


def _grown(job: _Job, chosen: Sequence[int]) -> Sequence[Tensor]:
    """One copy up to the block where the first set begins, and there and later one more for each that begins."""
    plan, seam = Plan(job.cap), Seam()
    growth(job.cap, seam, [job.entries[index] for index in chosen])
    for copy, index in enumerate(chosen, 1):
        plan.add(job.sets[index], slice(copy, copy + 1))
    return _measured(job, job.cap.inputs, plan, seam).unflatten(0, (len(chosen) + 1, 1))


def _repeated(job: _Job, chosen: Sequence[int]) -> Sequence[Tensor]:
    """The input as often as needed along the batch."""
    batch = job.cap.inputs.batch
    plan = Plan(job.cap)
    for copy, index in enumerate(chosen, 1):
        plan.add(job.sets[index], slice(copy * batch, (copy + 1) * batch))
    inputs = repeated(job.cap.inputs, len(chosen) + 1)
    return _measured(job, inputs, plan).unflatten(0, (len(chosen) + 1, batch))


def _single(job: _Job, chosen: Sequence[int]) -> Sequence[Tensor]:
    """A run for each set."""
    plan = Plan(job.cap)
    (index,) = chosen
    plan.add(job.sets[index])
    return job.plain, _measured(job, job.cap.inputs, plan)


def _measured(job: _Job, inputs: Inputs, plan: Plan, seam: Seam | None = None) -> Tensor:
    result, _, _ = observe(job.cap.subject, inputs, changes=plan.changes(seam), keep_calls=False)
    with torch.no_grad():
        return job.measure(result)


def repeated(inputs: Inputs, copies: int) -> Inputs:
    """The same input several times along the batch, the first axis of its tensors. Raises InputError where something
    else than a tensor may hold a batch."""
    batch = inputs.batch

    def many(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.repeat(copies, *(1,) * (value.ndim - 1)) if value.ndim and value.shape[0] == batch else value
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise InputError(f"A {type(value).__name__} in the input cannot be repeated along the batch.")

    return replace(inputs, kwargs={k: many(v) for k, v in inputs.kwargs.items()}, args=tuple(map(many, inputs.args)))


# -- checks -----------------------------------------------------------------------------------------------------------
def _spot_check(job: _Job, figures: Sequence[Tensor]) -> Tensor:
    """How far the set that changes most is from a run of its own."""
    change = [-1.0 if one is None else float((one - job.plain).abs().max()) for one in figures]
    index = max(range(len(change)), key=change.__getitem__)
    _, alone = _single(job, [index])
    return _gap(alone, figures[index])


def _gap(one: Tensor, other: Tensor) -> Tensor:
    """The largest difference; NaN where only one is NaN, or their shapes differ."""
    if one.shape != other.shape:
        return torch.tensor(torch.nan)
    gap = (one - other).abs()
    return torch.where((one == other) | (one.isnan() & other.isnan()), 0, gap).max()


def _tolerance(job: _Job, figures: Sequence[Tensor | None]) -> float:
    """What rounding in another order may come to."""
    largest = max(float(one.abs().nan_to_num(0, 0, 0).max()) for one in (job.plain, *figures) if one is not None)
    eps = torch.finfo(job.cap.subject.dtype).eps
    return eps**0.5 * max(largest, 0.1)
