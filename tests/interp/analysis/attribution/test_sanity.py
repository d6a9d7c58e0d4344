"""Weights made random, depth by depth: on a copy, each once, and what a map must make of it."""

import threading

import pytest
import torch

from headwise import capture, load, wrap
from headwise.interp.analysis.attribution import explain
from headwise.interp.analysis.attribution import sanity as room
from headwise.interp.analysis.attribution.faithfulness import Scores
from headwise.interp.analysis.attribution.features import features
from headwise.interp.analysis.attribution.sanity import Sanity, sanity
from headwise.interp.analysis.targets import target
from headwise.interp.errors import InputError
from headwise.interp.run.sweeping import Cancelled

REVIEW = "A dull, lifeless mess that wastes the talent of its actors."


@pytest.fixture(scope="module")
def cap():
    return capture(load("tiny-classifier"), REVIEW)


def weights_of(module):
    return {name: weight.detach().clone() for name, weight in module.state_dict().items()}


def test_depths_from_the_answer_to_the_input_and_the_model_is_not_touched(cap):
    before = weights_of(cap.subject.module)
    found = sanity(cap, "AttnLRP", target(cap))
    assert found.depths == ("as it is", "output", "block 3", "block 2", "block 1", "block 0", "embeddings")
    assert found.correlations[0] == 1 and abs(found.last) < 0.6
    after = cap.subject.module.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())


def test_every_weight_is_drawn_once_and_stays_about_as_large(cap, monkeypatch):
    drawn, copies = [], []
    copied, randomise = room._copied, room._randomise
    monkeypatch.setattr(room, "_copied", lambda cap: copies.append(copied(cap)) or copies[-1])
    monkeypatch.setattr(room, "_randomise", lambda weight, drawing: drawn.append(weight) or randomise(weight, drawing))
    sanity(cap, "saliency", target(cap))
    (module,) = copies
    assert {id(weight) for weight in drawn} == {id(weight) for weight in module.parameters()}
    assert len(drawn) == len(list(module.parameters()))
    for name, weight in module.named_parameters():
        was = cap.subject.module.get_parameter(name)
        if was.numel() > 1000:
            assert not torch.equal(was, weight)
            assert float(weight.std()) == pytest.approx(float(was.std()), rel=0.15)


def test_tied_embeddings_are_drawn_with_the_input():
    """They are the answer's weights too, but where they are random the input is."""

    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(9, 8)
            layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
            self.layers = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).layers
            self.norm = torch.nn.LayerNorm(8)
            self.head = torch.nn.Linear(8, 9, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, input_ids):
            x = self.embedding(input_ids)
            for layer in self.layers:
                x = layer(x)
            return self.head(self.norm(x))

    subject = wrap(Tied().eval())
    cap = capture(subject, {"input_ids": torch.tensor([[1, 2, 3, 4, 5]])})
    steps = room._depths(cap, cap.subject.module)
    names = {id(weight): name for name, weight in cap.subject.module.named_parameters()}
    assert [(depth, sorted({names[id(weight)].split(".")[0] for weight in weights})) for depth, weights in steps] == [
        ("output", ["norm"]), ("block 1", ["layers"]), ("block 0", ["layers"]), ("embeddings", ["embedding"])
    ]  # fmt: skip


def test_rollout_does_not_know_the_answer(cap):
    """It reads attention weights alone, so what stands behind the last block is nothing to it."""
    found = sanity(cap, "attention rollout", target(cap))
    assert found.correlations[1] == pytest.approx(1) and found.blind and "does not know the answer" in found.sentence
    assert not sanity(cap, "AttnLRP", target(cap)).blind


def test_a_map_of_the_input_alone_fails(cap, monkeypatch):
    def by_place(cap, method, aim, *, baseline=None):
        found = features(cap)
        return Scores(torch.arange(found.count, dtype=torch.float32), found, aim, method)

    monkeypatch.setattr(room, "explain", by_place)
    found = sanity(cap, "place", target(cap))
    assert found.correlations == pytest.approx([1.0] * len(found.depths)) and found.verdict == "failed"
    assert "fails" in found.sentence


@pytest.mark.parametrize("last, verdict", [(0.1, "clear"), (-0.45, "doubtful"), (0.9, "failed"),
                                           (float("nan"), "constant")])  # fmt: skip
def test_verdicts(last, verdict):
    found = Sanity("saliency", ("as it is", "embeddings"), (1.0, last))
    assert found.verdict == verdict and found.sentence.startswith("Saliency ")


def test_the_draw_is_the_same_each_time(cap):
    one, other = (sanity(cap, "saliency", target(cap)).correlations for _ in range(2))
    assert one == other and one != sanity(cap, "saliency", target(cap), seed=1).correlations


def test_another_thread_sees_the_model_as_it_is(cap):
    aim = target(cap)
    plain, seen, done = explain(cap, "saliency", aim).scores, [], threading.Event()

    def look():
        while not done.is_set():
            seen.append(explain(cap, "saliency", aim).scores)

    other = threading.Thread(target=look)
    other.start()
    try:
        sanity(cap, "saliency", aim)
    finally:
        done.set()
        other.join()
    assert seen and all(torch.equal(scores, plain) for scores in seen)


def test_cancel_and_what_cannot_be_copied(cap):
    with pytest.raises(Cancelled):
        sanity(cap, "saliency", target(cap), cancel=lambda: True)

    class Stubborn(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, input_ids):
            return self.inner(input_ids)

        def __deepcopy__(self, memo):
            raise RuntimeError("there is only one of me")

    subject = wrap(Stubborn(cap.subject.module), encode=cap.subject.encode)
    ids = {"input_ids": cap.inputs.kwargs["input_ids"]}
    with pytest.raises(InputError, match="cannot be copied"):
        stubborn = capture(subject, ids)
        sanity(stubborn, "saliency", target(stubborn))
