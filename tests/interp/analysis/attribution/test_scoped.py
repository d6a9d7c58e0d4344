"""Attributions keep to their thread and leave nothing behind, also after an exception."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import _get_current_function_mode_stack

from headwise.interp.analysis.attribution import METHODS, attribute, explain
from headwise.interp.analysis.targets import target
from headwise.interp.errors import InputError
from headwise.interp.run.capture import capture
from headwise.models import load, wrap

THREADS = 8
CAPTUM = [name for name, method in METHODS.items() if method.family in ("gradients", "removal")]
TEXTS = [f"The {word} of the United States" for word in ("people", "laws", "army", "trade")]


@pytest.mark.parametrize("method", [*CAPTUM, "AttnLRP"])
def test_eight_threads_on_one_model(method):
    """All at once, on four inputs, while another thread reads the model plainly."""
    caps = [capture(load("tiny-decoder"), text) for text in TEXTS]
    alone = [explain(cap, method, steps=16).scores for cap in caps]
    with ThreadPoolExecutor(THREADS + 1) as pool:
        plain = pool.submit(lambda: [capture(cap.subject, cap.inputs).logits for cap in caps * 2])
        found = list(pool.map(lambda cap: explain(cap, method, steps=16).scores, caps * (THREADS // len(caps))))
    for one, expected in zip(found, alone * 2, strict=True):
        torch.testing.assert_close(one, expected, atol=1e-5, rtol=1e-4)
    for logits, cap in zip(plain.result(), caps * 2, strict=True):
        assert torch.equal(logits, cap.logits) and not logits.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_the_shared_module_is_not_touched(method):
    subject = load("tiny-classifier")
    before = capture(subject, "A fine film")
    numbers = {name: (p, p.detach().clone(), p.requires_grad) for name, p in subject.module.named_parameters()}
    explain(before, method)
    for name, parameter in subject.module.named_parameters():
        same, value, gradient = numbers[name]
        assert parameter is same and torch.equal(parameter, value)
        assert parameter.requires_grad == gradient and parameter.grad is None
    assert_clean(subject.module)
    assert torch.equal(capture(subject, "A fine film").logits, before.logits)


FAILS = [False]  # here, where copies of a module see it too


class Failing(nn.Module):
    """Fails, while ``FAILS`` says so, where a gradient is wanted."""

    def __init__(self):
        super().__init__()
        self.embed, self.up, self.bend, self.down = nn.Embedding(9, 5), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 9)

    def forward(self, input_ids):
        x = self.bend(self.up(self.embed(input_ids)))
        if x.requires_grad and FAILS[0]:
            raise ZeroDivisionError("in the middle of the model")
        return self.down(x).mean(1)


@pytest.mark.parametrize("method", ["integrated gradients", "saliency", "DeepLIFT", "GradientSHAP", "AttnLRP"])
def test_nothing_stays_behind_after_an_exception(method):
    module = Failing().requires_grad_(False)
    subject = wrap(module, encode=lambda raw: {"input_ids": raw}, kind="encoder")
    cap = capture(subject, torch.tensor([[1, 7, 3, 2]]))
    wanted, numbers, drawn = target(cap), explain(cap, method).scores, torch.random.get_rng_state()
    FAILS[0] = True
    try:
        with pytest.raises(InputError, match="in the middle of the model"):
            explain(cap, method, wanted)
    finally:
        FAILS[0] = False
    assert_clean(module)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert torch.equal(capture(subject, cap.inputs).logits, cap.logits)
    assert torch.equal(explain(cap, method, wanted).scores, numbers)


def assert_clean(module):
    assert not _get_current_function_mode_stack()
    for part in module.modules():
        assert not (part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks)


# -- small models in which every number is known -----------------------------------------------------------------------
class Small(nn.Module):
    """A decoder without biases, each step of it one that AttnLRP has a rule for."""

    def __init__(self, bend=F.relu, gated=False):
        super().__init__()
        self.embed = nn.Embedding(13, 8)
        self.maps = nn.ModuleDict({name: nn.Linear(8, 8, bias=False) for name in ("q", "v", "o", "up", "down")})
        self.head, self.bend, self.gated = nn.Linear(8, 13, bias=False), bend, gated

    def forward(self, input_ids):
        x, m = self.embed(input_ids), self.maps
        for _ in range(2):
            h = F.rms_norm(x, x.shape[-1:])
            v = m["v"](h).cumsum(1) / torch.arange(1.0, x.shape[1] + 1)[:, None]
            x = x + m["o"](torch.sigmoid(m["q"](h)) * v if self.gated else v)
            x = x + m["down"](self.bend(m["up"](F.rms_norm(x, x.shape[-1:]))))
        return self.head(x)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("bend", [F.relu, F.gelu, F.silu, torch.tanh, lambda x: x * torch.sigmoid(1.702 * x)])
def test_all_relevance_reaches_the_tokens(bend, gated):
    """Without biases the scores of AttnLRP add up to the logit (Achtibat et al. 2024, §3.1)."""
    subject = wrap(Small(bend, gated), encode=lambda raw: {"input_ids": raw}, kind="decoder")
    found = attribute(subject, torch.tensor([[3, 1, 4, 1, 5]]), "AttnLRP", target=6)
    assert float(found.scores.sum()) == pytest.approx(found.target.value(found.features.cap), rel=1e-4, abs=1e-6)


WEIGHTS = (
    torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.6, 0.2]]),
    torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]),
)


class Fixed(nn.Module):
    """Two layers that attend by ``WEIGHTS``; the answer is read at the last of three tokens."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)

    def forward(self, input_ids):
        x = self.embed(input_ids)
        for weights in WEIGHTS:
            keys = weights.log().clamp_min(-1e4).mT[None]  # queries are the identity: scores are log A
            x = x + F.scaled_dot_product_attention(torch.eye(3)[None], keys, x, scale=1.0)
        return self.head(x)


def test_rollout_and_flow_of_a_whole_model_by_hand():
    """½(A + I): rows (1, 0, 0), (¼, ¾, 0), (0.1, 0.3, 0.6) below; (0, ¼, ¾) is the last above. Rollout: ¼ · ¼ + ¾ · 0.1
    = 0.1375, ¼ · ¾ + ¾ · 0.3 = 0.4125, ¾ · 0.6 = 0.45. Flow: min(¼, ¼) + min(¾, 0.1) = 0.35, min(¼, ¾) + min(¾, 0.3) =
    0.55 and 0.6, to a sum of 1."""
    subject = wrap(Fixed(), encode=lambda raw: {"input_ids": raw}, kind="decoder")
    ids = torch.tensor([[3, 1, 4]])
    assert attribute(subject, ids, "attention rollout").scores.tolist() == pytest.approx([0.1375, 0.4125, 0.45])
    found = attribute(subject, ids, "attention flow").scores
    assert found.tolist() == pytest.approx([0.35 / 1.5, 0.55 / 1.5, 0.6 / 1.5], abs=1e-6)


class Reader(nn.Module):
    """One attention with weights ½, ¼, ¼ at the last of three tokens; the answer is Σ weight × value there, so that its
    gradient by a weight is the value: 2, −1 or 4."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding.from_pretrained(torch.tensor([[2.0], [-1.0], [4.0]]))

    def forward(self, input_ids):
        keys = torch.tensor([[0.5], [0.25], [0.25]]).log()[None]
        said = F.scaled_dot_product_attention(torch.ones(1, 3, 1), keys, self.embed(input_ids), scale=1.0)
        return torch.cat([said, -said], -1)[:, -1:].expand(-1, 3, -1)


@pytest.mark.parametrize("method", ["Chefer relevance", "gradient x attention"])
def test_relevance_of_a_whole_model_by_hand(method):
    """(∇A ⊙ A)⁺ is (½ · 2, 0, ¼ · 4) by both, since there is but one layer and one head."""
    subject = wrap(Reader(), encode=lambda raw: {"input_ids": raw}, kind="decoder")
    found = attribute(subject, torch.tensor([[0, 1, 2]]), method, target=0)
    assert found.scores.tolist() == pytest.approx([1.0, 0.0, 1.0], abs=1e-6)
