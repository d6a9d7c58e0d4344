"""A Subject is a model under study: a module, how to feed it, and what its positions are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from headwise.interp.attention.axes import Axis
from headwise.interp.attention.promise import Said
from headwise.interp.attention.watch import Watcher
from headwise.interp.errors import InputError, LoadError
from headwise.interp.masks import Mask

__all__ = [
    "FAMILIES",
    "InputError",
    "Inputs",
    "LoadError",
    "Reader",
    "Subject",
    "device_of",
    "dtype_of",
    "same_tokens",
    "tensors_only",
]

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


@runtime_checkable
class Reader(Protocol):
    """How a raw input becomes tensors. Whatever the model, a mapping is its keyword arguments as they are.

    ``truncate`` cuts an input over the model's limit and says so in the notes. Raises InputError for an input the model
    cannot take.
    """

    def __call__(self, raw: Any, *, truncate: bool = False) -> Inputs: ...


@dataclass(frozen=True, eq=False, repr=False)
class Subject:
    """A model under study. Make one with ``headwise.load`` or ``headwise.wrap``.

    ``encode`` may be any function from a raw input to keyword arguments or Inputs; here it is a Reader.
    """

    module: nn.Module
    encode: Reader
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
    tuned_lens: Path | None = None  # the file with its translators, where they were trained
    watchers: Mapping[str, Watcher] = field(default_factory=dict)  # of modules that cut attention up, by class
    pairs: bool = True  # of an encoder: whether it takes two texts as well
    reads: str = "text"  # what a decoder's tokens spell: a "text", a "series" of numbers, a "score"
    family_from: str = "you said"  # who named the family; "" when it was guessed, and so is no claim

    def __post_init__(self):
        if self.family not in FAMILIES:
            raise ValueError(f"kind expects one of {', '.join(FAMILIES)}; got {self.family!r}.")

        object.__setattr__(self, "encode", _reader(self.encode))

    def __repr__(self) -> str:
        return (
            f"Subject {self.name!r}: {self.family}\n"
            f"  {self.parameters:,} parameters, {self.precision} on {self.device}"
            + (f"\n  from {self.origin}" if self.origin else "")
        )

    @cached_property
    def parameters(self) -> int:
        """How many numbers the model was made of, however few bytes hold them now."""
        own = sum(parameter.numel() for parameter in self.module.parameters())
        packed = (part for part in self.module.modules() if _packed(part))
        lacking = sum(part.in_features * part.out_features - sum(p.numel() for p in _own(part)) for part in packed)
        return own + lacking - _counted_twice(self.module)

    @property
    def precision(self) -> str:
        """What the weights are held in, such as "float32", or "float32, 4-bit weights" of a quantised model."""
        name = str(self.dtype).removeprefix("torch.")
        for part in self.module.modules():
            if _packed(part):
                held = sum(8 * t.numel() * t.element_size() for t in (*_own(part), *_qweight(part)))
                return f"{name}, {round(held / (part.in_features * part.out_features))}-bit weights"
        return name

    @property
    def dtype(self) -> torch.dtype:
        return dtype_of(self.module)

    @property
    def device(self) -> torch.device:
        return device_of(self.module)

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


def dtype_of(module: nn.Module) -> torch.dtype:
    """What most of the floating-point parameters are: of a quantised model, those that were left as they are."""
    numbers: dict[torch.dtype, int] = {}
    for parameter in module.parameters():
        if parameter.is_floating_point():
            numbers[parameter.dtype] = numbers.get(parameter.dtype, 0) + parameter.numel()
    return max(numbers, key=numbers.__getitem__, default=torch.float32)


def device_of(module: nn.Module) -> torch.device:
    """Where the inputs go: with accelerate's offloading, where the model runs and not where weights wait."""
    for part in module.modules():
        hook = getattr(part, "_hf_hook", None)
        for one in getattr(hook, "hooks", (hook,)):
            if getattr(one, "execution_device", None) is not None:
                return torch.device(one.execution_device)
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def _packed(part: nn.Module) -> bool:
    """Whether this is a linear map of in × out numbers packed into fewer bytes (bitsandbytes, GPTQ)."""
    sides = (getattr(part, "in_features", None), getattr(part, "out_features", None))
    weight = part._parameters.get("weight")
    packed = bool(_qweight(part)) or (weight is not None and not weight.is_floating_point())
    return packed and all(isinstance(side, int) for side in sides)


def _qweight(part: nn.Module) -> tuple[Tensor, ...]:
    """Packed weights that are no parameter, as GPTQ and AWQ hold them."""
    found = part._buffers.get("qweight")
    return () if found is None else (found,)


def _own(part: nn.Module) -> tuple[Tensor, ...]:
    """A linear map's own parameters beside its bias."""
    return tuple(p for name, p in part._parameters.items() if p is not None and name != "bias")


def _counted_twice(module: nn.Module) -> int:
    """Numbers in tied parameters of Hugging Face models that offloading has left as two placeholders."""
    twice = {}
    for part in module.modules():
        for name, source in (getattr(part, "all_tied_weights_keys", None) or {}).items():
            parameter, first = part.get_parameter(name), part.get_parameter(source)
            if parameter.is_meta and parameter is not first:
                twice[id(parameter)] = parameter.numel()
    return sum(twice.values())


def _reader(function: Callable[..., Any]) -> Reader:
    """Any function from a raw input to keyword arguments or Inputs, as a Reader."""
    if isinstance(function, ModuleReader | FunctionReader):
        return function
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C
        return FunctionReader(function)
    cuts = "truncate" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return function if cuts else FunctionReader(function)


@dataclass(frozen=True, eq=False, repr=False)
class FunctionReader:
    """A user's function, which knows no limit and so cuts nothing."""

    function: Callable[[Any], Inputs | Mapping[str, Any]]

    def __call__(self, raw: Any, *, truncate: bool = False) -> Inputs:
        made = self.function(raw)
        return made if isinstance(made, Inputs) else Inputs(dict(made))


@dataclass(frozen=True, eq=False, repr=False)
class ModuleReader:
    """The reader of a bare module: a mapping is its keyword arguments, a tensor its first argument."""

    module: nn.Module

    def __call__(self, raw: Any, *, truncate: bool = False) -> Inputs:
        name = type(self.module).__name__
        if isinstance(raw, Inputs):
            return raw
        if isinstance(raw, Mapping):
            return Inputs(dict(raw))
        if not isinstance(raw, Tensor):
            raise InputError(
                f"{name} was wrapped without encode=, so it takes a tensor or a dict of tensors; got "
                f"{type(raw).__name__}. Give wrap(module, encode=…) a function from your raw input to such a dict."
            )
        first = next(iter(inspect.signature(self.module.forward).parameters.values()), None)
        if first is None:
            raise InputError(f"{name}.forward takes no argument, so it cannot be given a tensor.")
        if first.kind in (first.VAR_POSITIONAL, first.POSITIONAL_ONLY):  # as in Keras on torch
            return Inputs({}, args=(raw,))
        if first.kind is first.VAR_KEYWORD:
            raise InputError(
                f"{name}.forward names no argument, so it cannot be given a tensor. Give a dict of tensors."
            )
        return Inputs({first.name: raw})


def tensors_only(module: nn.Module) -> Reader:
    """How a bare module reads: a mapping is its keyword arguments, a tensor its first argument."""
    return ModuleReader(module)


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
