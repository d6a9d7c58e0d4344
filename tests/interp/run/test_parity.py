"""Every head of every architecture equals Hugging Face's own eager ``output_attentions``.

Tiny random models with large weights (attention far from uniform), each captured under its default implementation
and compared with a copy that computes attention eagerly. Rows of padding are nobody's business and left out.
"""

from copy import deepcopy

import pytest
import torch
import transformers
from torch import nn

from headwise.interp.run.capture import capture
from headwise.interp.subject import Subject, tensors_only

BATCH, LENGTH, TARGET = 2, 12, 7
EXACT = 1e-5

COMMON = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 99,
}
GROUPED = COMMON | {"num_key_value_heads": 2, "pad_token_id": 0}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99}
BART = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "vocab_size": 99, "pad_token_id": 98,
}  # fmt: skip
RELATIVE = COMMON | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
PICTURE = {k: v for k, v in COMMON.items() if k != "vocab_size"} | {"image_size": 12, "patch_size": 4}
T5 = {
    "d_model": 32,
    "num_layers": 2,
    "num_heads": 4,
    "d_kv": 8,
    "d_ff": 48,
    "vocab_size": 99,
    "decoder_start_token_id": 0,
}

ENCODERS = {
    "Bert": COMMON,
    "Roberta": COMMON,
    "XLMRoberta": COMMON,
    "Camembert": COMMON,
    "Ernie": COMMON,
    "Electra": COMMON,
    "Albert": COMMON | {"embedding_size": 16},
    "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "vocab_size": 99},
    "Deberta": RELATIVE,
    "DebertaV2": RELATIVE,
    "MPNet": COMMON,
    "RoFormer": COMMON,
    "ModernBert": COMMON | {"pad_token_id": 0, "local_attention": 4, "global_attn_every_n_layers": 2},
    "XLNet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "vocab_size": 99},
    "BigBird": COMMON | {"attention_type": "original_full"},
}  # fmt: skip
DECODERS = {
    "GPT2": GPT,
    "GPTNeo": {
        "hidden_size": 32, "num_layers": 2, "num_heads": 4, "vocab_size": 99,
        "attention_types": [[["global", "local"], 1]], "window_size": 4,
    },
    "GPTJ": GPT | {"rotary_dim": 4},
    "GPTNeoX": COMMON,
    "Llama": GROUPED,
    "Qwen2": GROUPED,
    "Qwen3": GROUPED | {"head_dim": 8},
    "Qwen3Moe": GROUPED,
    "Mistral": GROUPED | {"sliding_window": 4},
    "Mixtral": GROUPED,
    "Gemma": GROUPED | {"head_dim": 8},
    "Gemma2": GROUPED | {"head_dim": 8, "sliding_window": 4},
    "Phi3": GROUPED,
    "Olmo": GROUPED,
    "StableLm": GROUPED,
    "Starcoder2": GROUPED,
    "Cohere": GROUPED,
    "Granite": GROUPED,
    "Bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99},
    "Falcon": COMMON,
    "OPT": COMMON | {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "Mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "vocab_size": 99},
}  # fmt: skip
ENCODER_DECODERS = {"T5": T5, "Bart": BART, "Marian": BART, "Pegasus": BART}
BANDED = {"attention_window": 4}
REFORMER = {
    "hidden_size": 32, "num_attention_heads": 4, "attention_head_size": 8, "feed_forward_size": 48, "vocab_size": 99,
    "axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16], "attn_layers": ["local", "lsh"],
    "lsh_attn_chunk_length": 8, "local_attn_chunk_length": 8, "num_buckets": 4, "is_decoder": False,
}  # fmt: skip
NOT_DENSE = {
    "Longformer": COMMON | BANDED,
    "BigBird": COMMON | {"attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 1},
    "Reformer": REFORMER,
    "Mamba": {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 99, "state_size": 4},
    "Rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 99, "attention_hidden_size": 32},
}
PICTURES = {"ViT": PICTURE, "Dinov2": PICTURE}


def build(name: str, options: dict, auto=transformers.AutoModel) -> nn.Module:
    config = getattr(transformers, f"{name}Config")(**options)
    module = auto.from_config(config).eval()
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.25)
    return module


def eager(module: nn.Module, auto=transformers.AutoModel) -> nn.Module:
    """The same weights under eager attention; the config is copied because from_config writes into its own."""
    twin = auto.from_config(deepcopy(module.config), attn_implementation="eager").eval()
    twin.load_state_dict(module.state_dict())
    return twin


def attention_mask(padding: str | None) -> torch.Tensor:
    mask = torch.ones(BATCH, LENGTH, dtype=torch.long)
    if padding == "right":
        mask[1, -4:] = 0
    if padding == "left":
        mask[1, :4] = 0
    return mask


def assert_equal_heads(module, inputs, family, expected, real=None, auto=transformers.AutoModel):
    """``expected(output)`` → {stack: (B, H, Q, K) a layer}; ``real`` is bool (B, T), the queries that count."""
    implementation = module.config._attn_implementation
    cap = capture(Subject(module, tensors_only(module), type(module).__name__, family), inputs)
    assert module.config._attn_implementation == implementation
    with torch.no_grad():
        reference = expected(eager(module, auto)(**inputs, output_attentions=True))
    assert not cap.unseen
    assert set(cap.stacks) == set(reference)
    for stack, layers in reference.items():
        calls = cap.stack(stack)
        assert [c.layer for c in calls] == list(range(len(layers)))
        for call, theirs in zip(calls, layers, strict=True):
            assert call.shape == theirs.shape
            ours = torch.stack([call.weights(head) for head in range(call.heads)], 1)
            gap = (ours - theirs).abs().amax((1, 3))  # (B, Q)
            rows = (
                real if real is not None and real.shape[1] == call.queries else torch.ones_like(gap, dtype=torch.bool)
            )
            assert gap[rows].max() <= EXACT
            assert not torch.allclose(
                theirs, theirs.roll(1, 1), atol=0.05
            )  # heads that differ, or the test could not fail
    assert cap.fidelity <= 1e-4
    return cap


@pytest.mark.parametrize("padding", [None, "right", "left"])
@pytest.mark.parametrize("name", ENCODERS)
def test_encoders(name, padding):
    module = build(name, ENCODERS[name])
    mask = attention_mask(padding)
    inputs = {"input_ids": torch.randint(2, 98, (BATCH, LENGTH))} | ({"attention_mask": mask} if padding else {})
    assert_equal_heads(module, inputs, "encoder", lambda o: {"encoder": o.attentions}, mask.bool())


@pytest.mark.parametrize("padding", [None, "right", "left"])
@pytest.mark.parametrize("name", DECODERS)
def test_decoders(name, padding):
    auto = transformers.AutoModelForCausalLM
    module = build(name, DECODERS[name], auto)
    mask = attention_mask(padding)
    inputs = {"input_ids": torch.randint(2, 98, (BATCH, LENGTH))} | ({"attention_mask": mask} if padding else {})
    assert_equal_heads(module, inputs, "decoder", lambda o: {"decoder": o.attentions}, mask.bool(), auto)


@pytest.mark.parametrize("padding", [None, "right", "left"])
@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_encoder_decoders(name, padding):
    auto = transformers.AutoModelForSeq2SeqLM
    module = build(name, ENCODER_DECODERS[name], auto)
    mask = attention_mask(padding)
    ids = torch.randint(2, 98, (BATCH, LENGTH))
    inputs = {"input_ids": ids, "decoder_input_ids": ids[:, :TARGET]} | ({"attention_mask": mask} if padding else {})
    cap = assert_equal_heads(module, inputs, "encoder-decoder", seq2seq, mask.bool(), auto)
    assert {c.kind for c in cap.stack("cross")} == {"cross"}
    assert {c.shape[2:] for c in cap.stack("cross")} == {(TARGET, LENGTH)}
    assert {c.kind for c in (*cap.stack("encoder"), *cap.stack("decoder"))} == {"self"}


@pytest.mark.parametrize("padding", [None, "right"])
def test_funnel_pools_its_queries(padding):
    """Its second block halves the queries (Dai et al. 2020, §2.2): 6 on 12 keys, which counts as cross-attention."""
    funnel = {
        "d_model": 32,
        "block_sizes": [1, 1],
        "num_decoder_layers": 1,
        "n_head": 4,
        "d_head": 8,
        "d_inner": 48,
    }
    module = build("Funnel", funnel | {"vocab_size": 99, "architectures": ["FunnelModel"]})
    mask = attention_mask(padding)
    inputs = {"input_ids": torch.randint(2, 98, (BATCH, LENGTH)), "attention_mask": mask}
    cap = capture(Subject(module, tensors_only(module), "Funnel", "encoder"), inputs)
    with torch.no_grad():
        reference = eager(module)(**inputs, output_attentions=True).attentions
    assert [(c.stack, *c.shape[2:]) for c in cap.calls] == [
        ("encoder", 12, 12),
        ("cross", 6, 12),
        ("decoder", 12, 12),
    ]
    for call, theirs in zip(cap.calls, reference, strict=True):
        gap = (call.band(0, call.queries) - theirs).abs().amax((1, 3))
        assert gap[mask.bool()[:, :: LENGTH // call.queries]].max() <= EXACT


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name):
    module = build(name, PICTURES[name])
    assert_equal_heads(
        module, {"pixel_values": torch.randn(BATCH, 3, 12, 12)}, "vision", lambda o: {"encoder": o.attentions}
    )


def test_both_towers_of_clip():
    text = COMMON | {"max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 1}
    module = build("CLIP", {"text_config": text, "vision_config": PICTURE, "projection_dim": 8})
    inputs = {
        "input_ids": torch.randint(2, 98, (BATCH, LENGTH)),
        "pixel_values": torch.randn(BATCH, 3, 12, 12),
    }

    def towers(output):
        text, vision = output.text_model_output, output.vision_model_output
        return {"text.encoder": text.attentions, "vision.encoder": vision.attentions}

    assert_equal_heads(module, inputs, "custom", towers)


def test_whisper():
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    module = build("Whisper", BART | tokens | {"num_mel_bins": 8, "max_source_positions": 10})
    inputs = {
        "input_features": torch.randn(BATCH, 8, 20),
        "decoder_input_ids": torch.randint(3, 98, (BATCH, TARGET)),
    }
    assert_equal_heads(module, inputs, "audio", seq2seq)


def seq2seq(output):
    return {
        "encoder": output.encoder_attentions,
        "decoder": output.decoder_attentions,
        "cross": output.cross_attentions,
    }


@pytest.mark.parametrize("name", NOT_DENSE)
def test_what_is_no_dense_attention_is_named_and_gives_no_call(name):
    module = build(name, NOT_DENSE[name])
    cap = capture(
        Subject(module, tensors_only(module), name, "encoder"),
        {"input_ids": torch.randint(2, 98, (BATCH, 64))},
    )
    assert not cap.calls
    assert len(cap.unseen) == 2  # one a layer
    assert all(u.name and u.type and len(u.reason) > 20 for u in cap.unseen)


def test_led_shows_its_decoder_and_names_its_encoder():
    auto = transformers.AutoModelForSeq2SeqLM
    module = build("LED", BART | BANDED, auto)
    ids = torch.randint(2, 98, (BATCH, LENGTH))
    inputs = {"input_ids": ids, "decoder_input_ids": ids[:, :TARGET]}
    cap = capture(Subject(module, tensors_only(module), "LED", "encoder-decoder"), inputs)
    with torch.no_grad():
        reference = seq2seq(eager(module, auto)(**inputs, output_attentions=True))
    assert cap.stacks == ("decoder", "cross")
    for stack in cap.stacks:
        for call, theirs in zip(cap.stack(stack), reference[stack], strict=True):
            assert (call.band(0, TARGET) - theirs).abs().max() <= EXACT
    assert [u.name for u in cap.unseen] == [
        "led.encoder.layers.0.self_attn",
        "led.encoder.layers.1.self_attn",
    ]


@pytest.mark.parametrize("padding", [None, "right"])
def test_grouped_queries_with_and_without_repeated_keys(padding):
    """Without a mask Hugging Face passes 2 key heads and enable_gqa; with one it repeats them to 4 itself."""
    auto = transformers.AutoModelForCausalLM
    module = build("Llama", GROUPED, auto)
    inputs = {"input_ids": torch.randint(2, 98, (BATCH, LENGTH)), "attention_mask": attention_mask(padding)}
    cap = capture(Subject(module, tensors_only(module), "Llama", "decoder"), inputs)
    assert {c.kv_heads for c in cap.calls} == ({4} if padding else {2})
    assert {c.heads for c in cap.calls} == {4}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_float32_softmax_of_the_same_q_and_k(dtype):
    auto = transformers.AutoModelForCausalLM
    module = build("Llama", GROUPED, auto).to(dtype)
    cap = capture(
        Subject(module, tensors_only(module), "Llama", "decoder"),
        {"input_ids": torch.randint(2, 98, (BATCH, LENGTH))},
    )
    future = torch.ones(LENGTH, LENGTH).triu(1).bool()
    for call in cap.calls:
        assert call.form.q.dtype == call.form.k.dtype == dtype
        k = call.form.k.float().repeat_interleave(2, 1)
        theirs = (call.form.q.float() @ k.mT / 8**0.5).masked_fill(future, float("-inf")).softmax(-1)
        assert call.weights(0).dtype == torch.float32
        assert (call.band(0, LENGTH) - theirs).abs().max() <= 1e-6
    with torch.no_grad():
        reference = eager(module.float(), auto)(**cap.inputs.kwargs, output_attentions=True).attentions
    assert (cap.calls[0].band(0, LENGTH) - reference[0]).abs().max() <= 0.05  # and near the model in float32
