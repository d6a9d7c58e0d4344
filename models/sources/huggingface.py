"""Subjects from Hugging Face: a hub id or a local folder, safetensors or GGUF only, never remote code."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.models.auto import modeling_auto

from headwise.interp.errors import LoadError
from headwise.interp.subject import Inputs, Subject
from headwise.models.inputs.pictures import image_encoder
from headwise.models.inputs.recordings import audio_encoder
from headwise.models.inputs.texts import end_tokens, pair_encoder, text_encoder, unusable

AUDIO_INPUTS = ("input_features", "input_values")  # what classes that hear take first


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
    family = family_of(config, model_class)
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
        family_from="",  # read off its classes' names
        max_tokens=_max_tokens(config, tokenizer),
        vocab_size=getattr(config.get_text_config(), "vocab_size", None),
        bos=getattr(tokenizer, "bos_token_id", None),
        decode=tokenizer.decode if tokenizer is not None else None,
        eos=next(iter(end_tokens(module)), None),
        mask_token=getattr(tokenizer, "mask_token_id", None) if "ForMaskedLM" in model_class.__name__ else None,
        labels=_labels(config, model_class.__name__),
        origin=f"{source}@{commit[:12]}" if commit else source,
        warnings=tuple(warnings),
    )


def family_of(config: PretrainedConfig, model_class: type) -> str:
    """Decoder, encoder, encoder-decoder, vision or audio, from the configuration and what the class takes first."""
    kind, name = config.model_type, model_class.__name__
    takes = getattr(model_class, "main_input_name", "input_ids")
    if takes in AUDIO_INPUTS or ("Speech" in name and takes != "input_ids"):  # that is text to speech
        return "audio"
    if config.is_encoder_decoder:
        return "encoder-decoder"
    only_sees = takes == "pixel_values" and not hasattr(config, "text_config")
    measured = not hasattr(config, "vocab_size") and (hasattr(config, "image_size") or hasattr(config, "patch_size"))
    if only_sees or measured or "ForImageClassification" in name:
        return "vision"
    causal = kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    masked = kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if "CausalLM" in name or getattr(config, "is_decoder", False) or (causal and not masked):
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
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "max_target_positions")
    limits = [getattr(text, n, None) for n in names]
    limits = [n for n in limits if isinstance(n, int) and n > 0][:1]
    if tokenizer is not None and 0 < tokenizer.model_max_length < 1_000_000:
        limits.append(tokenizer.model_max_length)
    return min(limits, default=None)


def _encoder(
    source: str, module: nn.Module, config, family: str, options: dict
) -> tuple[Callable[..., Inputs], PreTrainedTokenizerBase | None]:
    """How this model's raw inputs become tensors, and its tokenizer when it has one."""
    if family == "vision":
        processor, reason = _part(AutoImageProcessor, source, {**options, "backend": "pil"})
        return image_encoder(processor, module) if processor else unusable("image processor", source, reason), None
    tokenizer, reason = _part(AutoTokenizer, source, options)
    limit = _max_tokens(config, tokenizer)
    if family == "audio":
        extractor, reason = _part(AutoFeatureExtractor, source, options)
        if extractor is None:
            return unusable("feature extractor", source, reason), tokenizer
        return audio_encoder(extractor, module, tokenizer, limit), tokenizer
    if tokenizer is None:
        return unusable("tokenizer", source, reason), None
    return (pair_encoder if family == "encoder-decoder" else text_encoder)(tokenizer, module, limit), tokenizer


def _part(auto: Any, source: str, options: dict) -> tuple[Any, str]:
    """A tokenizer or processor of the checkpoint, or None and why: without it the model still takes tensors."""
    try:
        return auto.from_pretrained(source, trust_remote_code=False, **options), ""
    except Exception as error:  # transformers raises OSError, ValueError, KeyError … for one missing file or another
        return None, _first_line(error)


def _labels(config: PretrainedConfig, class_name: str) -> tuple[str, ...]:
    """What the outputs of a classifier are called."""
    if not any(name in class_name for name in ("ForImageClassification", "ForSequenceClassification")):
        return ()
    return tuple(str(config.id2label[i]) for i in sorted(config.id2label))
