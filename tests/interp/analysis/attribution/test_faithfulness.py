"""Faithfulness against hand-computed cases, Quantus's figures (benchmarks/faithfulness.py), and what random orders must
come to."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from scipy.stats import spearmanr

from headwise import capture, load
from headwise.interp.analysis.attribution.faithfulness import (
    Scores,
    agreement,
    faithfulness,
    random_orders,
    rank_correlation,
    ranked,
)
from headwise.interp.analysis.attribution.features import features
from headwise.interp.analysis.targets import Target, target
from headwise.interp.errors import InputError
from headwise.interp.run.sweeping import Cancelled
from headwise.models import read_image
from tests.browser.serving import ROOT

QUANTUS = json.loads((Path(__file__).parent / "quantus.json").read_text("utf-8"))
AIM = Target(0, names=("yes", ""))


@dataclass
class Weighed:
    """A model by hand: the log-odds of "yes" against "no" are the sum of the weights of what is kept."""

    weights: tuple[float, ...]
    fixed: torch.Tensor = None
    runs: list[int] = field(default_factory=list)
    baselines: tuple[str, ...] = ("zero", "one")
    copies: int = 128

    def __post_init__(self):
        self.count = len(self.weights)
        self.fixed = torch.zeros(self.count, dtype=torch.bool) if self.fixed is None else self.fixed

    def baseline(self, kind):
        return (torch.full((1, self.count), float(kind == "one")),)

    def kept(self, mask, baseline):
        return (torch.where(mask | self.fixed, torch.ones(()), baseline[0]),)

    def forward(self, aim):
        def value(inputs):
            self.runs.append(len(inputs))
            odds = inputs @ torch.tensor(self.weights)
            return aim.measured(torch.stack([odds, torch.zeros_like(odds)], -1))

        return value


def chance(*weights: float) -> float:
    return 1 / (1 + math.exp(-sum(weights)))


def of(scores, weights=(3.0, -1.0, 0.5), aim=AIM, **more):
    found = Weighed(weights, **more)
    return Scores(torch.tensor(scores), found, aim)


def test_three_units_by_hand():
    """Of three units each of 1, 5, 10 and 20 % is one, and 50 % are two."""
    found = faithfulness(of([0.9, -0.2, 0.4]))
    without = [chance(3, -1, 0.5), chance(-1, 0.5), chance(-1), 0.5]
    only = [0.5, chance(3), chance(3, 0.5), chance(3, -1, 0.5)]
    assert found.deletion.values.tolist() == pytest.approx(without, abs=1e-6)
    assert found.insertion.values.tolist() == pytest.approx(only, abs=1e-6)
    assert found.deletion.fractions.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    area = [(v[0] + 2 * v[1] + 2 * v[2] + v[3]) / 6 for v in (without, only)]
    assert (found.deletion.area, found.insertion.area) == pytest.approx(area, abs=1e-6)
    assert found.gain == pytest.approx(area[1] - area[0], abs=1e-6)
    assert found.comprehensiveness == pytest.approx(without[0] - (4 * without[1] + without[2]) / 5, abs=1e-6)
    assert found.sufficiency == pytest.approx(only[3] - (4 * only[1] + only[2]) / 5, abs=1e-6)


def test_against_an_alternative_it_is_the_share_of_the_two():
    found = faithfulness(of([0.9, -0.2, 0.4], aim=Target(0, 1, names=("yes", "no"))))
    assert found.own.whole == pytest.approx(chance(2.5), abs=1e-6)
    assert "“yes” rather than “no”" in found.sentence


def test_what_is_fixed_stays_and_another_baseline_stands_in():
    fixed = torch.tensor([True, False, False])
    found = faithfulness(of([9.0, 0.1, 0.2], fixed=fixed), baseline="zero")
    assert found.deletion.values.tolist() == pytest.approx([chance(2.5), chance(2), chance(3)], abs=1e-6)
    found = faithfulness(of([0.9, -0.2, 0.4]), baseline="one")  # here nothing ever changes
    assert found.comprehensiveness == pytest.approx(0, abs=1e-7) and not found.better_than_random


def test_all_orders_of_four_are_the_floor():
    """The best order beats what is not as good as it, and random orders have no gain on average."""
    weights = (4.0, 2.0, -2.0, -4.0)
    best = faithfulness(of(list(weights), weights), randoms=40)
    worst = faithfulness(of([-w for w in weights], weights), randoms=best.random)
    assert best.gain == pytest.approx(-worst.gain, abs=1e-6) and best.gain >= float(best.random.gain.max())
    assert worst.beaten == 0 and not worst.better_than_random and best.better_than_random
    assert float(best.random.gain.mean()) == pytest.approx(0, abs=1e-6)
    assert "no better than chance" in worst.sentence and "no better than chance" not in best.sentence


def test_what_is_first_was_needed_or_not():
    """Eight of forty units decide: an order that begins with them takes the answer away, one that ends with them does
    not, until then."""
    weights = tuple(0.6 if unit < 8 else 0.0 for unit in range(40))
    first = faithfulness(of([-float(unit) for unit in range(40)], weights))
    last = faithfulness(of([float(unit) for unit in range(40)], weights), randoms=first.random)
    assert first.needed and first.deletion.values[first.own.at(0.2)] == pytest.approx(0.5)
    assert not last.needed and last.comprehensiveness == pytest.approx(0, abs=1e-6)


def test_runs_are_shared_between_an_order_and_its_reverse():
    one = of([float(i) for i in range(10)], tuple(map(float, range(10))))
    random_orders(one.features, AIM, randoms=2)
    between = {1, 2, 4, 5, 6, 8, 9}  # and both ends are one run each, whatever the order
    assert sum(one.features.runs) == 2 * len(between) + 2


def test_a_floor_of_another_method_is_the_same_floor():
    one = of([0.9, -0.2, 0.4])
    floor = random_orders(one.features, AIM)
    assert torch.equal(faithfulness(one).random.deletion, floor.deletion)
    assert faithfulness(one, randoms=floor).beaten == faithfulness(one).beaten


def test_tables_say_the_same():
    found = faithfulness(of([0.9, -0.2, 0.4]))
    figures = found.figures().set_index("figure")
    assert figures.loc["gain", "value"] == pytest.approx(found.gain)
    assert figures.loc["sufficiency", "random"] == pytest.approx(float(found.random.sufficiency.mean()))
    assert found.table()["deletion"].tolist() == pytest.approx(found.deletion.values.tolist())


@pytest.mark.parametrize("case", QUANTUS["cases"], ids=lambda case: case["model"])
def test_the_curves_are_those_of_quantus(case):
    """Its Pixel-Flipping, the highest first, is our deletion; the lowest first is our insertion from its end."""
    subject = load(case["model"])
    raw = read_image(ROOT / "assets/examples/seven.png") if subject.family == "vision" else QUANTUS["text"]
    found = features(capture(subject, raw))
    aim, units = Target(case["answer"], names=("it", "")), int((~found.fixed).sum())
    ours = faithfulness(Scores(torch.tensor(case["scores"]), found, aim), baseline=case["baseline"], steps=units)
    assert ours.own.counts.tolist() == list(range(units + 1))
    assert ours.deletion.values[1:].tolist() == pytest.approx(case["highest first"], abs=1e-5)
    assert ours.insertion.values[:-1].tolist() == pytest.approx(case["lowest first"][::-1], abs=1e-5)


def test_what_cannot_be_tested_is_one_sentence():
    with pytest.raises(InputError, match="needs two"):
        faithfulness(of([1.0, 2.0, 3.0], fixed=torch.tensor([True, True, False])))
    with pytest.raises(InputError, match="3 finite numbers"):
        faithfulness(of([1.0, math.nan, 3.0]))
    with pytest.raises(InputError, match="3 finite numbers"):
        faithfulness(of([1.0, 2.0]))
    with pytest.raises(InputError, match="zero, one"):
        faithfulness(of([1.0, 2.0, 3.0]), baseline="blur")


def test_cancel_ends_it_and_progress_is_told():
    told = []
    with pytest.raises(Cancelled):
        faithfulness(of([0.9, -0.2, 0.4]), cancel=lambda: True)
    faithfulness(of([0.9, -0.2, 0.4]), progress=told.append)
    assert told[-1] == 1.0


def test_ties_are_taken_in_the_order_of_the_input():
    assert ranked(of([0.5, 0.7, 0.5])) == [1, 0, 2]


def test_agreement_is_spearmans():
    one, other = of([0.1, 0.9, 0.3, 0.3], (0.0,) * 4), of([5.0, 1.0, 2.0, 3.0], (0.0,) * 4)
    found = agreement(one, other, top=2)
    assert found.correlation == pytest.approx(spearmanr(one.scores, other.scores).statistic)
    assert (found.shared, found.top) == (0, 2)
    assert math.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))


def test_a_method_without_sign_is_held_against_sizes():
    signed = of([-3.0, 1.0, 2.0])
    unsigned = Unsigned(torch.tensor([3.0, 1.0, 2.0]), signed.features, AIM)
    assert agreement(signed, unsigned).correlation == pytest.approx(1)


@dataclass
class Unsigned:
    scores: torch.Tensor
    features: Weighed
    target: Target
    signed: bool = False


def test_on_a_real_model_the_words_that_matter_beat_chance():
    cap = capture(load("tiny-encoder"), "And it came to [MASK], when he had heard these words, that he spake.")
    found, aim = features(cap), target(cap)
    with torch.no_grad():
        alone = found.forward(aim)(*found.kept(~torch.eye(found.count, dtype=torch.bool), found.baseline()))
    occluded = Scores(aim.value(cap) - alone, found, aim, "occlusion")
    tested = faithfulness(occluded)
    assert tested.better_than_random and tested.gain > 0.2
    assert tested.own.whole == pytest.approx(float(cap.logits_at(aim.position).softmax(-1).max()), abs=1e-5)
