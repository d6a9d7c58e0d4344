"""Attention written by hand: the queries and keys behind a softmax, followed from their product, equal what the model
multiplied; what is not followed shows its scores only."""

import math

import pytest
import torch
import transformers
from torch import Tensor, nn

from headwise import capture, wrap
from tests.interp.run.test_parity import DECODERS, ENCODERS, build, eager

B, H, T, D = 2, 3, 5, 4


class ByHand(nn.Module):
    """One attention, its scores made by ``scores(q, k)`` → (B, H, Q, K)."""

    def __init__(self, scores, groups: int = 1):
        super().__init__()
        self.made, self.groups = scores, groups
        self.maps = nn.ModuleList(nn.Linear(H * D, H * D) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        self.q, self.k, v = (m(x).view(B, -1, H, D).transpose(1, 2) for m in self.maps)
        return self.made(self.q, self.k).softmax(-1) @ v


BIAS = torch.randn(1, H, T, T, generator=torch.Generator().manual_seed(0))
HIDDEN = torch.ones(T, T).triu(1).bool()


def in_place(q, k):
    scores = q @ k.mT
    scores /= 2.0
    scores += BIAS
    return scores.masked_fill_(HIDDEN, -math.inf)


FOLLOWED = {  # how scores are made → the scale
    "plain": (lambda q, k: q @ k.mT, 1.0),
    "scaled after": (lambda q, k: (q @ k.transpose(-1, -2)) / math.sqrt(D), 0.5),
    "scaled by a tensor": (lambda q, k: torch.matmul(q, k.mT) * torch.tensor(0.25), 0.25),
    "biased and masked": (in_place, 0.5),
    "in float32": (lambda q, k: (0.3 * (q @ k.mT)).to(torch.float32).masked_fill(HIDDEN, -1e4), 0.3),
    "capped": (lambda q, k: 3 * torch.tanh(q @ k.mT * 0.5 / 3), 0.5),
    "einsum": (lambda q, k: torch.einsum("bhid,bhjd->bhij", q, k) * 0.5, 0.5),
    "bmm": (lambda q, k: torch.bmm(q.reshape(B * H, T, D), k.reshape(B * H, T, D).mT).view(B, H, T, T) * 0.5, 0.5),
    "baddbmm": (
        lambda q, k: torch.baddbmm(
            BIAS.expand(B, -1, -1, -1).reshape(B * H, T, T),
            q.reshape(B * H, T, D),
            k.reshape(B * H, T, D).mT,
            alpha=0.2,
        ).view(B, H, T, T),
        0.2,
    ),
}
NOT_FOLLOWED = {
    "distances": lambda q, k: -torch.cdist(q, k),
    "two products": lambda q, k: q @ k.mT + k @ q.mT,
    "negated": lambda q, k: 1.0 - q @ k.mT,
    "squared": lambda q, k: (q @ k.mT) ** 2,
    "heads mixed": lambda q, k: torch.einsum("bhij,hg->bgij", q @ k.mT, torch.eye(H).roll(1, 0)),
    "heads turned": lambda q, k: (q @ k.mT).flip(1),
}


@pytest.mark.parametrize("how", FOLLOWED)
def test_queries_and_keys_are_the_ones_that_met(how):
    make, scale = FOLLOWED[how]
    module = ByHand(make)
    (call,) = capture(wrap(module), torch.randn(B, T, H * D)).calls
    assert call.scale == pytest.approx(scale)
    for head in range(H):
        assert torch.equal(call.query_vectors(head), module.q[:, head].detach())
        assert torch.equal(call.key_vectors(head), module.k[:, head].detach())
        products = scale * module.q[:, head] @ module.k[:, head].mT
        torch.testing.assert_close(call.scores(head), products.detach() + call.added(head))


def test_what_was_added_is_the_bias_and_the_mask():
    (call,) = capture(wrap(ByHand(in_place)), torch.randn(B, T, H * D)).calls
    expected = BIAS[0, 1].masked_fill(HIDDEN, -math.inf).expand(B, -1, -1)
    torch.testing.assert_close(call.added(1), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("how", NOT_FOLLOWED)
def test_what_is_no_product_shows_its_scores_only(how):
    (call,) = capture(wrap(ByHand(NOT_FOLLOWED[how])), torch.randn(B, T, H * D)).calls
    assert call.scale is None
    with pytest.raises(ValueError, match="only its scores were seen"):
        call.query_vectors(0)


def test_keys_overwritten_since_are_noticed_and_weights_stay():
    module = ByHand(FOLLOWED["plain"][0])
    (call,) = capture(wrap(module), torch.randn(B, T, H * D)).calls
    weights = call.weights(0).clone()
    with torch.no_grad():
        module.k.zero_()
    assert torch.equal(call.weights(0), weights)
    with pytest.raises(RuntimeError, match="overwrote"):
        call.key_vectors(0)


def test_following_changes_nothing():
    for make, _ in FOLLOWED.values():
        module, x = ByHand(make), torch.randn(B, T, H * D)
        with torch.no_grad():
            plain = module(x)
        assert torch.equal(capture(wrap(module), x).logits, plain)


HIDES, ADDS = ("Bert", "Albert", "DistilBert", "Llama", "Qwen3", "GPT2", "GPTNeo", "GPTJ", "OPT"), ("MPNet", "Bloom")


@pytest.mark.parametrize("name", (*HIDES, *ADDS))
def test_eager_models_of_hugging_face(name):
    """Scores are q·k·scale plus nothing but a mask, or plus a bias where the architecture has one."""
    auto = transformers.AutoModel if name in ENCODERS else transformers.AutoModelForCausalLM
    module = eager(build(name, (ENCODERS | DECODERS)[name], auto), auto)
    cap = capture(wrap(module), {"input_ids": torch.randint(2, 98, (2, 12))})
    for call in cap.calls:
        assert call.seen == "softmax" and call.scale is not None
        added = torch.stack([call.added(head) for head in range(call.heads)], 1)
        scores = torch.stack([call.scores(head) for head in range(call.heads)], 1)
        largest = float(added[scores > -9_000].abs().max())
        assert (largest > 0.1) if name in ADDS else (largest < 1e-5)
