"""Text in, tensors and a readable axis out. What both kinds of tokenizers share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tokenizers import Encoding

from headwise.interp.attention.axes import Axis
from headwise.interp.errors import InputError

END_OF_TEXT = "<|endoftext|>"  # of the bundled decoders: stands before every text
MAX_CHARACTERS = 200_000  # a longer text is cut before it is tokenized, or refused


class TooLong(InputError):
    """A text or a recording over a model's limit. ``encode(raw, truncate=True)`` cuts it."""

    def __init__(self, found: float, limit: float, unit: str = "tokens"):
        found = math.ceil(10 * found) / 10  # so that what is over the limit never reads like the limit
        has = "recording lasts" if unit == "seconds" else "text has"
        super().__init__(
            f"The {has} {_number(found)} {unit}; this model takes at most {_number(limit)}. "
            f"Shorten it, or allow it to be cut after {_number(limit)} {unit}."
        )
        self.limit, self.unit = limit, unit


def _number(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")


def checked(text: object, truncate: bool, what: str = "text") -> tuple[str, tuple[str, ...]]:
    """The text to tokenize and what was done to it; ``what`` names it in errors. Raises InputError for anything but a
    text with something in it."""
    if not isinstance(text, str):
        raise InputError(f"Expected a {what}, got {type(text).__name__}. Give a str, or a dict of tensors.")
    if not text.strip():
        raise InputError(f"The {what} is empty. Type a sentence to see how the model reads it.")
    if len(text) <= MAX_CHARACTERS:
        return text, ()
    if not truncate:
        raise TooLong(len(text), MAX_CHARACTERS, "characters")
    return text[:MAX_CHARACTERS], (f"{what} cut from {len(text):,} to {MAX_CHARACTERS:,} characters",)


def clip(ids: Sequence[int], limit: int | None, truncate: bool) -> tuple[int, tuple[str, ...]]:
    """How many of the tokens stay, and the note to show. Raises TooLong unless cutting is allowed."""
    if limit is None or len(ids) <= limit:
        return len(ids), ()
    if not truncate:
        raise TooLong(len(ids), limit)
    return limit, (f"text cut from {len(ids):,} to {limit:,} tokens",)


def text_axis(
    text: str, encoding: Encoding, length: int, decode: Callable[[list[int]], str], second: str | None = None
) -> Axis:
    """The axis of the first ``length`` tokens of an encoding. With a ``second`` text, offsets count on past the
    first one and a line break."""
    whole = text if second is None else f"{text}\n{second}"
    shift = len(text) + 1
    offsets, special = [], []
    columns = zip(encoding.offsets, encoding.special_tokens_mask, encoding.sequence_ids, strict=True)
    for (start, end), added, sequence in list(columns)[:length]:
        move = shift if sequence == 1 else 0
        offsets.append((start + move, end + move))
        special.append(bool(added))
    labels = labels_of(encoding.tokens[:length], encoding.ids[:length], offsets, whole, decode)
    return Axis(tuple(labels), tuple(offsets), tuple(special), whole)


def labels_of(
    tokens: Sequence[str], ids: Sequence[int], offsets, text: str, decode: Callable[[list[int]], str]
) -> list[str]:
    """Tokens as a person reads them: leading spaces kept, ``##`` kept, and the parts of a character that byte-level
    tokenizers split (emoji, rare scripts) numbered, "🙂 1/3"."""
    labels = []
    for token, number in zip(tokens, ids, strict=True):
        if "▁" in token:
            labels.append(token.replace("▁", " "))
        elif token.startswith("##"):
            labels.append(token)
        else:
            labels.append(decode([number]) or token)
    index = 0
    while index < len(labels):
        stop = index + 1
        if "\ufffd" in labels[index]:
            while stop < len(labels) and "\ufffd" in labels[stop] and offsets[stop][1] == offsets[index][1]:
                stop += 1
            start, end = offsets[stop - 1]
            for part, place in enumerate(range(index, stop), 1):
                labels[place] = f"{text[start:end]} {part}/{stop - index}" if end > start else tokens[place]
        index = stop
    return labels
