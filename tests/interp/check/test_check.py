"""``check`` itself: it recognises any mask of the algebra, leaves a model as it was, and says what it did."""

import copy
import json
import random
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from headwise import check, masks
from headwise.interp.check import CheckError
from headwise.interp.check.expectation import Expectation, parse
from headwise.interp.masks import Bidirectional, Causal, Dense, Packed, Prefix, Strided, Window
from headwise.interp.zoo import find
from headwise.interp.zoo.case import Attention, Language, Plain

LENGTH = 11


def model_with(mask):
    """Two layers of attention under ``mask``, ids in, logits out."""

    class Masked(Attention):
        def allowed(self, length, real):
            return mask.dense(length, length)

    torch.manual_seed(0)
    return Plain(Masked, Masked).eval()


causal_masks = st.one_of(
    st.just(Causal()),
    st.builds(Window, st.integers(1, 4), st.just(0)),
    st.builds(lambda s, w: Causal() & (Strided(s) | Window(w, 0)), st.integers(2, 4), st.integers(1, 3)),
    st.builds(
        lambda a, b: Causal() & Packed(tuple([0] * a + [1] * b + [2] * (LENGTH - a - b))),
        st.integers(2, 4),
        st.integers(2, 4),
    ),
)
any_masks = st.one_of(
    causal_masks,
    st.builds(Prefix, st.integers(2, 6)),
    st.builds(Window, st.integers(1, 3), st.integers(1, 3)),
    st.integers(0, 999).map(
        lambda seed: (
            Dense(torch.rand(LENGTH, LENGTH, generator=torch.Generator().manual_seed(seed)) < 0.3) | Window(0, 0)
        )
    ),
)
few = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


@few
@given(any_masks)
def test_a_model_that_keeps_a_mask_is_green_under_it(mask):
    report = check(model_with(mask), mask, length=LENGTH, modes="base", dtypes=())
    assert report.ok, str(report)


@few
@given(causal_masks, st.integers(0, 10**6))
def test_one_edge_too_many_is_found(mask, seed):
    """The picture of a promise less one edge shows that edge, in the layer where it is."""
    allowed = mask.dense(LENGTH, LENGTH)
    hidden = (~allowed).nonzero()
    query, key = hidden[seed % len(hidden)].tolist()
    more = allowed.clone()
    more[query, key] = True

    class Right(Attention):
        def allowed(self, length, real):
            return allowed[:length, :length]

    class Wrong(Attention):
        def allowed(self, length, real):
            return more[:length, :length]

    torch.manual_seed(0)
    report = check(Plain(Right, Wrong).eval(), Dense(allowed), length=LENGTH, modes="base", dtypes=())
    assert not report.ok and report.findings[0].layer == 1, str(report)
    assert report.findings[0].module == "blocks.1.attention"


@few
@given(causal_masks)
def test_the_dependency_picture_is_the_reach_of_two_layers(mask):
    report = check(model_with(mask), mask, length=LENGTH, modes="base", dtypes=())
    step = mask.dense(LENGTH, LENGTH).float()
    assert torch.equal(report.dependency.expected, (step @ step + step + torch.eye(LENGTH)) > 0)
    assert not (report.dependency.observed & ~report.dependency.expected).any()


@pytest.mark.parametrize(
    "name",
    [
        "zeros and ones added",
        "state kept between calls",
        "sentinel of −100",
        "dropout that never stops",
        "is_causal without a mask",
    ],
)
def test_nothing_of_the_model_or_the_random_streams_changes(name):
    model = find(name).bug().train()
    model[0].eval() if isinstance(model, nn.Sequential) else None
    next(model.parameters()).requires_grad_(False)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [(m.training, len(m._forward_hooks) + len(m._forward_pre_hooks)) for m in model.modules()]
    wants = [p.requires_grad for p in model.parameters()]
    attributes = [set(vars(m)) for m in model.modules()]
    streams = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    threads, grad = torch.get_num_threads(), torch.is_grad_enabled()
    check(model, **find(name).options)
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert flags == [(m.training, len(m._forward_hooks) + len(m._forward_pre_hooks)) for m in model.modules()]
    assert wants == [p.requires_grad for p in model.parameters()] and all(p.grad is None for p in model.parameters())
    assert attributes == [set(vars(m)) for m in model.modules()]
    assert (
        torch.equal(streams[0], torch.get_rng_state())
        and streams[1] == random.getstate()
        and streams[2] == np.random.get_state()[1].tolist()
    )
    assert (threads, grad) == (torch.get_num_threads(), torch.is_grad_enabled())


def test_the_model_is_left_as_it_was_also_after_an_exception():
    class Breaks(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.count = nn.Linear(4, 4), 0

        def forward(self, x):
            self.count += 1
            raise KeyError("no such thing")

    model = Breaks().train()
    state = torch.get_rng_state()
    with pytest.raises(CheckError, match="Breaks raised KeyError on random inputs"):
        check(model, Causal())
    assert model.training and model.count == 0 and torch.equal(state, torch.get_rng_state())


def test_a_report_says_what_was_probed_and_why_not():
    report = check(Language().eval(), Causal())
    applied = {p.letter for p in report.probed if p.applied}
    assert {"N", "P T E", "A", "J", "B", "D", "G"} <= applied
    why = {p.name: p.detail for p in report.probed if not p.applied}
    decoding = why["decoding with a cache equals the full run"]
    assert decoding.startswith("no step(model, x, cache) is given, and no argument takes up what the model returns")
    assert report.tolerated < 1e-4 and report.ok and "clean" in str(report)


def test_a_report_travels_as_json_markdown_and_html():
    report = check(find("one token ahead").bug(), Causal())
    data = json.loads(report.to_json())
    assert data["findings"][0]["class"] == "future-leak" and data["findings"][0]["layer"] == 1
    assert data["findings"][0]["picture"]["observed"][0][1] == 1 and data["findings"][0]["smallest"]["length"] == 2
    assert "■✗" in report.to_markdown() and "blocks.1.attention" in report.to_markdown()
    page = report.to_html()
    assert "<svg" in page and "<script" not in page and "http" not in page


def test_a_smaller_input_shows_the_same_leak():
    finding = check(find("one head without a mask").bug(), Causal()).findings[0]
    assert finding.smallest == {"batch": 1, "length": 2, "query": 0, "changed": 1} and finding.heads == (2,)


def test_the_budget_stops_the_check_between_runs():
    class Slow(Language):
        def forward(self, ids, attention_mask=None):
            time.sleep(0.05)  # 40 runs fit into the budget, the probes want hundreds
            return super().forward(ids, attention_mask)

    report = check(Slow().eval(), Causal(), budget=2)
    assert any(p.applied for p in report.probed)
    assert any("budget" in p.detail for p in report.probed if not p.applied)


def test_one_mask_a_layer():
    layers = [Window(3, 0), Causal()]
    assert str(Expectation.of(layers)) == "Window(3, 0) · Causal()"
    assert int(Expectation.of([Window(3, 0)]).reach(2, 12)[10].sum()) == 7  # two layers of four keys reach six back


def test_words_and_expressions_become_masks():
    assert parse("window:8") == Window(7, 0) and parse("prefix:4") == Prefix(4) and parse("full") == Bidirectional()
    assert parse("Causal() & Window(2, 0)") == (Causal() & Window(2, 0))
    for text in ("wat", "__import__('os').system('true')", "Causal() + 1", "Dense(1)"):
        with pytest.raises(CheckError, match="is no mask"):
            parse(text)


def test_a_copy_is_not_needed_and_the_module_is_not_replaced():
    model = Language().eval()
    parts = [id(p) for p in model.parameters()]
    twin = copy.deepcopy(model)
    check(model, Causal())
    assert parts == [id(p) for p in model.parameters()]
    ids = torch.randint(2, 30, (1, 5))
    assert torch.equal(model(ids), twin(ids))


def test_what_is_not_a_module_is_refused_in_one_sentence():
    with pytest.raises(CheckError, match=r"expects an nn\.Module or a Subject, got int"):
        check(3)
    with pytest.raises(CheckError, match="expect= takes a mask"):
        check(Language(), 3)


def test_every_public_mask_can_be_promised():
    assert check(
        model_with(masks.Blocks((0,) * 5 + (1,) * 6)), masks.Blocks((0,) * 5 + (1,) * 6), modes="base", dtypes=()
    ).ok
