"""Every bug of the zoo is found, with its class and its place; every twin is green; what must stay green does."""

import re

import pytest
import torch
from torch import nn

from headwise import check
from headwise.interp.check import CLASSES
from headwise.interp.masks import Bidirectional, Causal, Prefix
from headwise.interp.zoo import CASES, find
from headwise.interp.zoo.case import Language, Plain
from headwise.interp.zoo.padding import Both
from headwise.interp.zoo.shapes import WithPrefix


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_bug_is_found_and_the_twin_is_green(case):
    report = check(case.bug(), **case.options)
    assert report.classes == (case.cls,), str(report)
    first = report.findings[0]
    assert case.layer is None or first.layer == case.layer, str(first)
    assert case.module is None or first.module.startswith(case.module), str(first)
    twin = check(case.twin(), **case.options)
    assert twin.ok, str(twin)


def test_the_zoo_is_large_and_its_names_are_its_own():
    assert len(CASES) >= 40 and len({c.name for c in CASES}) == len(CASES)
    assert {c.cls for c in CASES} == set(CLASSES)
    reported = [c for c in CASES if c.report]
    assert len(reported) >= 30 and all(re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", c.report) for c in reported)
    assert find("padded by reflection").link == "https://github.com/lucidrains/audiolm-pytorch/issues/166"


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_symptom_is_a_short_text_that_tells_bug_from_twin(case):
    bug, twin = case.show(case.bug()), case.show(case.twin())
    assert 10 < len(bug) < 400 and len(twin) < 400


def test_unknown_names_say_what_there_is():
    with pytest.raises(KeyError, match="batch_first forgotten"):
        find("no such case")


# -- must stay green ------------------------------------------------------------------------------------------------
def test_a_prefix_lm_may_see_its_prefix_both_ways():
    assert check(Plain(WithPrefix, WithPrefix).eval(), Prefix(4)).ok


def test_an_encoder_may_see_everything():
    report = check(Language(Both, Both).eval(), Bidirectional())
    assert report.ok, str(report)


def test_rotary_models_may_be_left_padded_with_plain_positions():
    """Scores of rotary positions depend on distances only (Su et al. 2021, eq. 16)."""
    from headwise.models.architectures.decoder import Decoder, DecoderConfig

    class PlainPositions(Decoder):
        def embed(self, input_ids, attention_mask=None):
            x, _, mask = super().embed(input_ids, attention_mask)
            return x, torch.arange(input_ids.shape[1])[None], mask

    report = check(PlainPositions(DecoderConfig(vocab_size=50, context=64, layers=2, heads=4, width=32)), Causal())
    assert report.ok, str(report)


def test_nan_may_stay_within_padding_queries():
    class NaNAtPadding(Language):
        def forward(self, ids, attention_mask=None):
            out = super().forward(ids, attention_mask)
            return out if attention_mask is None else out.masked_fill(~attention_mask.bool()[..., None], torch.nan)

    report = check(NaNAtPadding().eval(), Causal())
    assert report.ok, str(report)


def test_a_causal_model_of_convolutions_and_batch_norm_is_green():
    class Temporal(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv1d(6, 8, 3), nn.BatchNorm1d(8)

        def forward(self, x):
            return self.norm(self.conv(nn.functional.pad(x, (2, 0))))

    report = check(Temporal(), Causal())
    assert report.ok, str(report)
