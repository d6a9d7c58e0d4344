"""Libraries whose attention is dense, however it is written: seen without a watcher, equal to what they return."""

import pytest
import torch
from torch import nn
from transformers import FunnelConfig, FunnelModel

from headwise import capture, edits, wrap
from headwise.interp.run.capture import rerun

x_transformers = pytest.importorskip("x_transformers")

IDS = torch.randint(1, 30, (2, 17), generator=torch.Generator().manual_seed(0))

KINDS = {
    "plain": {},
    "alibi": {"alibi_pos_bias": True, "alibi_num_heads": 4},
    "t5": {"rel_pos_bias": True},
    "one key and value head": {"attn_one_kv_head": True},
    "grouped": {"attn_kv_heads": 2},
    "talking heads": {"attn_pre_talking_heads": True, "attn_post_talking_heads": True},
    "memory keys": {"attn_num_mem_kv": 3},
    "the best four": {"attn_sparse_topk": 4},
    "normalised": {"attn_qk_norm": True},
    "a window": {"attn_max_attend_past": 4},
}


def decoder(**options) -> nn.Module:
    torch.manual_seed(0)
    layers = x_transformers.Decoder(dim=16, depth=2, heads=4, attn_dim_head=8, **options)
    return x_transformers.TransformerWrapper(num_tokens=30, max_seq_len=64, attn_layers=layers).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_x_transformers_weights_are_those_it_returns(kind):
    module = decoder(**KINDS[kind])
    cap = capture(wrap(module, kind="decoder"), {"x": IDS})
    with torch.no_grad():
        _, own = module(IDS, return_attn=True)
    assert not cap.unseen and len(cap.calls) == 2 and cap.fidelity == 0
    for call, weights in zip(cap.calls, own, strict=True):
        assert torch.allclose(torch.stack([call.weights(head) for head in range(4)], 1), weights, atol=1e-6)


def test_heads_that_share_one_key_and_value_head_are_changed_apart():
    cap = capture(wrap(decoder(attn_one_kv_head=True), kind="decoder"), {"x": IDS})
    call = cap.calls[0]
    assert (call.heads, call.kv_heads) == (4, 1)
    changed = rerun(cap, [edits.ZeroHead(0, 1)])
    assert torch.equal(changed.calls[0].weights(2), call.weights(2))
    assert not torch.allclose(changed.logits, cap.logits, atol=1e-4)
    shared = rerun(cap, [edits.Zero(edits.Value(0, 0))])  # the only one there is: nothing is read in layer 0
    silent = rerun(cap, [edits.ZeroHead(0, head) for head in range(4)])
    assert torch.allclose(shared.logits, silent.logits, atol=1e-5)


class Swapped(nn.Module):
    """Its weights are (B, Q, H, K), which no one tells."""

    def __init__(self):
        super().__init__()
        self.attention_qkv = nn.Linear(8, 8)

    def forward(self, x):
        q = self.attention_qkv(x).unflatten(-1, (2, 4))  # (B, Q, H, D)
        weights = torch.einsum("bqhd,bkd->bqhk", q, x[..., :4]).softmax(-1)
        return torch.einsum("bqhk,bkd->bqhd", weights, x[..., 4:]).flatten(2)


def test_queries_are_not_taken_for_heads():
    cap = capture(wrap(Swapped(), kind="encoder"), {"x": torch.randn(1, 5, 8)})
    assert not any(call.heads == 5 for call in cap.calls)


@pytest.mark.parametrize("options", [{}, {"attention_type": "factorized"}, {"pool_q_only": False}], ids=str)
def test_funnel_is_seen_where_it_pools(options):
    """Funnel-Transformer (Dai et al. 2020): queries of a pooled layer are fewer than its keys."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 30, "block_sizes": [2, 1], "d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 32}
    module = FunnelModel(FunnelConfig(**sizes, **options)).eval()
    given = {"input_ids": IDS, "attention_mask": torch.arange(17) < torch.tensor([[17], [12]])}
    given["attention_mask"] = given["attention_mask"].long()
    cap = capture(wrap(module, kind="encoder"), given)
    with torch.no_grad():
        own = module(**given, output_attentions=True).attentions
    assert not cap.unseen and len(cap.calls) == len(own) == 5
    assert {call.queries for call in cap.calls} > {17}
    for call, weights in zip(cap.calls, own, strict=True):
        assert torch.allclose(torch.stack([call.weights(head) for head in range(2)], 1), weights, atol=1e-6)
