"""What to feed a module: inputs as given, or drawn at random from an embedding's vocabulary or a layer's width."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from headwise.interp.check.errors import CheckError
from headwise.interp.check.options import Options
from headwise.interp.check.target import given, ways
from headwise.interp.check.target.arguments import fitted
from headwise.interp.check.target.layout import Layout, said
from headwise.interp.check.target.streams import Batch, Stream, spread
from headwise.interp.check.target.vocabulary import Vocabulary
from headwise.interp.subject import Subject


class Feed:
    """The streams of a sequence, and what stands still beside them. The way to feed is found by trying:
    ``candidates``."""

    def __init__(
        self, module: nn.Module, subject: Subject | None, *, parameters: Mapping, named: bool, options: Options
    ):
        self.module, self.subject, self.parameters, self.named = module, subject, parameters, named
        self.vocabulary = Vocabulary(module, subject, options.pad_id)
        self.told = given.Told(
            said(options.layout) if options.layout else None, options.known_ahead, options.padding_mask
        )
        self.device = next((p.device for p in module.parameters()), torch.device("cpu"))
        self.dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
        self.streams: list[Stream] = []
        self.grid: tuple[int, ...] = ()  # sizes of the axes of positions, where there are several
        self.positional = True  # the input is a sequence whose positions can be changed one by one
        self.fixed: Callable[[int], dict] = lambda batch: {}  # batch size → the other arguments
        self.squares: dict[str, Tensor] = {}  # (…, T, T) arguments: they are cut along with the streams
        self.lines: dict[str, Tensor] = {}  # (T,) arguments, the same for all samples, such as positions: likewise
        self.source: Tensor | None = None  # what the encoder of a pair is given
        self.source_name: str | None = None
        self._given: dict[str | None, Any] = {}
        self._main: str | None = None
        if options.inputs is not None:
            self._take(options.inputs)
        elif unknown := [name for name in self.told.ahead if name not in parameters]:
            raise CheckError(
                f"known_ahead= names {unknown[0]!r}, which is no input; there are {', '.join(parameters) or 'none'}."
            )

    # -- what is known of it ------------------------------------------------------------------------------------------
    @property
    def pad_id(self) -> int | None:
        return self.vocabulary.pad_id

    @property
    def stream(self) -> str | None:
        """The argument that takes the main stream."""
        return self.streams[0].name if self.streams else self._main

    @property
    def alphabet(self) -> Tensor | None:
        """Of the main stream."""
        return self.streams[0].alphabet

    @property
    def forced(self) -> bool:
        """Were inputs given?"""
        return bool(self._given)

    @property
    def hot(self) -> list[int]:
        """Streams whose content may leak."""
        return [i for i, stream in enumerate(self.streams) if stream.hot]

    @property
    def cuts(self) -> bool:
        """Can a shorter input be made? Not of a grid."""
        return self.positional and not self.grid

    @property
    def names(self) -> set[str | None]:
        """Arguments that are fed."""
        return {stream.name for stream in self.streams} | set(self.fixed(1)) | set(self.squares) | set(self.lines)

    # -- ways to feed it ----------------------------------------------------------------------------------------------
    def candidates(self, batch: int | None, length: int | None, fixed: int | None) -> Iterator[tuple[int, int]]:
        """Ways to feed the module, likeliest first; sets up ``draw`` and yields the (B, T) to try. ``fixed``: positions
        that the promise fixes."""
        if self.forced:
            yield from self._as_given(fixed)
        else:
            yield from ways.candidates(self, batch, length or fixed)

    def _take(self, inputs: Any) -> None:
        self._given = given.as_mapping(inputs, list(self.parameters), self.subject)
        for name in self.told.ahead:
            if name not in self._given:
                raise CheckError(
                    f"known_ahead= names {name!r}, which is no input; there are {', '.join(map(str, self._given))}."
                )
        main = given.main_of(self._given, self.told.layout)
        if main is None and self.named and self.parameters:
            main = next(iter(self.parameters))
            self._given = {main: self._given.pop(None)}
        self._main = main

    def _as_given(self, fixed: int | None) -> Iterator[tuple[int, int]]:
        main = self._given[self._main]
        own = self.told.layout.of(self._main, list(self._given).index(self._main)) if self.told.layout else None
        for layout in [own] if own else given.layouts(main, self.module, fixed or self._square):
            self._lay(layout)
            yield self.streams[0].given.shape[0], self.streams[0].given.shape[1]

    @property
    def _square(self) -> int | None:
        """Positions of a (T, T) argument."""
        others = [v for n, v in self._given.items() if n != self._main and isinstance(v, Tensor) and v.ndim >= 2]
        return next((v.shape[-1] for v in others if v.shape[-1] == v.shape[-2]), None)

    def _lay(self, layout: Layout) -> None:
        made, rest = given.streams(self._given, self._main, layout, vocabulary=self.vocabulary, told=self.told)
        sizes = layout.sizes(self._given[self._main].shape)
        self.streams, self.grid = made, sizes if len(sizes) > 1 else ()
        length = prod(sizes)
        self.squares = {
            n: v for n, v in rest.items() if isinstance(v, Tensor) and v.ndim >= 2 and v.shape[-2:] == (length, length)
        }
        self.lines = {n: v for n, v in rest.items() if isinstance(v, Tensor) and tuple(v.shape) == (length,)}
        if length == self.streams[0].given.shape[0]:  # or one for each sample?
            self.lines = {n: v for n, v in self.lines.items() if given.STILL.search(n)}
        still = {n: v for n, v in rest.items() if n not in self.squares and n not in self.lines}
        own, axis = self._given[self._main].shape[layout.samples or 0], layout.samples or 0
        self.fixed = lambda batch: {n: fitted(v, batch, own, axis) for n, v in still.items()}
        if not self.hot:
            raise CheckError(
                "no input can be changed: all are masks, positions, known ahead or one value throughout; give inputs= "
                "whose content varies."
            )

    def laid(self, layout: Layout) -> None:
        """Read the main stream by another layout."""
        if self.forced:
            self._lay(layout)
        else:
            self.streams[0] = replace(self.streams[0], layout=layout)

    def anew(self, batch: int, length: int) -> Batch:
        """The input as given, or one drawn, after the layout has changed."""
        return self.draw(*self.streams[0].given.shape[:2]) if self.forced else self.draw(batch, length)

    # -- inputs -----------------------------------------------------------------------------------------------------
    def draw(self, batch: int, length: int, seed: int = 0) -> Batch:
        """A random input; from seed 0 the one that was given, where it is large enough."""
        return Batch(tuple(self._drawn(s, batch, length, seed + 1000 * i) for i, s in enumerate(self.streams)))

    def _drawn(self, stream: Stream, batch: int, length: int, seed: int) -> Tensor:
        mine = stream.given
        enough = mine is not None and mine.shape[0] >= batch and mine.shape[1] >= length
        if enough and (seed % 1000 == 0 or not stream.hot):
            return mine[:batch, :length].clone()
        g = torch.Generator().manual_seed(seed + 101)
        shape = (batch, length, *stream.features)
        if stream.alphabet is not None:
            ids = stream.alphabet[torch.randint(len(stream.alphabet), shape, generator=g)]
            return ids.to(self.device, ids.dtype if mine is None else mine.dtype)
        dtype = self.dtype.to_complex() if mine is not None and mine.is_complex() else self.dtype
        x = torch.randn(shape, generator=g, dtype=torch.complex64 if dtype.is_complex else torch.float32)
        if mine is not None:  # as large as what was given
            own = mine.to(x.dtype)
            x = x * float(own.std() if own.numel() > 1 else 1.0) + own.mean()
        return x.to(self.device, dtype)

    def other_ids(self, x: Tensor, seed: int, alphabet: Tensor | None = None) -> Tensor:
        """Every id of ``x`` as a different one."""
        alphabet = self.alphabet if alphabet is None else alphabet
        g = torch.Generator().manual_seed(seed)
        index = torch.searchsorted(alphabet.long(), x.cpu().long()).clamp(max=len(alphabet) - 1)
        shift = torch.randint(1, len(alphabet), tuple(x.shape), generator=g)
        return alphabet[(index + shift) % len(alphabet)].to(x.device, x.dtype)

    def perturb(self, x: Batch, where: Tensor, seed: int = 1, scale: float = 1.0, only: int | None = None) -> Batch:
        """``x`` with other content at ``where`` (B, T) in all its streams, or in ``only`` one: every id becomes a
        different one, floats are drawn anew, ``scale`` times."""
        where = where.to(x.device)
        parts = list(x.parts)
        for i in self.hot if only is None else [only]:
            stream, part = self.streams[i], x.parts[i]
            if stream.alphabet is not None:
                other = self.other_ids(part, seed + 202 + 1000 * i, stream.alphabet)
            else:
                other = self._drawn(stream, *part.shape[:2], seed=seed + 7 + 1000 * i) * scale
            parts[i] = torch.where(spread(where, part), other.to(part.dtype), part)
        return replace(x, parts=tuple(parts))

    def hidden(self, x: Batch, real: Tensor) -> Batch:
        """``x`` with the padding token where ``real`` (B, T) is False."""
        ids = torch.where(spread(real, x.first), x.first, torch.full_like(x.first, self.pad_id))
        return replace(x, parts=(ids, *x.parts[1:]))

    def square_arguments(self) -> list[tuple[str, Tensor]]:
        """Arguments (…, T, T), in the dtype of the model."""
        return [(n, t.to(self.dtype) if t.is_floating_point() else t) for n, t in self.squares.items()]

    def arguments(self, x: Batch) -> list[Tensor]:
        """Each stream in its own layout, as the model takes it."""
        return [stream.layout.its_own(part, self.grid) for stream, part in zip(self.streams, x.parts, strict=True)]
