"""Ablations against TransformerLens, plain runs and what is known of these models."""

import json
import random
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from headwise import ablate, capture, load, rerun
from headwise.interp.analysis.ablation import measuring
from headwise.interp.analysis.metrics import Induction, ToPrevious, repeated_random, sweep
from headwise.interp.analysis.targets import target
from headwise.interp.errors import InputError
from headwise.interp.run.edits import HeadOutput, Key, Mean, MeanHead, Pattern, Residual, Write, Zero, ZeroHead
from headwise.interp.run.sweeping import Cancelled, sweep_edits
from headwise.interp.subject import Subject, tensors_only

TEXT = "When Mary and John went to the store, John gave a drink to"
PEER = json.loads(Path(__file__).with_name("transformerlens.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def story(smollm2_folder):
    return capture(load("smollm2-135m"), TEXT)


@pytest.fixture(scope="module")
def heads(story):
    return ablate(story, target=" Mary", against=" John")


@pytest.fixture(scope="module")
def tiny():
    return capture(load("tiny-decoder"), "The people of the United States")


def test_heads_of_smollm2_as_transformerlens_has_them(story, heads):
    """benchmarks/transformerlens.py wrote its figures."""
    assert heads.attrs["plain"] == pytest.approx(PEER["plain"], abs=1e-4)
    effects = torch.tensor(heads.effect.tolist()).view(30, 9)
    assert (effects[PEER["layers"]] - torch.tensor(PEER["heads mean"])).abs().max() <= 1e-4
    assert [*zip(heads.layer, heads["head"], strict=True)] == [(n, h) for n in range(30) for h in range(9)]
    assert heads.attrs["way"] == "grown" and heads.attrs["gap"] <= 1e-4 and heads.attrs["copies"] > 30
    silent = ablate(story, [HeadOutput(n, h) for n in PEER["layers"] for h in range(9)], "zero", " Mary", " John")
    expected = torch.tensor(PEER["heads zero"]).flatten()
    assert (torch.tensor(silent.effect.tolist()) - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("how", ["zero", "mean"])
def test_mlps_of_smollm2_as_transformerlens_has_them(story, how):
    found = ablate(story, "mlps", how, target=" Mary", against=" John")
    assert found.block.tolist() == [*range(30)] and set(found.kind) == {"mlp"}
    expected = torch.tensor(PEER[f"mlps {how}"])
    assert (torch.tensor(found.effect.tolist()) - expected).abs().max() <= 1e-4 * max(1, float(expected.abs().max()))


def test_five_heads_carry_the_name(story, heads):
    """The five without which most is lost take away more than the whole difference; no five at random come near."""
    wanted = target(story, " Mary", " John")
    assert heads.attrs["plain"] == pytest.approx(6.12, abs=0.01)
    five = [(int(r.layer), int(r.head)) for r in heads.nsmallest(5, "effect").itertuples()]
    draw = random.Random(0)
    places = [(n, h) for n in range(30) for h in range(9)]
    sets = [five, *(draw.sample(places, 5) for _ in range(20))]
    found = sweep_edits(story, [[MeanHead(*place) for place in some] for some in sets], measuring(wanted))
    moved, *others = (found.figures - found.plain)[:, 0].tolist()
    assert moved == pytest.approx(-7.0, abs=0.1)
    assert min(others) > 0.6 * moved and sum(others) / 20 > -1


def test_without_its_previous_token_head_a_model_does_not_induce():
    """Elhage et al. 2021: the induction head looks for the token that a previous-token head has put there."""
    subject = load("tiny-attention-only")
    inputs, start = repeated_random(subject, 24)
    cap = capture(subject, inputs)
    length = 24
    measures = [ToPrevious, partial(Induction, start, length)]
    table = sweep(cap, measures)
    previous = table.loc[table["previous"].idxmax()]
    induction = table.loc[table.induction.idxmax()]
    without = sweep(rerun(cap, [ZeroHead(int(previous.layer), int(previous["head"]))]), measures)
    after = without.loc[table.induction.idxmax(), "induction"]
    assert previous.layer < induction.layer and induction.induction > 0.5
    assert after < 0.2 * induction.induction
    ids = inputs.kwargs["input_ids"]

    def right(run):
        """How often the second copy is foretold."""
        foretold = run.logits[:, start + length : -1].argmax(-1)
        return float((foretold == ids[:, start + length + 1 :]).float().mean())

    others = [place for place in zip(table.layer, table["head"], strict=True) if place[0] == previous.layer]
    spared = [right(rerun(cap, [ZeroHead(*map(int, p))])) for p in others if p[1] != previous["head"]]
    gone = right(rerun(cap, [ZeroHead(int(previous.layer), int(previous["head"]))]))
    assert right(cap) > 0.9 and gone < 0.1 and sorted(spared)[-2] > 0.9  # two others of that layer can be spared


def test_all_writes_and_listed_sites(tiny):
    table = ablate(tiny, "writes", "zero")
    assert [*zip(table.block, table.kind, strict=True)] == [(b, k) for b in range(4) for k in ("attention", "mlp")]
    wanted = target(tiny)
    for row in table.itertuples():
        edited = rerun(tiny, [Zero(Write(row.block, row.kind))])
        assert row.effect == pytest.approx(wanted.value(edited) - wanted.value(tiny), abs=1e-4)
    sites = [HeadOutput(1, 2), Pattern(0, 3), Key(2, 1), Residual(1, "before"), Write(3, "mlp")]
    mixed = ablate(tiny, sites, "mean")
    expected = [wanted.value(rerun(tiny, [Mean(site)])) - wanted.value(tiny) for site in sites]
    assert mixed.effect.tolist() == pytest.approx(expected, abs=1e-4)
    assert mixed.attrs["target"] == str(wanted) and mixed.attrs["how"] == "mean"
    resampled = ablate(tiny, how="resample")
    assert len(resampled) == 32 and resampled.effect.abs().max() > 0.1


def test_every_stack_of_an_encoder_decoder():
    cap = capture(load("tiny-encoder-decoder"), ("knight", "nˈIt"))
    table = ablate(cap)
    assert list(dict.fromkeys(table["stack"])) == list(cap.stacks) and len(table) == sum(c.heads for c in cap.calls)
    assert table.attrs["way"] == "repeated"
    wanted = target(cap)
    row = table.loc[table.effect.abs().idxmax()]
    edited = rerun(cap, [MeanHead(int(row.layer), int(row["head"]), row["stack"])])
    assert row.effect == pytest.approx(wanted.value(edited) - wanted.value(cap), abs=1e-4)


def test_what_cannot_be_asked(tiny):
    with pytest.raises(InputError, match="same"):
        ablate(tiny, target=" the", against=" the")
    with pytest.raises(InputError, match="how to be zero, mean, resample; got 'half'"):
        ablate(tiny, how="half")
    with pytest.raises(InputError, match="'heads', 'mlps', 'writes' or a list of sites; got 'neurons'"):
        ablate(tiny, "neurons")
    with pytest.raises(InputError, match="names a head that is not there"):
        ablate(tiny, [HeadOutput(0, 8)])
    with pytest.raises(Cancelled):
        ablate(tiny, cancel=lambda: True)

    class Bag(nn.Module):
        def forward(self, x):
            return (x @ x.mT).softmax(-1) @ x

    module = Bag()
    cap = capture(Subject(module, tensors_only(module), "bag", "encoder"), {"x": torch.randn(1, 4, 8)})
    with pytest.raises(InputError, match="writes of bag are not known"):
        ablate(cap, "mlps", target=1)
