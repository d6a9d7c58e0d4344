"""How a module may be fed, told from its layers: ids, floats of some width, a whole picture or waveform.

Lengths equal no size of the model, so that the time axis of every tensor can be told by its size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import nn

from headwise.interp.check.errors import CheckError
from headwise.interp.check.state import seed_everything
from headwise.interp.check.target.arguments import takes_positions
from headwise.interp.check.target.layout import Layout, grid, plain
from headwise.interp.check.target.streams import Stream
from headwise.interp.run.parts import is_keras

if TYPE_CHECKING:
    from headwise.interp.check.target.feeding import Feed

LENGTHS = (29, 23, 19, 17, 13, 11, 7, 5, 32, 64, 16, 8, 4)  # primes first: they equal no layer's width
LONG = (131, 263, 521, 1031)  # for those that subsample
BATCHES = (3, 2, 1, 4, 8)
SIDES = ((5, 5), (6, 6), (7, 7), (8, 8), (14, 14))  # of grids
FEW = (16, 1, 2, 3, 4)  # widths that no layer tells, such as of series that are concatenated first
SMALL = 6  # axes beside samples, positions and channels
SIGNALS = ("pixel_values", "input_values", "input_features")
CHANNELS_FIRST = Layout(("B", "C", "T"))


def candidates(feed: Feed, batch: int | None, length: int | None) -> Iterator[tuple[int, int]]:
    """Sets up the feed, the likeliest way first, and yields the (B, T) to try. Where T equals a size of the features,
    axes cannot be told apart, and a convolution takes a batch of one for a sample without a batch: those come last."""
    convolves = any(isinstance(m, nn.modules.conv._ConvNd) for m in feed.module.modules())
    sizes = {n for p in feed.module.parameters() for n in p.shape}
    fits = [t for t in _lengths(feed.module) if t <= feed.vocabulary.longest]
    length = length or _declared(feed.module)[0]
    lengths = [length] if length else [t for t in fits if t not in sizes] + [t for t in fits if t in sizes]
    for alike in (False, True):
        for way in _ways(feed, length):
            way()
            features = feed.streams[0].features
            for b in [batch] if batch else BATCHES:
                if feed.grid or not feed.positional:
                    if (b == 1 and convolves) == alike:
                        yield b, prod(feed.grid)
                    continue
                for t in lengths if b == BATCHES[0] or batch else lengths[:3]:
                    if (t in features or (b == 1 and convolves)) == alike:
                        yield b, t


def _lengths(module: nn.Module) -> tuple[int, ...]:
    strides = [max(m.stride) for m in module.modules() if isinstance(m, nn.Conv1d | nn.Conv2d) and max(m.stride) > 1]
    return (*LONG, *LENGTHS) if strides else LENGTHS


def _ways(feed: Feed, fixed: int | None) -> Iterator[Callable[[], None]]:
    module, words = feed.module, feed.vocabulary
    names = list(feed.parameters)
    main = getattr(module, "main_input_name", None) if words.hugging else None
    pair = words.hugging and getattr(words.config, "is_encoder_decoder", False)
    if pair and "decoder_input_ids" in feed.parameters:
        yield lambda: _encoder_decoder(feed, main)
        return
    if words.hugging and main in SIGNALS:
        yield lambda: _signal(feed, main)
        return
    if feed.named and not names and not takes_positions(module.forward):
        raise CheckError(f"{type(module).__name__}.forward takes no argument, so there is nothing to change and watch.")
    first = "input_ids" if "input_ids" in feed.parameters else next(iter(names), None)
    first = first if feed.named else None  # None: whatever its name, it comes first
    layout = feed.told.layout.of(first, 0) if feed.told.layout else None
    if words.tables or (words.hugging and words.size):
        yield from _ids(feed, first, layout, fixed)
    yield from _floats(feed, first, layout, fixed)


def _ids(feed: Feed, first: str | None, layout: Layout | None, fixed: int | None) -> Iterator[Callable[[], None]]:
    words = feed.vocabulary
    sizes = [words.size, *sorted(set(words.tables) - {words.size})]
    shapes = [()] if layout is None else [_small(layout, n) for n in _several(feed)]
    sides = _sides(fixed) if layout is not None and len(layout.positions) == 2 else [()]
    for size in sizes:
        for features, side in product(dict.fromkeys(shapes), sides):
            yield lambda size=size, shape=(features, side): _set(feed, first, layout, words.ids(size), *shape)
    if layout is None:
        for several in _several(feed):
            yield lambda several=several: _set(feed, first, None, words.ids(min(sizes)), (several,))


def _several(feed: Feed) -> list[int]:
    """How many ids may stand at a position: as many as there are tables in a list, or some."""
    lists = [len(m) for m in feed.module.modules() if isinstance(m, nn.ModuleList)]
    return list(dict.fromkeys([*lists, 4, 2]))[:4]


def _floats(feed: Feed, first: str | None, layout: Layout | None, fixed: int | None) -> Iterator[Callable[[], None]]:
    sides = _sides(fixed)
    if layout is not None:
        for features in _features(feed.module, layout):
            for side in sides if len(layout.positions) == 2 else [()]:
                yield lambda features=features, side=side: _set(feed, first, layout, None, features, side)
        return
    for width, channels_first in _widths(feed.module)[:6]:
        own = CHANNELS_FIRST if channels_first else None
        yield lambda width=width, own=own: _set(feed, first, own, None, (width,))
    if not feed.vocabulary.tables:
        sizes = sorted({p.shape[0] for p in feed.module.parameters() if p.ndim}, reverse=True)[:3]
        for width in dict.fromkeys((*sizes, *FEW)):
            yield lambda width=width: _set(feed, first, None, None, (width,))
    yield lambda: _set(feed, first, None, None, ())  # (B, T): one number a position
    if isinstance(_layer(feed.module), nn.Linear | nn.RNNBase):  # behind a transpose
        for width, _ in _widths(feed.module)[:1]:
            yield lambda width=width: _set(feed, first, CHANNELS_FIRST, None, (width,))
    for width, _ in _widths(feed.module)[:2]:
        for side in sides:
            yield lambda width=width, side=side: _set(feed, first, grid(4), None, (width,), side)
    for m in (m for m in feed.module.modules() if isinstance(m, nn.Conv2d)):
        for side in sides[::-1]:
            yield lambda m=m, side=side: _set(feed, first, grid(4, 2), None, (m.in_channels,), side)
        break


def _features(module: nn.Module, layout: Layout) -> Iterator[tuple[int, ...]]:
    """Sizes of the axes that are neither samples nor positions: one of them as wide as a layer, the others small, or as
    the layout says."""
    rest = _beside(layout)
    channels = [m.in_channels for m in module.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
    widths = dict.fromkeys([w for w, _ in _widths(module)] + channels + list(FEW))
    places = [rest.index("C")] if "C" in rest else range(len(rest))
    for width in widths if rest else [1]:
        for place in places or [0]:
            small = _small(layout, SMALL)
            yield tuple(width if i == place and not a.isdigit() else small[i] for i, a in enumerate(rest))


def _beside(layout: Layout) -> list[str]:
    """Axes that are neither samples nor positions."""
    return [axis for axis in layout.axes if axis not in ("B", *layout.positions)]


def _small(layout: Layout, size: int) -> tuple[int, ...]:
    """Sizes of these axes: as the layout says, or ``size``."""
    return tuple(int(axis) if axis.isdigit() else size for axis in _beside(layout))


def _layer(module: nn.Module) -> nn.Module | None:
    """The first with weights of its own."""
    return next((m for m in module.modules() if any(True for _ in m.parameters(recurse=False))), None)


def _sides(positions: int | None) -> list[tuple[int, int]]:
    """Rows and columns of grids to try; of so many positions, the squarest first."""
    if positions is None:
        return list(SIDES)
    pairs = [(rows, positions // rows) for rows in range(1, positions + 1) if positions % rows == 0]
    return sorted(pairs, key=lambda pair: abs(pair[0] - pair[1]))[:4]


def _set(feed: Feed, name: str | None, layout: Layout | None, alphabet, features: tuple, side: tuple = ()) -> None:
    layout = layout or plain(2 + len(features))
    feed.streams = [Stream(name, layout, alphabet=alphabet, features=features)]
    feed.grid = side or (SIDES[0] if len(layout.positions) == 2 else ())


def _widths(module: nn.Module) -> list[tuple[int, bool]]:
    """(features, do they come before time?) that the layers take, in the order they were made."""
    _, width = _declared(module)
    widths = [(width, False)] if width else []
    for m in module.modules():
        if isinstance(m, nn.Linear):
            widths.append((m.in_features, False))
        elif isinstance(m, nn.MultiheadAttention):
            widths.append((m.embed_dim, False))
        elif isinstance(m, nn.RNNBase):
            widths.append((m.input_size, False))
        elif isinstance(m, nn.Conv1d):
            widths += [(m.in_channels, True), (m.in_channels, False)]
        elif isinstance(m, nn.LayerNorm):
            widths.append((m.normalized_shape[-1], False))
    return list(dict.fromkeys(widths))


def _declared(module: nn.Module) -> tuple[int | None, int | None]:
    """(T, C) as a Keras model says of its first input, None where it leaves that open."""
    first = next(iter(getattr(module, "inputs", None) or ()), None) if is_keras(module) else None
    shape = (None, None, None) if first is None else (*first.shape, None, None)
    return shape[1], shape[2]


def _signal(feed: Feed, main: str) -> tuple[int, ...]:
    """A picture or a waveform: one whole, whose positions are not those of the output. → its shape"""
    c = feed.vocabulary.config
    size = getattr(c, "image_size", 32)
    size = tuple(size) if isinstance(size, list | tuple) else (size, size)
    shape = {"pixel_values": (getattr(c, "num_channels", 3), *size), "input_values": (4000,)}.get(main)
    if shape is None:
        shape = (2 * getattr(c, "max_source_positions", 50), getattr(c, "num_mel_bins", 80))
    feed.streams = [Stream(main, Layout(("B", *"CDE"[: len(shape)]), ()), features=shape)]
    feed.positional = False
    return shape


def _encoder_decoder(feed: Feed, main: str | None) -> None:
    """The decoder's ids are the stream; the source stands still."""
    c = feed.vocabulary.config
    seed_everything(1)
    if main == "input_features":
        source = torch.randn(8, c.num_mel_bins, 2 * c.max_source_positions, device=feed.device, dtype=feed.dtype)
    elif main in ("pixel_values", "input_values"):
        source = torch.randn(8, *_signal(feed, main), device=feed.device, dtype=feed.dtype)
        feed.positional = True
    else:
        main, ids = "input_ids", feed.vocabulary.ids()
        source = ids[torch.randint(len(ids), (8, 10))].to(feed.device)
    feed.streams = [Stream("decoder_input_ids", plain(2), alphabet=feed.vocabulary.ids())]
    feed.source, feed.source_name = source, main
    feed.fixed = lambda batch: {main: source[:batch]}
