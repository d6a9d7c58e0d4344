"""Attributions ready to be drawn: running text, patches over their picture, strips over their spectrogram."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from headwise.interp.analysis.attribution import Attribution
from headwise.interp.analysis.attribution.faithfulness import Scored, ranked
from headwise.interp.analysis.attribution.features import Features
from headwise.interp.attention.axes import Axis
from headwise.interp.drawing.paper.pens import png_bytes
from headwise.interp.drawing.paper.text import brief, visible

LARGEST = 448  # pixels of a picture's longer side
STROKES = 0.25  # a picture that is darker on average shows bright strokes on a dark ground


@dataclass(frozen=True)
class Block:
    """One sequence of an input, as it is drawn: its units from number ``first`` on.

    ``kind`` "text", "picture" or "sound" · ``texts`` what stands for each unit, after ``before``, the part of the text
    that belongs to none · ``axis`` with the picture or the sound.
    """

    kind: str
    name: str
    first: int
    texts: tuple[str, ...]
    before: tuple[str, ...]
    axis: Axis


def blocks(features: Features) -> tuple[Block, ...]:
    """The input, sequence by sequence."""
    found, first = [], 0
    for name, axis in features.axes:
        if axis.picture is not None and axis.grid is not None:
            kind, texts, before = "picture", axis.labels, ("",) * len(axis)
        elif axis.sound is not None:
            kind, texts, before = "sound", axis.labels, ("",) * len(axis)
        else:
            kind, (texts, before) = "text", _running(axis)
        found.append(Block(kind, name, first, tuple(texts), tuple(before), axis))
        first += len(axis)
    return tuple(found)


def labels(found: Sequence[Block]) -> list[str]:
    """What each unit is called where one is told of it."""
    return [visible(label) if block.kind == "text" else label for block in found for label in block.axis.labels]


def _running(axis: Axis) -> tuple[list[str], list[str]]:
    """The text as it was written, cut where its tokens are: what each token reads, and what stands before it."""
    texts, before, end = [], [], 0
    special = axis.special or (False,) * len(axis)
    for place, label in enumerate(axis.labels):
        own, glue = label, ""
        if axis.offsets is not None and axis.text is not None and not special[place]:
            start, stop = axis.offsets[place] or (end, end)
            if stop > start >= end:
                own, glue, end = axis.text[start:stop], axis.text[end:start], stop
        bare = own.lstrip()
        if bare:
            own, glue = bare, glue + own[: len(own) - len(bare)]
        texts.append(visible(own) if special[place] else own)
        before.append(glue or (" " if special[place] or (place and special[place - 1]) else ""))
    return texts, before


@dataclass(frozen=True)
class Shown:
    """What one method says of the U units, as it is drawn: ``values``, as text ``scores``, ``shades`` 0 … 255 on the
    colour scale and ``places`` in their order, both None for what is fixed · ``low`` and ``high`` what the ends of the
    scale mean."""

    name: str
    signed: bool
    values: list[float]
    scores: list[str]
    shades: list[int | None]
    places: list[int | None]
    low: str
    high: str


def shown(attribution: Attribution) -> Shown:
    """An attribution, ready to be drawn."""
    values, fixed, signed = attribution.scores.tolist(), attribution.features.fixed.tolist(), attribution.signed
    most = max((abs(value) for value, held in zip(values, fixed, strict=True) if not held), default=0.0)
    return Shown(
        attribution.method,
        signed,
        values,
        [score(value, signed) for value in values],
        shades(values, fixed, signed),
        places(attribution),
        f"against {score(-most)}" if signed else "0",
        f"{score(most, signed)}{' for' if signed else ''}",
    )


def shades(scores: Sequence[float], fixed: Sequence[bool], signed: bool) -> list[int | None]:
    """Places on the colour scale, 0 … 255: of a method with a sign zero is in the middle. None where units are fixed,
    which are not asked about."""
    values = np.asarray(scores, float)
    known = ~np.asarray(fixed, bool)
    most = float(np.abs(values[known]).max(initial=0)) or 1.0
    places = 0.5 + 0.5 * values / most if signed else values / most
    steps = np.rint(np.clip(places, 0, 1) * 255).astype(int)
    return [int(step) if shown else None for step, shown in zip(steps, known, strict=True)]


def places(attribution: Scored) -> list[int | None]:
    """The place of each unit in the order of scores, 0 for the highest; None where it is fixed."""
    found: list[int | None] = [None] * attribution.features.count
    for place, unit in enumerate(ranked(attribution)):
        found[unit] = place
    return found


def grey(axis: Axis) -> tuple[np.ndarray, bool]:
    """The axis' picture in grey (height, width) uint8, and whether it is bright strokes on a dark ground."""
    pixels = np.asarray(Image.fromarray(axis.picture.pixels).convert("L"))
    return pixels, float(pixels.mean()) < STROKES * 255


def picture_of(axis: Axis) -> tuple[str, bool]:
    """The same as an address that holds it."""
    pixels, strokes = grey(axis)
    picture = Image.fromarray(pixels)
    if max(picture.size) > LARGEST:
        picture.thumbnail((LARGEST, LARGEST))
    return _address(np.asarray(picture)), strokes


def spectrogram_of(axis: Axis) -> str:
    """The part of the axis' spectrogram that was recorded, high pitches above, as ink on nothing."""
    sound = axis.sound
    shown = sound.spectrogram[:, : max(1, math.ceil(sound.seconds / sound.hop - 1e-6))]
    low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    loud = np.nan_to_num((shown - low) / max(high - low, 1e-12))[::-1]
    wide = -(-loud.shape[1] // 1000)
    loud = np.maximum.reduceat(loud, range(0, loud.shape[1], wide), axis=1)
    return _address(np.stack([np.zeros_like(loud), loud], -1) * 255)


def _address(pixels: np.ndarray) -> str:
    return f"data:image/png;base64,{base64.b64encode(png_bytes(pixels.round().astype(np.uint8))).decode()}"


def table(attributions: Sequence[Scored]) -> pd.DataFrame:
    """A row a unit: its sequence, place and text, and of each method its score and rank."""
    features = attributions[0].features
    names = [(name, number) for name, axis in features.axes for number in range(len(axis))]
    columns = {
        "sequence": [name for name, _ in names],
        "position": [number for _, number in names],
        "unit": list(features.labels),
        "fixed": features.fixed.tolist(),
    }
    for one in attributions:
        columns[one.method] = one.scores.tolist()
        columns[f"rank by {one.method}"] = [None if place is None else place + 1 for place in places(one)]
    return pd.DataFrame(columns)


def score(value: float, signed: bool = True) -> str:
    """A score where room is short: two digits that count."""
    text = brief(abs(value)) if value else "0"
    if float(text) == 0 or not signed:
        return text
    return f"{'−' if value < 0 else '+'}{text}"
