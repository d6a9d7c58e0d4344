"""Attention with sinks: a softmax over the keys and a column more, which meets no value.

Weights are compared with Hugging Face's own eager ``attentions``, the sink with what is missing from their rows.
"""

import math

import pytest
import torch
import transformers
from torch import nn

from headwise.interp.errors import InputError
from headwise.interp.masks import Causal, Window
from headwise.interp.run.capture import capture, rerun
from headwise.interp.run.edits import ForbidEdge, MeanHead, ReplaceMask, ZeroHead
from headwise.interp.subject import Subject, tensors_only

B, H, Q, K, D = 2, 3, 5, 7, 4
LENGTH = 13
COMMON = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "intermediate_size": 48, "vocab_size": 99, "pad_token_id": 0,
}  # fmt: skip
DEEPSEEK = COMMON | {
    "num_key_value_heads": 1, "q_lora_rank": 16, "moe_intermediate_size": 16, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "sliding_window": 5, "o_groups": 2, "o_lora_rank": 8, "index_n_heads": 2,
    "index_head_dim": 8, "index_topk": 2, "hc_mult": 2, "partial_rotary_factor": 0.5,
    "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"],
    "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 6},
    "mlp_layer_types": ["hash_moe", "moe", "moe"],
}  # fmt: skip
MODELS = {
    "GptOss": COMMON | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4},
    "DeepseekV4": DEEPSEEK,
    "Flint": COMMON,
}


def build(name):
    config = getattr(transformers, f"{name}Config")(**MODELS[name])
    module = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for path, parameter in module.named_parameters():
        if parameter.ndim > 1 or "sink" in path:
            nn.init.normal_(parameter, std=0.25 if parameter.ndim > 1 else 1.0)
    return module


def run(module, family="custom", **inputs):
    return capture(Subject(module, tensors_only(module), type(module).__name__, family), inputs)


def every_head(call):
    return torch.stack([call.weights(head) for head in range(call.heads)], 1)


@pytest.mark.parametrize("padding", [None, "left"])
@pytest.mark.parametrize("name", MODELS)
def test_models_with_sinks_equal_their_own_eager_attention(name, padding):
    module = build(name)
    inputs = {"input_ids": torch.randint(2, 98, (2, LENGTH)), "attention_mask": torch.ones(2, LENGTH).long()}
    if padding:
        inputs["attention_mask"][1, :4] = 0
    with torch.no_grad():
        theirs = module(**inputs, output_attentions=True).attentions
    cap = run(module, "decoder", **inputs)
    assert not cap.unseen and [c.layer for c in cap.calls] == [0, 1, 2]
    real = inputs["attention_mask"].bool()
    for call, reference in zip(cap.calls, theirs, strict=True):
        assert call.has_sink and call.shape == reference.shape
        assert (every_head(call) - reference).abs().max() <= 1e-5
        assert call.sink(1).shape == (2, LENGTH)
        for head in range(call.heads):
            missing = 1 - reference[:, head].sum(-1)
            assert (call.sink(head) - missing)[real].abs().max() <= 1e-5
        assert reference.sum(-1).mean() < 0.95  # or the sink’s share could not be told
    assert cap.fidelity <= 1e-4


def test_keys_beyond_the_sequence_are_named():
    """DeepSeek-V4 compresses windows of 4 and of 6 tokens into one key each, beside the tokens' own."""
    module = build("DeepseekV4")
    ids = torch.randint(2, 98, (1, LENGTH))
    cap = capture(Subject(module, named_tokens, "deepseek", "decoder"), ids)
    tokens = tuple(f"t{i}" for i in range(LENGTH))
    assert [c.key_axis.labels for c in cap.calls] == [
        tokens,
        (*tokens, "compressed 0", "compressed 1", "compressed 2"),
        (*tokens, "compressed 0", "compressed 1"),
    ]
    assert all(c.query_axis.labels == tokens for c in cap.calls)


def named_tokens(ids):
    from headwise.interp.attention.axes import Axis
    from headwise.interp.subject import Inputs

    return Inputs({"input_ids": ids}, {"input": Axis(tuple(f"t{i}" for i in range(ids.shape[1])))})


def test_keys_before_the_sequence_are_not_named_as_if_they_came_after_it():
    """A cache of 4 earlier tokens comes first: 9 keys for 5 queries, whose own are the last five."""
    config = transformers.LlamaConfig(**COMMON)
    module = transformers.AutoModelForCausalLM.from_config(config).eval()
    ids = torch.randint(2, 98, (1, 9))
    with torch.no_grad():
        past = module(input_ids=ids[:, :4], use_cache=True).past_key_values

    def encode(raw):
        inputs = named_tokens(raw)
        inputs.kwargs.update(past_key_values=past, use_cache=True)
        return inputs

    call = capture(Subject(module, encode, "llama", "decoder"), ids[:, 4:]).calls[0]
    assert call.shape[2:] == (5, 9)
    assert call.key_axis.labels == (*(f"memory −{i}" for i in (4, 3, 2, 1)), *(f"t{i}" for i in range(5)))


# -- the column, however it is cut off -------------------------------------------------------------


class Sinking(nn.Module):
    """softmax over [scores, sink] (or [sink, scores]), computed in the test as exp / (Σ exp + exp(sink))."""

    def __init__(self, cut, first=False):
        super().__init__()
        self.sink = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))
        self.cut, self.first = cut, first

    def forward(self, q, k, v):
        sink = self.sink.view(1, H, 1, 1).expand(*q.shape[:3], 1)
        parts = [q @ k.mT / D**0.5, sink]
        return self.cut(torch.cat(parts[::-1] if self.first else parts, -1).softmax(-1)) @ v


def reference(q, k, sink):
    e = torch.exp(q @ k.mT / D**0.5)
    total = e.sum(-1) + torch.exp(sink)[:, None]
    return e / total[..., None], torch.exp(sink)[:, None] / total


LAST = {
    "slice": lambda p: p[..., :-1],
    "narrow": lambda p: p.narrow(-1, 0, K),
    "split": lambda p: p.split([K, 1], -1)[0],
    "copied": lambda p: p[..., :-1].contiguous(),
    "merged": lambda p: p[..., :-1].reshape(B * H, Q, K).reshape(B, H, Q, K),
    "turned": lambda p: p.mT[..., :-1, :].mT,
    "sliced of merged": lambda p: p.reshape(B * H, Q, K + 1)[..., :-1].reshape(B, H, Q, K),
}
FIRST = {"slice": lambda p: p[..., 1:], "split": lambda p: p.split([1, K], -1)[1]}


def draw():
    return torch.randn(B, H, Q, D), torch.randn(B, H, K, D), torch.randn(B, H, K, D)


@pytest.mark.parametrize("cut, first", [*((c, False) for c in LAST.values()), *((c, True) for c in FIRST.values())],
                         ids=[*LAST, *(f"first {n}" for n in FIRST)])  # fmt: skip
def test_the_column_may_be_cut_in_any_way(cut, first):
    q, k, v = draw()
    module = Sinking(cut, first)
    (call,) = run(module, q=q, k=k, v=v).calls
    weights, sink = reference(q, k, module.sink.detach())
    torch.testing.assert_close(every_head(call), weights)
    torch.testing.assert_close(torch.stack([call.sink(h) for h in range(H)], 1), sink)
    torch.testing.assert_close(torch.stack([call.scores(h) for h in range(H)], 1), q @ k.mT / D**0.5)
    torch.testing.assert_close(call.sink(1, (2, 4)), sink[:, 1, 2:4])


def test_no_other_attention_has_a_sink():
    q, k, v = draw()
    (call,) = run(Plain(), q=q, k=k, v=v).calls
    assert not call.has_sink and call.sink(0) is None


class Plain(nn.Module):
    def forward(self, q, k, v):
        return (q @ k.mT / D**0.5).softmax(-1) @ v


OTHER_CUTS = {
    "two columns": lambda p, v: p[..., :-2] @ v[..., :-1, :],
    "one query": lambda p, v: p[..., :-1, :] @ torch.cat([v, v[..., :1, :]], -2),
    "every other": lambda p, v: p[..., ::2] @ v[..., : (K + 2) // 2, :],
    "both ends": lambda p, v: p[..., 1:-1] @ v[..., :-1, :],
}


@pytest.mark.parametrize("name", OTHER_CUTS)
def test_any_other_cut_is_not_dense_attention(name):
    class Attention(nn.Module):
        def forward(self, q, k, v):
            return OTHER_CUTS[name](torch.cat([q @ k.mT, q @ k[..., :1, :].mT], -1).softmax(-1), v)

    q, k, v = draw()
    cap = run(Attention(), q=q, k=k, v=v)
    assert not cap.calls
    assert [u.reason for u in cap.unseen] == [
        "its softmax is not over a whole query × key matrix (block-sparse, banded or bucketed)"
    ]


# -- edits -----------------------------------------------------------------------------------------


def test_a_forbidden_edge_leaves_the_sink_its_share():
    """Without one key the others and the sink share what it had: w / (1 − w_forbidden)."""
    q, k, v = draw()
    module = Sinking(LAST["slice"])
    plain = run(module, q=q, k=k, v=v)
    weights, _ = reference(q, k, module.sink.detach())
    expected = weights.clone()
    expected[:, 1, 2] /= 1 - weights[:, 1, 2, 3, None]
    expected[:, 1, 2, 3] = 0
    torch.testing.assert_close(rerun(plain, [ForbidEdge(0, query=2, key=3, head=1)]).logits, expected @ v)


def test_another_mask_leaves_the_sink_in():
    q, k, v = draw()
    module = Sinking(LAST["slice"])
    plain = run(module, q=q, k=k, v=v)
    scores = (q @ k.mT / D**0.5).masked_fill(~Window(1, 1).dense(Q, K), -math.inf)
    wide = torch.cat([scores, module.sink.detach().view(1, H, 1, 1).expand(B, H, Q, 1)], -1).softmax(-1)
    edited = rerun(plain, [ReplaceMask(0, Window(1, 1))])
    torch.testing.assert_close(edited.logits, wide[..., :-1] @ v)


def test_heads_of_a_model_with_sinks_can_be_silenced_and_averaged():
    q, k, v = draw()
    module = Sinking(LAST["slice"])
    plain = run(module, q=q, k=k, v=v)
    weights, _ = reference(q, k, module.sink.detach())
    silenced, averaged = weights.clone(), weights.clone()
    silenced[:, 2] = 0
    averaged[:, 0] = weights[:, 0].mean(1, keepdim=True)
    torch.testing.assert_close(rerun(plain, [ZeroHead(0, 2)]).logits, silenced @ v)
    torch.testing.assert_close(rerun(plain, [MeanHead(0, 0)]).logits, averaged @ v)


def test_edits_of_gpt_oss():
    """Its layer 0 slides over 4 tokens: to forbid what is hidden already changes nothing, to open it is refused."""
    plain = run(build("GptOss"), "decoder", input_ids=torch.randint(2, 98, (1, LENGTH)))
    same = rerun(plain, [ReplaceMask(0, Causal() & Window(3, 0))])
    assert (same.logits - plain.logits).abs().max() <= 1e-5
    assert (rerun(plain, [ForbidEdge(0, query=9, key=8)]).logits - plain.logits).abs().max() > 1e-4
    with pytest.raises(InputError, match="only forbids more"):
        rerun(plain, [ReplaceMask(0, Causal())])
