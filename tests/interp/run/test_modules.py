"""torch's own attention modules, attention written by hand, and what must not be taken for attention.

Weights are compared with references that do not pass through the tap: nn.MultiheadAttention's own returned weights,
or a softmax computed in the test. Batch, heads and lengths all differ, so that a swapped axis cannot pass.
"""

import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.functional import scaled_dot_product_attention as imported_before_capture

from headwise.interp.run.capture import capture
from headwise.interp.subject import Subject, tensors_only
from headwise.models.sources.index import from_pypi

B, H, Q, K, D = 2, 3, 5, 7, 4
C = H * D
ROOT = Path(__file__).parents[3]
TIMM_SHA256 = "5bd50f7d0fe6d09bf9285ac2523234a1b7e6bf075c0be3e7aed09139fcb617c7"


def run(module, family="custom", **inputs):
    return capture(Subject(module, tensors_only(module), type(module).__name__, family), inputs)


def only(cap):
    (call,) = cap.calls
    assert not cap.unseen
    return call


def every_head(call):
    return torch.stack([call.weights(head) for head in range(call.heads)], 1)


class Holder(nn.Module):
    """A module around a function, so that the tap has a path to name."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, **inputs):
        return self.function(self, **inputs)


# -- nn.MultiheadAttention -------------------------------------------------------------------------


def causal(queries, keys):
    return torch.ones(queries, keys).triu(1).bool()


MHA_MASKS = {
    "none": {},
    "bool": {"attn_mask": causal(Q, K)},
    "float": {"attn_mask": torch.linspace(-2, 2, Q * K).view(Q, K)},
    "per head": {"attn_mask": torch.linspace(-2, 2, B * H * Q * K).view(B * H, Q, K)},
    "padding": {"key_padding_mask": torch.tensor([[False] * 7, [False] * 4 + [True] * 3])},
    "both": {
        "attn_mask": causal(Q, K),
        "key_padding_mask": torch.tensor([[False] * 7, [False] * 4 + [True] * 3]),
    },
}


@pytest.mark.parametrize("need_weights, average", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("mask", MHA_MASKS)
def test_multihead_attention(mask, batch_first, need_weights, average):
    mha = nn.MultiheadAttention(C, H, batch_first=batch_first).eval()
    nn.init.normal_(mha.in_proj_weight)
    query, key = torch.randn(B, Q, C), torch.randn(B, K, C)
    if not batch_first:
        query, key = query.transpose(0, 1), key.transpose(0, 1)
    options = MHA_MASKS[mask]
    with torch.no_grad():
        output, theirs = mha(query, key, key, average_attn_weights=False, **options)  # (B, H, Q, K)
    cap = run(
        mha,
        query=query,
        key=key,
        value=key,
        need_weights=need_weights,
        average_attn_weights=average,
        **options,
    )
    call = only(cap)
    assert (call.kind, call.seen, call.shape) == ("cross", "mha", (B, H, Q, K))
    torch.testing.assert_close(every_head(call), theirs)
    torch.testing.assert_close(cap.logits, output)


def test_multihead_attention_is_causal():
    mha = nn.MultiheadAttention(C, H, batch_first=True).eval()
    x = torch.randn(B, Q, C)
    with torch.no_grad():
        _, theirs = mha(x, x, x, attn_mask=causal(Q, Q), average_attn_weights=False)
    call = only(run(mha, query=x, key=x, value=x, attn_mask=causal(Q, Q), is_causal=True, need_weights=False))
    assert call.kind == "self"
    torch.testing.assert_close(every_head(call), theirs)


@pytest.mark.parametrize("need_weights", [True, False])
def test_multihead_attention_without_a_batch(need_weights):
    mha = nn.MultiheadAttention(C, H, batch_first=True).eval()
    query, key = torch.randn(Q, C), torch.randn(K, C)
    with torch.no_grad():
        _, theirs = mha(query, key, key, average_attn_weights=False)  # (H, Q, K)
    call = only(run(mha, query=query, key=key, value=key, need_weights=need_weights))
    assert call.shape == (1, H, Q, K)
    torch.testing.assert_close(every_head(call)[0], theirs)


@pytest.mark.parametrize("need_weights", [True, False])
def test_multihead_attention_with_other_key_and_value_widths(need_weights):
    mha = nn.MultiheadAttention(C, H, kdim=10, vdim=6, batch_first=True).eval()
    query, key, value = torch.randn(B, Q, C), torch.randn(B, K, 10), torch.randn(B, K, 6)
    with torch.no_grad():
        _, theirs = mha(query, key, value, average_attn_weights=False)
    call = only(run(mha, query=query, key=key, value=value, need_weights=need_weights))
    torch.testing.assert_close(every_head(call), theirs)
    assert call.v.shape == (B, H, K, D)


def test_multihead_attention_with_bias_and_zero_keys():
    """add_bias_kv and add_zero_attn append a key each: 9 keys for 7 given."""
    mha = nn.MultiheadAttention(C, H, batch_first=True, add_bias_kv=True, add_zero_attn=True).eval()
    query, key = torch.randn(B, Q, C), torch.randn(B, K, C)
    with torch.no_grad():
        _, theirs = mha(query, key, key, average_attn_weights=False)
    call = only(run(mha, query=query, key=key, value=key, need_weights=False))
    assert call.keys == K + 2
    torch.testing.assert_close(every_head(call), theirs)


# -- nn.Transformer --------------------------------------------------------------------------------


def stack_references(layers, x, norm_first=False, **masks):
    """Each encoder layer's weights by its own nn.MultiheadAttention, run layer after layer outside any capture."""
    weights = []
    with torch.no_grad():
        for layer in layers:
            inner = layer.norm1(x) if norm_first else x
            weights.append(layer.self_attn(inner, inner, inner, average_attn_weights=False, **masks)[1])
            x = layer(
                x,
                **{"src_key_padding_mask" if k == "key_padding_mask" else "src_mask": v for k, v in masks.items()},
            )
    return weights


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("training", [False, True])
def test_transformer_encoder(padded, nested, training):
    """In eval mode torch would take a fused path that calls no Python attention, on nested tensors if padded."""
    layer = nn.TransformerEncoderLayer(
        C, 4, 16, dropout=0.0, batch_first=True
    )  # nested tensors want an even number of heads
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested).train(training)
    for parameter in encoder.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.5)
    x = torch.randn(B, Q, C)
    padding = torch.tensor([[False] * Q, [False] * 3 + [True] * 2])
    real = ~padding if padded else torch.ones_like(padding)
    theirs = stack_references(encoder.layers, x, **({"key_padding_mask": padding} if padded else {}))
    cap = run(encoder, "encoder", src=x, **({"src_key_padding_mask": padding} if padded else {}))
    assert not cap.unseen
    assert [(c.name, c.layer, c.kind) for c in cap.calls] == [(f"layers.{n}.self_attn", n, "self") for n in range(2)]
    for call, reference in zip(cap.calls, theirs, strict=True):
        gap = (every_head(call) - reference).abs().amax((1, 3))
        assert gap[real].max() <= 1e-5
    assert len(cap.residuals) == 3


@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_encoder_layer_alone_under_a_causal_mask(norm_first):
    layer = nn.TransformerEncoderLayer(C, H, 16, batch_first=True, norm_first=norm_first).eval()
    x = torch.randn(B, Q, C)
    (theirs,) = stack_references([layer], x, norm_first, attn_mask=causal(Q, Q))
    call = only(run(layer, src=x, src_mask=causal(Q, Q)))
    torch.testing.assert_close(every_head(call), theirs)


def test_transformer_tells_its_three_stacks_apart():
    model = nn.Transformer(C, H, 2, 3, 16, batch_first=True).eval()
    cap = run(model, "encoder-decoder", src=torch.randn(B, K, C), tgt=torch.randn(B, Q, C), tgt_mask=causal(Q, Q))
    assert not cap.unseen
    assert {s: [c.layer for c in cap.stack(s)] for s in cap.stacks} == {
        "encoder": [0, 1], "decoder": [0, 1, 2], "cross": [0, 1, 2],
    }  # fmt: skip
    assert {s: {(c.kind, *c.shape) for c in cap.stack(s)} for s in cap.stacks} == {
        "encoder": {("self", B, H, K, K)},
        "decoder": {("self", B, H, Q, Q)},
        "cross": {("cross", B, H, Q, K)},
    }
    for call in cap.stack("decoder"):
        assert float(every_head(call)[..., causal(Q, Q)].max()) == 0


def test_transformer_decoder():
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(C, H, 16, batch_first=True), 1).eval()
    target, memory = torch.randn(B, Q, C), torch.randn(B, K, C)
    layer = decoder.layers[0]
    with torch.no_grad():
        _, own = layer.self_attn(target, target, target, attn_mask=causal(Q, Q), average_attn_weights=False)
        x = layer.norm1(target + layer.self_attn(target, target, target, attn_mask=causal(Q, Q))[0])
        _, cross = layer.multihead_attn(x, memory, memory, average_attn_weights=False)
    cap = run(decoder, "decoder", tgt=target, memory=memory, tgt_mask=causal(Q, Q))
    assert [(c.stack, c.kind, c.layer) for c in cap.calls] == [("decoder", "self", 0), ("cross", "cross", 0)]
    torch.testing.assert_close(every_head(cap.calls[0]), own)
    torch.testing.assert_close(every_head(cap.calls[1]), cross)


# -- attention written by hand ---------------------------------------------------------------------


def draw():
    """q (B, H, Q, D), k and v (B, H, K, D), and softmax(q·kᵀ/√D) computed here."""
    q, k, v = torch.randn(B, H, Q, D), torch.randn(B, H, K, D), torch.randn(B, H, K, D)
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(D)
    return q, k, v, scores, torch.exp(scores) / torch.exp(scores).sum(-1, keepdim=True)


def four_axes(self, q, k, v):
    return (q @ k.transpose(-1, -2) / D**0.5).softmax(-1) @ v


def with_softmax_module(self, q, k, v):
    return torch.matmul(self.softmax(torch.matmul(q, k.mT) / D**0.5), v)


def with_dropout_and_cast(self, q, k, v):
    weights = F.softmax(q @ k.mT / D**0.5, dim=-1, dtype=torch.float64).to(q.dtype)
    return F.dropout(weights, 0.0, self.training) @ v


def heads_merged_into_the_batch(self, q, k, v):
    q, k, v = (t.reshape(B * H, -1, D) for t in (q, k, v))
    return torch.bmm(torch.softmax(torch.baddbmm(torch.zeros(1), q, k.mT, alpha=D**-0.5), -1), v)


def einsum_in_order(self, q, k, v):
    return torch.einsum("bhqk,bhkd->bqhd", torch.einsum("bhqd,bhkd->bhqk", q, k).mul(D**-0.5).softmax(-1), v)


def einsum_with_values_first(self, q, k, v):
    return torch.einsum("bhkd,bhqk->bhqd", v, torch.einsum("bhqd,bhkd->bhqk", q, k).mul(D**-0.5).softmax(-1))


def einsum_with_heads_last(self, q, k, v):
    """XLNet's order: scores (query, key, batch, head), softmax over axis 1."""
    q, k, v = (t.permute(2, 0, 1, 3) for t in (q, k, v))  # (T, B, H, D)
    weights = torch.einsum("ibnd,jbnd->ijbn", q, k).mul(D**-0.5).softmax(1)
    return torch.einsum("ijbn,jbnd->ibnd", weights, v)


def einsum_with_heads_before_batch(self, q, k, v):
    weights = torch.einsum("bhqd,bhkd->hbqk", q, k).mul(D**-0.5).softmax(-1)
    return torch.einsum("hbqk,bhkd->bqhd", weights, v)


def values_times_transposed_weights(self, q, k, v):
    return v.mT @ (q @ k.mT / D**0.5).softmax(-1).mT  # (B, H, D, Q)


def scores_transposed(self, q, k, v):
    """Scores (B, H, K, Q), softmax over axis −2, vᵀ times them."""
    return v.mT @ (k @ q.mT / D**0.5).softmax(-2)


def einsum_with_an_ellipsis(self, q, k, v):
    weights = torch.einsum("... i d, ... j d -> ... i j", q, k).mul(D**-0.5).softmax(-1)
    return torch.einsum("... i j, ... j d -> ... i d", weights, v)


def named_arguments(self, q, k, v):
    return torch.matmul(input=torch.softmax(input=torch.matmul(q, other=k.mT) / D**0.5, dim=-1), other=v)


def imported_sdpa(self, q, k, v):
    return imported_before_capture(q, k, v)


BY_HAND = (
    four_axes,
    with_softmax_module,
    with_dropout_and_cast,
    heads_merged_into_the_batch,
    einsum_in_order,
    einsum_with_an_ellipsis,
    einsum_with_values_first,
    einsum_with_heads_last,
    einsum_with_heads_before_batch,
    values_times_transposed_weights,
    scores_transposed,
    named_arguments,
    imported_sdpa,
)


@pytest.mark.parametrize("attention", BY_HAND, ids=lambda f: f.__name__)
def test_attention_by_hand(attention):
    q, k, v, scores, weights = draw()
    module = Holder(attention, softmax=nn.Softmax(dim=-1)).eval()
    call = only(run(module, q=q, k=k, v=v))
    assert call.shape == (B, H, Q, K)
    torch.testing.assert_close(every_head(call), weights)
    torch.testing.assert_close(torch.stack([call.scores(h) for h in range(H)], 1), scores)


def test_attention_by_hand_in_a_named_submodule():
    q, k, v, _, weights = draw()
    call = only(run(Holder(lambda self, **x: self.inner(**x), inner=Holder(four_axes)), q=q, k=k, v=v))
    assert (call.name, call.seen) == ("inner", "softmax")
    torch.testing.assert_close(every_head(call), weights)


def test_a_root_that_is_called_attention_has_the_calls_below_it():
    class PairAttention(Holder):
        pass

    q, k, v, _, weights = draw()
    call = only(run(PairAttention(lambda self, **x: self.inner(**x), inner=Holder(four_axes)), q=q, k=k, v=v))
    assert call.name == "inner"
    torch.testing.assert_close(every_head(call), weights)


DROPOUTS = {
    "by place": lambda w: F.dropout(w, 0.5, True),
    "rate alone": lambda w: F.dropout(w, 0.5),
    "by name": lambda w: F.dropout(w, p=0.5, training=True),
    "by default": F.dropout,
    "torch's": lambda w: torch.dropout(w, 0.5, train=True),
}


@pytest.mark.parametrize("name", DROPOUTS)
def test_attention_by_hand_before_dropout(name):
    q, k, v, _, weights = draw()
    made = []

    def forward(self, q, k, v):
        made.append(DROPOUTS[name]((q @ k.mT / D**0.5).softmax(-1)))
        return made[-1] @ v

    cap = run(Holder(forward), q=q, k=k, v=v)
    torch.testing.assert_close(every_head(only(cap)), weights)
    assert (made[0] == 0).any()
    torch.testing.assert_close(cap.logits, made[0] @ v)


@pytest.mark.parametrize("by_name", [False, True])
def test_a_module_given_another_sequence_to_read_is_cross(by_name):
    class Reader(nn.Module):
        def forward(self, x, context):
            return F.scaled_dot_product_attention(x, context, context)

    x, other = torch.randn(B, H, Q, D), torch.randn(B, H, K, D)
    inner = Reader()
    for given, kind in ((other, "cross"), (x, "self")):
        holder = Holder(lambda self, x, y: self.inner(x, context=y) if by_name else self.inner(x, y), inner=inner)
        assert only(run(holder, x=x, y=given)).kind == kind


def test_attention_by_hand_masked_fill():
    q, k, v, scores, _ = draw()
    hidden = causal(Q, K)

    def forward(self, q, k, v):
        return (q @ k.mT / D**0.5).masked_fill(hidden, torch.finfo(q.dtype).min).softmax(-1) @ v

    call = only(run(Holder(forward), q=q, k=k, v=v))
    torch.testing.assert_close(every_head(call), scores.masked_fill(hidden, -math.inf).softmax(-1))
    assert torch.equal(call.mask.dense(Q, K), ~hidden)


def test_attention_by_hand_without_batch_and_heads():
    q, k, v, _, weights = (t[0, 0] for t in draw())
    call = only(run(Holder(lambda self, q, k, v: (q @ k.T / D**0.5).softmax(-1) @ v), q=q, k=k, v=v))
    assert call.shape == (1, 1, Q, K)
    torch.testing.assert_close(call.weights(0)[0], weights)


def test_single_head_attention_of_three_axes():
    q, k, v, _, weights = (t[:, 0] for t in draw())
    call = only(run(Holder(lambda self, q, k, v: torch.bmm((q @ k.mT / D**0.5).softmax(-1), v)), q=q, k=k, v=v))
    assert call.shape == (B, 1, Q, K)
    torch.testing.assert_close(call.weights(0), weights)


def test_additive_attention():
    """Bahdanau et al. 2015: scores wᵀ tanh(query + key), no product of q and k anywhere."""
    query, key, w = torch.randn(B, Q, D), torch.randn(B, K, D), torch.randn(D)

    def forward(self, query, key):
        return torch.bmm((torch.tanh(query[:, :, None] + key[:, None]) @ w).softmax(-1), key)

    call = only(run(Holder(forward), query=query, key=key))
    scores = (torch.tanh(query[:, :, None] + key[:, None]) * w).sum(-1)
    assert call.shape == (B, 1, Q, K)
    torch.testing.assert_close(call.weights(0), scores.exp() / scores.exp().sum(-1, keepdim=True))


@pytest.mark.parametrize(("equation", "axes"), [("bhqk,kd->bhqd", (K, D)), ("bhqk,kde->bhqde", (K, D, 2))])
def test_a_soft_embedding_written_as_an_equation_is_no_attention(equation, axes):
    """Weights over a model's own vectors, or matrices: it runs on, and nothing is taken for attention."""
    table = nn.Parameter(torch.randn(*axes))
    scores = torch.randn(B, H, Q, K)
    cap = run(Holder(lambda self, scores: torch.einsum(equation, scores.softmax(-1), table)), scores=scores)
    assert not cap.calls
    torch.testing.assert_close(cap.logits, torch.tensordot(scores.softmax(-1), table, 1))


def test_scores_of_keys_down_and_queries_across():
    """A softmax over the rows of k·qᵀ (B·H, K, Q), which is turned to meet the values: scores are told upright."""
    q, k, v, scores, weights = draw()

    def forward(self, q, k, v):
        turned = (k @ q.mT / D**0.5).softmax(-2).reshape(B * H, K, Q)
        return torch.bmm(turned.mT, v.reshape(B * H, K, -1))

    call = only(run(Holder(forward), q=q, k=k, v=v))
    torch.testing.assert_close(every_head(call), weights)
    torch.testing.assert_close(torch.stack([call.scores(h) for h in range(H)], 1), scores)


def test_a_number_for_each_key_is_no_value():
    """Weights that meet a vector average it: attention, but its values have no width."""
    scores, numbers = torch.randn(1, K, Q, K), torch.randn(K)
    call = only(run(Holder(lambda self, scores, numbers: scores.softmax(-1) @ numbers), scores=scores, numbers=numbers))
    torch.testing.assert_close(every_head(call), scores.softmax(-1))
    assert call.v is None


def test_one_query_attention_pooling():
    """Additive attention as pooling: (B, K) weights made (B, 1, K) to meet the keys."""
    key, w = torch.randn(B, K, D), torch.randn(D)
    call = only(run(Holder(lambda self, key: torch.bmm((key @ w).softmax(-1)[:, None], key)), key=key))
    assert call.shape == (B, 1, 1, K)
    torch.testing.assert_close(call.weights(0)[:, 0], (key @ w).softmax(-1))


@pytest.mark.parametrize("axes", [3, 5])
def test_sdpa_of_other_ranks(axes):
    shape = {3: (B * H,), 5: (B, 2, H)}[axes]
    q, k, v = torch.randn(*shape, Q, D), torch.randn(*shape, K, D), torch.randn(*shape, K, D)
    mask = torch.rand(*shape, Q, K) > 0.3
    mask[..., 0] = True

    class Sdpa(nn.Module):
        def forward(self, anchor, q, k, v, mask):
            return F.scaled_dot_product_attention(q, k, v, mask)

    call = only(run(Sdpa(), anchor=torch.zeros(B), q=q, k=k, v=v, mask=mask))
    theirs = (q @ k.mT / D**0.5).masked_fill(~mask, -math.inf).softmax(-1)
    assert call.shape == (B if axes == 3 else B * 2, H, Q, K)
    torch.testing.assert_close(every_head(call), theirs.reshape(call.shape))


def test_a_mask_of_two_axes_is_kept_as_it_was_given():
    q, mask = torch.randn(B * H, Q, D), causal(Q, Q).logical_not()

    class Sdpa(nn.Module):
        def forward(self, anchor, q, mask):
            return F.scaled_dot_product_attention(q, q, q, mask)

    call = only(run(Sdpa(), anchor=torch.zeros(B), q=q, mask=mask))
    assert torch.equal(call.given, mask)
    torch.testing.assert_close(call.weights(1)[1], (q @ q.mT / 2)[4].masked_fill(~mask, -math.inf).softmax(-1))


def test_two_attentions_in_one_module_are_two_calls():
    q, k, v, _, weights = draw()
    cap = run(
        Holder(lambda self, q, k, v: four_axes(self, q, k, v) + imported_before_capture(q, 2 * k, v)),
        q=q,
        k=k,
        v=v,
    )
    assert [(c.occurrence, c.layer) for c in cap.calls] == [(0, 0), (1, 1)]
    torch.testing.assert_close(every_head(cap.calls[0]), weights)
    torch.testing.assert_close(every_head(cap.calls[1]), (2 * (q @ k.mT) / D**0.5).softmax(-1))


# -- no attention ----------------------------------------------------------------------------------


def vocabulary_softmax(self, x):
    return self.head(x).softmax(-1)


def soft_embedding(self, x):
    """Expected embedding under a distribution over the vocabulary: (B, Q, V) @ (V, C)."""
    return self.head(x).softmax(-1) @ self.head.weight


def router(self, x):
    """Mixture of experts: a softmax over experts whose columns scale each expert's output."""
    gates = self.head(x).softmax(-1)  # (B, Q, E)
    return sum(gates[..., e, None] * self.experts[e](x) for e in range(4))


def router_by_einsum(self, x):
    """The same, all experts at once: experts are no positions."""
    every = torch.stack([expert(x) for expert in self.experts], 2)  # (B, Q, E, C)
    return torch.einsum("bqe,bqec->bqc", self.head(x).softmax(-1), every)


def top_k_router(self, x):
    gates, chosen = self.head(x.flatten(0, 1)).softmax(-1).topk(2, -1)  # (B·Q, 2)
    stacked = torch.stack([expert(x.flatten(0, 1)) for expert in self.experts], 1)  # (B·Q, E, C)
    return (gates[..., None] * stacked.gather(1, chosen[..., None].expand(-1, -1, C))).sum(1)


def gating(self, x):
    return torch.softmax(x, -1) * x


def router_by_matmul(self, x):
    """The same as one product a token: (B, Q, 1, E) @ (B, Q, E, C)."""
    every = torch.stack([expert(x) for expert in self.experts], 2)
    return (self.head(x).softmax(-1)[:, :, None] @ every)[:, :, 0]


def pooled_by_soft_assignment(self, x):
    """DiffPool (Ying et al. 2018): each position is shared among clusters, then positions are summed, not clusters."""
    return self.head(x).softmax(-1).mT @ x  # (B, E, C)


def summed_over_queries(self, x):
    """A square whose rows were normalised and whose columns are summed: no row of it weighs values."""
    return (x @ x.mT).softmax(-1).mT @ x


def propagated_labels(self, x):
    return torch.full((B, Q, Q), 1 / Q) @ self.head(x).softmax(-1)  # (B, Q, E)


NOT_ATTENTION = (
    vocabulary_softmax, soft_embedding, router, router_by_einsum, router_by_matmul, top_k_router, gating,
    pooled_by_soft_assignment, summed_over_queries, propagated_labels,
)  # fmt: skip


@pytest.mark.parametrize("layer", NOT_ATTENTION, ids=lambda f: f.__name__)
def test_what_is_not_attention(layer):
    module = Holder(layer, head=nn.Linear(C, 4), experts=nn.ModuleList(nn.Linear(C, C) for _ in range(4)))
    assert not run(module, x=torch.randn(B, Q, C)).calls


# -- compiled and fused ----------------------------------------------------------------------------


class SdpaAttention(nn.Module):
    def forward(self, q, k, v):
        return imported_before_capture(q, k, v)


@pytest.mark.parametrize("in_place", [False, True])
def test_compiled_modules_run_as_written(in_place):
    q, k, v, _, weights = draw()
    inner = SdpaAttention()
    if in_place:
        inner.compile(backend="eager", fullgraph=True)
    else:
        inner = torch.compile(inner, backend="eager", fullgraph=True)
    module = Holder(lambda self, **x: self.inner(**x), inner=inner)
    module(q=q, k=k, v=v)  # compiled once before
    call = only(run(module, q=q, k=k, v=v))
    assert call.name.startswith("inner")
    torch.testing.assert_close(every_head(call), weights)
    assert torch._dynamo.eval_frame._stance.stance == "default"


def test_scripted_modules_are_named_as_unseen():
    q, k, v, _, _ = draw()
    cap = run(
        Holder(lambda self, **x: self.inner(**x), inner=torch.jit.trace(SdpaAttention(), (q, k, v))),
        q=q,
        k=k,
        v=v,
    )
    assert not cap.calls
    (unseen,) = cap.unseen
    assert unseen.name == "inner"
    assert "TorchScript" in unseen.reason


def test_linear_attention_is_named_as_unseen():
    class LinearAttention(nn.Module):
        def forward(self, q, k, v):
            q, k = F.elu(q) + 1, F.elu(k) + 1
            return q @ (k.mT @ v)

    q, k, v, _, _ = draw()
    cap = run(Holder(lambda self, **x: self.inner(**x), inner=LinearAttention()), q=q, k=k, v=v)
    assert not cap.calls
    assert [(u.name, u.type) for u in cap.unseen] == [("inner", "LinearAttention")]


class FlexAttention(nn.Module):
    """ALiBi-like slopes read from a buffer, a causal block mask, and 3 query heads on 1 key head."""

    def __init__(self):
        super().__init__()
        self.slopes = nn.Buffer(torch.tensor([0.5, 1.0, 2.0]))

    def forward(self, q, k, v):
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        def bias(score, b, h, query, key):
            return score - self.slopes[h] * (query - key).abs()

        mask = create_block_mask(
            lambda b, h, query, key: query >= key, None, None, q.shape[-2], k.shape[-2], device="cpu"
        )
        return flex_attention(q, k, v, score_mod=bias, block_mask=mask, enable_gqa=True)


def test_the_function_of_multihead_attention_says_whether_it_reads_another_sequence():
    mha = nn.MultiheadAttention(C, H).eval()
    x, other = torch.randn(Q, B, C), torch.randn(K, B, C)

    def forward(self, one, two):
        weights = mha.in_proj_weight, mha.in_proj_bias, None, None, False, 0.0, mha.out_proj.weight, None
        first, _ = F.multi_head_attention_forward(one, one, one, C, H, *weights, training=False)
        return first + F.multi_head_attention_forward(one, two, two, C, H, *weights, training=False)[0]

    cap = run(Holder(forward), one=x, two=other)
    assert [(call.kind, call.stack) for call in cap.calls] == [("self", "self"), ("cross", "cross")]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention():
    q, k, v = torch.randn(B, H, K, 16), torch.randn(B, 1, K, 16), torch.randn(B, 1, K, 16)
    cap = run(Holder(lambda self, **x: self.attn(**x), attn=FlexAttention()), q=q, k=k, v=v)
    call = only(cap)
    distance = (torch.arange(K)[:, None] - torch.arange(K)).abs()
    scores = q @ k.mT / 4 - torch.tensor([0.5, 1.0, 2.0])[:, None, None] * distance
    theirs = scores.masked_fill(causal(K, K), -math.inf).softmax(-1)
    assert (call.name, call.seen, call.kv_heads, call.shape) == ("attn", "flex", 1, (B, H, K, K))
    torch.testing.assert_close(every_head(call), theirs)
    torch.testing.assert_close(call.weights(2, (3, 5)), theirs[:, 2, 3:5])
    torch.testing.assert_close(call.out, theirs @ v)
    torch.testing.assert_close(cap.logits, theirs @ v)
    assert torch.equal(call.mask.dense(K, K), ~causal(K, K))


def test_timm_vit():
    """In a process of its own: timm wants torchvision, which has no build for a CPU torch, is not needed here and
    stubbed out.

    For the same reason timm is no requirement: pip would bring that torchvision, which breaks transformers.
    """
    script = """
        import sys, types, importlib.machinery
        class Names(type):
            def __getattr__(self, name):
                if name.startswith("__"):
                    raise AttributeError(name)
                return name
        class Anything(types.ModuleType):
            __path__ = []
            def __getattr__(self, name):
                if name.startswith("__"):
                    raise AttributeError(name)
                return Names(name, (), {})
        for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional",
                     "torchvision.ops", "torchvision.ops.misc", "torchvision.datasets", "torchvision.datasets.folder",
                     "torchvision.models", "torchvision.models.feature_extraction"):
            sys.modules[name] = Anything(name)
            sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, sys.modules[name])
        import timm, torch
        from headwise.interp.run.capture import capture
        from headwise.interp.subject import Subject, tensors_only
        torch.manual_seed(0)
        for fused in (True, False):
            model = timm.create_model("vit_tiny_patch16_224", img_size=48).eval()
            for block in model.blocks:
                block.attn.fused_attn = fused
                torch.nn.init.normal_(block.attn.qkv.weight, std=0.1)
            qkv = {}
            for n, block in enumerate(model.blocks):
                block.attn.qkv.register_forward_hook(lambda m, a, out, n=n: qkv.__setitem__(n, out))
            subject = Subject(model, tensors_only(model), "vit", "vision")
            cap = capture(subject, {"x": torch.randn(2, 3, 48, 48)})
            assert [c.layer for c in cap.calls] == list(range(12)) and not cap.unseen
            assert {c.seen for c in cap.calls} == ({"sdpa"} if fused else {"softmax"})
            for n, call in enumerate(cap.calls):
                q, k, _ = qkv[n].view(2, 10, 3, 3, 64).permute(2, 0, 3, 1, 4)
                theirs = (q @ k.mT / 8).softmax(-1)
                assert call.shape == (2, 3, 10, 10)
                assert (call.band(0, 10) - theirs).abs().max() < 1e-5
            assert cap.fidelity < 1e-4 and len(cap.residuals) == 13
            found = cap.anatomy
            kinds = [write.kind for write in found.stream().writes]
            assert not found.refused and found.proof.exact and found.proof.worst <= 1e-5
            assert kinds == ["attention", "mlp"] * 12 and all(w.heads for w in found.stream().writes[::2])
            assert found.readout.kind == "direct" and cap.stream.proof.total <= 1e-5
    """
    path = os.pathsep.join([str(from_pypi("timm==1.0.31", TIMM_SHA256)), str(ROOT)])
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, check=True
    )


def test_self_attention_on_a_norm_computed_three_times_is_self():
    """``mha(norm(x), norm(x), norm(x))``: three tensors, one sequence."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(self.norm(x), self.norm(x), self.norm(x), need_weights=False)[0]

    assert only(run(Block().eval(), x=torch.randn(3, 5, 8))).kind == "self"
