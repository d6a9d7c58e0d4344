"""Every module that cuts its attention matrix up and that the app names: its calls are those of any attention, or what
the user reads says why there is none."""

import pytest
import torch
import transformers
from torch import nn

from headwise import capture, wrap
from headwise.interp.analysis.ablation import ablate
from headwise.interp.analysis.metrics import sweep
from headwise.interp.run.edits import HeadOutput
from headwise.interp.run.tap.recorder import NO_SOFTMAX, Lost

LENGTH, VOCABULARY = 64, 99
IDS = torch.randint(3, VOCABULARY, (2, LENGTH), generator=torch.Generator().manual_seed(0))
SIZE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "vocab_size": VOCABULARY,
}  # fmt: skip
LED = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "vocab_size": VOCABULARY,
    "attention_window": 4,
}  # fmt: skip
T5 = {
    "d_model": 32, "num_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 48, "vocab_size": VOCABULARY, "local_radius": 4,
    "decoder_start_token_id": 0, "global_block_size": 5,
}  # fmt: skip
REFORMER = {
    "hidden_size": 32, "num_attention_heads": 4, "attention_head_size": 8, "feed_forward_size": 48, "num_buckets": 4,
    "axial_pos_embds": False, "max_position_embeddings": 64, "lsh_attn_chunk_length": 8, "local_attn_chunk_length": 8,
    "vocab_size": VOCABULARY, "is_decoder": True, "lsh_attention_probs_dropout_prob": 0.0, "num_hashes": 2,
}  # fmt: skip
FUNNEL = {"d_model": 32, "block_sizes": [1, 1], "n_head": 4, "d_head": 8, "d_inner": 48, "vocab_size": VOCABULARY}
XLNET = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "vocab_size": VOCABULARY}
STATES = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": VOCABULARY, "state_size": 4}
MINIMAX = SIZE | {
    "num_key_value_heads": 2, "head_dim": 8, "block_size": 16, "num_local_experts": 2, "num_experts_per_tok": 1,
    "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
LUCID = {"num_tokens": VOCABULARY, "dim": 32, "depth": 2, "heads": 4, "max_seq_len": LENGTH}
LINFORMER = {"num_tokens": VOCABULARY, "dim": 32, "depth": 2, "heads": 4, "seq_len": LENGTH, "k": 8}


def hugging_face(name: str, options: dict, head: str = "Model"):
    def build() -> tuple[nn.Module, dict]:
        module = getattr(transformers, name + head)(getattr(transformers, f"{name}Config")(**options)).eval()
        for parameter in module.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.25)  # attention far from uniform
        inputs = {"input_ids": IDS}
        return module, inputs | ({"decoder_input_ids": IDS[:, :9]} if name in ("LED", "LongT5") else {})

    return build


def library(name: str, kind: str, options: dict = LUCID, **more):
    def build() -> tuple[nn.Module, dict]:
        made = getattr(pytest.importorskip(name), kind)(**options | more)
        return made.eval(), {"x": IDS}

    return build


def x_transformer() -> tuple[nn.Module, dict]:
    own = pytest.importorskip("x_transformers")
    layers = own.Decoder(dim=32, depth=2, heads=4, attn_dim_head=8)
    return own.TransformerWrapper(num_tokens=VOCABULARY, max_seq_len=LENGTH, attn_layers=layers).eval(), {"x": IDS}


def fused() -> tuple[nn.Module, dict]:
    """A layer by the name of one of flash-linear-attention's, whose own need a GPU to be run at all."""
    made = type("GatedLinearAttention", (nn.Linear,), {"__module__": "fla.layers.gla"})
    return nn.Sequential(nn.Embedding(VOCABULARY, 8), made(8, 8)).eval(), {"input": IDS}


# what the issue names → (how it is made, how many calls one layer's stack shows, whether it looks back only)
CALLS = {
    "Longformer": (hugging_face("Longformer", SIZE | {"attention_window": 4}), 2, False),
    "LED": (hugging_face("LED", LED), 4, False),
    "LongT5 local": (hugging_face("LongT5", T5), 6, False),
    "LongT5 transient-global": (
        hugging_face("LongT5", T5 | {"encoder_attention_type": "transient-global"}), 6, False,
    ),
    "BigBird block-sparse": (
        hugging_face("BigBird", SIZE | {"attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 1}),
        2, False,
    ),
    "Reformer": (hugging_face("Reformer", REFORMER | {"attn_layers": ["local", "lsh"]}), 2, True),
    "XLNet": (hugging_face("XLNet", XLNET), 2, False),
    "Funnel": (hugging_face("Funnel", FUNNEL), 4, False),
    "Nyströmformer": (
        hugging_face("Nystromformer", SIZE | {"segment_means_seq_len": LENGTH, "num_landmarks": 8}), 2, False,
    ),
    "YOSO": (hugging_face("Yoso", SIZE), 2, False),
    "RWKV": (
        hugging_face("Rwkv", {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": VOCABULARY}), 2, True,
    ),
    "Mamba": (hugging_face("Mamba", STATES), 2, True),
    "Mamba-2": (
        hugging_face("Mamba2", STATES | {"num_heads": 4, "head_dim": 16, "expand": 2, "n_groups": 2}), 2, True,
    ),
    "lightning": (hugging_face("MiniMax", MINIMAX), 2, True),
    "performer-pytorch": (library("performer_pytorch", "PerformerLM", dim_head=8, nb_features=16), 2, False),
    "reformer-pytorch": (
        library("reformer_pytorch", "ReformerLM", bucket_size=8, n_hashes=2, causal=True), 2, True,
    ),
    "local-attention": (
        library("local_attention", "LocalTransformer", local_attn_window_size=8, causal=True), 2, True,
    ),
    "linear-attention-transformer": (
        library("linear_attention_transformer", "LinearAttentionTransformerLM", causal=True), 2, True,
    ),
    "linformer": (
        library("linformer", "LinformerLM", LINFORMER),
        2, False,
    ),
    "x-transformers": (x_transformer, 2, True),
}  # fmt: skip
# what cannot be told here → (how it is made, words of the reason)
REASONS = {
    "MRA": (hugging_face("Mra", SIZE | {"max_position_embeddings": LENGTH}), "without its CUDA kernel"),
    "flash-linear-attention": (fused, "Triton kernels"),
}


def made(build):
    torch.manual_seed(0)
    return build()


@pytest.mark.parametrize("name", CALLS)
def test_it_is_captured_like_any_attention(name):
    build, count, causal = CALLS[name]
    module, inputs = made(build)
    cap = capture(wrap(module, kind="decoder" if causal else "encoder"), inputs)
    assert not cap.unseen and len(cap.calls) == count
    for call in cap.calls:
        carried = torch.stack([call.weights(head) for head in range(call.heads)], 1) @ call.v.repeat_interleave(
            call.heads // call.kv_heads, 1
        )
        assert call.out.shape == carried.shape and torch.isfinite(call.out).all()
        assert (call.weights(0, (1, 3)) - call.weights(0)[:, 1:3]).abs().max() < 1e-6
    figures = sweep(cap)
    assert len(figures) == sum(call.heads for call in cap.calls)
    assert figures.notna().all().all()
    assert not causal or figures.forbidden.max() < 1e-6
    some = [HeadOutput(call.layer, 0, call.stack) for call in cap.calls[:2]]
    effects = ablate(cap, some, "zero").effect
    assert len(effects) == len(some) and effects.abs().max() > 1e-6


@pytest.mark.parametrize("name", REASONS)
def test_it_says_why_there_is_nothing_to_see(name):
    build, words = REASONS[name]
    module, inputs = made(build)
    cap = capture(wrap(module, kind="encoder"), inputs)
    assert not cap.calls and cap.unseen
    for unseen in cap.unseen:
        assert words in unseen.reason and unseen.reason not in (NO_SOFTMAX, *map(str, Lost))
