"""A Subject is a model under study: a module, how to feed it, and what its positions are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from headwise.interp.attention.axes import Axis
from headwise.interp.attention.promise import Said
from headwise.interp.errors import InputError
from headwise.interp.masks import Mask

FAMILIES = ("decoder", "encoder", "encoder-decoder", "vision", "audio", "custom")


@dataclass(frozen=True)
class Inputs:
    """What goes into ``module(*args, **kwargs)``, and the axes to read the result by: "input", or "source" and
    "target"."""

    kwargs: Mapping[str, Any]
    axes: Mapping[str, Axis] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what was done to the input and must be said, such as a truncation
    args: tuple[Any, ...] = ()  # positional, for modules whose forward names no argument

    @property
    def batch(self) -> int:
        """B, the first axis of the first tensor."""
        tensors = (v for v in (*self.args, *self.kwargs.values()) if isinstance(v, Tensor) and v.ndim)
        return next((t.shape[0] for t in tensors), 1)

    @property
    def real(self) -> Tensor | None:
        """Bool (B, T): positions that are not padding, when the input says so."""
        return self._real("attention_mask", "src_key_padding_mask")

    @property
    def real_target(self) -> Tensor | None:
        """The same for the target of an encoder-decoder."""
        return self._real("decoder_attention_mask", "tgt_key_padding_mask")

    def _real(self, attention: str, padding: str) -> Tensor | None:
        """From Hugging Face's argument, true where real, or from torch's, true (or −inf) where padding."""
        if isinstance(mask := self.kwargs.get(attention), Tensor) and mask.ndim == 2:
            return mask.bool()
        if isinstance(mask := self.kwargs.get(padding), Tensor) and mask.ndim == 2:
            return ~mask.bool() if mask.dtype == torch.bool else mask == 0
        return None


@dataclass(frozen=True, eq=False)
class Subject:
    """A model under study. Make one with ``headwise.load`` or ``headwise.wrap``."""

    module: nn.Module
    encode: Callable[[Any], Inputs]
    name: str
    family: str = "custom"
    max_tokens: int | None = None
    vocab_size: int | None = None
    bos: int | None = None
    decode: Callable[[list[int]], str] | None = None
    eos: int | None = None  # the token after which generation ends
    mask_token: int | None = None  # the token a masked language model fills in
    labels: tuple[str, ...] = ()  # what a classifier's outputs are called
    origin: str = ""  # where the weights came from: a folder, a hub id with its revision
    warnings: tuple[str, ...] = ()
    promise: Mask | None = None  # what its self-attention should see, where the user says so
    family_from: str = "you said"  # who named the family; "" when it was guessed, and so is no claim

    def __post_init__(self):
        if self.family not in FAMILIES:
            raise ValueError(f"kind expects one of {', '.join(FAMILIES)}; got {self.family!r}.")

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.module.parameters())

    @property
    def dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.module.parameters()), torch.float32)

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    @property
    def implementation(self) -> str:
        """How the model says it computes attention: Hugging Face's ``attn_implementation``, else "as written"."""
        return getattr(getattr(self.module, "config", None), "_attn_implementation", None) or "as written"

    @property
    def said(self) -> Said:
        """What was said of the model beside what it says itself: a promise, or the kind it is of."""
        if self.promise is not None:
            return Said(self.promise)
        return Said(None, self.family, self.family_from) if self.family_from else Said()


def tensors_only(module: nn.Module) -> Callable[[Any], Inputs]:
    """The encoding of a bare module: a dict of tensors is its keyword arguments, a tensor its first argument."""

    def encode(raw) -> Inputs:
        if isinstance(raw, Inputs):
            return raw
        if isinstance(raw, Tensor):
            first = next(iter(inspect.signature(module.forward).parameters), None)
            if first is None:
                raise InputError(f"{type(module).__name__}.forward takes no argument, so it cannot be given a tensor.")
            return Inputs({first: raw})
        if isinstance(raw, Mapping):
            return Inputs(dict(raw))
        raise InputError(
            f"{type(module).__name__} was wrapped without encode=, so it takes a tensor or a dict of tensors; got "
            f"{type(raw).__name__}. Give wrap(module, encode=…) a function from your raw input to a dict of tensors."
        )

    return encode


def same_tokens(subject: Subject, other: Subject, inputs: Inputs) -> None:
    """Raises InputError unless both subjects read the same tokens in the ids of ``inputs``."""
    ids = {int(i) for value in inputs.kwargs.values() if _holds_ids(value) for i in value.flatten().tolist()}
    if subject.decode is None or other.decode is None or max(ids, default=0) >= (other.vocab_size or 0):
        same = False
    else:
        same = all(subject.decode([i]) == other.decode([i]) for i in ids)
    if not same:
        raise InputError(f"{other.name} reads other tokens than {subject.name}, so their heads cannot be compared.")


def _holds_ids(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim == 2 and value.dtype in (torch.int64, torch.int32)
