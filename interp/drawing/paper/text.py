"""Letters of any script, measured and cut to fit: what Pillow needs to write a token."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufffe\uffff]")
MARKS = re.compile(r"([·⏎⇥◌]+)")


def visible(token: str) -> str:
    """A token with its whitespace made visible; those that would reorder, hide or break text become ◌."""
    marked = token[:200].replace(" ", "·").replace("\r\n", "⏎").replace("\n", "⏎").replace("\r", "⏎").replace("\t", "⇥")
    return HIDDEN.sub("◌", marked)


def brief(value: float) -> str:
    """A value for a crowded place: 2 significant digits, no trailing zeros."""
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-3 or size >= 1e5:
        digits, exponent = f"{value:.0e}".split("e")
        return f"{digits}e{int(exponent)}"
    return f"{value:.3g}" if size >= 100 else f"{value:.2g}"


FACES = (  # Pillow looks for these in the system's font folders; the first that has a text's letters draws it
    "LiberationSans-Regular.ttf", "Arial.ttf", "NotoSans-Regular.ttf", "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "PingFang.ttc", "msyh.ttc", "msgothic.ttc", "malgun.ttf",
    "AppleSDGothicNeo.ttc", "NotoSansArabic-Regular.ttf", "NotoSansHebrew-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf", "NotoSansThai-Regular.ttf", "seguisym.ttf", "Symbola.ttf",
    "NotoEmoji-Regular.ttf", "Arial Unicode.ttf",
)  # fmt: skip


@lru_cache(maxsize=128)
def font(face: str | None, size: float):
    """A face at a size, Pillow's own (ASCII) for None; None when this machine does not have it."""
    if face is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(face, size)
    except OSError:
        return None


@lru_cache
def faces() -> tuple[str | None, ...]:
    found = [face for face in FACES if font(face, 16)]
    bundled = find_spec("matplotlib")  # brings DejaVu Sans to machines without fonts, such as a bare container
    if "DejaVuSans.ttf" not in found and bundled is not None and bundled.origin:
        path = Path(bundled.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        found += [str(path)] if path.exists() else []
    return (None, *found)


@lru_cache(maxsize=4096)
def has(face: str | None, letter: str) -> bool:
    if letter.isspace():
        return True
    drawn = font(face, 16)
    missing = drawn.getmask("\U000ffffd")
    mask = drawn.getmask(letter)
    return (mask.size, bytes(mask)) != (missing.size, bytes(missing))


def face_runs(text: str) -> list[tuple[str | None, str]]:
    """Split into (face, part): one face for all of it where one has every letter."""
    for face in faces():
        if all(has(face, letter) for letter in text):
            return [(face, text)]
    runs: list[tuple[str | None, str]] = []
    for letter in text:
        face = next((f for f in faces() if has(f, letter)), None)
        if runs and runs[-1][0] == face:
            runs[-1] = (face, runs[-1][1] + letter)
        else:
            runs.append((face, letter))
    return runs


def undrawable(text: str) -> bool:
    """Is there a letter that no font of this machine has?"""
    return any(not any(has(face, letter) for face in faces()) for letter in set(text))


def width(text: str, size: float) -> float:
    """Measured large and scaled down: hinting makes small letters narrower than they will be printed."""
    return sum(font(face, 64).getlength(part) for face, part in face_runs(text)) * size / 64


def fit(text: str, size: float, room: float) -> str:
    """The longest start of ``text`` that fits, with an ellipsis if cut."""
    if width(text, size) <= room:
        return text
    cut = bisect.bisect(range(1, len(text)), room, key=lambda length: width(text[:length] + "…", size))
    return text[:cut] + "…"


def wrapped(parts: Sequence[str], size: float, room: float) -> list[str]:
    """Parts joined by " · " in lines of at most ``room``, broken between parts; one that is longer, between words."""
    lines: list[str] = []
    for part in parts:
        if lines and width(f"{lines[-1]} · {part}", size) <= room:
            lines[-1] += f" · {part}"
            continue
        lines.append("")
        for word in part.split(" "):
            if not lines[-1]:
                lines[-1] = fit(word, size, room)
            elif width(f"{lines[-1]} {word}", size) <= room:
                lines[-1] += f" {word}"
            else:
                lines.append(fit(word, size, room))
    return lines
