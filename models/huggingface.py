"""Subjects from Hugging Face: a hub id or a local folder, safetensors or GGUF only, never remote code."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Encoding
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig
from transformers.models.auto import modeling_auto

from interp.subject import Axis, InputError, Inputs, LoadError, Subject
from models.text import checked, clip, text_axis

GENERATED = 40  # target tokens an encoder-decoder generates when only a source is given


def load_huggingface(
    name: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32, revision: str | None = None
) -> Subject:
    """A model folder or a hub id → Subject. Raises LoadError."""
    folder = Path(name).expanduser()
    local = folder.is_dir()
    if not local and (name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name):
        raise LoadError(
            f"There is no folder {name}. Give a folder with config.json and *.safetensors, or a hub id like org/name."
        )
    gguf = sorted(folder.glob("*.gguf")) if local else []
    source = str(folder) if local else name
    if local:
        _check_folder(folder, gguf)
    options: dict[str, Any] = {"revision": revision} if revision else {}
    if gguf:
        options["gguf_file"] = gguf[0].name
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False, **options)
        model_class = _model_class(config)
        module, info = model_class.from_pretrained(
            source,
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
            **({} if gguf else {"use_safetensors": True}),
        )
    except LoadError:
        raise
    except ImportError as error:
        if gguf:
            raise LoadError(
                f"Reading {gguf[0].name} needs the gguf and accelerate packages: pip install gguf accelerate."
            ) from error
        raise LoadError(f"{name} needs a package that is not installed: {_first_line(error)}") from error
    except (
        Exception
    ) as error:  # transformers raises OSError, ValueError, KeyError, SafetensorError … for one broken folder or another
        raise LoadError(_explain(name, local, error)) from error
    _check_weights(name, module)
    module = module.to(device).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    family = family_of(config, model_class.__name__)
    warnings = []
    if fresh := sorted(info["missing_keys"]):
        warnings.append(
            f"{len(fresh)} tensors were not in the checkpoint and are random: "
            f"{', '.join(fresh[:3])}{' …' if len(fresh) > 3 else ''}"
        )
    encode, tokenizer = _encoder(source, module, config, family, options)
    commit = getattr(config, "_commit_hash", None)
    return Subject(
        module=module,
        encode=encode,
        name="/".join(folder.resolve().parts[-2:]) if local else name,
        family=family,
        max_tokens=_max_tokens(config, tokenizer),
        vocab_size=getattr(config.get_text_config(), "vocab_size", None),
        bos=getattr(tokenizer, "bos_token_id", None),
        decode=tokenizer.decode if tokenizer is not None else None,
        origin=f"{source}@{commit[:12]}" if commit else source,
        warnings=tuple(warnings),
    )


def family_of(config: PretrainedConfig, class_name: str) -> str:
    """Decoder, encoder, encoder-decoder, vision or audio, from the configuration."""
    kind = config.model_type
    if "Speech" in class_name or kind in modeling_auto.MODEL_FOR_CTC_MAPPING_NAMES or kind == "whisper":
        return "audio"
    if config.is_encoder_decoder:
        return "encoder-decoder"
    if not hasattr(config, "vocab_size") and (hasattr(config, "image_size") or hasattr(config, "patch_size")):
        return "vision"
    causal = kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    masked = kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if "CausalLM" in class_name or getattr(config, "is_decoder", False) or (causal and not masked):
        return "decoder"
    return "encoder" if hasattr(config, "vocab_size") else "custom"


def _check_folder(folder: Path, gguf: list[Path]) -> None:
    if gguf:
        return
    if not (folder / "config.json").is_file():
        raise LoadError(f"{folder} has no config.json. Give the folder that save_pretrained wrote.")
    if not list(folder.glob("*.safetensors")):
        if pickles := [p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in folder.glob(pattern)]:
            raise LoadError(
                f"{folder} has only pickle weights ({pickles[0]}), which can run code when opened. "
                "Convert them once on a machine you trust: model.save_pretrained(folder) writes safetensors."
            )
        raise LoadError(f"{folder} has no *.safetensors weights. Give the folder that save_pretrained wrote.")


def _check_weights(name: str, module: nn.Module) -> None:
    for key, tensor in module.named_parameters():
        broken = tensor.numel() - int(torch.isfinite(tensor).sum())
        if broken:
            raise LoadError(
                f"{name}: tensor {key} has {broken:,} NaN or infinite values of {tensor.numel():,}. "
                "The checkpoint is damaged, or overflowed when it was saved in half precision; load another copy."
            )


def _model_class(config: PretrainedConfig) -> Any:
    """The class the checkpoint was saved from, which keeps its head; else the bare model."""
    for name in config.architectures or ():
        found = getattr(transformers, name, None)
        if inspect.isclass(found) and issubclass(found, transformers.PreTrainedModel):
            return found
    kind = config.model_type
    if (
        kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        and kind not in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    ):
        return transformers.AutoModelForCausalLM
    return transformers.AutoModel


def _explain(name: str, local: bool, error: Exception) -> str:
    text = _first_line(error)
    if local:
        advice = "Check that config.json and the safetensors files belong together and are complete."
        return f"{name} could not be loaded: {text} {advice}"
    if "gated" in text or "401" in text or "403" in text:
        return f"{name} is a gated or private model. Accept its terms on the hub, set HF_TOKEN, and load it again."
    return (
        f"{name} is not in the local cache and could not be fetched from the hub: the id may be misspelt, "
        "or this machine is offline. "
        "Check the id, or give a folder with config.json and *.safetensors."
    )


def _first_line(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0].strip()[:300]
    return line if line.endswith(".") else line + "."


def _max_tokens(config: PretrainedConfig, tokenizer) -> int | None:
    """The longest input the positions allow. RoBERTa-style models reserve the positions up to the padding id."""
    text = config.get_text_config()
    limits = [getattr(text, n, None) for n in ("max_position_embeddings", "n_positions", "max_seq_len")]
    limits = [n for n in limits if isinstance(n, int) and n > 0][:1]
    if tokenizer is not None and 0 < tokenizer.model_max_length < 1_000_000:
        limits.append(tokenizer.model_max_length)
    return min(limits, default=None)


def _encoder(source: str, module: nn.Module, config, family: str, options: dict) -> tuple[Callable[..., Inputs], Any]:
    """How this model's raw inputs become tensors, and its tokenizer when it has one."""
    if family == "vision":
        return _image_encoder(source, module, config, options), None
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as error:  # a checkpoint without a tokenizer still takes tensors
        reason = _first_line(error)

        def encode(raw, truncate: bool = False) -> Inputs:
            if isinstance(raw, dict):
                return _tensors(raw)
            raise InputError(f"{source} has no usable tokenizer ({reason}) Give a dict of tensors, such as input_ids.")

        return encode, None
    limit = _max_tokens(config, tokenizer)
    text_encoder = _pair_encoder if family == "encoder-decoder" else _text_encoder
    return text_encoder(tokenizer, module, limit), tokenizer


def _tensors(raw: dict) -> Inputs:
    if not raw or not all(isinstance(v, Tensor) for v in raw.values()):
        raise InputError(
            "A dict input needs tensors only, got "
            f"{', '.join(f'{k}: {type(v).__name__}' for k, v in raw.items()) or 'nothing'}."
        )
    return Inputs(raw)


def _tokenize(
    tokenizer, text: str, second: str | None, limit: int | None, truncate: bool
) -> tuple[dict, Axis, tuple[str, ...]]:
    """One text, or two as the model joins them → (keyword arguments with B = 1, axis, notes)."""
    text, notes = checked(text, truncate)
    if second is not None:
        second, more = checked(second, truncate)
        notes += more
    encoded = tokenizer(text, second, verbose=False)
    keep, more = clip(encoded["input_ids"], limit, truncate)
    if keep < len(encoded["input_ids"]):  # again, so that the closing special tokens survive the cut
        encoded = tokenizer(text, second, truncation=True, max_length=limit)
        keep = len(encoded["input_ids"])
    if keep == 0:
        raise InputError("The tokenizer made no token of this text. Type other characters.")
    kwargs = {
        k: torch.tensor([v]) for k, v in encoded.items() if k in ("input_ids", "attention_mask", "token_type_ids")
    }
    if encoded.encodings:
        encoding: Encoding = encoded.encodings[0]
        axis = text_axis(text, encoding, keep, tokenizer.decode, second)
    else:  # a slow tokenizer knows no offsets
        axis = Axis(tuple(tokenizer.convert_ids_to_tokens(encoded["input_ids"])), text=text)
        more += ("this tokenizer gives no character offsets, so words cannot be merged",)
    return kwargs, axis, notes + more


def _text_encoder(tokenizer, module: nn.Module, limit: int | None) -> Callable[..., Inputs]:
    accepted = set(inspect.signature(module.forward).parameters)

    def encode(raw, truncate: bool = False) -> Inputs:
        """A text, a pair of texts, or a dict of tensors. ``truncate`` cuts a text over the limit and says so."""
        if isinstance(raw, dict):
            return _tensors(raw)
        first, second = raw if isinstance(raw, tuple | list) and len(raw) == 2 else (raw, None)
        kwargs, axis, notes = _tokenize(tokenizer, first, second, limit, truncate)
        if bool(kwargs.get("attention_mask", torch.ones(1)).all()):
            kwargs.pop(
                "attention_mask", None
            )  # nothing is padded: the model's own mask, and SDPA's causal path, suffice
        device = next(module.parameters()).device
        return Inputs({k: v.to(device) for k, v in kwargs.items() if k in accepted}, {"input": axis}, notes)

    return encode


def _pair_encoder(tokenizer, module: nn.Module, limit: int | None) -> Callable[..., Inputs]:
    def encode(raw, truncate: bool = False) -> Inputs:
        """A (source, target) pair, a source alone (the model then writes the target, greedily), or a dict of
        tensors."""
        if isinstance(raw, dict):
            return _tensors(raw)
        device = next(module.parameters()).device
        first, second = raw if isinstance(raw, tuple | list) and len(raw) == 2 else (raw, None)
        kwargs, source, notes = _tokenize(tokenizer, first, None, limit, truncate)
        ids = kwargs["input_ids"].to(device)
        start = module.config.decoder_start_token_id or module.config.bos_token_id or 0
        if second is None:
            made = module.generate(input_ids=ids, max_new_tokens=GENERATED, do_sample=False, num_beams=1)[0].tolist()
            target_ids = made if made and made[0] == start else [start, *made]
            notes += ("the model wrote the target itself (greedy)",)
        else:
            checked(second, truncate)
            target_ids = [start, *tokenizer(text_target=second)["input_ids"]]
        keep, more = clip(target_ids, limit, truncate)
        labels = tuple(tokenizer.convert_ids_to_tokens(i).replace("▁", " ") for i in target_ids[:keep])
        target = Axis(labels, special=tuple(i in tokenizer.all_special_ids for i in target_ids[:keep]))
        decoder_ids = torch.tensor([target_ids[:keep]], device=device)
        return Inputs(
            {"input_ids": ids, "decoder_input_ids": decoder_ids}, {"source": source, "target": target}, notes + more
        )

    return encode


def _image_encoder(source: str, module: nn.Module, config, options: dict) -> Callable[..., Inputs]:
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=False, **options)

    def encode(raw, truncate: bool = False) -> Inputs:
        """A PIL image, or a dict of tensors."""
        if isinstance(raw, dict):
            return _tensors(raw)
        if not hasattr(raw, "convert"):
            raise InputError(f"Expected a picture, got {type(raw).__name__}. Open it with PIL.Image.open.")
        pixels = processor(images=raw.convert("RGB"), return_tensors="pt")["pixel_values"]
        patch = config.patch_size if isinstance(config.patch_size, int) else config.patch_size[0]
        rows, columns = pixels.shape[-2] // patch, pixels.shape[-1] // patch
        labels = ("CLS", *(f"{r},{c}" for r in range(rows) for c in range(columns)))
        axis = Axis(labels, special=(True, *(False,) * (rows * columns)), grid=(rows, columns))
        return Inputs({"pixel_values": pixels.to(next(module.parameters()).device)}, {"input": axis})

    return encode
