"""Each edit against the same computation changed by hand, under every way attention is written."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headwise.interp.masks import Bidirectional, Causal, Window
from headwise.interp.run.capture import capture
from headwise.interp.run.edits import ForbidEdge, MeanHead, ReplaceMask, ZeroHead
from headwise.interp.subject import Subject, tensors_only

B, H, T, D = 2, 3, 5, 4
C = H * D


def by_sdpa(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def by_sdpa_with_a_mask(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=torch.ones(T, T).tril().bool())


def by_sdpa_with_a_bias(q, k, v):
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=torch.zeros(T, T).masked_fill(~Causal().dense(T), -math.inf)
    )


def by_sdpa_of_three_axes(q, k, v):
    return F.scaled_dot_product_attention(*(t.reshape(-1, T, D) for t in (q, k, v)), is_causal=True).view(-1, H, T, D)


def by_hand(q, k, v):
    return (q @ k.mT / D**0.5).masked_fill(~Causal().dense(T), -math.inf).softmax(-1) @ v


def by_bmm(q, k, v):
    q, k, v = (t.reshape(-1, T, D) for t in (q, k, v))
    return torch.bmm((q @ k.mT / D**0.5).masked_fill(~Causal().dense(T), -math.inf).softmax(-1), v).view(-1, H, T, D)


def by_values_first(q, k, v):
    return (v.mT @ (q @ k.mT / D**0.5).masked_fill(~Causal().dense(T), -math.inf).softmax(-1).mT).mT


def by_values_first_and_a_copy(q, k, v):
    return (v.mT @ (q @ k.mT / D**0.5).masked_fill(~Causal().dense(T), -math.inf).softmax(-1).mT.contiguous()).mT


def by_scores_transposed(q, k, v):
    return (k @ q.mT / D**0.5).masked_fill(~Causal().dense(T).mT, -math.inf).softmax(-2).mT @ v


def by_einsum(q, k, v):
    q, k, v = (t.permute(2, 0, 1, 3) for t in (q, k, v))  # (T, B, H, D)
    scores = torch.einsum("ibnd,jbnd->ijbn", q, k) / D**0.5
    weights = scores.masked_fill(~Causal().dense(T)[:, :, None, None], -math.inf).softmax(1)
    return torch.einsum("ijbn,jbnd->ibnd", weights, v).permute(1, 2, 0, 3)


WAYS = (
    by_sdpa,
    by_sdpa_with_a_mask,
    by_sdpa_with_a_bias,
    by_sdpa_of_three_axes,
    by_hand,
    by_bmm,
    by_values_first,
    by_values_first_and_a_copy,
    by_scores_transposed,
    by_einsum,
)


class Attention(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.way, self.qkv, self.out = way, nn.Linear(C, 3 * C), nn.Linear(C, C)

    def project(self, x):
        return self.qkv(x).view(-1, T, 3, H, D).permute(2, 0, 3, 1, 4)  # q, k, v, each (B, H, T, D)

    def forward(self, x):
        return self.out(self.way(*self.project(x)).transpose(1, 2).reshape(-1, T, C))


class Model(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.layers = nn.ModuleList(Attention(way) for _ in range(2))

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x


def changed(model, x, where, change):
    """The run by hand; ``change(scores, v, heads)`` gives the heads (B, H, T, D) of layer ``where``."""
    for n, layer in enumerate(model.layers):
        q, k, v = layer.project(x)
        scores = q @ k.mT / D**0.5
        heads = scores.masked_fill(~Causal().dense(T), -math.inf).softmax(-1) @ v
        heads = change(scores, v, heads) if n == where else heads
        x = x + layer.out(heads.transpose(1, 2).reshape(B, T, C))
    return x


def zero_head_1(scores, v, heads):
    return heads * torch.tensor([1.0, 0.0, 1.0])[:, None, None]


def mean_head_2(scores, v, heads):
    return torch.cat([heads[:, :2], heads[:, 2:].mean(2, keepdim=True).expand(-1, -1, T, -1)], 1)


def under(allowed):
    def change(scores, v, heads):
        return scores.masked_fill(~allowed, -math.inf).softmax(-1) @ v

    return change


def without_edge(head):
    allowed = Causal().dense(T).repeat(H, 1, 1)
    allowed[slice(None) if head is None else head, 3, 1] = False
    return under(allowed)


CASES = {
    "zero": (ZeroHead(1, 1), 1, zero_head_1),
    "mean": (MeanHead(0, 2), 0, mean_head_2),
    "edge of one head": (ForbidEdge(1, 3, 1, head=2), 1, without_edge(2)),
    "edge of all heads": (ForbidEdge(0, 3, 1), 0, without_edge(None)),
    "narrower mask": (ReplaceMask(1, Causal() & Window(1, 0)), 1, under((Causal() & Window(1, 0)).dense(T))),
}


@pytest.mark.parametrize("way", WAYS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("case", CASES)
def test_edits(case, way):
    edit, layer, change = CASES[case]
    model = Model(way).eval()
    x = torch.randn(B, T, C)
    with torch.no_grad():
        plain, expected = model(x), changed(model, x, layer, change)
    assert (plain - expected).abs().max() > 1e-3
    cap = capture(Subject(model, tensors_only(model), "model", "decoder"), {"x": x}, edits=(edit,))
    torch.testing.assert_close(cap.logits, expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        assert torch.equal(model(x), plain)  # the shared module is as it was


@pytest.mark.parametrize("way", [by_sdpa, by_sdpa_with_a_mask, by_sdpa_with_a_bias], ids=lambda f: f.__name__)
def test_a_mask_can_be_opened_where_sdpa_applies_it(way):
    model, x = Model(way).eval(), torch.randn(B, T, C)
    cap = capture(
        Subject(model, tensors_only(model), "model", "decoder"),
        {"x": x},
        edits=(ReplaceMask(0, Bidirectional()),),
    )
    with torch.no_grad():
        expected = changed(model, x, 0, under(torch.ones(T, T).bool()))
    torch.testing.assert_close(cap.logits, expected, atol=1e-5, rtol=1e-5)
    assert float(cap.find(0).weights(0)[:, 0, -1].min()) > 0


def test_a_mask_that_overwrote_its_scores_cannot_be_opened():
    model = Model(by_hand).eval()
    with pytest.raises(ValueError, match="overwritten"):
        capture(
            Subject(model, tensors_only(model), "m", "decoder"),
            {"x": torch.randn(B, T, C)},
            edits=(ReplaceMask(0, Bidirectional()),),
        )


@pytest.mark.parametrize("head", [None, 2])
def test_an_edge_is_forbidden_where_nothing_was(head):
    model, x = Model(F.scaled_dot_product_attention).eval(), torch.randn(B, T, C)
    cap = capture(Subject(model, tensors_only(model), "m", "encoder"), {"x": x}, edits=(ForbidEdge(0, 1, 3, head),))
    allowed = torch.ones(H, T, T).bool()
    allowed[slice(None) if head is None else head, 1, 3] = False
    weights = torch.stack([cap.find(0).weights(h) for h in range(H)], 1)
    assert torch.equal(weights > 0, allowed.expand(B, H, T, T))
    q, k, _ = model.layers[0].project(x)
    torch.testing.assert_close(weights, (q @ k.mT / D**0.5).masked_fill(~allowed, -math.inf).softmax(-1))


def test_edits_add_up():
    model, x = Model(by_sdpa).eval(), torch.randn(B, T, C)
    cap = capture(
        Subject(model, tensors_only(model), "m", "decoder"),
        {"x": x},
        edits=(ZeroHead(1, 1), ForbidEdge(1, 3, 1)),
    )

    def both(scores, v, heads):
        return zero_head_1(scores, v, without_edge(None)(scores, v, heads))

    with torch.no_grad():
        torch.testing.assert_close(cap.logits, changed(model, x, 1, both), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("need_weights", [True, False])
def test_edits_inside_multihead_attention(need_weights):
    mha = nn.MultiheadAttention(C, H, batch_first=True).eval()
    x = torch.randn(B, T, C)
    inputs = {"query": x, "key": x, "value": x, "need_weights": need_weights}
    cap = capture(Subject(mha, tensors_only(mha), "mha", "encoder"), inputs, edits=(ZeroHead(0, 1),))
    with torch.no_grad():
        q, k, v = F.linear(x, mha.in_proj_weight, mha.in_proj_bias).view(B, T, 3, H, D).permute(2, 0, 3, 1, 4)
        heads = zero_head_1(None, v, (q @ k.mT / D**0.5).softmax(-1) @ v)
        torch.testing.assert_close(
            cap.logits, mha.out_proj(heads.transpose(1, 2).reshape(B, T, C)), atol=1e-5, rtol=1e-5
        )


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("case", CASES)
def test_edits_of_flex_attention(case):
    from torch.nn.attention.flex_attention import flex_attention

    def by_flex(q, k, v):
        return flex_attention(q, k, v, score_mod=lambda s, b, h, query, key: torch.where(query >= key, s, -math.inf))

    edit, layer, change = CASES[case]
    model, x = Model(by_flex).eval(), torch.randn(B, T, C)
    cap = capture(Subject(model, tensors_only(model), "m", "decoder"), {"x": x}, edits=(edit,))
    with torch.no_grad():
        torch.testing.assert_close(cap.logits, changed(model, x, layer, change), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "edit, says",
    [
        (ZeroHead(2, 0), r"layer this run has not.*\[0, 1\]"),
        (ZeroHead(0, 3), "heads 0 … 2"),
        (ForbidEdge(0, 1, 0, stack="cross"), "cross has"),
    ],
)
def test_edits_that_name_what_is_not_there(edit, says):
    model = Model(by_sdpa).eval()
    with pytest.raises(ValueError, match=says):
        capture(Subject(model, tensors_only(model), "m", "decoder"), {"x": torch.randn(B, T, C)}, edits=(edit,))


def test_an_edit_of_one_layer_of_a_shared_module():
    """ALBERT's way: both layers are one module; the edit is made in its second run only."""

    class Shared(Model):
        def __init__(self):
            super().__init__(by_sdpa)
            self.layers = nn.ModuleList([Attention(by_sdpa)] * 2)

    model, x = Shared().eval(), torch.randn(B, T, C)
    cap = capture(Subject(model, tensors_only(model), "m", "decoder"), {"x": x}, edits=(ZeroHead(1, 1),))
    with torch.no_grad():
        torch.testing.assert_close(cap.logits, changed(model, x, 1, zero_head_1), atol=1e-5, rtol=1e-5)
