"""Subjects from Hugging Face: a hub id or a local folder, safetensors or GGUF only, never remote code."""

from __future__ import annotations

import contextlib
import inspect
import json
import threading
from pathlib import Path
from typing import Any

import httpx2
import torch
import transformers
from huggingface_hub import constants
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
from headwise.interp.subject import Reader, Subject, dtype_of
from headwise.models.inputs.pictures import PictureReader
from headwise.models.inputs.recordings import RecordingReader
from headwise.models.inputs.texts import PairReader, TextReader, Unusable, end_tokens
from headwise.models.sources.watched import watchers_of

AUDIO_INPUTS = ("input_features", "input_values")  # what classes that hear take first
PATIENCE = 1.5  # seconds in which the hub answers, or this machine counts as offline


def load_huggingface(
    name: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32, revision: str | None = None
) -> Subject:
    """A model folder or a hub id → Subject. Raises LoadError."""
    folder = _folder(name)
    source = str(folder) if folder else name
    options: dict[str, Any] = {"revision": revision} if revision else {}
    if folder and (gguf := sorted(folder.glob("*.gguf"))):
        options["gguf_file"] = gguf[0].name
    elif folder:
        _check_folder(folder)
    elif not _answers(constants.ENDPOINT):
        options["local_files_only"] = True
    config, module, fresh = _from_pretrained(name, source, dtype, options)
    _check_weights(name, module)
    module = module.to(device).eval().requires_grad_(False)
    model_class = type(module)
    family = family_of(config, model_class)
    encode, tokenizer = _reader(source, module, config, family, options)
    commit = getattr(config, "_commit_hash", None)
    return Subject(
        module=module,
        encode=encode,
        name="/".join(folder.resolve().parts[-2:]) if folder else name,
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
        warnings=(*_random(fresh), *_converted(config, module)),
        watchers=watchers_of(module),
    )


def _folder(name: str) -> Path | None:
    """The folder that a name means; None for a hub id. Raises LoadError for a path to nothing."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise LoadError(
            f"There is no folder {name}. Give a folder with config.json and *.safetensors, or a hub id like org/name."
        )
    return None


def _answers(endpoint: str) -> bool:
    """Whether the hub can be reached. Asked before transformers does, which tries for half a minute; in a thread,
    because looking up a name has no time limit of its own."""
    if constants.HF_HUB_OFFLINE:
        return False

    def ask() -> None:
        with contextlib.suppress(httpx2.HTTPError):
            httpx2.head(endpoint, timeout=PATIENCE)
            answered.set()

    answered = threading.Event()
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return answered.is_set()


def _from_pretrained(
    name: str, source: str, dtype: torch.dtype, options: dict[str, Any]
) -> tuple[PretrainedConfig, nn.Module, list[str]]:
    """→ (configuration, module, parameters that the checkpoint lacks). Raises LoadError."""
    gguf = options.get("gguf_file")
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False, **options)
        module, info = _model_class(config).from_pretrained(
            source,
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
            **({} if gguf else {"use_safetensors": True}),
        )
    except ImportError as error:
        if gguf:
            raise LoadError(
                f"Reading {gguf} needs the gguf and accelerate packages: pip install gguf accelerate."
            ) from error
        raise LoadError(f"{name} needs a package that is not installed: {_first_line(error)}") from error
    except Exception as error:  # OSError, ValueError, KeyError, SafetensorError … for one broken checkpoint or another
        raise LoadError(_explain(name, source, "local_files_only" in options, error)) from error
    return config, module, sorted(info["missing_keys"])


def _random(fresh: list[str]) -> tuple[str, ...]:
    """What to say of parameters that the checkpoint lacks."""
    if not fresh:
        return ()
    some = f"{', '.join(fresh[:3])}{' …' if len(fresh) > 3 else ''}"
    return (f"{len(fresh)} tensors were not in the checkpoint and are random: {some}",)


def _converted(config: PretrainedConfig, module: nn.Module) -> tuple[str, ...]:
    """What to say of weights that were saved in another precision than they are held in here."""
    saved, held = (str(d).removeprefix("torch.") for d in (getattr(config, "dtype", None), dtype_of(module)))
    return (f"the weights were saved as {saved} and are held as {held}",) if saved not in ("None", held) else ()


def family_of(config: PretrainedConfig, model_class: type) -> str:
    """Decoder, encoder, encoder-decoder, vision or audio, from the configuration and what the class takes first."""
    kind, name = config.model_type, model_class.__name__
    takes = getattr(model_class, "main_input_name", "input_ids")
    if takes in AUDIO_INPUTS or ("Speech" in name and takes != "input_ids"):  # that is text to speech
        return "audio"
    named = inspect.signature(model_class.forward).parameters
    half = takes == "input_ids" and "input_ids" in named and "decoder_input_ids" not in named  # as T5EncoderModel
    if config.is_encoder_decoder and not half:
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


def _check_folder(folder: Path) -> None:
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        base = _base_of(folder / "adapter_config.json")
        raise LoadError(
            f"{folder} is an adapter (PEFT, such as LoRA) and no whole model. Merge it into its base once and give "
            f"that folder: PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base!r}), "
            f"{folder.name!r}).merge_and_unload().save_pretrained(…)."
        )
    if not (folder / "config.json").is_file():
        raise LoadError(f"{folder} has no config.json. Give the folder that save_pretrained wrote.")
    if not list(folder.glob("*.safetensors")):
        if pickles := [p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in folder.glob(pattern)]:
            raise LoadError(
                f"{folder} has only pickle weights ({pickles[0]}), which can run code when opened. "
                "Convert them once on a machine you trust: model.save_pretrained(folder) writes safetensors."
            )
        raise LoadError(f"{folder} has no *.safetensors weights. Give the folder that save_pretrained wrote.")


def _base_of(adapter_config: Path) -> str:
    """The model that an adapter was trained on, as far as its configuration says."""
    try:
        return json.loads(adapter_config.read_text(encoding="utf-8"))["base_model_name_or_path"] or "its base"
    except (ValueError, KeyError, TypeError):
        return "its base"


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


def _explain(name: str, source: str, offline: bool, error: Exception) -> str:
    text = _first_line(error)
    if Path(source).is_dir():
        advice = "Check that config.json and the safetensors files belong together and are complete."
        return f"{name} could not be loaded: {text} {advice}"
    if "gated" in text or "401" in text or "403" in text:
        return f"{name} is a gated or private model. Accept its terms on the hub, set HF_TOKEN, and load it again."
    if offline and constants.HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE is set, so the hub was not asked: unset it"
    elif offline:
        why = "the hub does not answer, so this machine is offline: connect it"
    else:
        why = "it could not be fetched from the hub: check the id"
    return f"{name} is not in the local cache, and {why}, or give a folder with config.json and *.safetensors."


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


def _reader(
    source: str, module: nn.Module, config, family: str, options: dict
) -> tuple[Reader, PreTrainedTokenizerBase | None]:
    """How this model's raw inputs become tensors, and its tokenizer when it has one."""
    if family == "vision":
        processor, reason = _part(AutoImageProcessor, source, {**options, "backend": "pil"})
        return PictureReader(processor, module) if processor else Unusable("image processor", source, reason), None
    tokenizer, reason = _part(AutoTokenizer, source, options)
    limit = _max_tokens(config, tokenizer)
    if family == "audio":
        extractor, reason = _part(AutoFeatureExtractor, source, options)
        if extractor is None:
            return Unusable("feature extractor", source, reason), tokenizer
        return RecordingReader(extractor, module, tokenizer, limit), tokenizer
    if tokenizer is None:
        return Unusable("tokenizer", source, reason), None
    return (PairReader if family == "encoder-decoder" else TextReader)(tokenizer, module, limit), tokenizer


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
