"""Ablation: how an answer changes when a part of the model says nothing, or only what it says on average.

The change is the part's total effect, with all that later parts make of it; a part whose work others take over shows
less than it does (McGrath et al. 2023, "The Hydra Effect").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict

import pandas as pd
from torch import Tensor

from headwise.interp.analysis.targets import Target, Wanted, target
from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture
from headwise.interp.run.edits import Edit, Mean, Resample, Zero
from headwise.interp.run.outputs import Result
from headwise.interp.run.sites import AttentionSite, HeadOutput, Site, Write
from headwise.interp.run.sweeping import MEMORY, Measure, sweep_edits

HOW: dict[str, Callable[[Site], Edit]] = {"zero": Zero, "mean": Mean, "resample": Resample}
COLUMNS = ("stack", "layer", "head", "block", "kind", "effect")


def ablate(
    cap: Capture,
    sites: str | Sequence[Site] = "heads",
    how: str = "mean",
    target: Wanted | Target = None,
    against: Wanted = None,
    *,
    progress: Callable[[float], None] = lambda fraction: None,
    cancel: Callable[[], bool] = lambda: False,
) -> pd.DataFrame:
    """How much the answer to a capture's input changes when each site is ablated, one at a time → a row a site: stack,
    layer, head (or block, kind), and ``effect``, the target's logit (or its distance to ``against``) with the ablation
    less that without.

    ``sites`` are "heads", "mlps", "writes" (all that parts of blocks add to the stream), or a list. ``how`` is "zero",
    "mean" over the input's real positions, or "resample" from another of them. ``target`` and ``against`` are words,
    classes or their numbers; the model's own answer by default. The table's ``attrs`` say the target, its ``plain``
    value, how many ``copies`` ran at once and in which ``way``, and the largest ``gap`` found to runs of their own.

    Raises InputError for what is not there, and where the model's anatomy is not known but needed.
    """
    if how not in HOW:
        raise InputError(f"ablate expects how to be {', '.join(HOW)}; got {how!r}.")
    wanted = _target(cap, target, against)
    chosen = sites_of(cap, sites) if isinstance(sites, str) else list(sites)
    found = sweep_edits(
        cap, [(HOW[how](site),) for site in chosen], measuring(wanted), progress=progress, cancel=cancel, memory=MEMORY
    )
    table = pd.DataFrame([_place(cap, site) for site in chosen], columns=None if chosen else ["stack", "layer", "head"])
    table["effect"] = (found.figures - found.plain)[:, 0].tolist()
    table.attrs |= {
        "target": str(wanted), "how": how, "plain": float(found.plain[0]), "copies": found.copies, "way": found.way,
        "gap": found.gap, "bytes": found.bytes,
    }  # fmt: skip
    return table[[c for c in COLUMNS if c in table]]


def sites_of(cap: Capture, name: str) -> list[Site]:
    """All sites of a kind in a capture's run: "heads", "mlps" or "writes"."""
    if name == "heads":
        return [HeadOutput(c.layer, head, c.stack) for s in cap.stacks for c in cap.stack(s) for head in range(c.heads)]
    if name in ("mlps", "writes"):
        if not cap.anatomy.streams:
            why = " ".join(cap.anatomy.refused).rstrip(".")
            raise InputError(f"The writes of {cap.subject.name} are not known: {why}. Ablate its heads.")
        there = [(branch, stream.name) for stream in cap.anatomy.streams for branch in stream.writes]
        kinds = Counter((branch.block, branch.kind, stream) for branch, stream in there)
        return [
            Write(branch.block, branch.kind, stream)
            for branch, stream in there
            if branch.block is not None and kinds[branch.block, branch.kind, stream] == 1
            if name == "writes" or branch.kind == "mlp"
        ]
    raise InputError(f"ablate expects sites to be 'heads', 'mlps', 'writes' or a list of sites; got {name!r}.")


def measuring(wanted: Target) -> Measure:
    """The target of each row of a result, without the logits of other positions."""

    def measure(result: Result) -> Tensor:
        if wanted.position is None:
            return wanted.of(result.logits().float())
        return wanted.of(result.logits([wanted.position])[:, 0].float())

    return measure


_target = target  # which a parameter of ``ablate`` hides


def _place(cap: Capture, site: Site) -> dict[str, object]:
    if isinstance(site, AttentionSite):
        return {"stack": site.stack or cap.stacks[0], "layer": site.layer, "head": site.head}
    place = asdict(site)
    return {"stack": place.pop("stream") or cap.anatomy.stream().name, **place}
