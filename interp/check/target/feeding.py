"""What to feed a module: inputs drawn at random, from an embedding's vocabulary or a layer's width.

Lengths equal no size of the model, so that the time axis of every tensor can be told by its size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from headwise.interp.check.errors import CheckError
from headwise.interp.check.state import seed_everything
from headwise.interp.check.target.arguments import fitted, takes_positions
from headwise.interp.run.parts import is_keras, named_parts
from headwise.interp.subject import Inputs, Subject

LENGTHS = (29, 23, 19, 17, 13, 11, 7, 5, 32, 64, 16, 8, 4)  # primes first: they equal no layer's width
BATCHES = (3, 2, 1, 4, 8)
STREAMS = ("decoder_input_ids", "input_ids", "inputs_embeds", "tgt", "x")  # the sequence among several inputs
SIGNALS = ("pixel_values", "input_values", "input_features")
LIMITS = ("max_position_embeddings", "n_positions", "max_target_positions", "max_seq_len", "block_size")
POSITION_NAME = re.compile(r"pos|wpe|segment|token_type|type_emb", re.IGNORECASE)


@dataclass
class Feed:
    """One stream of inputs, and what stands still beside it. The way to feed is found by trying: ``candidates``."""

    module: nn.Module
    subject: Subject | None
    parameters: Mapping  # of the module's forward
    named: bool = True  # False: the caller's own ``forward`` takes the stream, whatever its name
    pad_id: int | None = None
    name: str = ""

    config: object = None
    hugging: bool = False
    device: torch.device = torch.device("cpu")  # noqa: RUF009 – devices are values
    dtype: torch.dtype = torch.float32
    stream: str | None = None  # the argument that takes the sequence
    alphabet: Tensor | None = None  # token ids that may be drawn; None for floats
    features: tuple[int, ...] = ()  # sizes behind (B, T), or of a whole input
    time: int = 1  # time axis of the input
    positional: bool = True  # the input is a sequence whose positions can be changed one by one
    forced: Tensor | None = None  # the input as given
    fixed: Callable[[int], dict] = field(default=lambda batch: {})  # batch size → the other arguments
    source: Tensor | None = None  # what the encoder of a pair is given
    source_name: str | None = None

    def __post_init__(self):
        self.config = getattr(self.module, "config", None)
        self.hugging = hasattr(self.module, "get_input_embeddings") and self.config is not None
        self.device = next((p.device for p in self.module.parameters()), self.device)
        self.dtype = next((p.dtype for p in self.module.parameters() if p.is_floating_point()), self.dtype)
        if self.pad_id is None:
            pad = getattr(self.config, "pad_token_id", None)
            self.pad_id = pad if isinstance(pad, int) and pad >= 0 else None

    # -- what was given ---------------------------------------------------------------------------------------------
    def take(self, inputs) -> None:
        """Inputs of the caller: a tensor, a tuple or a dict of them, or a text for a Subject."""
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
            self._several(inputs)
        else:
            raise CheckError(
                f"inputs expects a tensor (B, T, …), a tuple of tensors or a dict of tensors, got "
                f"{type(inputs).__name__}."
            )
        if self.forced.ndim < 2:
            raise CheckError(
                f"inputs expects a batch axis: (B, T) ids or (B, T, C) floats, got shape {tuple(self.forced.shape)}."
            )
        if self.stream is None and self.named:
            self.stream = next(iter(self.parameters), None)
        self.features = tuple(self.forced.shape[2:])
        if not self.forced.is_floating_point():
            low, high = int(self.forced.min()), int(self.forced.max())
            self.alphabet = self.ids() if self.vocabulary() > high else torch.arange(min(low, 0), max(high + 1, 2))

    def _several(self, inputs: Mapping) -> None:
        names = [n for n in STREAMS if isinstance(inputs.get(n), Tensor)]
        self.stream = (names or [n for n, v in inputs.items() if isinstance(v, Tensor)])[0]
        self.forced = inputs[self.stream]
        rest = {n: v for n, v in inputs.items() if n != self.stream}
        self.fixed = lambda batch: {n: fitted(v, batch) for n, v in rest.items()}

    # -- what the module takes --------------------------------------------------------------------------------------
    def vocabulary(self) -> int:
        if self.subject is not None and self.subject.vocab_size:
            return self.subject.vocab_size
        if self.config is not None and self.hugging:
            text = self.config.get_text_config(decoder=True) if hasattr(self.config, "get_text_config") else self.config
            if getattr(text, "vocab_size", None):
                return text.vocab_size
        sizes = self._tables()
        return sizes[0] if sizes else 0

    def ids(self, size: int | None = None) -> Tensor:
        """Token ids that may be drawn: all but the special ones."""
        size = size or self.vocabulary()
        special = {self.pad_id} if self.pad_id is not None else set()
        if self.hugging:
            special |= {v for n, v in vars(self.config).items() if n.endswith("token_id") and isinstance(v, int)}
        ids = [i for i in range(size) if i not in special]
        return torch.tensor(ids if len(ids) > 1 else range(size))

    def _tables(self) -> list[int]:
        """Sizes of the embeddings that may be a vocabulary, in the order they were made."""
        return [_rows(m) for n, m in named_parts(self.module) if _rows(m) and not POSITION_NAME.search(n)]

    def _convolves(self, shape) -> bool:
        """Is the first layer a convolution over time that takes (B, C, T)?"""
        first = next((m for m in self.module.modules() if isinstance(m, nn.Conv1d | nn.Linear)), None)
        return isinstance(first, nn.Conv1d) and first.in_channels == shape[1]

    def _longest(self) -> int:
        """Longest sequence the position table allows."""
        known = [getattr(self.config, n, None) for n in LIMITS]
        known += [_rows(m) - 2 for n, m in named_parts(self.module) if _rows(m) and re.search("pos|wpe", n)]
        known += [self.subject.max_tokens] if self.subject is not None else []
        return max(4, min([n for n in known if isinstance(n, int) and n > 0], default=10**6))

    # -- ways to feed it --------------------------------------------------------------------------------------------
    def candidates(self, batch: int | None, length: int | None) -> Iterator[tuple[int, int]]:
        """Ways to feed the module, likeliest first; sets up ``draw`` and yields the (B, T) to try."""
        if self.forced is not None:
            yield from self._as_given()
            return
        sizes = {n for p in self.module.parameters() for n in p.shape}
        fits = [t for t in LENGTHS if t <= self._longest()]
        length = length or self._declared()[0]
        lengths = [length] if length else [t for t in fits if t not in sizes] + [t for t in fits if t in sizes]
        for way in self._ways():
            way()
            for b in [batch] if batch else BATCHES:
                for t in lengths if b == BATCHES[0] or batch else lengths[:3]:
                    yield b, t
                if not self.positional:
                    break

    def _as_given(self) -> Iterator[tuple[int, int]]:
        wide = self.forced.ndim == 3 and self.forced.is_floating_point()
        if not (wide and self._convolves(self.forced.shape)):
            self.time = 1
            yield self.forced.shape[0], self.forced.shape[1]
        if wide:  # (B, C, T)
            self.time, self.features = 2, (self.forced.shape[1],)
            yield self.forced.shape[0], self.forced.shape[2]

    def _ways(self) -> Iterator[Callable[[], None]]:
        names = list(self.parameters)
        main = getattr(self.module, "main_input_name", None) if self.hugging else None
        pair = self.hugging and getattr(self.config, "is_encoder_decoder", False)
        if pair and "decoder_input_ids" in self.parameters:
            yield lambda: self._encoder_decoder(main)
            return
        if self.hugging and main in SIGNALS:
            yield lambda: self._signal(main)
            return
        if self.named and not names and not takes_positions(self.module.forward):
            raise CheckError(f"{self.name}.forward takes no argument, so there is nothing to change and watch.")
        first = "input_ids" if "input_ids" in self.parameters else next(iter(names), None)
        first = first if self.named else None  # None: whatever its name, it comes first
        embeds = bool(self._tables())
        if embeds or (self.hugging and self.vocabulary()):
            yield lambda: self._tokens(first)
            for size in sorted(set(self._tables()) - {self.vocabulary()}):
                yield lambda size=size: self._tokens(first, size)
        for width, time in self._widths()[:6]:
            yield lambda width=width, time=time: self._floats(first, width, time)
        if not embeds:
            for width in sorted({p.shape[0] for p in self.module.parameters() if p.ndim}, reverse=True)[:3]:
                yield lambda width=width: self._floats(first, width, 1)
            for width in (16, 1):
                yield lambda width=width: self._floats(first, width, 1)

    def _widths(self) -> list[tuple[int, int]]:
        """(features, time axis) that the layers take, in the order they were made."""
        _, width = self._declared()
        widths = [(width, 1)] if width else []
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
        return list(dict.fromkeys(widths))

    def _declared(self) -> tuple[int | None, int | None]:
        """(T, C) as a Keras model says of its first input, None where it leaves that open."""
        first = next(iter(getattr(self.module, "inputs", None) or ()), None) if is_keras(self.module) else None
        shape = (None, None, None) if first is None else (*first.shape, None, None)
        return shape[1], shape[2]

    def _tokens(self, stream, size: int | None = None) -> None:
        self.stream, self.alphabet, self.time = stream, self.ids(size), 1

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
            source = self.ids()[torch.randint(len(self.ids()), (8, 10))].to(self.device)
        self.stream, self.alphabet, self.time = "decoder_input_ids", self.ids(), 1
        self.source, self.source_name = source, main
        self.fixed = lambda batch: {main: source[:batch]}

    # -- inputs -----------------------------------------------------------------------------------------------------
    def draw(self, batch: int, length: int, seed: int = 0) -> Tensor:
        """A random input: ids (B, T) or (B, T, K), or floats (B, T), (B, T, C) or (B, C, T), as the model wants."""
        g = torch.Generator().manual_seed(seed + 101)
        given = self.forced
        if given is not None and seed == 0 and given.shape[0] >= batch and given.shape[self.time] >= length:
            return given.narrow(0, 0, batch).narrow(self.time, 0, length).clone()
        if self.alphabet is not None:
            shape = (batch, length, *self.features)
            return self.alphabet[torch.randint(len(self.alphabet), shape, generator=g)].to(self.device)
        shape = (batch, length, *self.features) if self.positional else (batch, *self.features)
        x = torch.randn(shape, generator=g).to(self.device, self.dtype)
        return x.movedim(1, self.time) if self.positional else x

    def other_ids(self, x: Tensor, seed: int) -> Tensor:
        """Every id of ``x`` as a different one."""
        g = torch.Generator().manual_seed(seed)
        index = torch.searchsorted(self.alphabet, x.cpu()).clamp(max=len(self.alphabet) - 1)
        shift = torch.randint(1, len(self.alphabet), tuple(x.shape), generator=g)
        return self.alphabet[(index + shift) % len(self.alphabet)].to(x.device)

    def perturb(self, x: Tensor, where: Tensor, seed: int = 1, scale: float = 1.0) -> Tensor:
        """``x`` with other content at ``where`` (B, T): every id becomes a different one, floats are drawn anew,
        ``scale`` times.
        """
        where = where.to(x.device)
        if self.alphabet is not None:
            return torch.where(spread(where, x), self.other_ids(x, seed + 202), x)
        other = self.draw(x.shape[0], x.shape[self.time] if self.positional else 0, seed + 7) * scale
        if not self.positional:
            return torch.where(spread(where.any(1), x), other, x)
        first, other = x.movedim(self.time, 1), other.movedim(self.time, 1)
        return torch.where(spread(where, first), other.to(x.dtype), first).movedim(1, self.time)


def spread(where: Tensor, x: Tensor) -> Tensor:
    """(B, T) → (B, T, 1, …), to stand beside every axis of ``x``."""
    return where.view(*where.shape, *[1] * (x.ndim - where.ndim))


def _rows(module: nn.Module) -> int | None:
    """How many ids a table of embeddings knows, torch's or Keras's; None for any other module."""
    if isinstance(module, nn.Embedding):
        return module.num_embeddings
    tabular = is_keras(module) and type(module).__name__.endswith("Embedding")
    return getattr(module, "input_dim", None) if tabular else None
