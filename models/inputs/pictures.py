"""Pictures for Hugging Face vision models, and where in the picture each patch lies.

Neither the crop nor the order of the tokens is taken from a table of models: both are measured, by sending pictures of
known content through the checkpoint's own processor and embedding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from headwise.interp.attention.axes import Axis
from headwise.interp.errors import InputError
from headwise.interp.subject import Inputs
from headwise.models.inputs.base import BaseReader, taken
from headwise.models.inputs.media import picture_of, upright_rgb

Box = tuple[float, float, float, float]  # left, top, right, bottom
FEWEST_PIXELS = 64  # a side that a ramp of brightness needs
SNAP = 0.002  # an edge this near to the picture's, as a share of its side, is the picture's


@dataclass(frozen=True)
class Layout:
    """What pixels of one shape become: ``length`` tokens, and where they are patches their (rows, columns) and the
    pixels (down, across) that the grid takes up."""

    length: int
    grid: tuple[int, int] | None = None
    extent: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class PictureReader(BaseReader):
    """A PIL image, by the checkpoint's own image processor. The grid is given only where the tokens are proven to be
    patches, row by row, after special ones; a Swin or a ResNet has none."""

    processor: Any
    module: nn.Module
    layouts: dict[tuple[int, ...], Layout | None] = field(
        default_factory=dict, repr=False
    )  # by the shape of the pixels
    boxes: dict[tuple[int, int], Box | None] = field(default_factory=dict, repr=False)  # by the size of the picture

    def read(self, raw: Any, truncate: bool) -> Inputs:
        if not isinstance(raw, Image.Image):
            raise InputError(f"Expected a picture, got {type(raw).__name__}. Open it with PIL.Image.open.")
        image = upright_rgb(raw)
        kwargs = taken(self.module, self.processor(images=image, return_tensors="pt"))
        pixels = kwargs.get("pixel_values")
        if pixels is None or pixels.ndim != 4:
            return Inputs(kwargs)
        shape = tuple(pixels.shape)
        if shape not in self.layouts:
            self.layouts[shape] = layout_of(self.module, kwargs)
        layout = self.layouts[shape]
        return Inputs(kwargs, {"input": self._axis(layout, image, shape)} if layout else {})

    def _axis(self, layout: Layout, image: Image.Image, shape: tuple[int, ...]) -> Axis:
        if layout.grid is None:
            return Axis(tuple(map(str, range(layout.length))))
        rows, columns = layout.grid
        before = layout.length - rows * columns
        labels = (*_special_labels(self.module, before), *(f"{r},{c}" for r in range(rows) for c in range(columns)))
        if image.size not in self.boxes:
            self.boxes[image.size] = seen_part(self.processor, *image.size)
        picture = None
        if (whole := self.boxes[image.size]) is not None:
            left, top, right, bottom = whole
            down, across = layout.extent[0] / shape[-2], layout.extent[1] / shape[-1]  # what does not fill a patch
            picture = picture_of(image, (left, top, left + across * (right - left), top + down * (bottom - top)))
        special = (*(True,) * before, *(False,) * (rows * columns))
        return Axis(labels, special=special, grid=layout.grid, picture=picture)


def _special_labels(module: nn.Module, count: int) -> tuple[str, ...]:
    """Names of the tokens before the patches, by the parameters that hold them."""
    held = {name.rsplit(".", 1)[-1]: parameter for name, parameter in module.named_parameters()}
    registers = held["register_tokens"].shape[1] if "register_tokens" in held else 0
    labels = (
        *(("CLS",) if held.keys() & {"cls_token", "class_embedding"} else ()),
        *(("DIST",) if "distillation_token" in held else ()),
        *(f"REG {i}" for i in range(1, registers + 1)),
    )
    return labels if len(labels) == count else tuple(f"special {i}" for i in range(1, count + 1))


def layout_of(module: nn.Module, kwargs: dict[str, Tensor]) -> Layout | None:
    """How the model cuts pixels like these into tokens; None when it does not say.

    The first convolution gives the patches. That the tokens are those patches in order, after special ones, is shown
    by changing the first, the second and the last patch alone: of the tokens before the first block only the one that
    belongs to it may change.
    """
    pixels = kwargs["pixel_values"]
    channels, height, width = pixels.shape[1:]
    conv = next((m for m in module.modules() if isinstance(m, nn.Conv2d) and m.in_channels == channels), None)
    grid = extent = None
    probe = torch.zeros_like(pixels)
    if conv is not None and conv.stride == conv.kernel_size and conv.padding in ((0, 0), "valid"):
        (high, wide), rows, columns = conv.stride, height // conv.stride[0], width // conv.stride[1]
        if rows and columns:
            grid, extent = (rows, columns), (rows * high, columns * wide)
            numbers = sorted({0, min(1, rows * columns - 1), rows * columns - 1})
            probe = torch.zeros(1 + len(numbers), channels, height, width, dtype=pixels.dtype, device=pixels.device)
            for copy, number in enumerate(numbers, 1):
                r, c = divmod(number, columns)
                probe[copy, :, r * high : (r + 1) * high, c * wide : (c + 1) * wide] = 1
    others = {k: v.expand(len(probe), *v.shape[1:]) for k, v in kwargs.items() if k != "pixel_values"}
    try:
        with torch.no_grad():
            states = getattr(module(**others, pixel_values=probe, output_hidden_states=True), "hidden_states", None)
    except TypeError:  # a forward that has no output_hidden_states
        return None
    if not states or states[0].ndim != 3:
        return None
    length = states[0].shape[1]
    if grid is None or any(s.shape[1:2] != (length,) for s in states):
        return Layout(length)
    change = (states[0][1:] - states[0][:1]).abs().amax(-1)  # (probes, T)
    found = [row.gt(row.max() * 1e-3).nonzero().flatten().tolist() for row in change]
    before = length - rows * columns
    proven = before >= 0 and found == [[before + number] for number in numbers]
    return Layout(length, grid, extent) if proven else Layout(length)


def seen_part(processor, width: int, height: int) -> Box | None:
    """The part of a picture of ``width`` × ``height`` that becomes the pixels of the model, in the picture's pixels.

    Measured: where the answers to black and to white differ is the picture, the rest padding; a ramp from left to
    right, between the two, tells for each column of the output where it comes from, and one from top to bottom for each
    row. The ends of a straight line through them are the edges. None when this gives no line.
    """
    enlarge = 1
    if getattr(processor, "do_resize", False):  # then the answer is a share of the sides, whatever their number
        enlarge = -(-FEWEST_PIXELS // min(width, height, FEWEST_PIXELS))
    shape = height * enlarge, width * enlarge
    black, white = (_answer(processor, np.full(shape, level)) for level in (0, 255))
    span = white - black  # (C, H, W)
    inside = span.mean(0) > span.mean(0).max() / 2  # (H, W)
    span = np.where(inside, span, 1)
    edges = []
    for axis in (1, 0):
        used = inside.any(1 - axis).nonzero()[0]
        if len(used) < 2:
            return None
        # the middle half: near the edges the resampling filter reaches beyond them and bends the line
        middle = used[len(used) // 4 : len(used) - len(used) // 4]
        place = (np.arange(shape[axis]) + 0.5) / shape[axis]
        place = np.broadcast_to(place if axis else place[:, None], shape)
        low, high = 0.0, 1.0
        for _ in range(2):  # the second time over what is seen alone, for all of the 256 levels to tell it apart
            levels = 255 * np.clip((place - low) / (high - low), 0, 1)
            share = ((_answer(processor, levels) - black) / span).mean(0)
            profile = [share.take(i, axis)[inside.take(i, axis)].mean() for i in middle]
            slope, start = np.polyfit(middle + 0.5, low + (high - low) * np.array(profile), 1)
            first, last = float(start), float(start + slope * inside.shape[axis])
            if not first < last or max(first, 0) >= min(last, 1):
                return None
            low, high = max(first, 0.0), min(last, 1.0)
            if high - low > 0.9:
                break
        edges.append([round(e) if abs(e - round(e)) < SNAP and round(e) in (0, 1) else e for e in (first, last)])
    (left, right), (top, bottom) = edges
    return left * width, top * height, right * width, bottom * height


def _answer(processor, levels: np.ndarray) -> np.ndarray:
    """What the processor makes of a grey picture (height, width) of levels 0 … 255 → (C, H, W). Each colour is rounded
    at another place, so that their mean has three times the levels."""
    colours = [np.clip(np.round(levels + shift), 0, 255).astype(np.uint8) for shift in (-1 / 3, 0, 1 / 3)]
    picture = Image.fromarray(np.stack(colours, axis=-1))
    return np.asarray(processor(images=picture, return_tensors="np")["pixel_values"])[0]
