"""Activation patching: what one run has at a site, put into another run.

    clean = capture(subject, "When Mary and John went to the store, John gave a drink to")
    other = capture(subject, "When Mary and John went to the store, Mary gave a drink to")
    patch(clean, other, "residual", target=" Mary", against=" John")

Vig et al. 2020, "Investigating Gender Bias in Language Models Using Causal Mediation Analysis"; Meng et al. 2022,
"Locating and Editing Factual Associations in GPT", §2.1; how to read it: Heimersheim & Nanda 2024, "How to use and
interpret activation patching". Denoising shows what suffices to bring the answer back, noising what it cannot do
without; a part whose work another does as well shows in the first and not in the second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import Tensor

from headwise.interp.analysis.ablation import measuring
from headwise.interp.analysis.patching.approximate import Effects, approximated
from headwise.interp.analysis.patching.pair import Pair, paired
from headwise.interp.analysis.patching.places import Spot, read, spots_of
from headwise.interp.analysis.targets import Target, Wanted
from headwise.interp.run.capture import Capture
from headwise.interp.run.sites import Site
from headwise.interp.run.sweeping import sweep_edits

COLUMNS = ("kind", "stack", "layer", "head", "block", "position", "partner", "token", "effect", "restored")
ROUNDING = 8  # units of the last place, of the largest value
NUMBERS = ("layer", "head", "block", "position", "partner")


def patch(
    clean: Capture,
    corrupted: Capture,
    sites: str | Sequence[str | Site] = "residual",
    target: Wanted | Target = None,
    against: Wanted = None,
    *,
    how: str = "denoising",
    approximate: bool = False,
    progress: Callable[[float], None] = lambda fraction: None,
    cancel: Callable[[], bool] = lambda: False,
) -> pd.DataFrame:
    """What each part of one run does to the answer of the other, put into it alone → a row a part.

    ``sites``: "residual" (the stream before each block), "attention" and "mlp" (what they write), by block and
    position; "heads" (outputs) and "patterns", by layer and head, at all positions at once; or a list of these and of
    single sites, each at all positions. ``how`` is "denoising", the corrupted input run with what the clean run has, or
    "noising", the other way round. ``target`` and ``against`` are words, classes or their numbers, the clean run's own
    answer by default. With ``approximate`` all of it is estimated by one gradient (attribution patching) instead of a
    run each.

    Columns: kind, stack, block or layer, head; ``position`` in the clean input, ``partner`` in the corrupted one and
    ``token`` of the clean; ``effect``, the change of the target in the run that is patched; ``restored``, that as a
    share of the difference between the two runs: 1 where the part alone carries all of it. ``attrs``: "target", "how",
    its value in the "clean" and the "corrupted" run, "runs", and, of exact patching, "way", "copies" and the largest
    "gap" found to runs of their own.

    Raises InputError where the two runs are not of one model, cannot be aligned, or answer alike; Cancelled.
    """
    pair = paired(clean, corrupted, target, against, how)
    spots = spots_of(pair, sites)
    made = (approximated if approximate else _exact)(pair, spots, progress, cancel)
    table = pd.DataFrame([spot.place for spot in spots])
    table = table.astype({name: "Int64" for name in NUMBERS if name in table})
    table["effect"] = made.effects
    table["restored"] = table["effect"] / pair.difference
    table.attrs |= pair.told | {"approximate": approximate} | made.told
    return table[[c for c in COLUMNS if c in table]]


def _exact(pair: Pair, spots: Sequence[Spot], progress: Callable[[float], None], cancel: Callable[[], bool]) -> Effects:
    """A run for each part, many of them at once; none for one that is the same in both but for rounding, as what a
    decoder has before the first difference."""
    sites = [spot.site for spot in spots]
    given, own = read(pair.source, sites), read(pair.run, sites)
    moved = [index for index, spot in enumerate(spots) if _differ(spot.values(given), spot.own(own))]
    sets = [(spots[index].edit(given),) for index in moved]
    found = sweep_edits(pair.run, sets, measuring(pair.run_aim), progress=progress, cancel=cancel)
    effects = [0.0] * len(spots)
    for index, figure in zip(moved, found.figures[:, 0] - found.plain[0], strict=True):
        effects[index] = float(figure)
    return Effects(effects, {"runs": len(moved), "way": found.way, "copies": found.copies, "gap": found.gap})


def _differ(one: Tensor, other: Tensor) -> bool:
    """Whether two values differ by more than rounding in another order does."""
    largest = torch.maximum(one.abs().max(), other.abs().max())
    return bool((one - other).abs().max() > ROUNDING * torch.finfo(one.dtype).eps * largest)
