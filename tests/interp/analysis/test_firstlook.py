"""The head that is shown first, from tables made by hand."""

from types import SimpleNamespace

import pandas as pd
import pytest

from headwise import capture, load
from headwise.interp.analysis.firstlook import first_head, first_stack


def run(family: str = "decoder", stacks: tuple[str, ...] = ("decoder",)):
    return SimpleNamespace(subject=SimpleNamespace(family=family), stacks=stacks)


def table(**columns) -> pd.DataFrame:
    return pd.DataFrame({"layer": [0, 0, 1, 1], "head": [0, 1, 0, 1], **columns})


def test_across_comes_first():
    assert first_stack(run(stacks=("encoder", "decoder", "cross"))) == "cross"
    assert first_stack(run(stacks=("encoder",))) == "encoder"
    assert first_stack(capture(load("tiny-encoder-decoder"), "knight")) == "cross"


def test_the_best_induction_head():
    scores = table(induction=[0.1, 0.2, 0.9, 0.3], information=[9, 0, 0, 0])
    assert first_head(run(), scores, "decoder") == (1, 0)


def test_induction_scores_that_nobody_could_measure_choose_nothing():
    assert first_head(run(), table(induction=[float("nan")] * 4), "decoder") == (0, 0)


def test_the_head_across_that_follows_its_queries():
    assert first_head(run(), table(information=[0.2, 0.8, 0.1, 0], entropy=[0, 1, 2, 3]), "cross") == (0, 1)


def test_the_sharpest_head_across_while_there_is_one_query():
    assert first_head(run(), table(information=[1e-7, 0, 0, 0], entropy=[3, 2, 1, 0.5]), "cross") == (1, 1)


@pytest.mark.parametrize(("family", "place"), [("vision", (1, 0)), ("encoder", (0, 0))])
def test_a_model_that_sees_is_looked_at_in_its_last_layer(family, place):
    assert first_head(run(family), table(), "encoder") == place
