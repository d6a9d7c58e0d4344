"""What is computed of a run, made once for all sessions; what takes more than a moment says how far it is."""

from __future__ import annotations

from headwise.interp.analysis.attribution import METHODS, Attribution, explain, why_not
from headwise.interp.analysis.attribution.faithfulness import (
    RANDOMS,
    Faithfulness,
    Orders,
    faithfulness,
    random_orders,
)
from headwise.interp.analysis.attribution.features import Features, features
from headwise.interp.analysis.attribution.sanity import Sanity, sanity
from headwise.interp.analysis.targets import Target
from headwise.pages._shared.bar import Run
from headwise.pages._shared.shelf import server
from headwise.pages._shared.work import Work, worked

SLOW = 0.1  # seconds of a run from which on half the random orders must do


def features_of(run: Run) -> Features:
    """What the answer can be attributed to. Raises InputError where that is nothing."""
    return server().made("features", run.key, lambda: features(run.capture))


def refusals_of(run: Run) -> dict[str, str]:
    """The methods that do not apply to this model → why."""
    return server().made("refusals", run.key, lambda: _refused(run))


def _refused(run: Run) -> dict[str, str]:
    return {name: why for name in METHODS if (why := why_not(run.capture, name)) is not None}


def attribution_of(run: Run, aim: Target, method: str, baseline: str) -> Attribution | None:
    """What the answer rests on, by one method; None where somebody has cancelled it, which is said. Raises InputError
    where the method does not apply."""
    key = (run.key, aim, method, baseline)
    work = Work("attributions", key, method)
    return worked(work, lambda told: explain(run.capture, method, aim, baseline=baseline, progress=told))


def floor_of(run: Run, aim: Target, baseline: str) -> Orders | None:
    """What random orders come to on this input."""
    randoms = RANDOMS if run.cost.run_seconds < SLOW else RANDOMS // 2
    found = features_of(run)  # beforehand: what takes a slot must not wait for another
    work = Work("floors", (run.key, aim, baseline), "random orders")
    return worked(work, lambda told: random_orders(found, aim, baseline=baseline, randoms=randoms, progress=told))


def faithfulness_of(run: Run, found: Attribution, baseline: str, floor: Orders) -> Faithfulness | None:
    """How the order of an attribution does beside them."""
    work = Work("faithful", (run.key, found.target, found.method, baseline), f"test of {found.method}")
    return worked(work, lambda told: faithfulness(found, baseline=baseline, randoms=floor, progress=told))


def sanity_of(run: Run, aim: Target, method: str, baseline: str) -> Sanity | None:
    """What is left of a map when the weights are random."""
    work = Work("sanity", (run.key, aim, method, baseline), f"{method} with random weights")
    return worked(work, lambda told: sanity(run.capture, method, aim, baseline=baseline, progress=told))
