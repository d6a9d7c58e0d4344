"""From edits, which say what a person means, to changes of a run, which say what is done where.

Everything that names what is not there is refused here, in one sentence, before anything runs; shapes and positions are
checked when they are met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headwise.interp.attention.call import AttentionCall
from headwise.interp.errors import InputError
from headwise.interp.run.edits import Edit, MaskEdit, Resample, SiteEdit, Zero
from headwise.interp.run.outputs import primary
from headwise.interp.run.running import run
from headwise.interp.run.sites import AttentionSite, HeadOutput, Site
from headwise.interp.run.streaming import Point, PointChange, entry, point_of, real_positions
from headwise.interp.run.tap.changes import CallChanges, Changes
from headwise.interp.run.tap.places import Seam

if TYPE_CHECKING:
    from headwise.interp.run.capture import Capture

Rows = slice | None  # of the batch; all of them when None


def changes(cap: Capture, edits: Iterable[Edit]) -> Changes:
    """What a run of the capture's input does with these edits. Raises InputError for an edit of what is not there."""
    plan = Plan(cap)
    plan.add(edits)
    return plan.changes()


@dataclass(eq=False)
class Plan:
    """Changes in the making, for one input or several copies of it along the batch."""

    cap: Capture
    calls: dict[tuple[str, int], CallChanges] = field(default_factory=dict)
    points: dict[Point, PointChange] = field(default_factory=dict)
    given: dict[tuple[int, Site], Tensor] = field(default_factory=dict)  # (id of a source, site) → what it has there

    def add(self, edits: Iterable[Edit], rows: Rows = None) -> None:
        """Edits, of some rows of the batch alone."""
        edits = tuple(edits)
        parts = [(edit, part) for edit in edits for part in edit.parts()]
        self._look_up([part for _, part in parts])
        for edit, part in parts:
            if isinstance(part, MaskEdit):
                call = self.call(part.layer, part.stack, edit)
                self._check_head(call, getattr(part, "head", None), edit)
                self._at(call).masks.append((str(edit), partial(_on_rows, part.mask, rows)))
            elif isinstance(part.site, AttentionSite):
                call = self.checked(part.site, edit)
                real = call.real_keys if part.site.rows == "key" else call.real_queries
                act = partial(_write, part, rows, real, self.given.get((id(getattr(part, "source", None)), part.site)))
                self._at(call).acts.setdefault(part.site.part, []).append(act)
            else:
                point = point_of(self.cap, part.site, edit)
                real = real_positions(self.cap, self.cap.anatomy.stream(part.site.stream).name)
                act = partial(_write, part, rows, real, self.given.get((id(getattr(part, "source", None)), part.site)))
                self.points.setdefault(point, PointChange(point)).acts.append(act)

    def changes(self, seam: Seam | None = None) -> Changes:
        """All of it; what is done at places comes after what a seam does there already."""
        if self.points:
            seam = seam or Seam()
            for point, change in self.points.items():
                seam.change(point.place, point.side, change)
        return Changes(self.calls, seam)

    def entry(self, edits: Iterable[Edit]) -> int | None:
        """The state of the residual stream up to which edits change nothing; None where that is not known."""
        found = []
        for edit in edits:
            for part in edit.parts():
                if isinstance(part, MaskEdit):
                    part = Zero(HeadOutput(part.layer, 0, part.stack))
                site = part.site
                call = self.call(site.layer, site.stack, edit) if isinstance(site, AttentionSite) else None
                found.append(entry(self.cap, site, call))
        last = len(self.cap.anatomy.stream().states) - 1
        return None if None in found else min(found, default=last)

    # -- what is there --------------------------------------------------------------------------------------------
    def call(self, layer: int, stack: str | None, edit: object) -> AttentionCall:
        """The attention call of a layer."""
        calls = self.cap.calls
        stack = stack or (calls[0].stack if calls else "this model")
        found = next((c for c in calls if c.layer == layer and c.stack == stack), None)
        if found is None:
            layers = [c.layer for c in self.cap.calls if c.stack == stack]
            raise InputError(f"{edit} names a layer this run has not: {stack} has {layers}.")
        return found

    def checked(self, site: AttentionSite, edit: object) -> AttentionCall:
        """The call a site is at, which has the head and shows what the site is of."""
        call = self.call(site.layer, site.stack, edit)
        self._check_head(call, getattr(edit, "head", site.head), edit, site.shared)
        if site.part in ("query", "key") and not call.shows_queries:
            raise InputError(
                f"{edit} needs queries and keys, which layer {site.layer} does not show: its attention is written by "
                "hand, and is seen from its scores on. Edit its scores or pattern."
            )
        if site.part == "value" and call.v is None:
            raise InputError(f"{edit} needs values, which were not seen in layer {site.layer}. Edit the pattern.")
        return call

    @staticmethod
    def _check_head(call: AttentionCall, head: int | None, edit: object, shared: bool = False) -> None:
        count = call.kv_heads if shared else call.heads
        if head is not None and not 0 <= head < count:
            what = "key/value heads" if shared and count != call.heads else "heads"
            raise InputError(f"{edit} names a head that is not there: layer {call.layer} has {what} 0 … {count - 1}.")

    # -- inside ---------------------------------------------------------------------------------------------------
    def _at(self, call: AttentionCall) -> CallChanges:
        return self.calls.setdefault((call.name, call.occurrence), CallChanges())

    def _look_up(self, parts: Sequence[Edit]) -> None:
        """Read what other runs have where their values are taken from, each of them run once."""
        wanted: dict[int, tuple[Capture, list[Site]]] = {}
        for part in parts:
            source = part.source if isinstance(part, Resample) else None
            if source is not None and (id(source), part.site) not in self.given:
                wanted.setdefault(id(source), (source, []))[1].append(part.site)
        for source, sites in wanted.values():
            self.given |= {(id(source), site): value for site, value in read_sites(source, sites).items()}


def read_sites(
    cap: Capture, sites: Sequence[Site], of: Callable[[Tensor], Tensor] | None = None
) -> dict[Site, Tensor] | tuple[dict[Site, Tensor], dict[Site, Tensor]]:
    """What stands at some sites in the run of a capture, its edits included, read in one run → {site: (B, …, T, C)}.

    ``of`` makes one number of the logits (B, T, V); then also its gradient by each site, {site: value} and
    {site: gradient}, whether or not the parameters have one. A site that the number does not depend on has zeros.
    Raises InputError for a site that is not there.
    """
    plan = Plan(cap)
    plan.add(cap.edits)
    reads = {site: Read(site, of is not None) for site in dict.fromkeys(sites)}
    plan.add(reads.values())
    output, _ = run(cap.subject, cap.inputs, changes=plan.changes(), keep_calls=False, grad=of is not None)
    values = {site: read.seen.detach() for site, read in reads.items()}
    if of is None:
        return values
    with torch.enable_grad():
        number = of(primary(output, cap.inputs.kwargs))
        gradients = torch.autograd.grad(number, [read.seen for read in reads.values()], allow_unused=True)
    found = (torch.zeros_like(v) if g is None else g for v, g in zip(values.values(), gradients, strict=True))
    return values, dict(zip(values, found, strict=True))


@dataclass(frozen=True, eq=False)
class Read(SiteEdit):
    """Changes nothing, and keeps what is there, such that gradients by it can be taken."""

    grad: bool = False

    def write(self, x, counted=None, given=None):
        seen = x.clone() if x.requires_grad or not self.grad else x.detach().clone().requires_grad_()
        object.__setattr__(self, "seen", seen)
        if self.grad:
            x.copy_(seen)


def _write(part: SiteEdit, rows: Rows, real: Tensor | None, given: Tensor | None, t: Tensor) -> None:
    x = part.site.of(t if rows is None else t[rows])
    fits = real is not None and real.shape == (x.shape[0], x.shape[-2])
    part.write(x, real if fits else None, given)


def _on_rows(act: Callable[[Tensor], None], rows: Rows, t: Tensor) -> None:
    act(t if rows is None else t[rows])
