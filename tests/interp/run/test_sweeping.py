"""Many edited copies in one run say what a run of each says."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from headwise.interp.errors import InputError
from headwise.interp.run import sweeping
from headwise.interp.run.capture import Capture, capture, rerun
from headwise.interp.run.edits import (
    Add,
    ForbidEdge,
    HeadOutput,
    Isolate,
    Mean,
    Pattern,
    Query,
    Resample,
    Residual,
    Scale,
    Scores,
    Value,
    Write,
    Zero,
)
from headwise.interp.run.memory import peak_of
from headwise.interp.run.streaming import Growth
from headwise.interp.run.sweeping import Cancelled, sweep_edits
from headwise.interp.subject import Subject, tensors_only
from headwise.models import load
from tests.interp.attention.kinds import GPT, LLAMA, PAIR, TEXT, ids
from tests.interp.run.test_edits import B, C, Model, T, by_bmm, by_einsum, by_hand, by_sdpa
from tests.interp.run.test_stream_edits import made

PROMPT = "The people of the United States"


@pytest.fixture(scope="module")
def tiny() -> Capture:
    return capture(load("tiny-decoder"), PROMPT)


def last(result):
    return result.logits([-1])[:, 0]


def whole(result):
    return result.logits()


def alone(cap, sets, measure=whole):
    return torch.stack([measure(rerun(cap, edits).result) for edits in sets])


def heads_of(cap):
    return [[Mean(HeadOutput(c.layer, head, c.stack))] for c in cap.calls for head in range(c.heads)]


def cases():
    yield "gpt2", lambda: made("GPT2LMHeadModel", GPT, "decoder"), "grown"
    yield "llama", lambda: made("LlamaForCausalLM", LLAMA, "decoder"), "grown"
    yield "bert", lambda: made("BertModel", TEXT, "encoder"), "grown"
    both = {"input_ids": ids(), "decoder_input_ids": ids(7)}
    yield "two streams", lambda: made("BartModel", PAIR, "encoder-decoder", **both), "repeated"
    for way in (by_sdpa, by_hand, by_bmm, by_einsum):
        yield f"two samples {way.__name__}", lambda way=way: of_module(Model(way), torch.randn(B, T, C)), "repeated"
    yield "positions first", lambda: of_module(nn.TransformerEncoderLayer(C, 3, 8), torch.randn(T, 1, C)), "single"


def of_module(module, x):
    return capture(Subject(module.eval(), tensors_only(module), "module", "encoder"), x)


@pytest.mark.parametrize("make, way", [pytest.param(make, way, id=name) for name, make, way in cases()])
def test_copies_say_what_a_run_of_each_says(make, way):
    cap = make()
    sets = [*heads_of(cap), [], [Zero(Pattern(0, 1))]]
    found = sweep_edits(cap, sets, whole)
    assert found.way == way and found.gap <= 1e-5
    assert (found.figures - alone(cap, sets)).abs().max() <= 1e-5
    assert (found.plain - cap.logits).abs().max() <= 1e-6
    assert (found.figures[-2] - cap.logits).abs().max() <= 1e-5  # without an edit


def test_grown_is_repeated_is_one_by_one(tiny, monkeypatch):
    sets = [[Zero(HeadOutput(layer, head))] for layer in (3, 0, 2) for head in range(8)]
    sets += [[Zero(Write(layer, kind))] for layer in range(4) for kind in ("mlp", "attention")]
    sets += [[Scale(Residual(layer, when), 0.5)] for layer in range(4) for when in ("before", "middle", "after")]
    sets += [[ForbidEdge(2, 5, 3), Zero(HeadOutput(1, 1))], [Isolate(3, 2)], [Resample(Value(1, 1), seed=2)]]
    grown = sweep_edits(tiny, sets, last)
    monkeypatch.setattr(sweeping, "_entries", lambda cap, sets: None)
    repeated = sweep_edits(tiny, sets, last)
    assert (grown.way, repeated.way) == ("grown", "repeated")
    expected = alone(tiny, sets, last)
    for found in (grown, repeated):
        assert (found.figures - expected).abs().max() <= 1e-4  # of logits up to 15
    assert (expected - grown.plain).abs().amax((1, 2)).min() > 1e-4  # every one of them matters


SITES = st.one_of(
    *(
        st.builds(site, st.integers(0, 3), st.integers(0, 7))
        for site in (HeadOutput, Pattern, Scores, Query, Value)
    ),
    st.builds(Write, st.integers(0, 3), st.sampled_from(["mlp", "attention"])),
    st.builds(Residual, st.integers(0, 3), st.sampled_from(["before", "middle", "after"])),
)  # fmt: skip
WHERE = st.one_of(st.none(), st.lists(st.integers(-8, 7), min_size=1, max_size=3).map(tuple))
EDITS = st.one_of(
    st.builds(Zero, SITES, WHERE),
    st.builds(Mean, SITES, WHERE),
    st.builds(Scale, SITES, st.floats(-2, 2), WHERE),
    st.builds(lambda site, seed: Resample(site, seed=seed), SITES, st.integers(0, 9)),
    st.builds(lambda site, by: Add(site, torch.tensor(by)), SITES, st.floats(-1, 1)),
    st.builds(ForbidEdge, st.integers(0, 3), st.integers(0, 7), st.integers(0, 7), st.integers(0, 7)),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sets=st.lists(st.lists(EDITS, max_size=3), min_size=1, max_size=6))
def test_any_edits(tiny, sets):
    found = sweep_edits(tiny, sets, last)
    expected = alone(tiny, sets, last)
    assert (found.figures - expected).abs().max() <= 1e-4 * max(1, float(expected.abs().max()))


def test_a_way_that_mixes_copies_up_is_not_used(tiny, monkeypatch):
    """The check is no ornament: let the stream grow by copies of nothing, and it is noticed."""
    honest = Growth.__call__

    def wrong(self, met):
        new = honest(self, met)
        new[-1] *= 1.5
        return new

    sets = [[Zero(HeadOutput(1, head))] for head in range(8)]
    monkeypatch.setattr(Growth, "__call__", wrong)
    strongest = int((alone(tiny, sets, last) - last(tiny.result)).abs().amax((1, 2)).argmax())
    found = sweep_edits(tiny, [*sets[:strongest], *sets[strongest + 1 :], sets[strongest]], last)
    assert found.way == "repeated"


def test_progress_cancel_and_memory(tiny):
    sets = heads_of(tiny)
    one = sweep_edits(tiny, sets[:1], last).bytes
    told = []
    found = sweep_edits(tiny, sets, last, progress=told.append, memory=6 * one)
    assert found.copies == 5 and found.bytes == one
    assert len(told) == -(-len(sets) // found.copies) and told == sorted(told) and told[-1] == 1
    with pytest.raises(InputError, match=r"One run of this input takes about .* MiB, more than the 0 MiB"):
        sweep_edits(tiny, sets, last, memory=1000)
    asked = []
    with pytest.raises(Cancelled):
        sweep_edits(tiny, sets, last, cancel=lambda: asked.append(1) or len(asked) > 2, memory=6 * one)
    assert len(asked) == 3
    assert torch.equal(rerun(tiny, []).logits, tiny.logits)
    assert sweep_edits(tiny, [], last).figures.shape == (0, 1, tiny.logits.shape[-1])


def test_what_copies_take_is_within_what_one_took_times_as_many():
    cap = of_module(Model(by_sdpa), torch.randn(B, T, C))
    _, one = peak_of(lambda: rerun(cap, []))
    ten = Subject(cap.subject.module, cap.subject.encode, "ten", "encoder")
    _, many = peak_of(lambda: capture(ten, torch.randn(10 * B, T, C)))
    assert 5 * one <= many <= 15 * one
    tensor, peak = peak_of(lambda: torch.ones(1000) + torch.ones(1000))
    assert peak == 3 * 4000 and tensor.shape == (1000,)


def test_bad_edits_are_told_before_anything_runs(tiny):
    with pytest.raises(InputError, match=r"layer this run has not"):
        sweep_edits(tiny, [[Zero(HeadOutput(0, 0))], [Zero(HeadOutput(9, 0))]], last)
    with pytest.raises(InputError, match="there is no 99"):
        sweep_edits(tiny, [[Zero(HeadOutput(0, 0))], [Zero(HeadOutput(1, 0), 99)]], last)
