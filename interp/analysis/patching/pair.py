"""Two runs of one model made ready: which of them is run, which one gives, and how the answer is measured in each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from headwise.interp.analysis.patching.alignment import Alignment, aligned
from headwise.interp.analysis.targets import Target, Wanted, target
from headwise.interp.attention.axes import Axis, numbered
from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture
from headwise.interp.run.sites import AttentionSite, Residual, Site, Write
from headwise.interp.run.streaming import stream_of

HOW = ("denoising", "noising")


@dataclass(frozen=True, eq=False)
class Pair:
    """``clean`` and ``corrupted`` runs, and what is done with them: "denoising" runs the corrupted input and puts in
    what the clean run has, "noising" the other way round. ``aim`` is the target in the clean run."""

    clean: Capture
    corrupted: Capture
    how: str
    aim: Target

    @property
    def run(self) -> Capture:
        """What is run again."""
        return self.corrupted if self.how == "denoising" else self.clean

    @property
    def source(self) -> Capture:
        """Where values are taken from."""
        return self.clean if self.how == "denoising" else self.corrupted

    @cached_property
    def aims(self) -> tuple[Target, Target]:
        """The target in ``clean`` and in ``corrupted``: the same answer, read where its partner stands."""
        if self.aim.position is None:
            return self.aim, self.aim
        sequences = [
            cap.axes.get("target") or next(iter(cap.axes.values()), None) for cap in (self.clean, self.corrupted)
        ]
        if None in sequences:
            return self.aim, self.aim
        partner = aligned(*sequences).partner(self.aim.position)
        if partner is None:
            raise InputError(
                f"The answer is read at position {self.aim.position} of the clean input, which has no partner in the "
                "corrupted one. Let both end alike."
            )
        return self.aim, replace(self.aim, position=partner)

    @property
    def run_aim(self) -> Target:
        """The target in the run that is edited."""
        return self.aims[self.how == "denoising"]

    @cached_property
    def values(self) -> tuple[float, float]:
        """The target's value in the clean and in the corrupted run. Raises InputError where they are the same."""
        found = tuple(aim.value(cap) for aim, cap in zip(self.aims, (self.clean, self.corrupted), strict=True))
        if found[0] == found[1] or not all(map(math.isfinite, found)):
            raise InputError(
                f"{self.aim} is {found[0]:.4g} in the clean run and {found[1]:.4g} in the corrupted one, so there is "
                "no difference to trace. Choose another corrupted input, or another answer."
            )
        return found

    @property
    def difference(self) -> float:
        """How far the source is from the run: what all parts together would move."""
        clean, corrupted = self.values
        return clean - corrupted if self.how == "denoising" else corrupted - clean

    def alignment(self, site: Site) -> Alignment:
        """Of the positions that a site has, in the order clean, corrupted."""
        return aligned(*(_axis(cap, site) for cap in (self.clean, self.corrupted)))

    def positions(self, site: Site) -> tuple[list[int], list[int]]:
        """The partners at a site: in the source, and in the run."""
        pairs = self.alignment(site).pairs
        clean, corrupted = ([pair[side] for pair in pairs] for side in (0, 1))
        return (clean, corrupted) if self.how == "denoising" else (corrupted, clean)

    @property
    def told(self) -> dict[str, object]:
        """What a table says of where it comes from."""
        clean, corrupted = self.values
        return {"target": str(self.aim), "how": self.how, "clean": clean, "corrupted": corrupted}


def paired(clean: Capture, corrupted: Capture, aim: Wanted | Target, against: Wanted, how: str) -> Pair:
    """Raises InputError where two runs are not of one model and one plain input each, and for what is no answer."""
    if how not in HOW:
        raise InputError(f"Patching expects how to be {' or '.join(HOW)}; got {how!r}.")
    if clean.subject.module is not corrupted.subject.module:
        raise InputError(
            f"Both runs must be of one model; these are of {clean.subject.name} and {corrupted.subject.name}."
        )
    for cap in (clean, corrupted):
        if cap.inputs.batch != 1:
            raise InputError(f"Patching takes one input at a time; this is a batch of {cap.inputs.batch}.")
        if cap.edits:
            raise InputError("Patching takes runs without edits; give it the plain captures.")
    places = [[(c.stack, c.layer, c.heads) for c in cap.calls] for cap in (clean, corrupted)]
    if places[0] != places[1]:
        raise InputError("The two inputs take different ways through the model, so their layers cannot be exchanged.")
    found = Pair(clean, corrupted, how, target(clean, aim, against))
    found.values  # noqa: B018 -- what is wrong with them is said at once
    return found


def _axis(cap: Capture, site: Site) -> Axis:
    """What the positions of a site are."""
    if isinstance(site, AttentionSite):
        stack = site.stack or cap.stacks[0]
        call = next((c for c in cap.calls if (c.stack, c.layer) == (stack, site.layer)), None)
        if call is None:
            raise InputError(f"{site} names a layer this run has not.")
        return call.key_axis if site.rows == "key" else call.query_axis
    assert isinstance(site, Residual | Write)
    name = stream_of(cap, site.stream, site).name
    own = [call for call in cap.calls if call.kind == "self" and call.stack == name]
    calls = own or [call for call in cap.calls if call.kind == "self"] or list(cap.calls)
    return calls[0].query_axis if calls else numbered(0)
