"""Attribution patching: every patch at once, estimated by one gradient.

To first order a patch changes the answer by (source − run) · ∂answer/∂site, all of them from one run with a gradient
and one without (Nanda 2023, "Attribution Patching: Activation Patching At Industrial Scale"; Syed et al. 2023,
"Attribution Patching Outperforms Automated Circuit Discovery", §3). It errs where the way from the site to the answer
bends: most of all for the residual stream of early blocks, which is changed whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from torch import Tensor

from headwise.interp.analysis.patching.pair import Pair
from headwise.interp.analysis.patching.places import Spot, read
from headwise.interp.run.sweeping import Cancelled


@dataclass(frozen=True, eq=False)
class Effects:
    """What each part does to the answer, in order, and what a table says of how that was found."""

    effects: list[float]
    told: dict[str, object]


@dataclass(frozen=True)
class Closeness:
    """How near estimates are to what they estimate: ``correlation`` (Pearson's), ``rank`` correlation (Spearman's),
    the largest error ``worst`` as a share of the largest exact effect, and the index of its ``row``. Correlations are
    NaN where one of the two is constant."""

    correlation: float
    rank: float
    worst: float
    row: int


def approximated(
    pair: Pair, spots: Sequence[Spot], progress: Callable[[float], None], cancel: Callable[[], bool]
) -> Effects:
    """Two runs, one of them with its gradient."""
    sites = [spot.site for spot in spots]
    if cancel():
        raise Cancelled("The sweep was cancelled.")
    source = read(pair.source, sites)
    progress(0.3)
    aim = pair.run_aim

    def number(logits: Tensor) -> Tensor:
        return aim.measured(logits.float())[0]

    run, gradients = read(pair.run, sites, number)
    effects = []
    for spot in spots:
        gap = spot.values(source) - spot.own(run)
        effects.append(float((gap * spot.own(gradients)).double().sum()))
    progress(1.0)
    return Effects(effects, {"runs": 2})


def closeness(exact: pd.DataFrame, estimated: pd.DataFrame) -> Closeness:
    """Of two tables of ``patch`` with the same rows."""
    one, other = (table["effect"].to_numpy(float) for table in (exact, estimated))
    error = np.abs(one - other)
    varied = len(one) > 1 and one.std() > 0 and other.std() > 0
    correlation, rank = (
        (float(np.corrcoef(one, other)[0, 1]), float(spearmanr(one, other).statistic)) if varied else (np.nan, np.nan)
    )
    row = int(error.argmax())
    return Closeness(correlation, rank, float(error[row] / (np.abs(one).max() or 1.0)), row)
