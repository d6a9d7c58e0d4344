"""Heads in words: each figure by hand, each threshold met or missed by a little."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from headwise import capture, load
from headwise.interp.analysis.in_words import COLUMNS, DEFINITIONS, OTHERS, ROLES, Follows, chips, in_words
from headwise.interp.analysis.metrics import Band, induction
from headwise.interp.attention.axes import Axis
from headwise.interp.drawing.survey import survey
from headwise.interp.subject import Inputs, Subject, tensors_only


class Given(nn.Module):
    """Attention whose weights are those it is given, a head each."""

    def forward(self, weights):
        return weights.log().softmax(-1) @ torch.eye(weights.shape[-1])


def by_hand(*heads, family="encoder", special=None):
    weights = torch.tensor(heads)[None].clamp_min(1e-12)  # one sample
    labels = tuple("abcdefgh"[: weights.shape[-1]])
    inputs = Inputs({"weights": weights}, {"input": Axis(labels, special=special)})
    return capture(Subject(Given(), tensors_only(Given()), "given", family), inputs)


def told(cap):
    return in_words(cap, survey(cap).table)


BEFORE = [[0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.1, 0.6, 0.3]]  # gives (0.5 + 0.6) / 2 to the one before
AFTER = [[0.2, 0.6, 0.2], [0.2, 0.2, 0.6], [0.3, 0.4, 0.3]]
NEITHER = [[0.6, 0.2, 0.2], [0.39, 0.2, 0.41], [0.2, 0.4, 0.4]]  # 0.395 to the one before, 0.4 to its own token


def test_names_figures_and_thresholds_by_hand():
    found = told(by_hand(BEFORE, AFTER, NEITHER))
    assert list(found) == COLUMNS
    said = {(row["head"], row["role"]): row for row in found.to_dict("records")}
    assert set(said) == {(0, "previous token"), (0, "current token"), (1, "next token"), (2, "current token")}
    assert said[0, "previous token"]["score"] == pytest.approx(0.55)
    assert said[0, "previous token"]["evidence"] == "gives 55% of its weight to the token before"
    assert said[0, "current token"]["score"] == pytest.approx((0.8 + 0.3 + 0.3) / 3)
    assert said[1, "next token"]["score"] == pytest.approx(0.6)
    assert said[2, "current token"]["score"] == pytest.approx(0.4)
    assert (found["score"] >= found["least"]).all()
    assert found["metric"].tolist() == ["previous", "self", "next", "self"]  # the surest of a head first


def test_a_head_that_looks_at_everything_alike_is_only_broad():
    """Three keys alike would give a third to the one before; two thirds of that is no previous-token head."""
    alike = [[1 / 3] * 3] * 3
    found = told(by_hand(alike, BEFORE))
    assert found[found["head"] == 0]["role"].tolist() == ["broad"]
    assert found["score"][0] == pytest.approx(1)


def test_separators_are_told_from_the_first_token():
    rows = [[0.3, 0.1, 0.6], [0.3, 0.2, 0.5], [0.2, 0.2, 0.6]]
    found = told(by_hand(rows, special=(True, False, True)))
    assert found["role"].tolist() == ["special tokens"]
    assert found["score"][0] == pytest.approx((0.6 + 0.5 + 0.6) / 3)
    assert found["evidence"][0] == "gives 57% of its weight to c"
    assert "special" not in survey(by_hand(rows, special=(True, False, False))).table  # the first is told by "first"


def test_who_follows_the_source_against_numpy():
    """The correlation of target and source positions, each pair drawn as often as its weight says."""
    cap = capture(load("tiny-encoder-decoder"), ("knight", None))
    table = survey(cap).table
    found = in_words(cap, table)
    for call in cap.stack("cross"):
        for head in range(call.heads):
            weights = call.weights(head)[0].double().numpy()
            query, key = (grid.ravel() for grid in np.indices(weights.shape))
            cov = np.cov(query, key, aweights=weights.ravel())
            here = (table["stack"] == "cross") & (table["layer"] == call.layer) & (table["head"] == head)
            assert table[here]["follows"].item() == pytest.approx(cov[0, 1] / np.sqrt(cov[0, 0] * cov[1, 1]), abs=1e-5)
    heads = found[found["role"] == "follows the source"]
    follows = table[(table["stack"] == "cross") & (table["follows"] >= 0.7)]
    assert len(heads) > 2 and heads[["layer", "head"]].values.tolist() == follows[["layer", "head"]].values.tolist()
    assert table[table["stack"] != "cross"]["follows"].isna().all()


def test_a_head_that_stays_where_it_is_follows_nothing():
    """One key from everywhere, and a target of one token: no correlation, and none that could be."""

    def follows(weights):
        metric, count = Follows(), weights.shape[2]
        query, key = torch.arange(count)[:, None], torch.arange(weights.shape[3])[None]
        metric.update(weights, Band(query, key, torch.ones(1, 1, count, dtype=torch.bool), None, None))
        return metric.result().tolist()

    assert follows(torch.tensor([[[[0.0, 1.0, 0.0]] * 4, torch.eye(4, 3).tolist()]]))[0] == 0
    assert follows(torch.eye(3)[None, None]) == pytest.approx([1])
    assert follows(torch.eye(3).flip(1)[None, None]) == pytest.approx([-1])
    assert math.isnan(follows(torch.ones(1, 1, 1, 3) / 3)[0])


def test_chips_hold_every_head_once_or_as_often_as_it_has_roles():
    cap = by_hand(BEFORE, AFTER, [[0.1, 0.1, 0.8], [0.35, 0.05, 0.6], [0.6, 0.1, 0.3]])
    found = told(cap)
    made = {chip.role: chip for chip in chips(cap, found, "encoder")}
    assert list(made) == [role for role in ROLES if role in set(found["role"])] + [OTHERS]
    assert made["next token"].heads == ((0, 1),)
    assert made["next token"].sentence == "looks at the token after" and made["next token"].least == "next ≥ 0.4"
    every = {head for chip in made.values() for head in chip.heads}
    assert every == {(0, 0), (0, 1), (0, 2)} and made[OTHERS].heads == ((0, 2),)


def test_induction_is_told_where_it_was_measured():
    cap = capture(load("tiny-attention-only"), "The people of the United States")
    table, scores = survey(cap).table, induction(cap.subject)
    assert "induction" not in set(in_words(cap, table)["role"])
    found = in_words(cap, table.merge(scores, on=["stack", "layer", "head"]))
    heads = found[found["role"] == "induction"]
    wanted = scores[scores["induction"] >= 0.4]
    assert heads[["layer", "head"]].values.tolist() == wanted[["layer", "head"]].values.tolist() and len(wanted)
    assert heads["evidence"].str.startswith("on random tokens said twice it gives").all()


def test_every_metric_of_the_survey_is_defined():
    for name, raw in (("tiny-encoder", "He came to [MASK]."), ("tiny-encoder-decoder", ("knight", None))):
        assert set(survey(capture(load(name), raw)).table.columns[3:]) <= set(DEFINITIONS)
