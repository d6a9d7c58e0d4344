"""Subjects: bundled transformers, Hugging Face models from the hub or a folder, and anybody's module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from headwise.assets import ASSETS
from headwise.interp.errors import LoadError
from headwise.interp.masks import Mask
from headwise.interp.subject import Inputs, Reader, Subject, tensors_only
from headwise.models.catalogue import BUNDLED, FETCHABLE
from headwise.models.inputs import scores, series
from headwise.models.inputs.bundled import (
    MASK,
    DigitReader,
    OrderedReader,
    PlainTextReader,
    SegmentReader,
    SpellingReader,
)
from headwise.models.inputs.media import Waveform, read_image, read_wav
from headwise.models.inputs.scores import ScoreReader
from headwise.models.inputs.series import SeriesReader
from headwise.models.inputs.tokens import END_OF_TEXT
from headwise.models.sources import packages
from headwise.models.sources.bundled import TUNED_LENS, load_bundled
from headwise.models.sources.watched import watchers_of

BEYOND_TEXT = {"forecaster": ("series", series, SeriesReader), "music": ("score", scores, ScoreReader)}

__all__ = ["LoadError", "Waveform", "available", "devices", "fetched", "load", "read_image", "read_wav", "wrap"]


def available() -> tuple[str, ...]:
    """Names of the bundled models, which need no network and no folder."""
    return tuple(name for name, model in BUNDLED.items() if not model.baseline)


def fetched() -> tuple[str, ...]:
    """Names of the real models that ``headwise fetch`` has brought here."""
    return packages.fetched()


def devices() -> tuple[str, ...]:
    """Where models can run here: "cpu", then each GPU."""
    gpus = (f"cuda:{i}" for i in range(torch.cuda.device_count()))
    return ("cpu", *gpus, *(("mps",) if torch.backends.mps.is_available() else ()))


def load(
    name: str,
    *,
    device: str = "cpu",
    dtype: torch.dtype | str = torch.float32,
    revision: str | None = None,
    promise: Mask | None = None,
) -> Subject:
    """A bundled name, one that was fetched, a local folder, or a Hugging Face hub id → Subject, in eval mode.

    ``promise``: what its self-attention should see, where that is not what its configuration says. Folders and hub
    models load safetensors (or GGUF, with the gguf package) and never run remote code. Raises LoadError, one
    sentence a user can act on: unknown id, no config, pickle-only weights, NaN weights (which tensor), device not
    there.
    """
    if promise is not None:
        return replace(load(name, device=device, dtype=dtype, revision=revision), promise=promise)
    name = name.strip()
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    if not name:
        raise LoadError(f"No model was named. Choose one of {', '.join(BUNDLED)}, a hub id like org/name, or a folder.")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise LoadError(
            f"Device {device!r} is not available here: use 'cpu', or install the torch build for it."
        ) from error
    if name in BUNDLED:
        return _bundled(name, device, dtype)
    from headwise.models.sources.huggingface import load_huggingface  # here: transformers takes seconds to import

    if name in FETCHABLE:
        subject = load_huggingface(str(packages.folder_of(name)), device=device, dtype=dtype)
        return replace(subject, name=name)
    return load_huggingface(name, device=device, dtype=dtype, revision=revision)


def wrap(
    module: nn.Module,
    encode: Reader | Callable[[Any], Inputs | dict] | None = None,
    kind: str = "custom",
    name: str | None = None,
    promise: Mask | None = None,
) -> Subject:
    """Anybody's ``nn.Module`` → Subject, without an adapter.

    ``encode(raw)`` returns the module's keyword arguments, as a dict or as ``Inputs`` with axes; when it also takes
    ``truncate=``, the app may ask it to cut what is too long. Without it the raw input is a dict of keyword arguments
    (tensors, flags), or a tensor for the first argument. ``kind``: decoder, encoder, encoder-decoder, vision, audio or
    custom; it tells what attention should see where the module itself does not say, and ``promise``, a mask such as
    ``Causal()``, tells it whatever the module says. The module stays as it is; in training mode dropout is part of what
    you see, and the capture says so.

    >>> from headwise import capture
    >>> layer = nn.TransformerEncoderLayer(8, 2, batch_first=True).eval()
    >>> capture(wrap(layer), dict(src=torch.ones(1, 3, 8))).calls[0].weights(head=1).shape
    torch.Size([1, 3, 3])
    """
    warnings = (
        ("the module is in training mode, so dropout acts; call module.eval() to see it without",)
        if module.training
        else ()
    )
    called = name or type(module).__name__
    return Subject(
        module, encode or tensors_only(module), called, kind,
        warnings=warnings, promise=promise, watchers=watchers_of(module),
    )  # fmt: skip


def _bundled(name: str, device: str, dtype: torch.dtype) -> Subject:
    try:
        module, tokenizers, config = load_bundled(name)
    except (FileNotFoundError, ValueError) as error:  # a folder that somebody changed
        raise LoadError(str(error)) from error
    module = module.to(device, dtype).requires_grad_(False)
    architecture = config["architecture"]
    common = {"module": module, "name": name, "origin": f"assets/{name}", "max_tokens": config.get("context")}
    lens = ASSETS / name / TUNED_LENS
    common |= {"family_from": "its configuration", "tuned_lens": lens if lens.is_file() else None}
    if architecture == "vision":
        encode = DigitReader(module.config, device)
        return Subject(**common, encode=encode, family="vision", labels=tuple(config["classes"]))
    if architecture == "encoder-decoder":
        source, target = tokenizers["source"], tokenizers["target"]
        return Subject(
            **common,
            encode=SpellingReader(module, source, target, config["context"], device),
            family="encoder-decoder",
            vocab_size=config["target_size"],
            bos=target.token_to_id("<s>"),
            eos=target.token_to_id("</s>"),
            decode=partial(target.decode, skip_special_tokens=False),
        )
    if architecture in BEYOND_TEXT:
        reads, spelling, reader = BEYOND_TEXT[architecture]
        encode = reader(config["context"], device)
        common |= {"vocab_size": config["vocab_size"], "decode": spelling.spell, "bos": spelling.START, "reads": reads}
        return Subject(**common, encode=encode, family="decoder")
    tokenizer = tokenizers["text"]
    common |= {"vocab_size": config["vocab_size"], "decode": partial(tokenizer.decode, skip_special_tokens=False)}
    if architecture == "encoder":
        masks = not config["classes"]
        return Subject(
            **common,
            encode=SegmentReader(tokenizer, config["context"], device),
            family="encoder",
            bos=tokenizer.token_to_id("[CLS]"),
            mask_token=tokenizer.token_to_id("[MASK]") if masks else None,
            labels=tuple(config["classes"]),
        )
    end = tokenizer.token_to_id(END_OF_TEXT)  # stands before every text, and so after it
    if architecture == "xlnet":
        encode, mask = OrderedReader(tokenizer, config["context"], device), tokenizer.token_to_id(MASK)
        return Subject(**common, encode=encode, family="encoder", pairs=False, bos=end, mask_token=mask)
    encode = PlainTextReader(tokenizer, config["context"], device)
    return Subject(**common, encode=encode, family="decoder", bos=end, eos=end)


if __name__ == "models":  # from a checkout, by its old name
    from headwise._bridge import bridge

    globals().update(bridge("models"))
