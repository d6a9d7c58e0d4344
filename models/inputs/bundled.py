"""How the bundled models take texts, pairs and pictures: each kind's ``encode(raw, truncate=False) → Inputs``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageOps
from tokenizers import Tokenizer
from torch import nn

from headwise.interp.attention.axes import Axis
from headwise.interp.errors import InputError
from headwise.interp.subject import Inputs
from headwise.models.architectures.vision import VisionConfig
from headwise.models.inputs.media import picture_of, upright_rgb
from headwise.models.inputs.texts import checked_target, pair, tensors
from headwise.models.inputs.tokens import checked, clip, text_axis

WRITTEN = 48  # target tokens that the encoder-decoder writes at most when none is typed


def text_encoder(tokenizer: Tokenizer, context: int, device: str) -> Callable[..., Inputs]:
    """For decoders: a text, or a dict of tensors."""

    def encode(raw, truncate: bool = False) -> Inputs:
        if isinstance(raw, dict):
            return tensors(raw)
        text, notes = checked(raw, truncate)
        encoding = tokenizer.encode(text)
        keep, more = clip(encoding.ids, context, truncate)
        ids = torch.tensor([encoding.ids[:keep]], device=device)
        return Inputs({"input_ids": ids}, {"input": text_axis(text, encoding, keep, tokenizer.decode)}, notes + more)

    return encode


def segment_encoder(tokenizer: Tokenizer, context: int, device: str) -> Callable[..., Inputs]:
    """For encoders: a text, a pair of texts, or a dict of tensors. The second one's tokens are of type 1."""
    closing = tokenizer.token_to_id("[SEP]")

    def encode(raw, truncate: bool = False) -> Inputs:
        if isinstance(raw, dict):
            return tensors(raw)
        first, second = pair(raw)
        first, notes = checked(first, truncate, "text" if second is None else "first text")
        if second is not None:
            second, more = checked(second, truncate, "second text")
            notes += more
        encoding = tokenizer.encode(first, second)
        keep, more = clip(encoding.ids, context, truncate)
        ids = encoding.ids[:keep]
        axis = text_axis(first, encoding, keep, read, second)
        if keep < len(encoding.ids):  # the cut ends as the model knows its inputs to end
            ids[-1] = closing
            axis = _closed(axis)
        kwargs = {"input_ids": torch.tensor([ids], device=device)}
        kwargs["token_type_ids"] = torch.tensor([encoding.type_ids[:keep]], device=device)
        return Inputs(kwargs, {"input": axis}, notes + more)

    def read(ids: list[int]) -> str:
        return tokenizer.decode(ids, skip_special_tokens=False)

    return encode


def _closed(axis: Axis) -> Axis:
    labels, special = (*axis.labels[:-1], "[SEP]"), (*axis.special[:-1], True)
    return Axis(labels, (*axis.offsets[:-1], (0, 0)), special, axis.text)


def spelling_encoder(
    module: nn.Module, source: Tokenizer, target: Tokenizer, context: int, device: str
) -> Callable[..., Inputs]:
    """For the encoder-decoder: a (source, target) pair, or a source alone, whose target the model then writes."""
    start, end = target.token_to_id("<s>"), target.token_to_id("</s>")

    def encode(raw, truncate: bool = False) -> Inputs:
        if isinstance(raw, dict):
            return tensors(raw)
        word, said = pair(raw)
        word, notes = checked(word, truncate, "source text")
        typed = checked_target(said, truncate)
        read = source.encode(word.strip().lower())
        notes += _unknown(source, read, word.strip(), "source")
        keep, more = clip(read.ids, context, truncate)
        ids = torch.tensor([read.ids[:keep]], device=device)
        notes += more
        if typed is None:
            (made,) = module.generate(ids, start, end, WRITTEN)
            text = target.decode(made, skip_special_tokens=False)
            stopped = "" if len(made) < WRITTEN else f", stopped after {WRITTEN} tokens"
            notes += (f"the model wrote the target itself (greedy{stopped})",)
        else:
            text, more = typed
            notes += more
        written = target.encode(text.strip())
        notes += _unknown(target, written, text.strip(), "target")
        keep_target, more = clip(written.ids, context, truncate)
        decoder_ids = torch.tensor([written.ids[:keep_target]], device=device)
        axes = {
            "source": text_axis(word.strip(), read, keep, lambda i: source.decode(i, skip_special_tokens=False)),
            "target": text_axis(
                text.strip(), written, keep_target, lambda i: target.decode(i, skip_special_tokens=False)
            ),
        }
        return Inputs({"input_ids": ids, "decoder_input_ids": decoder_ids}, axes, notes + more)

    return encode


def _unknown(tokenizer: Tokenizer, encoding, text: str, what: str) -> tuple[str, ...]:
    """A note on letters that the model never saw. Raises InputError when there is no other."""
    unknown = tokenizer.token_to_id("[UNK]")
    places = [offset for number, offset in zip(encoding.ids, encoding.offsets, strict=True) if number == unknown]
    if not places:
        return ()
    strange = ", ".join(dict.fromkeys(repr(text[start:end]) for start, end in places))[:80]
    if len(places) >= sum(not special for special in encoding.special_tokens_mask):
        raise InputError(f"The {what} has no character that this model knows, only {strange}. Type an English word.")
    return (f"characters of the {what} that this model does not know: {strange}",)


def digit_encoder(config: VisionConfig, device: str) -> Callable[..., Inputs]:
    """For the digits: a PIL picture of any size and shape, or a dict of tensors.

    The picture is padded to a square with the colour of its border, scaled, and turned light on dark as in MNIST.
    """
    side = config.image

    def encode(raw, truncate: bool = False) -> Inputs:
        if isinstance(raw, dict):
            return tensors(raw)
        if not isinstance(raw, Image.Image):
            raise InputError(f"Expected a picture, got {type(raw).__name__}. Open it with PIL.Image.open.")
        image = upright_rgb(raw)
        grey, notes = image.convert("L"), ()
        border = _border(grey)
        if border > 127:
            grey, border = ImageOps.invert(grey), 255 - border
            notes = ("the picture was inverted: this model knows digits that are light on dark",)
        whole = max(image.size)
        left, top = (whole - image.width) / 2, (whole - image.height) / 2
        square = Image.new("L", (whole, whole), border)
        square.paste(grey, (int(left), int(top)))
        small = square.resize((side, side), Image.Resampling.BOX if whole > side else Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(small, np.float32) / 255)[None, None]  # (1, 1, side, side)
        box = (-int(left), -int(top), whole - int(left), whole - int(top))
        cells = [(row, column) for row in range(config.grid) for column in range(config.grid)]
        axis = Axis(
            ("CLS", *(f"{row},{column}" for row, column in cells)),
            special=(True, *(False,) * len(cells)),
            grid=(config.grid, config.grid),
            picture=picture_of(image, box),
        )
        return Inputs({"pixel_values": pixels.to(device)}, {"input": axis}, notes)

    return encode


def _border(grey: Image.Image) -> int:
    """The median of a picture's outermost pixels."""
    values = np.asarray(grey)
    edge = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    return int(np.median(edge))
