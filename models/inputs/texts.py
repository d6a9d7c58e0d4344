"""Texts, pairs of texts and (source, target) pairs for Hugging Face models, by the checkpoint's own tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Encoding
from torch import nn

from headwise.interp.attention.axes import Axis
from headwise.interp.errors import InputError
from headwise.interp.subject import Inputs, device_of
from headwise.models.inputs.base import BaseReader, taken
from headwise.models.inputs.tokens import checked, clip, labels_of, text_axis

if TYPE_CHECKING:  # it takes seconds to import
    from transformers import PreTrainedTokenizerBase

GENERATED = 40  # target tokens an encoder-decoder generates when only a source is given


@dataclass(frozen=True, eq=False, repr=False)
class Unusable(BaseReader):
    """For a checkpoint without a tokenizer or processor: it still takes tensors."""

    part: str
    source: str
    reason: str

    def read(self, raw: Any, truncate: bool) -> Inputs:
        raise InputError(
            f"{self.source} has no usable {self.part} ({self.reason}) Give a dict of tensors, such as the model takes."
        )

    def batch(self, raws: list, truncate: bool) -> Inputs:
        return self.read(raws, truncate)


@dataclass(frozen=True, eq=False, repr=False)
class TextReader(BaseReader):
    """For decoders and encoders: a text, or two in a tuple as the model joins them (a second one of "" or None is
    none); a list of texts is a batch."""

    tokenizer: PreTrainedTokenizerBase
    module: nn.Module
    limit: int | None

    def read(self, raw: Any, truncate: bool) -> Inputs:
        first, second = pair(raw)
        kwargs, axis, notes = _tokenize(self.tokenizer, first, second, self.limit, truncate)
        if bool(kwargs.get("attention_mask", torch.ones(1)).all()):
            kwargs.pop(
                "attention_mask", None
            )  # nothing is padded: the model's own mask suffices, and SDPA's causal path
        return Inputs(taken(self.module, kwargs), {"input": axis}, notes)

    def batch(self, raws: list, truncate: bool) -> Inputs:
        """Texts side by side, the shorter ones filled up. Their positions are only numbers, since a token stands at
        another one in each text."""
        if not raws:
            raise InputError("The list of texts is empty. Give at least one.")
        if self.tokenizer.pad_token_id is None:
            raise InputError("This tokenizer has no padding token, so it makes no batch. Give the texts one by one.")
        alone = [self.read(raw, truncate) for raw in raws]  # checked and cut one by one
        rows = [{k: v[0].tolist() for k, v in inputs.kwargs.items()} for inputs in alone]
        kwargs = self.tokenizer.pad(rows, return_tensors="pt", return_attention_mask=True, verbose=False)
        notes = dict.fromkeys(note for inputs in alone for note in inputs.notes)
        return Inputs(taken(self.module, kwargs), notes=(*notes, f"a batch of {len(raws)} texts"))


@dataclass(frozen=True, eq=False, repr=False)
class PairReader(BaseReader):
    """For encoder-decoders: a (source, target) pair, or a source alone or with "" or None, to which the model then
    writes the target, greedily."""

    tokenizer: PreTrainedTokenizerBase
    module: nn.Module
    limit: int | None

    def read(self, raw: Any, truncate: bool) -> Inputs:
        tokenizer, module, limit = self.tokenizer, self.module, self.limit
        device = device_of(module)
        first, second = pair(raw)
        target = checked_target(second, truncate)
        kwargs, source, notes = _tokenize(tokenizer, first, None, limit, truncate, "source text")
        ids, start = kwargs["input_ids"].to(device), start_token(module)
        if target is None:
            made, more = written(module, GENERATED, input_ids=ids)
            made = made if made[:1] == [start] else [start, *made]
            decoder_ids, axis, cut = written_target(tokenizer, made, limit, truncate)
        else:
            text, more = target
            decoder_ids, axis, cut = typed_target(tokenizer, text, [start], limit, truncate)
        return Inputs(
            {"input_ids": ids, "decoder_input_ids": torch.tensor([decoder_ids], device=device)},
            {"source": source, "target": axis},
            notes + more + cut,
        )


def pair(raw: Any) -> tuple[Any, Any]:
    """(first, second) of a pair; the second is None when it is missing or ""."""
    first, second = raw if isinstance(raw, tuple) and len(raw) == 2 else (raw, None)
    return first, None if isinstance(second, str) and not second else second


def checked_target(target: object, truncate: bool) -> tuple[str, tuple[str, ...]] | None:
    """A typed target and the notes on it; None when the model shall write it. Raises InputError for blanks only."""
    if target is None:
        return None
    if isinstance(target, str) and not target.strip():
        raise InputError("The target is empty. Type one, or leave the field empty to let the model write it.")
    return checked(target, truncate, "target text")


def start_token(module: nn.Module) -> int:
    """The token that a decoder's target starts with."""
    for config in (getattr(module, "generation_config", None), module.config, module.config.get_text_config()):
        for name in ("decoder_start_token_id", "bos_token_id"):
            if isinstance(number := getattr(config, name, None), int):
                return number
    return 0


def written(module: nn.Module, most: int, **given) -> tuple[list[int], tuple[str, ...]]:
    """The target ids that the model writes for these inputs, greedily, and the note to show."""
    if not (hasattr(module, "generate") and module.can_generate()):
        raise InputError(f"{type(module).__name__} has no output head, so it cannot write the target. Type one.")
    ids = module.generate(**given, max_new_tokens=most, do_sample=False, num_beams=1)[0].tolist()
    ended = bool(ids) and ids[-1] in end_tokens(module)
    return ids, ("the model wrote the target itself (greedy" + (")" if ended else f", stopped after {most} tokens)"),)


def end_tokens(module: nn.Module) -> tuple[int, ...]:
    """The tokens after which generation ends: one, several or none."""
    for config in (getattr(module, "generation_config", None), module.config, module.config.get_text_config()):
        found = getattr(config, "eos_token_id", None)
        if isinstance(found, int):
            return (found,)
        if isinstance(found, list | tuple) and found:
            return tuple(found)
    return ()


def typed_target(
    tokenizer, text: str, start: list[int], limit: int | None, truncate: bool, end: list[int] | None = None
) -> tuple[list[int], Axis, tuple[str, ...]]:
    """``start`` and the text's tokens, with the special tokens that the tokenizer gives a target, or with ``end`` in
    their stead → (ids, axis, notes)."""
    encoded = tokenizer(text_target=text, add_special_tokens=end is None, verbose=False)
    ids = [*start, *encoded["input_ids"], *(end or ())]
    keep, notes = clip(ids, limit, truncate)
    if not encoded.encodings:  # a slow tokenizer
        return ids[:keep], _plain_axis(tokenizer, ids[:keep], text), notes
    body = text_axis(text, encoded.encodings[0], len(encoded["input_ids"]), tokenizer.decode)
    labels = (*_decoded(tokenizer, start), *body.labels, *_decoded(tokenizer, end or ()))
    offsets = (*((0, 0),) * len(start), *body.offsets, *((len(text),) * 2,) * len(end or ()))
    special = (*(True,) * len(start), *body.special, *(True,) * len(end or ()))
    return ids[:keep], Axis(labels[:keep], offsets[:keep], special[:keep], text), notes


def written_target(
    tokenizer, ids: list[int], limit: int | None, truncate: bool
) -> tuple[list[int], Axis, tuple[str, ...]]:
    """Ids that a model wrote → (ids, axis, notes); each token's place in the text is found by decoding up to it."""
    keep, notes = clip(ids, limit, truncate)
    ids = ids[:keep]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    ends = [0]
    for count in range(1, len(ids) + 1):
        part = tokenizer.decode(ids[:count], skip_special_tokens=True)
        same = next((i for i, (a, b) in enumerate(zip(part, text, strict=False)) if a != b), min(len(part), len(text)))
        ends.append(max(same, ends[-1]))
    offsets = list(pairwise(ends))
    special = _special(tokenizer, ids)
    for i in reversed(range(len(ids) - 1)):  # a character of several tokens appears with the last one: it is theirs all
        start, end = offsets[i]
        if start == end == offsets[i + 1][0] and not special[i] and not special[i + 1]:
            offsets[i] = offsets[i + 1]
    tokens = tokenizer.convert_ids_to_tokens(ids)
    labels = labels_of(tokens, ids, offsets, text, tokenizer.decode)
    return ids, Axis(tuple(labels), tuple(offsets), special, text), notes


def _decoded(tokenizer, ids) -> tuple[str, ...]:
    return tuple(tokenizer.decode([i]) for i in ids)


def _plain_axis(tokenizer, ids: list[int], text: str) -> Axis:
    labels = tuple(token.replace("▁", " ") for token in tokenizer.convert_ids_to_tokens(ids))
    return Axis(labels, special=_special(tokenizer, ids), text=text)


def _special(tokenizer, ids: list[int]) -> tuple[bool, ...]:
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}
    return tuple(i in special for i in ids)


def _tokenize(
    tokenizer, text: str, second: str | None, limit: int | None, truncate: bool, what: str = "text"
) -> tuple[dict, Axis, tuple[str, ...]]:
    """One text, or two as the model joins them → (keyword arguments with B = 1, axis, notes)."""
    text, notes = checked(text, truncate, what if second is None else "first text")
    if second is not None:
        second, more = checked(second, truncate, "second text")
        notes += more
    encoded = tokenizer(text, second, verbose=False)
    keep, more = clip(encoded["input_ids"], limit, truncate)
    if keep < len(encoded["input_ids"]):  # again, so that the closing special tokens survive the cut
        encoded = tokenizer(text, second, truncation=True, max_length=limit)
        keep = len(encoded["input_ids"])
    if keep == 0:
        raise InputError(f"The tokenizer made no token of this {what}. Type other characters.")
    kwargs = {
        k: torch.tensor([v]) for k, v in encoded.items() if k in ("input_ids", "attention_mask", "token_type_ids")
    }
    if encoded.encodings:
        encoding: Encoding = encoded.encodings[0]
        axis = text_axis(text, encoding, keep, tokenizer.decode, second)
    else:
        axis = Axis(tuple(tokenizer.convert_ids_to_tokens(encoded["input_ids"])), text=text)
        more += ("this tokenizer gives no character offsets, so words cannot be merged",)
    return kwargs, axis, notes + more
