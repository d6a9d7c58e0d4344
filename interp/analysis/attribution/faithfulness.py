"""How far an attribution can be believed on this very input: what becomes of the answer when what it names is taken
away, and when nothing else is left.

    deletion      the chance of the answer as units are taken away, the highest score first (Samek et al. 2017;
                  Petsiuk et al. 2018, "RISE", §4.3)
    insertion     the same as they are put back into an input in which all are taken away
    gain          area under insertion − area under deletion: "symmetric relevance gain" (Blücher et al. 2024,
                  "Decoupling Pixel Flipping and Occlusion Strategy"); a random order's is 0 on average
    comprehensiveness, sufficiency
                  chance with all units − chance without the first 1, 5, 10, 20, 50 % of them, or with only these; the
                  mean of the five (DeYoung et al. 2020, "ERASER", §5)

A chance is the probability of the answer, or, where it is held against another, its share of the two.

Axis letters: R orders, S steps, U units, n units that can be taken away.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import pandas as pd
import torch
from torch import Tensor

from headwise.interp.analysis.attribution.features import Features
from headwise.interp.analysis.targets import Target
from headwise.interp.errors import InputError
from headwise.interp.run.sweeping import Cancelled

BINS = (0.01, 0.05, 0.10, 0.20, 0.50)  # ERASER's shares of an input
TOLD = 0.20  # the share whose removal the sentence tells
BETWEEN = 0.35  # where a curve is looked at beside these, its ends, and what is as far from its end
RANDOMS = 20  # random orders
COPIES = 32  # of the input in one run at most: more are hardly faster, and report progress rarely
SURE = 0.95  # the share of random orders that a better one beats
FIGURES = {  # a figure → is more of it better?
    "comprehensiveness": True,
    "sufficiency": False,
    "gain": True,
}
SENTENCES = {
    "told": "Without the {share} that {method} marks first, the chance of {answer} goes from {whole} to {left}; "
    "without as many at random, to {floor}.",
    "better": "It beats {beaten} of {randoms} random orders.",
    "no better": "It beats {beaten} of {randoms} random orders: on this input the order as a whole is no better than "
    "chance.",
}


class Scored(Protocol):
    """What can be tested: an Attribution, or ``Scores``."""

    scores: Tensor
    features: Features
    target: Target
    method: str


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores (U,) from anywhere, such as a person's own, to be tested like an attribution's."""

    scores: Tensor
    features: Features
    target: Target
    method: str = "this order"


@dataclass(frozen=True, eq=False)
class Curve:
    """``values`` (S,): the chance of the answer when ``fractions`` (S,) of the units are taken away, or put back.
    ``area`` is the mean height, 0 … 1."""

    fractions: Tensor
    values: Tensor

    @property
    def area(self) -> float:
        return float(torch.trapezoid(self.values, self.fractions))


@dataclass(frozen=True, eq=False)
class Orders:
    """What became of the chance in R orders: ``deletion`` and ``insertion`` (R, S), when the first ``counts`` (S,) of
    ``units`` were taken away, or put back."""

    counts: Tensor
    units: int
    deletion: Tensor
    insertion: Tensor

    @property
    def fractions(self) -> Tensor:
        return self.counts / self.units

    @property
    def whole(self) -> float:
        """The chance with all units."""
        return float(self.deletion[0, 0])

    @property
    def comprehensiveness(self) -> Tensor:
        """(R,)"""
        return self.whole - self.deletion[:, self._bins].mean(-1)

    @property
    def sufficiency(self) -> Tensor:
        """(R,)"""
        return self.whole - self.insertion[:, self._bins].mean(-1)

    @property
    def gain(self) -> Tensor:
        """(R,)"""
        return torch.trapezoid(self.insertion, self.fractions) - torch.trapezoid(self.deletion, self.fractions)

    def at(self, share: float) -> int:
        """The step at which a share of the units, one at least, is dealt with."""
        return int(torch.searchsorted(self.counts, _count(share, self.units)))

    @property
    def _bins(self) -> list[int]:
        return [self.at(share) for share in BINS]


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """How an attribution did, beside random orders.

    ``own``, of one order, and ``random``, of many · ``baseline``: what stood in the place of what was taken away.
    """

    method: str
    target: Target
    baseline: str
    own: Orders
    random: Orders
    seconds: float

    @property
    def deletion(self) -> Curve:
        return Curve(self.own.fractions, self.own.deletion[0])

    @property
    def insertion(self) -> Curve:
        return Curve(self.own.fractions, self.own.insertion[0])

    @property
    def comprehensiveness(self) -> float:
        return float(self.own.comprehensiveness)

    @property
    def sufficiency(self) -> float:
        return float(self.own.sufficiency)

    @property
    def gain(self) -> float:
        return float(self.own.gain)

    @property
    def beaten(self) -> int:
        """How many random orders have less gain."""
        return int((self.random.gain < self.gain).sum())

    @property
    def better_than_random(self) -> bool:
        return self.beaten >= SURE * len(self.random.gain)

    @property
    def needed(self) -> bool:
        """Whether what is first was needed, more than in random orders, however the order goes on."""
        lesser = (self.random.comprehensiveness < self.comprehensiveness).sum()
        return int(lesser) >= SURE * len(self.random.gain)

    @property
    def sentence(self) -> str:
        """What taking away a fifth does, beside a random fifth."""
        step = self.own.at(TOLD)
        words = {
            "share": _percent(float(self.own.fractions[step])),
            "method": self.method,
            "answer": _answer(self.target),
            "whole": _percent(self.own.whole),
            "left": _percent(float(self.own.deletion[0, step])),
            "floor": _percent(float(self.random.deletion[:, step].mean())),
            "beaten": self.beaten,
            "randoms": len(self.random.gain),
        }
        parts = ("told", "better" if self.better_than_random else "no better")
        return " ".join(SENTENCES[part].format(**words) for part in parts)

    def figures(self) -> pd.DataFrame:
        """A row a figure: of the attribution, and mean and spread over random orders."""
        rows = []
        for name in FIGURES:
            floor = getattr(self.random, name)
            rows.append((name, float(getattr(self.own, name)), float(floor.mean()), float(floor.std(correction=0))))
        return pd.DataFrame(rows, columns=["figure", "value", "random", "spread"])

    def table(self) -> pd.DataFrame:
        """The curves: a row a step."""
        columns = {"count": self.own.counts, "fraction": self.own.fractions}
        for name in ("deletion", "insertion"):
            floor = getattr(self.random, name)
            columns |= {
                name: getattr(self.own, name)[0],
                f"random {name}": floor.mean(0),
                f"spread of {name}": floor.std(0, correction=0),
            }
        return pd.DataFrame({name: column.numpy() for name, column in columns.items()})


def faithfulness(
    attribution: Scored,
    *,
    baseline: str | None = None,
    steps: int | None = None,
    randoms: int | Orders = RANDOMS,
    seed: int = 0,
    progress: Callable[[float], None] = lambda fraction: None,
    cancel: Callable[[], bool] = lambda: False,
) -> Faithfulness:
    """Take away and put back what an attribution names, in the order of its scores, and in ``randoms`` random orders.

    ``baseline``, one of ``features.baselines``, stands in the place of what is taken away; by default the first of
    them. Units that are ``fixed``, such as special tokens, stay; of units with the same score the first comes first.
    ``steps`` of the curves are even; by default they are close where an order begins and ends. ``randoms`` may be the
    ``random`` of another attribution of the same answer, baseline and steps: random orders know no method. ``cancel``
    is asked between runs, and a True raises Cancelled.

    Raises InputError where fewer than two units can be taken away, for scores that are not finite, and for a baseline
    that there is not.
    """
    began = time.perf_counter()
    features, kind = attribution.features, baseline or attribution.features.baselines[0]
    units = _removable(features)
    test = _Test(features, attribution.target, kind, _grid(len(units), steps))
    own = _ordered(attribution.scores, units, features.count)
    if isinstance(randoms, Orders):
        found = test.run(own[None], progress, cancel)
        floor = randoms
    else:
        drawn = _random_orders(units, features.count, randoms, seed)
        both = test.run(torch.cat([own[None], drawn]), progress, cancel)
        found, floor = (
            replace(both, deletion=both.deletion[part], insertion=both.insertion[part])
            for part in (slice(0, 1), slice(1, None))
        )
    return Faithfulness(attribution.method, attribution.target, kind, found, floor, time.perf_counter() - began)


def random_orders(
    features: Features,
    target: Target,
    *,
    baseline: str | None = None,
    steps: int | None = None,
    randoms: int = RANDOMS,
    progress: Callable[[float], None] = lambda fraction: None,
    cancel: Callable[[], bool] = lambda: False,
) -> Orders:
    """The floor for every method on one answer, to be given to ``faithfulness``. Each random order comes with its
    reverse, so that their gain is 0 on average, as it must be. Raises what ``faithfulness`` raises."""
    units = _removable(features)
    test = _Test(features, target, baseline or features.baselines[0], _grid(len(units), steps))
    return test.run(_random_orders(units, features.count, randoms, 0), progress, cancel)


def ranked(attribution: Scored) -> list[int]:
    """The units that can be taken away, the highest score first."""
    ranks = _ordered(attribution.scores, _removable(attribution.features), attribution.features.count)
    return [int(unit) for unit in ranks.argsort() if ranks[unit] >= 0]


# -- orders -----------------------------------------------------------------------------------------------------------
def _removable(features: Features) -> Tensor:
    """(n,) numbers of the units that are not fixed."""
    units = (~torch.as_tensor(features.fixed)).nonzero().flatten()
    if len(units) < 2:
        raise InputError(
            f"This input has {len(units)} part{'s' if len(units) != 1 else ''} that can be taken away, and an order "
            "needs two. Give a longer one."
        )
    return units


def _ordered(scores: Tensor, units: Tensor, count: int) -> Tensor:
    """The place of each unit in the order of scores, 0 for the highest, −1 where it is fixed → (U,)."""
    scores = torch.as_tensor(scores).detach().cpu()
    if scores.shape != (count,) or not bool(scores.isfinite().all()):
        raise InputError(
            f"Scores are expected to be {count} finite numbers, one for each part of the input; got "
            f"{tuple(scores.shape)}{'' if bool(scores.isfinite().all()) else ', not all finite'}."
        )
    return _placed(units[scores[units].argsort(descending=True, stable=True)], count)


def _random_orders(units: Tensor, count: int, randoms: int, seed: int) -> Tensor:
    """(R, U), every second one the reverse of the one before; R is even, and 2 at least."""
    drawing = torch.Generator().manual_seed(seed)
    orders: list[Tensor] = []
    while len(orders) < max(2, randoms):
        order = units[torch.randperm(len(units), generator=drawing)]
        orders += [_placed(order, count), _placed(order.flip(0), count)]
    return torch.stack(orders)


def _placed(order: Tensor, count: int) -> Tensor:
    places = torch.full((count,), -1)
    places[order] = torch.arange(len(order))
    return places


def _count(share: float, units: int) -> int:
    """How many units a share is: rounded up, so that it is one at least."""
    return max(1, math.ceil(share * units - 1e-9))


def _grid(units: int, steps: int | None) -> Tensor:
    """How many units are dealt with at each step, in S steps. Symmetric, so that what one order takes away its reverse
    puts back: random orders come in such pairs, and each run serves both."""
    wanted = {0} | {_count(share, units) for share in (*BINS, BETWEEN)}
    if steps is not None:
        wanted |= {round(step * units / steps) for step in range(steps)}
    return torch.tensor(sorted(wanted | {units - count for count in wanted}))


# -- runs -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class _Test:
    features: Features
    target: Target
    kind: str  # of baseline
    counts: Tensor  # (S,)

    def run(self, places: Tensor, progress: Callable[[float], None], cancel: Callable[[], bool]) -> Orders:
        """``places`` (R, U): of each unit in each order."""
        first = places[:, None] < self.counts[:, None]  # (R, S, U)
        fixed = torch.as_tensor(self.features.fixed)
        kept = torch.stack([~first | fixed, first | fixed])  # deletion, insertion
        masks, where = torch.unique(kept.flatten(0, 2), dim=0, return_inverse=True)
        deletion, insertion = self._chances(masks, progress, cancel)[where.view(kept.shape[:3])]
        return Orders(self.counts, int((~fixed).sum()), deletion, insertion)

    def _chances(self, masks: Tensor, progress: Callable[[float], None], cancel: Callable[[], bool]) -> Tensor:
        """(M, U) units that are kept → (M,) the chance of the answer."""
        features, target = self.features, self.target
        if self.kind not in features.baselines:
            raise InputError(f"baseline expects one of {', '.join(features.baselines)}; got {self.kind!r}.")
        against = target.against is not None
        value = features.forward(replace(target, measure="logit" if against else "log-probability"))
        baseline, copies = features.baseline(self.kind), min(COPIES, features.copies)
        found: list[Tensor] = []
        with torch.no_grad():
            for part in masks.split(copies):
                if cancel():
                    raise Cancelled("The test was cancelled.")
                got = value(*features.kept(part, baseline)).float().cpu()
                found.append(got.sigmoid() if against else got.exp())
                progress(min(1.0, sum(map(len, found)) / len(masks)))
        chances = torch.cat(found)
        if not bool(chances.isfinite().all()):
            raise InputError("The model's answer is NaN where parts of the input are taken away.")
        if bool((chances == 1).all()):
            raise InputError(
                "The chance of the answer is 1 whatever is taken away, so no order can be told from another: the model "
                "has one answer only."
            )
        return chances


# -- two of them ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Agreement:
    """``correlation``: Spearman's, of the ranks of all units, NaN where one gives all the same score · ``shared`` of
    the ``top`` units that each puts first."""

    correlation: float
    shared: int
    top: int


def agreement(one: Scored, other: Scored, top: int = 5) -> Agreement:
    """How far two attributions of one input agree. Where one of them has no sign, the sizes of the other count. Fixed
    units, which methods treat in their own ways, are left out. Raises InputError for other units."""
    if one.features.count != other.features.count:
        raise InputError(
            f"The two are expected to be about one input; they are about {one.features.count} and "
            f"{other.features.count} parts."
        )
    units = _removable(one.features)
    signed = all(getattr(each, "signed", True) for each in (one, other))
    both = [torch.as_tensor(each.scores).detach().cpu()[units].double() for each in (one, other)]
    both = both if signed else [scores.abs() for scores in both]
    top = min(top, len(units))
    first = [set(scores.argsort(descending=True, stable=True)[:top].tolist()) for scores in both]
    return Agreement(rank_correlation(*both), len(first[0] & first[1]), top)


def rank_correlation(one: Sequence[float] | Tensor, other: Sequence[float] | Tensor) -> float:
    """Spearman's, with mean ranks for ties; NaN where one side is constant."""
    ranks = [torch.tensor(pd.Series(list(map(float, each))).rank().to_numpy()) for each in (one, other)]
    centred = [rank - rank.mean() for rank in ranks]
    length = centred[0].norm() * centred[1].norm()
    return float(centred[0] @ centred[1] / length) if length > 0 else math.nan


# -- words ------------------------------------------------------------------------------------------------------------
def _answer(target: Target) -> str:
    one, other = (name.strip() or str(token) for name, token in zip(target.names, (target.token, target.against),
                                                                      strict=True))  # fmt: skip
    return f"“{one}”" if target.against is None else f"“{one}” rather than “{other}”"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.0995 or share < 0.0005 else f"{share:.1%}"
