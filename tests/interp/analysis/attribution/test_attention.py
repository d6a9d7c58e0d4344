"""Rollout, flow and relevance: three tokens by hand, and the papers' own code on a ViT."""

import json
from pathlib import Path

import pytest
import torch

from headwise.interp.analysis.attribution import explain, features
from headwise.interp.analysis.attribution.maps import Map, averaged, maps, read_rows
from headwise.interp.analysis.attribution.model import Job
from headwise.interp.analysis.attribution.relevance import carried, encoder_decoder, normalised
from headwise.interp.analysis.attribution.rollout import flows, rolled, with_residual
from headwise.interp.analysis.targets import target
from headwise.interp.attention.call import AttentionCall
from headwise.interp.run.capture import capture, rerun
from headwise.interp.run.edits import Pattern, Replace
from headwise.models import load

A = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
B = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.6, 0.4, 0.0]])


def test_rollout_of_three_tokens():
    """Halves: A' = [1 0 0; ¼ ¾ 0; .1 .15 .75], B' = [1 0 0; 0 1 0; .3 .2 .5]; B' A' by hand."""
    torch.testing.assert_close(with_residual(A)[2], torch.tensor([0.1, 0.15, 0.75]))
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.3 + 0.05 + 0.05, 0.15 + 0.075, 0.375]])
    torch.testing.assert_close(rolled([A, B]), expected)


def test_flow_of_three_tokens():
    """From the last token of the upper layer, pipes of .3, .2, .5 lead down; to reach token 0 they can use 1, ¼ and .1:
    min(.3, 1) + min(.2, ¼) + min(.5, .1) = .6. To token 1: 0 + min(.2, ¾) + min(.5, .15) = .35. To token 2: .5."""
    layers = [with_residual(A), with_residual(B)]
    found = flows(layers, torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(found, torch.tensor([0.6, 0.35, 0.5]), atol=1e-6, rtol=0)


def test_flow_from_two_rows_is_shared():
    """From tokens 1 and 2 of one layer: to token 0 .25 + .1, to token 1 .75 + .15, to token 2 .75; each shared by 2."""
    found = flows([with_residual(A)], torch.tensor([0.0, 0.5, 0.5]))
    torch.testing.assert_close(found, torch.tensor([0.175, 0.45, 0.375]), atol=1e-6, rtol=0)


def test_relevance_of_three_tokens():
    """R = I; R ← R + A R = I + A; R ← R + B R: the last row is that of I + A, and .6, .4 times those above it."""
    first = torch.eye(3) + A
    expected = first[2] + 0.6 * first[0] + 0.4 * first[1]
    torch.testing.assert_close(carried([A, B])[2], expected)
    torch.testing.assert_close(
        normalised(first - torch.diag(torch.tensor([1.0, 0, 0]))),
        torch.eye(3) + torch.stack([torch.zeros(3), A[1], A[2]]),
    )


@pytest.mark.parametrize(
    "name, raw, row",
    [
        ("tiny-classifier", "A wonderful film", 0),  # [CLS]
        ("tiny-decoder", "The people of the United", -1),
    ],
)
def test_the_answer_is_read_where_the_model_reads_it(name, raw, row):
    cap = capture(load(name), raw)
    wanted = target(cap)
    found = read_rows(Job(features(cap), wanted), cap.stacks[0])
    expected = torch.zeros_like(found)
    expected[row] = 1
    assert torch.equal(found, expected)


def test_gradients_of_patterns_against_finite_differences():
    """∂ value / ∂ A of one cell is what the answer changes by when the cell does, over that change."""

    cap = capture(load("tiny-classifier"), "A wonderful film")
    wanted = target(cap)
    one = maps(Job(features(cap), wanted))[1]
    weights = one.weights[2][None].clone()
    step = 1e-2
    weights[0, 0, 2] += step
    changed = rerun(cap, [Replace(Pattern(one.call.layer, 2, one.call.stack), weights)])
    measured = (wanted.value(changed) - wanted.value(cap)) / step
    assert one.gradient[2, 0, 2].item() == pytest.approx(measured, rel=0.05, abs=1e-3)


PAPERS = json.loads((Path(__file__).parent / "papers.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def digit():
    """The ramp that benchmarks/papers.py sent through the papers' code."""
    reader = load("tiny-vit")
    ramp = torch.linspace(-1, 1, 28 * 28).view(1, 1, 28, 28).sin()
    cap = capture(reader, {"pixel_values": ramp})
    return cap


@pytest.mark.parametrize("name", ["attention rollout", "Chefer relevance"])
def test_the_papers_code_on_a_vit(digit, name):
    job = Job(features(digit), target(digit))
    if name == "attention rollout":
        found = rolled(averaged(digit, digit.stacks[0]))[0, 1:]
    else:
        found = carried([one.positive for one in maps(job)])[0, 1:]
    assert job.target.token == PAPERS["vit"]["class"]
    torch.testing.assert_close(found, torch.tensor(PAPERS["vit"][name]), atol=1e-5, rtol=1e-4)


def test_flow_is_the_papers(digit):
    text = PAPERS["encoder"]
    cap = capture(load("tiny-classifier"), text["text"])
    found = explain(cap, "attention flow").scores
    torch.testing.assert_close(found, torch.tensor(text["attention flow"]), atol=1e-5, rtol=1e-4)


def test_encoder_decoder_relevance_is_the_papers():
    text = PAPERS["encoder-decoder"]
    cap = capture(load("tiny-encoder-decoder"), tuple(text["pair"]))

    class Everywhere:
        """One letter at all places of the target together."""

        @staticmethod
        def measured(logits):
            return logits[..., text["token"]].sum(-1)

    of_source, of_target = encoder_decoder(maps(Job(features(cap), Everywhere())))
    torch.testing.assert_close(of_source, torch.tensor(text["source"]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(of_target, torch.tensor(text["target"]), atol=1e-5, rtol=1e-4)


def test_encoder_decoder_relevance_of_three_tokens():
    """One target token that reads A twice removed: R_ss = I + E, R_tt = I + T, R_ts = R̂_ttᵀ C R̂_ss, by hand."""

    def one(stack, weights):  # a gradient of 1, one head
        call = AttentionCall("", "cross" if stack == "cross" else "self", None, stack=stack, _versions=(None,))
        return Map(call, weights[None], torch.ones_like(weights)[None])

    cross = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    own = torch.tensor([[0.5, 0.0], [0.5, 0.5]])
    found = encoder_decoder([one("encoder", A), one("decoder", own), one("cross", cross)])
    target_ = torch.tensor([[2.0, 0.0], [0.5, 1.5]])  # I + [1 0] and [½ ½], rows of A sum to 1 as they are
    source_ = torch.eye(3) + A
    torch.testing.assert_close(found[0], target_.mT @ cross @ source_)
    torch.testing.assert_close(found[1], torch.eye(2) + own)


def test_relevance_of_the_source_and_of_what_was_written():
    cap = capture(load("tiny-encoder-decoder"), ("headwise", ""))
    found = explain(cap, "Chefer relevance", target(cap, position=3))
    written = found.of("target")[1]
    assert bool((written[4:] == 0).all()) and bool((written[:3] > 0).any()), "the future says nothing"
    assert bool((found.of("source")[1] > 0).all())
