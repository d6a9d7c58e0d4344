"""Tiny random models of Hugging Face architectures, by configuration alone."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

# What configurations call their sizes; each architecture takes those it knows.
TINY = {
    "vocab_size": 61, "hidden_size": 32, "d_model": 32, "n_embd": 32, "dim": 32, "num_hidden_layers": 2, "n_layer":
    2, "num_layers": 2,
    "n_layers": 2, "encoder_layers": 2, "decoder_layers": 2, "num_attention_heads": 4, "n_head": 4, "n_heads": 4,
    "num_heads": 4,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48,
    "hidden_dim": 48,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "d_ff": 48, "ffn_dim": 48, "n_inner": 48,
    "max_position_embeddings": 64, "n_positions": 64,
    "n_ctx": 64, "max_source_positions": 40, "max_target_positions": 64, "d_kv": 8, "head_dim": 8, "embedding_size":
    32, "num_mel_bins": 16,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "word_embed_proj_dim": 32,
    "rotary_dim": 4,
    "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
    "num_decoder_layers": 2,
    "max_seq_len": 64, "ffn_hidden_size": 48, "n_routed_experts": 4, "sliding_window": 8, "image_size": 16,
    "patch_size": 4, "emb_dim": 32,
}  # fmt: skip

DECODERS = (
    "gpt2", "gpt_neo", "gptj", "gpt_neox", "llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "phi",
    "phi3", "opt", "bloom",
    "falcon", "mpt", "codegen", "stablelm", "olmo", "olmo2", "starcoder2", "persimmon", "cohere", "granite",
    "gpt_bigcode", "biogpt", "xglm",
    "ctrl", "openai-gpt", "nemotron", "qwen2_moe", "olmoe", "smollm3", "helium", "glm", "exaone4", "ernie4_5",
)  # fmt: skip
ENCODERS = (
    "bert", "roberta", "distilbert", "electra", "albert", "mpnet", "deberta-v2", "camembert", "xlm-roberta",
    "squeezebert", "convbert", "nystromformer",
    "ernie", "megatron-bert", "roformer", "mobilebert", "layoutlm", "modernbert", "data2vec-text", "ibert",
    "rembert", "deberta", "vit", "dinov2",
)  # fmt: skip
PAIRS = ("t5", "bart", "marian", "mbart", "pegasus", "blenderbot", "m2m_100", "mt5", "whisper")


def tiny(kind: str, **extra):
    """A tiny random model: decoders with their head, encoders bare, pairs with theirs."""
    config = AutoConfig.for_model(kind)
    own = {**EXTRA.get(kind, {}), **extra}
    sizes = {k: v for k, v in {**TINY, **own}.items() if (hasattr(config, k) or k in own) and v is not None}
    config = AutoConfig.for_model(kind, **sizes)
    torch.manual_seed(0)
    maker = (
        AutoModelForCausalLM
        if kind in DECODERS or extra.get("is_decoder")
        else AutoModelForSeq2SeqLM
        if kind in PAIRS and kind != "whisper"
        else AutoModel
    )
    if kind == "whisper":
        from transformers import WhisperForConditionalGeneration

        return WhisperForConditionalGeneration(config).eval()
    return maker.from_config(config).eval()


EXTRA = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "gemma2": {
        "num_hidden_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "query_pre_attn_scalar": 8,
    },
    "albert": {"embedding_size": 16},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "deberta": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "falcon": {"num_kv_heads": 4, "head_dim": None},
    "persimmon": {"partial_rotary_factor": 0.5},
    "ctrl": {"dff": 48},
    "codegen": {"n_head": 4, "rotary_dim": 4},
    "exaone4": {"layer_types": ["sliding_attention", "full_attention"]},
    "smollm3": {"no_rope_layers": [1, 0], "layer_types": ["full_attention", "full_attention"]},
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "nystromformer": {"num_landmarks": 64, "segment_means_seq_len": 64},
    "modernbert": {"cls_token_id": 1, "sep_token_id": 2, "local_attention": 8},
    "xglm": {"attention_heads": 4, "num_layers": 2},
    "squeezebert": {"embedding_size": 32},
    "pegasus": {"num_hidden_layers": 2},
    "qwen2_moe": {"shared_expert_intermediate_size": 24, "decoder_sparse_step": 1},
}
