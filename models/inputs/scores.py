"""Four-part scores for the music model: its tokens are notes, voice after voice, eighth after eighth.

A text holds a line for each voice, soprano to bass, and in it an eighth after the other: a note such as C♯5 or Bb3, a
dot for the note before going on, a dash for silence; bars end with "|":

    S: A4 . | B4 C5 D5 .
    A: E4 . | E4 .  F4 .
    T: C4 . | B3 A3 A3 .
    B: A3 . | G3 .  D3 .
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from headwise.interp.attention.axes import Axis, Score
from headwise.interp.errors import InputError
from headwise.interp.subject import Inputs
from headwise.models.inputs.base import BaseReader
from headwise.models.inputs.tokens import checked, clip

VOICES = ("S", "A", "T", "B")
NAMES = ("soprano", "alto", "tenor", "bass")
LOWEST, HIGHEST = 33, 84  # A1 … C6 as MIDI numbers
START, REST, FIRST = 0, 1, 2  # then for each pitch one token that it begins and one that it is held
VOCABULARY = FIRST + 2 * (HIGHEST - LOWEST + 1)
GAP = "\u00a0"  # a space that is no character of a text
SECONDS = 0.36  # an eighth, when it is played
LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
SIGNS = {"": 0, "#": 1, "♯": 1, "b": -1, "♭": -1}
PITCHES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "G♯", "A", "B♭", "B")
NOTE = re.compile(r"([A-G])([#♯b♭]?)(-?\d)$")


def token_of(pitch: int, held: bool) -> int:
    return FIRST + 2 * (pitch - LOWEST) + held


def name_of(pitch: int) -> str:
    """As musicians write it: 60 is C4.

    >>> name_of(60), name_of(70)
    ('C4', 'B♭4')
    """
    return f"{PITCHES[pitch % 12]}{pitch // 12 - 1}"


def spell(tokens: Sequence[int]) -> str:
    """Tokens as a person reads them: "C5" begins, "(C5)" is held, "–" is silence."""
    return "".join(_word(int(token)) for token in tokens)


def _word(token: int) -> str:
    if token < FIRST:
        return ("start", "–")[token]
    name = name_of(LOWEST + (token - FIRST) // 2)
    return f"({name})" if (token - FIRST) % 2 else name


def interleaved(grid: np.ndarray) -> np.ndarray:
    """Tokens (eighths, voices) → START, then voice after voice of each eighth."""
    return np.concatenate([[START], grid.ravel()])


def notes_of(tokens: Sequence[int], voices: int = len(VOICES)) -> np.ndarray:
    """What sounds: (N, 4) int64, the first position, the one after the last, the pitch and the voice of each note. A
    held pitch that nothing began sounds from there on."""
    notes: list[list[int]] = []
    sounding: dict[int, list[int]] = {}
    for place, token in enumerate(tokens):
        if token < FIRST:
            sounding.pop((place - 1) % voices, None)
            continue
        voice, pitch, held = (place - 1) % voices, LOWEST + (int(token) - FIRST) // 2, (int(token) - FIRST) % 2
        begin = place - voice
        if held and voice in sounding and sounding[voice][2] == pitch:
            sounding[voice][1] = begin + voices
            continue
        sounding[voice] = [begin, begin + voices, pitch, voice]
        notes.append(sounding[voice])
    return np.array(notes, np.int64).reshape(-1, 4)


@dataclass(frozen=True, eq=False, repr=False)
class ScoreReader(BaseReader):
    """For the music model: a text with a line for each of four voices."""

    context: int
    device: str

    def read(self, raw: Any, truncate: bool) -> Inputs:
        text, notes = checked(raw, truncate, "score")
        grid, places, bars = parsed(text)
        tokens = interleaved(grid)
        keep, more = clip(tokens, self.context, truncate)
        tokens = tokens[:keep]
        offsets = ((0, 0), *(place for eighth in places for place in eighth))[:keep]
        labels = ("start", *(_label(token, place) for place, token in enumerate(tokens[1:])))
        track = _track(tokens, bars)
        axis = Axis(labels, offsets, (True, *(False,) * (keep - 1)), text, track=track)
        return Inputs({"input_ids": torch.from_numpy(tokens)[None].to(self.device)}, {"input": axis}, notes + more)

    def grown(self, axis: Axis, tokens: Sequence[int]) -> Axis:
        """The axis with the notes that ``tokens`` say after it; its text stays, for it has a line a voice."""
        _, _, bars = parsed(axis.text)
        before = _tokens_of(axis)
        labels = [_label(token, len(before) - 1 + more) for more, token in enumerate(tokens)]
        written = len(axis) if axis.track.written is None else axis.track.written
        count = len(tokens)
        return replace(
            axis,
            labels=(*axis.labels, *labels),
            offsets=(*axis.offsets, *((len(axis.text),) * 2,) * count),
            special=(*axis.special, *(token == START for token in tokens)),
            track=replace(_track(np.concatenate([before, tokens]), bars), written=written),
        )


def parsed(text: str) -> tuple[np.ndarray, list[list[tuple[int, int]]], tuple[int, ...]]:
    """→ tokens (eighths, voices), where each stands in the text, the eighths at which bars begin. Raises InputError,
    one sentence naming the voice."""
    lines = {}
    for found in re.finditer(r"^\s*([SATB])\s*:(.*)$", text, re.MULTILINE):
        lines.setdefault(found[1], []).append(found)
    if missing := [voice for voice in VOICES if voice not in lines]:
        raise InputError(
            'A score has a line for each of four voices, "S: A4 . B4 .", "A: …", "T: …", "B: …"; '
            f"{missing[0]} is missing."
        )
    columns, places, bars = [], [], ()
    for voice in VOICES:
        own, where, begins = _voice(voice, lines[voice])
        bars = bars or begins
        columns.append(own)
        places.append(where)
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        told = ", ".join(f"{voice} {length}" for voice, length in zip(VOICES, lengths, strict=True))
        raise InputError(f"All voices last equally long; these have {told} eighths.")
    if not lengths[0]:
        raise InputError("The score is empty. Write an eighth at least in each voice.")
    return np.array(columns, np.int64).T, [list(eighth) for eighth in zip(*places, strict=True)], bars


def _voice(voice: str, lines: list[re.Match]) -> tuple[list[int], list[tuple[int, int]], tuple[int, ...]]:
    """A voice's tokens, where they stand in the text, and the eighths at which its bars begin."""
    tokens, where, begins, pitch = [], [], [0], None
    for line in lines:
        for found in re.finditer(r"\S+", line[2]):
            word = found[0]
            if word == "|":
                begins.append(len(tokens))
                continue
            if word in (".", "-", "–"):
                pitch = pitch if word == "." else None
                tokens.append(REST if pitch is None else token_of(pitch, True))
            else:
                pitch = _pitch(word, voice)
                tokens.append(token_of(pitch, False))
            where.append((line.start(2) + found.start(), line.start(2) + found.end()))
    return tokens, where, tuple(sorted(set(begins) - {len(tokens)}))


def _pitch(word: str, voice: str) -> int:
    found = NOTE.match(word)
    if found is None:
        raise InputError(f'An eighth is a note such as C5 or B♭3, "." or "-"; got {word[:12]!r} in {voice}.')
    letter, sign, octave = found.groups()
    pitch = 12 * (int(octave) + 1) + LETTERS[letter] + SIGNS[sign]
    if not LOWEST <= pitch <= HIGHEST:
        raise InputError(f"This model knows {name_of(LOWEST)} … {name_of(HIGHEST)}; got {word} in {voice}.")
    return pitch


def _tokens_of(axis: Axis) -> np.ndarray:
    """The tokens of an axis, from its labels."""
    return np.array([WORDS[label.partition(GAP)[2] or label] for label in axis.labels], np.int64)


def _label(token: int, place: int) -> str:
    """A note in its voice: "S C5"; ``place`` counts from the first note."""
    return f"{VOICES[place % len(VOICES)]}{GAP}{_word(int(token))}"


def _track(tokens: np.ndarray, bars: tuple[int, ...]) -> Score:
    """The score that tokens are, with the bars that the text names, and after it bars as long as most of them."""
    voices, eighths = len(VOICES), -(-(len(tokens) - 1) // len(VOICES))
    lengths = Counter(b - a for a, b in pairwise(bars[1:]))  # the first may be an upbeat
    bar = lengths.most_common(1)[0][0] if lengths else max((8, *bars[1:2]))
    begins = list(bars)
    while begins[-1] + bar < eighths:
        begins.append(begins[-1] + bar)
    upbeat = len(bars) > 1 and bars[1] < bar
    marks = tuple(
        (1 + voices * at, str(number)) for number, at in enumerate(begins, 0 if upbeat else 1) if at < eighths
    )
    marks = tuple(mark for mark in marks if mark[1] != "0")  # an upbeat has no number
    notes = notes_of(tokens)
    return Score(voices * bar, "note", "bar", marks, notes=notes, seconds=SECONDS / voices, voices=NAMES)


WORDS = {_word(token): token for token in range(VOCABULARY)}
