"""AttnLRP: lxt's explicit rules on three architectures, and each rule by hand."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headwise.interp.analysis.attribution import attribute, explain
from headwise.interp.analysis.attribution.lrp import Rules
from headwise.interp.analysis.targets import target
from headwise.interp.run.capture import capture
from headwise.models import load, wrap

LXT = json.loads((Path(__file__).parent / "lxt.json").read_text("utf-8"))


@pytest.mark.parametrize("name", LXT)
def test_lxt(name, request):
    if name == "smollm2-135m":
        request.getfixturevalue("smollm2_folder")
    cap = capture(load(name), {"input_ids": torch.tensor([LXT[name]["ids"]])})
    wanted = target(cap)
    assert wanted.token == LXT[name]["token"]
    assert wanted.value(cap) == pytest.approx(LXT[name]["logit"], abs=1e-3)
    found = explain(cap, "AttnLRP", wanted).scores
    expected = torch.tensor(LXT[name]["relevance"])
    assert float((found - expected).abs().max()) <= 1e-4 * max(1, float(expected.abs().max()))


def relevance(function, *inputs):
    """x · gradient under the rules, for the sum of what a function makes."""
    leaves = [torch.tensor(x).requires_grad_() for x in inputs]
    with Rules():
        out = function(*leaves)
    grads = torch.autograd.grad(out.sum(), leaves)
    return [(x * g).detach() for x, g in zip(leaves, grads, strict=True)], out.detach()


X = [-1.5, -0.2, 0.3, 2.0]


def by_hand_gelu(x):  # GPT-2's, as Hugging Face writes it
    return 0.5 * x * (1.0 + torch.tanh(0.7978845608 * (x + 0.044715 * torch.pow(x, 3.0))))


@pytest.mark.parametrize(
    "bend",
    [F.gelu, F.silu, torch.tanh, F.relu, by_hand_gelu, lambda x: x * torch.sigmoid(1.702 * x), nn.GELU(), torch.square],
    ids=["gelu", "silu", "tanh", "relu", "gelu by hand", "quick gelu", "module", "square"],
)
def test_an_activation_hands_all_to_its_input(bend):
    (found,), out = relevance(bend, X)
    torch.testing.assert_close(found, out, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(out, bend(torch.tensor(X)))


def test_a_product_hands_half_to_each_side():
    (left, right), out = relevance(lambda a, b: a * b, X, [1.0, 2.0, -3.0, 0.5])
    torch.testing.assert_close(left, out / 2)
    torch.testing.assert_close(right, out / 2)
    (left, right), out = relevance(lambda a, b: a @ b, [[1.0, 2.0]], [[3.0], [-1.0]])
    torch.testing.assert_close(left, torch.tensor([[1.5, -1.0]]))
    torch.testing.assert_close(right, torch.tensor([[1.5], [-1.0]]))
    (gate, up), out = relevance(lambda a, b: F.silu(a) * b, X, X[::-1])
    torch.testing.assert_close(gate + up, out)


def rms(x):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


@pytest.mark.parametrize(
    "norm",
    [rms, lambda x: F.rms_norm(x, (4,)), lambda x: F.normalize(x, dim=-1)],
    ids=["by hand", "torch", "normalize"],
)
def test_a_norm_hands_all_to_what_it_divides(norm):
    (found,), out = relevance(norm, X)
    torch.testing.assert_close(found, out, atol=1e-6, rtol=1e-5)


def test_a_layer_norm_written_out_is_torchs():
    def by_hand(x):
        centred = x - x.mean(-1, keepdim=True)
        return centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + 1e-5)

    (one,), value = relevance(lambda x: F.layer_norm(x, (4,)) * torch.tensor([1.0, 2.0, 3.0, 4.0]), X)
    (other,), _ = relevance(lambda x: by_hand(x) * torch.tensor([1.0, 2.0, 3.0, 4.0]), X)
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(value, F.layer_norm(torch.tensor(X), (4,)) * torch.tensor([1.0, 2.0, 3.0, 4.0]))


def test_attention_written_out_is_torchs():
    q, k, v = (torch.randn(1, 2, 5, 4).tolist() for _ in range(3))
    one, value = relevance(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), q, k, v)

    def by_hand(q, k, v):
        scores = (q @ k.transpose(-1, -2)) / 2
        return scores.masked_fill(~torch.ones(5, 5, dtype=torch.bool).tril(), -torch.inf).softmax(-1) @ v

    other, _ = relevance(by_hand, q, k, v)
    third, _ = relevance(
        lambda q, k, v: torch.einsum(
            "bhqk,bhkd->bhqd",
            (torch.einsum("bhqd,bhkd->bhqk", q, k) / 2)
            .masked_fill(~torch.ones(5, 5, dtype=torch.bool).tril(), -torch.inf)
            .softmax(-1),
            v,
        ),
        q, k, v,
    )  # fmt: skip
    for mine, theirs, again in zip(one, other, third, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(mine, again, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(sum(one[2].flatten()), value.sum() / 2, atol=1e-5, rtol=1e-4)


def test_multihead_attention_has_the_rules_inside():
    """nn.MultiheadAttention is one operation for torch; inside it the values have half of the relevance."""

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(7, 8)
            self.attend = nn.MultiheadAttention(8, 2, bias=False, batch_first=True)

        def forward(self, input_ids):
            x = self.embed(input_ids)
            return self.attend(x, x, x, need_weights=False)[0].mean(1)

    module = Reader()
    subject = wrap(module, encode=lambda raw: {"input_ids": raw}, kind="encoder")
    ids = torch.tensor([[1, 4, 2]])
    found = attribute(subject, ids, "AttnLRP", target=3).scores

    def by_hand(x):
        q, k, v = F.linear(x, module.attend.in_proj_weight.detach()).chunk(3, -1)
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in (q, k, v))
        out = ((q @ k.transpose(-1, -2)) / 2).softmax(-1) @ v
        return F.linear(out.transpose(1, 2).flatten(2), module.attend.out_proj.weight.detach()).mean(1)[:, 3]

    (expected,), _ = relevance(by_hand, module.embed(ids).tolist())
    torch.testing.assert_close(found, expected[0].sum(-1), atol=1e-6, rtol=1e-4)
