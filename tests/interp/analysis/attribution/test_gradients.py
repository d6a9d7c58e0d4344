"""Attributions by gradients are Captum's, called by hand on the embeddings; they add up where they promise it."""

import captum.attr as captum
import numpy as np
import pytest
import torch
from torch import nn

from headwise.interp.analysis.attribution import attribute, explain
from headwise.interp.analysis.attribution.gradients import CUT
from headwise.interp.analysis.targets import target
from headwise.interp.errors import InputError
from headwise.interp.run.capture import capture
from headwise.interp.subject import Inputs, Subject
from headwise.models import load, wrap

TEXT = "A wonderful film with a bad ending"


class Bag(nn.Module):
    """Logits are a linear function of the summed embeddings: a token's attribution is its own dot product."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)

    def forward(self, input_ids):
        return self.head(self.embed(input_ids).cumsum(1))  # (B, T, V)


@pytest.mark.parametrize("method", ["integrated gradients", "input x gradient", "DeepLIFT"])
def test_linear_model_by_hand(method):
    module = Bag()
    subject = Subject(module, lambda raw: Inputs({"input_ids": raw}), "bag", "decoder", vocab_size=11)
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    found = attribute(subject, ids, method, target=7, against=2)
    expected = (module.embed(ids)[0] @ (module.head.weight[7] - module.head.weight[2])).detach()
    torch.testing.assert_close(found.scores, expected, atol=1e-5, rtol=1e-4)
    assert found.gap is None or found.gap < 1e-4
    assert (found.target.token, found.target.against, found.target.position) == (7, 2, 4)


@pytest.fixture(scope="module")
def classifier():
    """The tiny classifier's embedding step by hand: what comes after token_embedding, as a function of it."""
    cap = capture(load("tiny-classifier"), TEXT)
    module, ids = cap.subject.module, cap.inputs.kwargs["input_ids"]
    answer = target(cap).token

    def value(x):
        segments, places = module.segment_embedding.weight[0], module.position_embedding.weight[: ids.shape[1]]
        x = module.embedding_norm(x + segments + places)
        for block in module.blocks:
            x = block(x, None)
        return module.classifier(module.pool(x))[:, answer]

    embedded = module.token_embedding(ids).detach()
    zero = embedded.clone()
    zero[:, 1:-1] = 0  # [CLS] and [SEP] stay
    return cap, value, embedded, zero


def by_hand(name, value, embedded, zero):
    if name == "integrated gradients":
        return captum.IntegratedGradients(value).attribute(embedded, zero, n_steps=64)
    if name == "saliency":
        return captum.Saliency(value).attribute(embedded.requires_grad_())
    if name == "input x gradient":
        return captum.InputXGradient(value).attribute(embedded.requires_grad_())
    np.random.seed(0)
    torch.manual_seed(0)
    spread = 0.1 * float(embedded.std())
    method = captum.GradientShap(value)
    parts = [method.attribute(embedded, zero, n_samples=16, stdevs=spread) for _ in range(4)]
    return sum(parts) / 4


@pytest.mark.parametrize("name", ["integrated gradients", "saliency", "input x gradient", "GradientSHAP"])
def test_captum_by_hand(classifier, name):
    cap, value, embedded, zero = classifier
    expected = by_hand(name, value, embedded.clone(), zero)[0].sum(-1).detach()
    found = explain(cap, name)
    torch.testing.assert_close(found.scores, expected, atol=1e-4, rtol=1e-3)


def test_deeplift_by_hand(classifier):
    """Captum's own, with its hooks, on a model of which it knows the modules' rules; the shared model has none."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.up, self.bend = nn.Embedding(9, 5), nn.Linear(5, 7), nn.ReLU()
            self.down = nn.Linear(7, 9)

        def forward(self, input_ids):
            return self.after(self.embed(input_ids))

        def after(self, x):
            return self.down(self.bend(self.up(x)).mean(1))

    class After(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net.after(x)

    net = Net()
    ids = torch.tensor([[1, 7, 3, 2]])
    subject = wrap(net, encode=lambda raw: {"input_ids": raw}, kind="encoder")
    found = attribute(subject, ids, "DeepLIFT", target=4, baseline="zero")
    x = net.embed(ids).detach()
    expected = captum.DeepLift(After(net)).attribute(x, torch.zeros_like(x), target=4)[0].sum(-1).detach()
    torch.testing.assert_close(found.scores, expected, atol=1e-6, rtol=1e-5)
    assert found.gap < 1e-5  # all rules are there, so the scores add up


def test_scores_of_trained_models_add_up():
    for name, raw in (("tiny-decoder", "The Congress of the United"), ("tiny-encoder-decoder", ("headwise", ""))):
        found = attribute(load(name), raw)
        assert found.gap < 0.05
    assert len(found.of("target")[1]) == len(found.of("target")[0])
    with pytest.raises(InputError, match="source, target"):
        found.of("input")


def test_a_way_that_jumps_is_cut_until_the_scores_add_up():
    """A steep step on the way, which 8 points miss: its whole change belongs to the one token that makes it."""

    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding.from_pretrained(torch.tensor([[0.0], [1.0], [2.0]]))

        def forward(self, input_ids):
            x = self.embed(input_ids)[:, 0]
            return torch.cat([torch.sigmoid(400 * (x - 0.313)), x], -1)

    subject = wrap(Step(), encode=lambda raw: {"input_ids": raw}, kind="encoder")
    found = attribute(subject, torch.tensor([[1, 2]]), target=0, steps=8, baseline="zero")
    assert found.scores.tolist() == pytest.approx([1.0, 0.0], abs=0.05) and found.gap <= 0.05
    assert found.note.startswith(CUT.split("{")[0]) and "8 steps" in found.note


def test_real_weights_add_up_at_default_steps(smollm2_folder):
    """Where RMSNorm makes zero a cliff, the mean token is the usual baseline."""
    found = attribute(load("smollm2-135m"), "The capital of France is", target=" Paris", against=" Rome")
    assert found.baseline == "mean" and found.gap <= 0.05


def test_nothing_stays_behind():
    subject = load("tiny-decoder")
    before = [parameter.requires_grad for parameter in subject.module.parameters()]
    state = np.random.get_state()[1].copy(), torch.random.get_rng_state()
    for method in ("GradientSHAP", "DeepLIFT", "AttnLRP", "saliency"):
        attribute(subject, "The people", method)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in subject.module.modules())
    assert [parameter.requires_grad for parameter in subject.module.parameters()] == before
    assert all(parameter.grad is None for parameter in subject.module.parameters())
    assert (np.random.get_state()[1] == state[0]).all() and torch.equal(torch.random.get_rng_state(), state[1])


def test_what_was_captured_is_not_touched():
    picture = capture(load("tiny-vit"), {"pixel_values": torch.rand(1, 1, 28, 28)})
    for method in ("saliency", "input x gradient", "integrated gradients", "occlusion"):
        explain(picture, method)
    assert not picture.inputs.kwargs["pixel_values"].requires_grad


def test_a_module_without_tokens_is_refused():
    class Counter(nn.Module):
        def forward(self, input):
            return input.float()

    with pytest.raises(InputError, match="looks up no tokens"):
        attribute(wrap(Counter()), {"input": torch.ones(1, 2, dtype=torch.long)})
