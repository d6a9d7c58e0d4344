"""What is computed of two runs, made once for all sessions; what takes more than a moment says how far it is."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from headwise import Capture
from headwise.interp.analysis.patching import Corruption, corrupted, corruptions, kinds_of, patch, path_patch, telling
from headwise.interp.analysis.targets import Target
from headwise.interp.run.sites import HeadOutput, Site
from headwise.pages._shared.bar import Run
from headwise.pages._shared.shelf import server
from headwise.pages._shared.work import Work, worked


@dataclass(frozen=True, eq=False)
class Two:
    """The clean run and the corrupted one; ``key`` tells these two from all others."""

    run: Run
    other: Capture
    key: Hashable

    @property
    def name(self) -> str:
        """The proposal, or the text of one's own."""
        return self.key[1][1]

    @property
    def kinds(self) -> dict[str, str]:
        """What can be patched between them: kind → "", or why not."""
        return server().made("patchable", self.key, lambda: kinds_of(self.run.capture, self.other))


def proposals_of(run: Run) -> tuple[Corruption, ...]:
    """Corrupted inputs that are proposed."""
    return server().made("proposals", run.key, lambda: corruptions(run.capture))


def telling_of(run: Run, aim: Target) -> str:
    """The kind of the proposal that is shown until somebody chooses: the first that moves the answer; "" of none."""
    proposals = proposals_of(run)  # beforehand: what takes a slot must not wait for another
    found = server().made("telling", (run.key, aim), lambda: telling(run.capture, proposals, aim))
    return "" if found is None else found.kind


def two_of(run: Run, raw: Any, name: Hashable) -> Two:
    """The corrupted run beside the clean one. Raises InputError for what the model does not take."""
    key = (run.key, name)
    return Two(run, server().made("counterpart", key, lambda: corrupted(run.capture, raw)), key)


def estimated_of(two: Two, aim: Target, how: str) -> pd.DataFrame:
    """All maps by one gradient. Raises InputError where the runs do not differ."""
    kinds = [kind for kind, why in two.kinds.items() if not why]
    key = (two.key, aim, how)
    cap = two.run.capture
    return server().made("estimated", key, lambda: patch(cap, two.other, kinds, aim, how=how, approximate=True))


def patched_of(two: Two, aim: Target, how: str) -> pd.DataFrame | None:
    """All maps by a run for each cell; None where it was cancelled."""
    kinds = [kind for kind, why in two.kinds.items() if not why]
    work = Work("patched", (two.key, aim, how), "patching")
    cap = two.run.capture
    return worked(work, lambda told: patch(cap, two.other, kinds, aim, how=how, progress=told))


def paths_of(two: Two, aim: Target, how: str, receiver: Site | str) -> pd.DataFrame | None:
    """What each head hands to one receiver; None where it was cancelled."""
    cap = two.run.capture
    senders = [HeadOutput(call.layer, head, call.stack) for call in cap.calls for head in range(call.heads)]
    work = Work("paths", (two.key, aim, how, receiver), "tracing paths")
    return worked(
        work, lambda told: path_patch(cap, two.other, senders, [receiver], aim, how=how, progress=told)
    )  # fmt: skip


def seconds_of(two: Two, parts: int) -> float:
    """How long so many runs take, several in one."""
    return two.run.cost.run_seconds * parts * SWEPT


SWEPT = 0.35  # of a run's time, for each of many that are made in one
