"""Real series and scores for the bundled models, from the packages that carry them, as ``data`` does for texts.

Nothing of a package is run: its files are parsed here.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import tarfile
import xml.etree.ElementTree as ET
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from headwise.models.inputs.scores import HIGHEST, LOWEST, REST, VOICES, name_of, token_of
from headwise.models.recipes.data import Source

STATSMODELS = Source(
    "statsmodels==0.14.5",
    "de260e58cccfd2ceddf835b55a357233d6ca853a1aa4f90f7553a52cc71c6ddf",
    "carbon dioxide in the air at Mauna Loa, 1958 to 2001 (Keeling & Whorf 2004), and the temperature of the sea off "
    "Peru and Ecuador, where El Niño is measured, 1950 to 2010 (NOAA)",
    "public domain",
    kind="sdist",
)
MUSIC21 = Source(
    "music21==10.5.1",
    "dc3309498c4c95cebdf8d4f20c868deb6b63bce1d929cad4f51a7ccc982987b1",
    "Johann Sebastian Bach's four-part chorales (1685 to 1750)",
    "the music is in the public domain; its encodings (Margaret Greentree and others) come with music21 by permission "
    "of their encoders",
)
HELD_OUT = 1990  # the first year that no model of series learns from


# -- series -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Monthly:
    """A series of months: ``values`` (T,), the first of them in month ``first`` (12 · year + month − 1)."""

    name: str
    unit: str
    first: int
    values: np.ndarray

    @property
    def known(self) -> int:
        """How many months lie before those that are held out."""
        return HELD_OUT * 12 - self.first

    def text(self, start: int, stop: int) -> str:
        """Months ``start`` … ``stop`` − 1 as ``inputs.series`` reads them."""
        lines = [f"# {self.name} ({self.unit})"]
        for place in range(start, stop):
            year, month = divmod(self.first + place, 12)
            lines.append(f"{year}-{month + 1:02d} {self.values[place]:.2f}")
        return "\n".join(lines)

    def decade(self, year: int) -> str:
        """Ten years from January of ``year`` on."""
        start = year * 12 - self.first
        return self.text(start, start + 120)


def write_examples(folder: Path, texts: dict[str, str]) -> None:
    """The examples that the app offers for a model, by what they are called."""
    told = json.dumps(texts, ensure_ascii=False, indent=1)
    (folder / "examples.json").write_text(told + "\n", encoding="utf-8")


def load_months() -> tuple[Monthly, Monthly]:
    """Carbon dioxide at Mauna Loa, monthly means of the weekly figures, five missing months filled in by a straight
    line; and the temperature of the sea where El Niño is measured."""
    folder = f"{STATSMODELS.package.replace('==', '-')}/statsmodels/datasets"
    with tarfile.open(STATSMODELS.archive()) as package:
        weekly, elnino = (
            list(csv.reader(io.TextIOWrapper(package.extractfile(f"{folder}/{name}/{name}.csv"))))[1:]
            for name in ("co2", "elnino")
        )
    months = defaultdict(list)
    for date, value in weekly:
        if value:
            months[int(date[:4]) * 12 + int(date[4:6]) - 1].append(float(value))
    first, last = min(months), max(months)
    means = np.interp(np.arange(first, last + 1), list(months), [np.mean(values) for values in months.values()])
    temperatures = np.array([float(value) for row in elnino for value in row[1:]])
    return (
        Monthly("CO₂ in the air at Mauna Loa", "ppm", first, means),
        Monthly("Sea surface off Peru, El Niño 1+2", "°C", int(elnino[0][0].split(".")[0]) * 12, temperatures),
    )


# -- scores -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Chorale:
    """Four voices on a grid of eighths: ``tokens`` (eighths, voices) of ``inputs.scores``, bars begin at ``bars``."""

    name: str
    tokens: np.ndarray
    bars: tuple[int, ...]

    def text(self, stop: int | None = None) -> str:
        """The first ``stop`` eighths as ``inputs.scores`` reads them."""
        tokens = self.tokens[:stop]
        lines = [f"# {self.name}"]
        for voice, column in zip(VOICES, tokens.T, strict=True):
            words = []
            for at, token in enumerate(column):
                words += ["|"] if at in self.bars[1:] else []
                pitch, held = divmod(int(token) - 2, 2)
                words.append("-" if token == REST else "." if held and at else name_of(LOWEST + pitch))
            lines.append(f"{voice}: {' '.join(words)}")
        return "\n".join(lines)


def load_chorales() -> tuple[list[Chorale], list[Chorale]]:
    """(training, held-out) chorales in four voices, in the order of their numbers. What falls between eighths is left
    out.

    Bach set many melodies more than once: all settings of one, in whatever key, are held out together, one melody in
    ten, as the sha256 of its first intervals says.
    """
    training, held_out = [], []
    with zipfile.ZipFile(MUSIC21.archive()) as package:
        for name in sorted(
            n for n in package.namelist() if n.startswith("music21/corpus/bach/") and n.endswith(".mxl")
        ):
            with zipfile.ZipFile(io.BytesIO(package.read(name))) as packed:
                (inner,) = (n for n in packed.namelist() if not n.startswith("META-INF") and n.endswith("xml"))
                chorale = chorale_of(name.split("/")[-1].removesuffix(".mxl"), packed.read(inner))
            if chorale is not None:
                (held_out if _drawn(chorale) else training).append(chorale)
    return training, held_out


def _drawn(chorale: Chorale) -> bool:
    begun = [int(token) for token in chorale.tokens[:, 0] if token > REST and token % 2 == 0][:12]
    melody = ",".join(str((b - a) // 2) for a, b in itertools.pairwise(begun))
    return hashlib.sha256(melody.encode()).digest()[0] < 256 / 10


def chorale_of(name: str, xml: bytes) -> Chorale | None:
    """A chorale from MusicXML; None where it has not four voices, or bars that begin between eighths."""
    root = ET.fromstring(xml)
    parts = root.findall("part")
    if len(parts) != len(VOICES):
        return None
    read = [_part(part) for part in parts]
    bars = [Fraction(2) * start for start in read[0][1]]
    length = round(2 * min(end for _, _, end in read))
    if not length or any(bar.denominator != 1 for bar in bars):
        return None
    columns = [_column(notes, length) for notes, *_ in read]
    if any(column is None for column in columns):
        return None
    return Chorale(
        name.upper().replace("BWV", "BWV "),
        np.array(columns, np.int64).T,
        tuple(int(bar) for bar in bars if bar < length),
    )


Sounding = tuple[Fraction, Fraction, int]  # from, to (in quarters), pitch


def _part(part: ET.Element) -> tuple[list[Sounding], list[Fraction], Fraction]:
    """→ what a part's first voice sounds, ties joined; where its bars begin; where it ends."""
    notes, bars, now, divisions = [], [], Fraction(0), 1
    for bar in part.findall("measure"):
        start = now
        bars.append(now)
        longest = now
        for element in bar:
            divisions = int(element.findtext("divisions") or divisions) if element.tag == "attributes" else divisions
            lasts = Fraction(int(element.findtext("duration") or 0), divisions)
            if element.tag == "backup":
                break  # a second voice on the same staff
            if element.tag == "forward":
                now += lasts
            if element.tag != "note" or element.find("chord") is not None or element.find("grace") is not None:
                continue
            pitch = element.find("pitch")
            if pitch is not None:
                tied = any(tie.get("type") == "stop" for tie in element.findall("tie"))
                height = _midi(pitch)
                if tied and notes and notes[-1][1] == now and notes[-1][2] == height:
                    notes[-1] = (notes[-1][0], now + lasts, height)
                else:
                    notes.append((now, now + lasts, height))
            now += lasts
            longest = max(longest, now)
        now = max(longest, start)
    return notes, bars, now


def _midi(pitch: ET.Element) -> int:
    steps = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
    alter = round(float(pitch.findtext("alter") or 0))
    return 12 * (int(pitch.findtext("octave")) + 1) + steps[pitch.findtext("step")] + alter


def _column(notes: list[Sounding], length: int) -> list[int] | None:
    """A voice's tokens on the grid of eighths; None where it leaves the range of pitches."""
    tokens = [REST] * length
    before = [None] * (length + 1)
    for number, (begin, end, pitch) in enumerate(notes):
        if not LOWEST <= pitch <= HIGHEST:
            return None
        for at in range(-int(-2 * begin // 1), min(length, -int(-2 * end // 1))):
            tokens[at] = token_of(pitch, at > 0 and before[at - 1] == number)
            before[at] = number
    return tokens
