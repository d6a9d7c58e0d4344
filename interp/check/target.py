"""The model under check as one function: ``target(x, mask) → output (B, T, …)``, whatever the module calls its
arguments.

Inputs are drawn at random, from an embedding's vocabulary or a layer's width, at lengths that equal no size of the
model, so that the time axis of every tensor can be told by its size.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from headwise.interp.check.report import CheckError
from headwise.interp.check.state import Snapshot, seed_everything
from headwise.interp.run.outputs import primary
from headwise.interp.subject import Inputs, Subject

# How a model refuses an input, a flag or a mode that it was not made for.
REFUSALS = (
    RuntimeError,
    ValueError,
    TypeError,
    NotImplementedError,
    AssertionError,
    KeyError,
    AttributeError,
    ImportError,
)
LENGTHS = (29, 23, 19, 17, 13, 11, 7, 5, 32, 64, 16, 8, 4)  # primes first: they equal no layer's width
BATCHES = (3, 2, 1, 4, 8)
KEEP_MASKS = ("attention_mask", "attn_mask_1d")  # 1 = real
HIDE_MASKS = ("src_key_padding_mask", "key_padding_mask", "tgt_key_padding_mask")  # True = padding
OTHER_MASKS = ("padding_mask", "pad_mask", "mask")  # either: told by behaviour
WEIGHT_FLAGS = (
    "output_attentions",
    "need_weights",
    "return_attention",
    "return_attn",
    "return_weights",
    "return_attention_weights",
)
LENGTH_ARGUMENTS = ("lengths", "seq_lens", "seq_lengths", "lens")
POSITION_NAME = re.compile(r"pos|wpe|segment|token_type|type_emb", re.IGNORECASE)


@dataclass(frozen=True)
class Mode:
    """How a run is made. The base is what inference uses: eval, no_grad."""

    train: bool = False  # dropout is stilled and batch norms stay in eval
    grad: bool = False
    weights: bool = False  # attention weights are asked for
    ones: bool = False  # an attention mask of all ones is given instead of none
    eager: str | None = None  # another attention implementation

    def __str__(self) -> str:
        parts = ["train" if self.train else "eval", "grad" if self.grad else "no_grad"]
        parts += (
            ["asked for weights"] * self.weights + ["mask of ones"] * self.ones + ([self.eager] if self.eager else [])
        )
        return ", ".join(parts)


BASE = Mode()


class Still(TorchFunctionMode):
    """Dropout as the identity, also where it is called as a function."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (F.dropout, torch.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout):
            return args[0] if args else kwargs["input"]
        if func is F.scaled_dot_product_attention:
            args = (*args[:4], 0.0, *args[5:]) if len(args) > 4 else args
            kwargs = {**kwargs, "dropout_p": 0.0} if len(args) <= 4 else kwargs
        if func is F.multi_head_attention_forward and len(args) > 10:
            args = (*args[:10], 0.0, *args[11:])
        return func(*args, **kwargs)


class Target:
    """A module, how to call it, and what to feed it. ``run`` is the only place where the model runs."""

    def __init__(
        self, model: nn.Module | Subject, *, inputs=None, forward=None, step=None, packed=None, pad_id=None, output=None
    ):
        self.subject = model if isinstance(model, Subject) else None
        self.module = model.module if self.subject else model
        if not isinstance(self.module, nn.Module):
            raise CheckError(f"check expects an nn.Module or a Subject, got {type(model).__name__}.")
        self.name = self.subject.name if self.subject else type(self.module).__name__
        self.config = getattr(self.module, "config", None)
        self.forward, self.packed, self.output = forward, packed, output
        self.parameters = _arguments(self.module.forward)
        self.open = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(self.module.forward).parameters.values())
        self.hugging = hasattr(self.module, "get_input_embeddings") and self.config is not None
        self.fixed: Callable[[int], dict] = lambda batch: {}
        self.positional = True  # the input is a sequence whose positions can be changed one by one
        self.time = 1  # time axis of the input
        self.stream: str | None = None
        self.layout: str | None = None
        self.notes: list[str] = []
        self.alphabet: Tensor | None = None  # token ids that may be drawn; None for floats
        self.features: tuple[int, ...] = ()
        self.forced: Tensor | None = None  # the input as given
        self.pad_id = pad_id if pad_id is not None else _pad_id(self.config)
        self.device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        self.dtype = next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32)
        self.step = step
        self.runs = 0
        self.deadline: Callable[[], None] = lambda: None
        self.snapshot: Snapshot | None = None
        self.stateless = False
        self._given(inputs)
        self.mask_name, self.mask_keeps = self._mask_argument()
        self.mask_is_bool = False  # a 1/0 mask is given as integers, as Hugging Face does, unless only bool is taken
        self.targets: str | None = None  # argument that must be given for outputs at all positions, as in nanoGPT
        self.weight_flag = next((f for f in WEIGHT_FLAGS if f in self.parameters), None) if forward is None else None

    # -- what it takes --------------------------------------------------------------------------------------------
    def _given(self, inputs) -> None:
        if inputs is None:
            return
        if isinstance(inputs, str) and self.subject is not None:
            inputs = self.subject.encode(inputs)
        if isinstance(inputs, Inputs):
            inputs = dict(inputs.kwargs)
        if isinstance(inputs, tuple | list) and inputs and all(isinstance(t, Tensor) for t in inputs):
            inputs = dict(zip(self.parameters, inputs, strict=False))
        if isinstance(inputs, Tensor):
            self.forced = inputs
        elif isinstance(inputs, Mapping) and any(isinstance(v, Tensor) for v in inputs.values()):
            names = [
                n
                for n in ("decoder_input_ids", "input_ids", "inputs_embeds", "tgt", "x")
                if isinstance(inputs.get(n), Tensor)
            ]
            self.stream = (names or [n for n, v in inputs.items() if isinstance(v, Tensor)])[0]
            self.forced = inputs[self.stream]
            rest = {n: v for n, v in inputs.items() if n != self.stream}
            self.fixed = lambda batch: {n: _fit(v, batch) for n, v in rest.items()}
        else:
            raise CheckError(
                f"inputs expects a tensor (B, T, …), a tuple of tensors or a "
                f"dict of tensors, got {type(inputs).__name__}."
            )
        if self.forced.ndim < 2:
            raise CheckError(
                f"inputs expects a batch axis: (B, T) ids or (B, T, C) floats, got shape {tuple(self.forced.shape)}."
            )
        if self.stream is None and self.forward is None:
            self.stream = next(iter(self.parameters), None)
        if self.forced.is_floating_point():
            self.features = tuple(self.forced.shape[2:])
        else:
            low, high = int(self.forced.min()), int(self.forced.max())
            self.alphabet = self._ids() if self._vocabulary() > high else torch.arange(min(low, 0), max(high + 1, 2))

    def _mask_argument(self) -> tuple[str | None, bool]:
        """(name, True when 1 means real) of the padding mask."""
        if self.forward is not None:
            names = _arguments(self.forward)
            found = next((n for n in (*KEEP_MASKS, *OTHER_MASKS) if n in names), None)
            return found or (list(names)[2] if len(names) > 2 else None), True
        encoder_side = self.stream == "decoder_input_ids"
        if encoder_side:
            return ("decoder_attention_mask" if "decoder_attention_mask" in self.parameters else None), True
        for names, keeps in ((KEEP_MASKS, True), (HIDE_MASKS, False), (OTHER_MASKS, True), (LENGTH_ARGUMENTS, True)):
            for name in names:
                square = name == "mask" and {"src_key_padding_mask", "src_mask", "is_causal"} & set(self.parameters)
                if name in self.parameters and not square:
                    return name, keeps
        return None, True

    @property
    def position_name(self) -> str | None:
        """The argument that says at which position each token of the stream stands."""
        name = "decoder_position_ids" if self.stream == "decoder_input_ids" else "position_ids"
        return name if self.forward is None and name in self.parameters else None

    def _vocabulary(self) -> int:
        if self.subject is not None and self.subject.vocab_size:
            return self.subject.vocab_size
        if self.config is not None and self.hugging:
            text = self.config.get_text_config(decoder=True) if hasattr(self.config, "get_text_config") else self.config
            if getattr(text, "vocab_size", None):
                return text.vocab_size
        sizes = self._tables()
        return sizes[0] if sizes else 0

    def _convolves(self, shape) -> bool:
        """Is the first layer a convolution over time that takes (B, C, T)?"""
        first = next((m for m in self.module.modules() if isinstance(m, nn.Conv1d | nn.Linear)), None)
        return isinstance(first, nn.Conv1d) and first.in_channels == shape[1]

    def _tables(self) -> list[int]:
        """Sizes of the embeddings that may be a vocabulary, in the order they were made."""
        return [
            m.num_embeddings
            for n, m in self.module.named_modules()
            if isinstance(m, nn.Embedding) and not POSITION_NAME.search(n)
        ]

    def _ids(self, size: int | None = None) -> Tensor:
        config, size = self.config, size or self._vocabulary()
        special = (
            {v for n, v in vars(config).items() if n.endswith("token_id") and isinstance(v, int)}
            if self.hugging
            else set()
        )
        special |= {self.pad_id} if self.pad_id is not None else set()
        ids = [i for i in range(size) if i not in special]
        return torch.tensor(ids if len(ids) > 1 else range(size))

    def candidates(self, batch: int | None, length: int | None) -> Iterator[tuple[int, int]]:
        """Ways to feed the module, likeliest first; sets up ``draw`` and yields the (B, T) to try."""
        if self.forced is not None:
            channels_first = (
                self.forced.ndim == 3 and self.forced.is_floating_point() and self._convolves(self.forced.shape)
            )
            if not channels_first:
                self.time = 1
                yield self.forced.shape[0], self.forced.shape[1]
            if self.forced.ndim == 3 and self.forced.is_floating_point():  # (B, C, T)
                self.time, self.features = 2, (self.forced.shape[1],)
                yield self.forced.shape[0], self.forced.shape[2]
            return
        sizes = {n for p in self.module.parameters() for n in p.shape}
        limit = self._longest()
        lengths = (
            [length]
            if length
            else [t for t in LENGTHS if t <= limit and t not in sizes]
            + [t for t in LENGTHS if t <= limit and t in sizes]
        )
        for way in self._ways():
            way()
            for b in [batch] if batch else BATCHES:
                for t in lengths if b == BATCHES[0] or batch else lengths[:3]:
                    yield b, t
                if not self.positional:
                    break

    def _ways(self) -> Iterator[Callable[[], None]]:
        names = list(self.parameters)
        main = getattr(self.module, "main_input_name", None) if self.hugging else None
        if (
            self.hugging
            and getattr(self.config, "is_encoder_decoder", False)
            and "decoder_input_ids" in self.parameters
        ):
            yield lambda: self._encoder_decoder(main)
            return
        if self.hugging and main in ("pixel_values", "input_values", "input_features"):
            yield lambda: self._signal(main)
            return
        if self.forward is None and not names:
            raise CheckError(f"{self.name}.forward takes no argument, so there is nothing to change and watch.")
        first = None if self.forward is not None else "input_ids" if "input_ids" in self.parameters else names[0]
        embeds = any(
            isinstance(m, nn.Embedding) and not POSITION_NAME.search(n) for n, m in self.module.named_modules()
        )
        if embeds or (self.hugging and self._vocabulary()):
            yield lambda: self._tokens(first)
            for size in sorted(set(self._tables()) - {self._vocabulary()}):
                yield lambda size=size: self._tokens(first, size)
        widths = []
        for m in self.module.modules():
            if isinstance(m, nn.Linear):
                widths.append((m.in_features, 1))
            elif isinstance(m, nn.MultiheadAttention):
                widths.append((m.embed_dim, 1))
            elif isinstance(m, nn.RNNBase):
                widths.append((m.input_size, 1))
            elif isinstance(m, nn.Conv1d):
                widths += [(m.in_channels, 2), (m.in_channels, 1)]
            elif isinstance(m, nn.LayerNorm):
                widths.append((m.normalized_shape[-1], 1))
        for width, time in list(dict.fromkeys(widths))[:6]:
            yield lambda width=width, time=time: self._floats(first, width, time)
        if not embeds:
            for width in sorted({p.shape[0] for p in self.module.parameters() if p.ndim}, reverse=True)[:3]:
                yield lambda width=width: self._floats(first, width, 1)
            for width in (16, 1):
                yield lambda width=width: self._floats(first, width, 1)

    def _tokens(self, stream, size: int | None = None) -> None:
        self.stream, self.alphabet, self.time = stream, self._ids(size), 1

    def _floats(self, stream, width: int, time: int) -> None:
        self.stream, self.alphabet, self.features, self.time = stream, None, (width,), time

    def _signal(self, main: str) -> None:
        """A picture or a waveform: one whole, whose positions are not those of the output."""
        c = self.config
        size = getattr(c, "image_size", 32)
        size = tuple(size) if isinstance(size, list | tuple) else (size, size)
        shape = {"pixel_values": (getattr(c, "num_channels", 3), *size), "input_values": (4000,)}.get(main)
        if shape is None:
            shape = (2 * getattr(c, "max_source_positions", 50), getattr(c, "num_mel_bins", 80))
        self.stream, self.alphabet, self.features, self.positional = main, None, shape, False

    def _encoder_decoder(self, main: str | None) -> None:
        """The decoder's ids are the stream; the source stands still."""
        c = self.config
        seed_everything(1)
        if main == "input_features":
            source = torch.randn(8, c.num_mel_bins, 2 * c.max_source_positions, device=self.device, dtype=self.dtype)
        elif main in ("pixel_values", "input_values"):
            self._signal(main)
            source = torch.randn(8, *self.features, device=self.device, dtype=self.dtype)
            self.features, self.positional = (), True
        else:
            main = "input_ids"
            source = self._ids()[torch.randint(len(self._ids()), (8, 10))].to(self.device)
        self.stream, self.alphabet, self.time = "decoder_input_ids", self._ids(), 1
        self.source, self.source_name = source, main
        self.fixed = lambda batch: {main: source[:batch]}
        self.mask_name, self.mask_keeps = self._mask_argument()

    def _longest(self) -> int:
        """Longest sequence the position table allows."""
        found = [
            getattr(self.config, n, None)
            for n in ("max_position_embeddings", "n_positions", "max_target_positions", "max_seq_len", "block_size")
        ]
        found += [
            m.num_embeddings - 2
            for n, m in self.module.named_modules()
            if isinstance(m, nn.Embedding) and re.search("pos|wpe", n)
        ]
        found += [self.subject.max_tokens] if self.subject is not None else []
        return max(4, min([n for n in found if isinstance(n, int) and n > 0], default=10**6))

    # -- inputs ---------------------------------------------------------------------------------------------------
    def draw(self, batch: int, length: int, seed: int = 0) -> Tensor:
        """A random input: ids (B, T), or floats (B, T, C), or (B, C, T) where the model wants that."""
        g = torch.Generator().manual_seed(seed + 101)
        if (
            self.forced is not None
            and seed == 0
            and self.forced.shape[0] >= batch
            and self.forced.shape[self.time] >= length
        ):
            return self.forced.narrow(0, 0, batch).narrow(self.time, 0, length).clone()
        if self.alphabet is not None:
            return self.alphabet[torch.randint(len(self.alphabet), (batch, length), generator=g)].to(self.device)
        shape = (batch, length, *self.features) if self.positional else (batch, *self.features)
        x = torch.randn(shape, generator=g).to(self.device, self.dtype)
        return x.movedim(1, self.time) if self.positional else x

    def perturb(self, x: Tensor, where: Tensor, seed: int = 1, scale: float = 1.0) -> Tensor:
        """``x`` with other content at ``where`` (B, T): every id becomes a different one, floats are drawn anew,
        ``scale`` times.
        """
        if self.alphabet is not None:
            g = torch.Generator().manual_seed(seed + 202)
            index = torch.searchsorted(self.alphabet, x.cpu()).clamp(max=len(self.alphabet) - 1)
            shift = torch.randint(1, len(self.alphabet), tuple(x.shape), generator=g)
            other = self.alphabet[(index + shift) % len(self.alphabet)].to(x.device)
            return torch.where(where.to(x.device), other, x)
        other = self.draw(x.shape[0], x.shape[self.time] if self.positional else 0, seed + 7) * scale
        if not self.positional:
            return torch.where(where.any(1).view(-1, *[1] * (x.ndim - 1)).to(x.device), other, x)
        x_first, other_first = x.movedim(self.time, 1), other.movedim(self.time, 1)
        wide = where.to(x.device).view(*where.shape, *[1] * (x_first.ndim - 2))
        return torch.where(wide, other_first.to(x.dtype), x_first).movedim(1, self.time)

    # -- running --------------------------------------------------------------------------------------------------
    @contextmanager
    def in_mode(self, mode: Mode):
        """Training flags, gradient, stilled dropout and attention implementation of ``mode``; undone afterwards."""
        flags = [(m, m.training) for m in self.module.modules()]
        implementation = getattr(self.config, "_attn_implementation", None)
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(mode.grad))
            if mode.train:
                stack.enter_context(Still())
            try:
                for m, _ in flags:
                    statistics = isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats
                    m.training = mode.train and not statistics
                if mode.eager:
                    self.module.set_attn_implementation(mode.eager)
                yield
            finally:
                if mode.eager:
                    self.module.set_attn_implementation(implementation)
                for m, flag in flags:
                    m.training = flag

    @contextmanager
    def alone(self, b: int, batch: int):
        """Runs of sample ``b`` of ``batch`` by itself: the fixed arguments, such as its source, are its own."""
        fixed = self.fixed
        self.fixed = lambda _: _each(fixed(batch), lambda t: t[b : b + 1] if t.shape[0] == batch else t)
        try:
            yield
        finally:
            self.fixed = fixed

    def raw(self, x: Tensor, mask: Tensor | None = None, *, mode: Mode = BASE, seed: int = 0, **extra) -> Any:
        """One call of the model, from the same random streams and the same state every time."""
        self.deadline()
        self.runs += 1
        seed_everything(seed)
        if self.snapshot is not None and not self.stateless:
            self.snapshot.restore()
        if mode.ones and mask is None and self.mask_name:
            mask = torch.ones(x.shape[0], x.shape[self.time], dtype=torch.long, device=x.device)
        with self.in_mode(mode):
            if self.forward is not None:
                return (
                    self.forward(self.module, x)
                    if mask is None
                    else self.forward(self.module, x, **{self.mask_name: mask.bool() if self.mask_is_bool else mask})
                )
            kwargs = {**self.fixed(x.shape[0])}
            if mask is not None:
                kwargs[self.mask_name] = self.mask_as_taken(mask)
            if self.targets is not None:
                kwargs[self.targets] = x
            if mode.weights and self.weight_flag:
                kwargs[self.weight_flag] = True
            kwargs.update({k: v for k, v in extra.items() if v is not None})
            if self.hugging and "use_cache" not in kwargs and ("use_cache" in self.parameters):
                kwargs["use_cache"] = False
            if (
                self.stream in self.parameters
                and self.parameters[self.stream].kind is not inspect.Parameter.POSITIONAL_ONLY
            ):
                return self.module(**{self.stream: x}, **kwargs)
            return self.module(x, **kwargs)

    def run(self, x: Tensor, mask: Tensor | None = None, **options) -> Tensor:
        """The output as (B, T, F). ``mask`` (B, T) is 1 at real positions."""
        return self.read(self.raw(x, mask, **options), x)

    def mask_as_taken(self, mask: Tensor):
        if self.mask_name in LENGTH_ARGUMENTS:
            return mask.sum(1)
        if self.mask_name in (*KEEP_MASKS, "decoder_attention_mask"):
            return mask.bool() if self.mask_is_bool else mask.long()
        return mask.bool() == self.mask_keeps

    def read(self, raw: Any, x: Tensor) -> Tensor:
        """Any output → (B, T, F); F gathers the rest. A pooled output (B, F) becomes (B, 1, F)."""
        out = self.output(raw) if self.output is not None else primary(raw)
        if out.is_nested:
            out = out.to_padded_tensor(0.0)
        b, t = x.shape[0], x.shape[self.time] if self.positional and x.ndim > self.time else -1
        layout = self.layout or _layout(tuple(out.shape), b, t)
        if layout == "flat":
            out = out.reshape(b, -1, *out.shape[1:])
        elif layout == "time first":
            out = out.transpose(0, 1)
        elif layout == "single":
            out = out[None]
        elif layout.startswith("axis"):
            out = out.movedim(int(layout[5:]), 1)
        elif layout == "pooled":
            out = out.reshape(out.shape[0] if out.ndim else 1, 1, -1)
        return out.flatten(2) if out.ndim > 2 else out[..., None]

    def last_only(self, raw: Any, x: Tensor) -> bool:
        """Did it answer for the last position only, and can it be made to answer for all by giving it targets?"""
        out = self.output(raw) if self.output is not None else primary(raw)
        name = next((n for n in ("targets", "target", "labels") if n in self.parameters), None)
        alone = self.positional and out.ndim == 3 and out.shape[1] == 1 < x.shape[self.time]
        if self.forward is not None or name is None or not alone or self.alphabet is None:
            return False
        self.targets = name
        self.notes.append(f"without {name} it answers for the last position only, so it is given {name}")
        return True

    def settle(self, raw: Any, x: Tensor) -> None:
        """Fix the output's layout from a run at lengths that can be told apart."""
        out = self.output(raw) if self.output is not None else primary(raw)
        if out.is_nested:
            out = out.to_padded_tensor(0.0)
        b, t = x.shape[0], x.shape[self.time] if self.positional else -1
        self.layout = _layout(tuple(out.shape), b, t)
        if self.layout not in ("plain", "pooled"):
            words = {"flat": "(B·T, …)", "time first": "(T, B, …)", "single": "(T, …)"}
            self.notes.append(
                f"the output {tuple(out.shape)} was read as {words.get(self.layout, 'time on ' + self.layout)}"
            )


def _layout(shape: tuple[int, ...], b: int, t: int) -> str:
    if t < 0:
        return "plain" if len(shape) >= 3 and shape[0] == b else "pooled"
    if len(shape) >= 2 and shape[0] == b and shape[1] == t:
        return "plain"
    if len(shape) >= 2 and shape[0] == t and shape[1] == b:
        return "time first"
    if len(shape) >= 3 and shape[0] == b and t in shape[2:]:
        return f"axis {shape.index(t, 2)}"
    if shape and shape[0] == b * t:
        return "flat"
    if b == 1 and shape and shape[0] == t:
        return "single"
    return "plain" if len(shape) >= 3 and shape[0] == b else "pooled"


def _arguments(function) -> dict[str, inspect.Parameter]:
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {n: p for n, p in inspect.signature(function).parameters.items() if p.kind not in kinds}


def _fit(value, batch: int):
    """A fixed argument for another batch: its tensors cut, or their last sample repeated."""

    def fit(t: Tensor) -> Tensor:
        if t.shape[0] in (1, batch):
            return t
        more = batch - t.shape[0]
        return t[:batch] if more < 0 else torch.cat([t, t[-1:].expand(more, *t.shape[1:])])

    return _each(value, fit)


def _each(value, change: Callable[[Tensor], Tensor]):
    """``value`` with its tensors changed, those inside a tuple, a list or an encoder's output too."""
    if isinstance(value, Tensor):
        return change(value) if value.ndim else value
    if isinstance(value, Mapping):
        return type(value)(**{k: _each(v, change) for k, v in value.items()})
    if type(value) in (tuple, list):
        return type(value)([_each(v, change) for v in value])
    return value


def _pad_id(config) -> int | None:
    pad = getattr(config, "pad_token_id", None)
    return pad if isinstance(pad, int) and pad >= 0 else None


def other_modes(target: Target) -> list[Mode]:
    """The modes worth trying beside the base."""
    if getattr(target, "modes", "all") == "base":
        return []
    modes = [Mode(grad=True), Mode(train=True, grad=True)]
    modes += [Mode(weights=True)] if target.weight_flag else []
    modes += [Mode(ones=True)] if target.mask_name else []
    implementation = getattr(target.config, "_attn_implementation", None) if target.hugging else None
    if implementation in ("sdpa", "eager") and _can_switch(target.module):
        modes += [Mode(eager="eager" if implementation == "sdpa" else "sdpa")]
    return modes + [replace(m, ones=True) for m in modes if m.train and target.mask_name]


def _can_switch(module: nn.Module) -> bool:
    """Can this Hugging Face model change its attention implementation after it was built?"""
    can = getattr(type(module), "_can_set_attn_implementation", None)
    return can is not None and bool(can()) and getattr(module, "_supports_sdpa", False)
