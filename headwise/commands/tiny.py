"""``headwise check --hf-config``: a tiny random model of a Hugging Face architecture, from its configuration alone."""

from __future__ import annotations

from headwise.interp.check import CheckError, seeded

WIDTH, LAYERS, HEADS, FEED_FORWARD, POSITIONS = 32, 2, 4, 48, 64
SIZES = {  # what configurations call their sizes; each architecture takes those it knows
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "word_embed_proj_dim"), WIDTH),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), LAYERS),
    **dict.fromkeys(("num_decoder_layers", "encoder_layers", "decoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), HEADS),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), HEADS),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "d_ff", "n_inner"), FEED_FORWARD),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim"), FEED_FORWARD),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_target_positions"), POSITIONS),
    **dict.fromkeys(("d_kv", "head_dim"), WIDTH // HEADS),
    **dict.fromkeys(("num_experts", "num_local_experts"), 4),
    "vocab_size": 97,
    "num_key_value_heads": 2,
    "rotary_dim": 4,
    "max_source_positions": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "sliding_window": 8,
    "image_size": 16,
    "patch_size": 4,
}


def tiny(kind: str, is_decoder: bool = False):
    """Raises CheckError for an unknown kind, or one whose configuration does not take tiny sizes."""
    config = _config(kind, is_decoder)
    try:
        with seeded(0):
            return _maker(config, kind, is_decoder).from_config(config).eval()
    except Exception as error:  # what a model's own code raises
        raise CheckError(
            f"--hf-config {kind}: no tiny model could be built ({type(error).__name__}: {_line(error)})."
        ) from error


def _config(kind: str, is_decoder: bool):
    try:
        from transformers import AutoConfig  # not everybody has it
    except ImportError as error:
        raise CheckError("--hf-config needs transformers: pip install transformers.") from error
    try:
        plain = AutoConfig.for_model(kind)
        sizes = {name: value for name, value in SIZES.items() if hasattr(plain, name)}
        return AutoConfig.for_model(kind, **sizes, **({"is_decoder": True} if is_decoder else {}))
    except Exception as error:  # configurations raise whatever they like for sizes that do not fit
        unknown = "Unrecognized model" in str(error) or isinstance(error, ValueError)
        what = "unknown model type" if unknown else "its configuration does not take tiny sizes"
        raise CheckError(f"--hf-config {kind}: {what} ({_line(error)}).") from error


def _maker(config, kind: str, is_decoder: bool):
    """The class that gives it the head its kind has."""
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM
    from transformers.models.auto import modeling_auto

    if config.is_encoder_decoder:
        return AutoModelForSeq2SeqLM
    masked = kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    causal = kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and (is_decoder or not masked)
    return AutoModelForCausalLM if causal else AutoModel


def _line(error: Exception) -> str:
    return str(error).splitlines()[0][:160]
