"""How the bundled models read texts, pairs and pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from tokenizers import Tokenizer
from torch import Tensor, nn

from headwise.interp.attention.axes import Axis
from headwise.interp.errors import InputError
from headwise.interp.subject import Inputs
from headwise.models.architectures.vision import VisionConfig
from headwise.models.inputs.base import BaseReader
from headwise.models.inputs.media import picture_of, upright_rgb
from headwise.models.inputs.texts import checked_target, pair
from headwise.models.inputs.tokens import checked, clip, text_axis

MASK = "[MASK]"  # in a text for the encoders: a token to be told
WRITTEN = 48  # target tokens that the encoder-decoder writes at most when none is typed


@dataclass(frozen=True, eq=False, repr=False)
class PlainTextReader(BaseReader):
    """For decoders: a text."""

    tokenizer: Tokenizer
    context: int
    device: str

    def read(self, raw: Any, truncate: bool) -> Inputs:
        text, notes = checked(raw, truncate)
        encoding = self.tokenizer.encode(text)
        keep, more = clip(encoding.ids, self.context, truncate)
        ids = torch.tensor([encoding.ids[:keep]], device=self.device)
        axis = text_axis(text, encoding, keep, self.tokenizer.decode)
        return Inputs({"input_ids": ids}, {"input": axis}, notes + more)


@dataclass(frozen=True, eq=False, repr=False)
class OrderedReader(PlainTextReader):
    """For XLNet: a text, predicted left to right but for its masked tokens, which come last and so are told from both
    sides."""

    def read(self, raw: Any, truncate: bool) -> Inputs:
        given = super().read(raw, truncate)
        masked = given.kwargs["input_ids"][0] == self.tokenizer.token_to_id(MASK)
        if not bool(masked.any()):
            return given
        return replace(given, kwargs={**given.kwargs, "order": masked.int().argsort(stable=True)})


@dataclass(frozen=True, eq=False, repr=False)
class SegmentReader(BaseReader):
    """For encoders: a text, or a pair of texts. The second one's tokens are of type 1."""

    tokenizer: Tokenizer
    context: int
    device: str

    def read(self, raw: Any, truncate: bool) -> Inputs:
        first, second = pair(raw)
        first, notes = checked(first, truncate, "text" if second is None else "first text")
        if second is not None:
            second, more = checked(second, truncate, "second text")
            notes += more
        encoding = self.tokenizer.encode(first, second)
        keep, more = clip(encoding.ids, self.context, truncate)
        ids = encoding.ids[:keep]
        axis = text_axis(first, encoding, keep, partial(self.tokenizer.decode, skip_special_tokens=False), second)
        if keep < len(encoding.ids):  # the cut ends as the model knows its inputs to end
            ids[-1] = self.tokenizer.token_to_id("[SEP]")
            axis = _closed(axis)
        kwargs = {"input_ids": torch.tensor([ids], device=self.device)}
        kwargs["token_type_ids"] = torch.tensor([encoding.type_ids[:keep]], device=self.device)
        return Inputs(kwargs, {"input": axis}, notes + more)


def _closed(axis: Axis) -> Axis:
    labels, special = (*axis.labels[:-1], "[SEP]"), (*axis.special[:-1], True)
    return Axis(labels, (*axis.offsets[:-1], (0, 0)), special, axis.text)


@dataclass(frozen=True, eq=False, repr=False)
class SpellingReader(BaseReader):
    """For the encoder-decoder: a (source, target) pair, or a source alone, whose target the model then writes."""

    module: nn.Module
    source: Tokenizer
    target: Tokenizer
    context: int
    device: str

    def read(self, raw: Any, truncate: bool) -> Inputs:
        word, said = pair(raw)
        word, notes = checked(word, truncate, "source text")
        typed = checked_target(said, truncate)
        word = word.strip()
        ids, source_axis, more = self._encoded(self.source, word.lower(), word, "source", truncate)
        notes += more
        if typed is None:
            text, more = self._written(ids)
        else:
            text, more = typed
        notes += more
        text = text.strip()
        decoder_ids, target_axis, more = self._encoded(self.target, text, text, "target", truncate)
        kwargs = {"input_ids": ids, "decoder_input_ids": decoder_ids}
        return Inputs(kwargs, {"source": source_axis, "target": target_axis}, notes + more)

    def _encoded(
        self, tokenizer: Tokenizer, text: str, shown: str, what: str, truncate: bool
    ) -> tuple[Tensor, Axis, tuple[str, ...]]:
        """→ ids (1, T), their axis on the text as it is ``shown``, notes."""
        encoding = tokenizer.encode(text)
        notes = _unknown(tokenizer, encoding, shown, what)
        keep, more = clip(encoding.ids, self.context, truncate)
        axis = text_axis(shown, encoding, keep, partial(tokenizer.decode, skip_special_tokens=False))
        return torch.tensor([encoding.ids[:keep]], device=self.device), axis, notes + more

    def _written(self, ids: Tensor) -> tuple[str, tuple[str, ...]]:
        start, end = self.target.token_to_id("<s>"), self.target.token_to_id("</s>")
        (made,) = self.module.generate(ids, start, end, WRITTEN)
        stopped = "" if len(made) < WRITTEN else f", stopped after {WRITTEN} tokens"
        note = f"the model wrote the target itself (greedy{stopped})"
        return self.target.decode(made, skip_special_tokens=False), (note,)


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


@dataclass(frozen=True, eq=False, repr=False)
class DigitReader(BaseReader):
    """For the digits: a PIL picture of any size and shape.

    The picture is padded to a square with the colour of its border, scaled, and turned light on dark as in MNIST.
    """

    config: VisionConfig
    device: str

    def read(self, raw: Any, truncate: bool) -> Inputs:
        config, side = self.config, self.config.image
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
        return Inputs({"pixel_values": pixels.to(self.device)}, {"input": axis}, notes)


def _border(grey: Image.Image) -> int:
    """The median of a picture's outermost pixels."""
    values = np.asarray(grey)
    edge = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    return int(np.median(edge))
