"""Corrupted inputs: like the clean one but for one thing, so that what differs in the model is what that thing does.

Names exchanged, or another word of as many tokens, leave a text as likely as it was, and are to be preferred; noise and
random tokens put the model where it has never been (Zhang & Nanda 2024, "Towards Best Practices of Activation Patching
in Language Models", §3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from headwise.interp.analysis.patching.alignment import aligned
from headwise.interp.analysis.targets import Target
from headwise.interp.attention.axes import Axis, PixelGrid
from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture, capture
from headwise.interp.run.generate import label
from headwise.interp.subject import Inputs

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
LITTLE = (
    "a an and are as at be but by for from had has have he her his i in is it its not of on or she so that the their "
    "them then there they this to was we were when which who will with you"
)
PLAIN = frozenset(LITTLE.split())
NAMES = ("Peter", "Anna", "James", "Paul", "Mary", "John", "Kate", "Tom", "Sarah", "David", "Alice", "Robert", "London")
WORDS = ("river", "window", "terrible", "letter", "people", "winter", "boring", "garden", "music", "quietly", "stone",
         "nothing", "water", "horse", "evening", "strange", "number", "silver", "beautiful", "dull")  # fmt: skip
TRIED = 40  # words of a model's own, and 50 times as many tokens drawn, before none is found that fits
SAY = {
    "name again": "The second “{one}” becomes “{other}”: the same names, the other one said twice.",
    "names": "“{one}” and “{other}” change places wherever they stand.",
    "another name": "“{one}” becomes “{other}”, a name that is not in the text.",
    "likely word": "“{one}” becomes “{other}”, which the model itself would rather have read there.",
    "random word": "“{one}” becomes “{other}”, a word drawn at random.",
    "another word": "“{one}” becomes “{other}”.",
    "mask": "“{one}” becomes {other}, the token that stands for nothing.",
    "letter": "“{one}” becomes “{other}”.",
    "middle": "The middle of the picture becomes grey.",
    "blurred": "The picture loses its fine detail.",
    "mirrored": "Left and right change places.",
    "noise": "Noise as strong as the picture itself is put on top of it.",
    "silenced": "The middle third of the recording falls silent.",
    "noisy": "Noise is put on top of the recording.",
}


@dataclass(frozen=True, eq=False)
class Corruption:
    """A proposal. ``raw`` is what ``corrupted`` takes: a text, a pair of texts, or whole inputs · ``sentence`` says
    what is done."""

    kind: str
    raw: str | tuple[str, str] | Inputs
    sentence: str


@dataclass(frozen=True)
class _Word:
    """A word of the text: where it stands, and its tokens."""

    text: str
    start: int
    end: int
    tokens: tuple[int, ...]


def corrupted(cap: Capture, raw: Any) -> Capture:
    """A run on ``raw``, as a corrupted counterpart of ``cap``: a model that writes a target reads the clean run's.

    Raises InputError for what the subject cannot take.
    """
    inputs = raw if isinstance(raw, Inputs) else _encoded(cap, raw)
    return capture(cap.subject, inputs)


def corruptions(cap: Capture, position: int | None = None, seed: int = 0) -> tuple[Corruption, ...]:
    """Corrupted inputs for a run, the best first; of a text, at the word that stands at ``position`` where it is given.
    Each of a text is cut into as many tokens as the clean one, with the same tokens elsewhere. () where nothing is
    known to propose.
    """
    name = next(iter(cap.axes), None)
    axis = cap.axes.get(name)
    if cap.inputs.batch != 1 or axis is None:
        return ()
    if axis.grid is not None or axis.sound is not None:
        return tuple(_of_media(cap, name, axis, seed))
    raw = _own_text(cap, axis)
    if raw is None:
        return ()
    words = _words(axis)
    chosen = _chosen(words, position)
    found: dict[str, Corruption] = {}
    for kind, proposals in (*_names(words, position), *(_replaced(cap, words, chosen, seed) if chosen else ())):
        for changes, told in proposals:
            text = _with(axis.text, changes)
            if text not in found and _fits(cap, raw, text, changes):
                found[text] = Corruption(kind, _as(raw, text), SAY[kind].format(**told))
                break
    return tuple(found.values())


def telling(cap: Capture, proposals: Sequence[Corruption], aim: Target) -> Corruption | None:
    """The first of some proposals that moves an answer at least half as far as any does; one run each."""
    moved = [abs(_moved(cap, one, aim)) for one in proposals]
    return next((one for one, gap in zip(proposals, moved, strict=True) if 2 * gap >= max(moved)), None)


def _moved(cap: Capture, proposal: Corruption, aim: Target) -> float:
    """How far: proposals are cut into as many tokens, so that the answer stands where it stood."""
    return aim.value(corrupted(cap, proposal.raw)) - aim.value(cap)


# -- texts -------------------------------------------------------------------------------------------------------------
Change = tuple[_Word, str]  # a word, and what stands instead
Proposal = tuple[list[Change], dict[str, str]]  # what is changed, and how a sentence names it


def _encoded(cap: Capture, raw: Any) -> Inputs:
    """As the subject reads it; the target, where there is one, stays the clean run's."""
    subject, target = cap.subject, cap.inputs.kwargs.get("decoder_input_ids")
    if target is None:
        return subject.encode(raw)
    pair = raw if isinstance(raw, tuple) else (raw, cap.axes["target"].text or "a")  # else the model would write it
    inputs = subject.encode(pair)
    axes = {**inputs.axes, **({"target": cap.axes["target"]} if "target" in cap.axes else {})}
    return replace(inputs, kwargs={**inputs.kwargs, "decoder_input_ids": target}, axes=axes)


def _own_text(cap: Capture, axis: Axis) -> str | tuple[str, str] | None:
    """What was read, if reading it again gives the same tokens; None where it is no text."""
    if axis.text is None or axis.offsets is None:
        return None
    first, gap, second = axis.text.partition("\n")
    for raw in (axis.text, (first, second)) if gap else (axis.text,):
        try:
            inputs = _encoded(cap, raw)
        except InputError:
            continue
        if _same(inputs.kwargs, cap.inputs.kwargs):
            return raw
    return None


def _same(one: dict, other: dict) -> bool:
    tensors = [{k: v for k, v in kwargs.items() if isinstance(v, Tensor)} for kwargs in (one, other)]
    return tensors[0].keys() == tensors[1].keys() and all(torch.equal(v, tensors[1][k]) for k, v in tensors[0].items())


def _as(raw: str | tuple[str, str], text: str) -> str | tuple[str, str]:
    return tuple(text.split("\n", 1)) if isinstance(raw, tuple) else text


def _words(axis: Axis) -> list[_Word]:
    special = axis.special or (False,) * len(axis)
    found = []
    for match in WORD.finditer(axis.text):
        inside = [p for p, (a, b) in enumerate(axis.offsets) if a < b and a < match.end() and b > match.start()]
        if inside and not any(special[p] or "[" in axis.labels[p] for p in inside):
            found.append(_Word(match.group(), match.start(), match.end(), tuple(inside)))
    return found


def _chosen(words: list[_Word], position: int | None) -> _Word | None:
    """The word at a position; else the last name, else the longest word that says something; but for the first word,
    which is capital anyway, and the last, which the answer is read next to."""
    if position is not None:
        return next((word for word in words if position in word.tokens), None)
    inner = words[1:-1]
    names = [word for word in inner if word.text[0].isupper() and word.text.lower() not in PLAIN]
    said = [word for word in inner if word.text.lower() not in PLAIN] or words
    return names[-1] if names else max(said, key=lambda word: len(word.text), default=None)


def _names(words: list[_Word], position: int | None) -> Iterator[tuple[str, list[Proposal]]]:
    """Two names: where one is said twice, the other one twice instead; and both exchanged everywhere."""
    capital = [word for word in words if word.text[0].isupper() and word.text.lower() not in PLAIN]
    begins = words[0].text if words else ""  # a text begins with a capital whatever it says
    names = [w for w in capital if w.text != begins or sum(one.text == begins for one in capital) > 1]
    joined = {
        w.text
        for one, two in pairwise(words)
        for w in (one, two)
        if two.start - one.end == 1 and one in names and two in names
    }  # fmt: skip -- of one name
    texts = [text for text in dict.fromkeys(word.text for word in names) if text not in joined]
    if len(texts) < 2:
        return
    twice = [word for word in names if word.text in texts and sum(one.text == word.text for one in names) > 1]
    at = next((word for word in names if position in word.tokens), (twice or names)[-1])
    if at.text not in texts:
        return
    near = {text: min(abs(w.start - at.start) for w in names if w.text == text) for text in texts if text != at.text}
    other = min(near, key=near.__getitem__)
    told = {"one": at.text, "other": other}
    if at in twice:
        yield "name again", [([(at, other)], told)]
    swap = {at.text: other, other: at.text}
    yield "names", [([(word, swap[word.text]) for word in names if word.text in swap], told)]


def _replaced(cap: Capture, words: list[_Word], word: _Word, seed: int) -> Iterator[tuple[str, Iterable[Proposal]]]:
    """Something else in the place of one word; of one letter, where letters are the tokens."""
    there = {one.text.lower() for one in words}

    def each(others: Iterable[str]) -> Iterator[Proposal]:
        return (([(word, other)], {"one": word.text, "other": other}) for other in others if other.lower() not in there)

    if len(word.tokens) == len(word.text) > 1:
        at = len(word.text) // 2
        yield "letter", each(word.text[:at] + letter + word.text[at + 1 :] for letter in "aeiounrtl")
        return
    if word.text[0].isupper() and word is not words[0]:
        yield "another name", each(NAMES)
    yield "likely word", each(_likely(cap, word))
    yield "random word", each(_drawn(cap, word, seed))
    if len(word.tokens) > 1:
        yield "another word", each(other.capitalize() if word.text[0].isupper() else other for other in WORDS)
    if cap.subject.mask_token is not None and cap.subject.decode is not None:
        mask = label(cap.subject, cap.subject.mask_token).strip()
        yield "mask", [([(word, " ".join([mask] * len(word.tokens)))], {"one": word.text, "other": mask})]


def _likely(cap: Capture, word: _Word) -> Iterator[str]:
    """What the model itself thinks likely where a word of one token stands, like it in how it is written."""
    if len(word.tokens) != 1 or not cap.scores_positions or cap.subject.decode is None:
        return
    (place,) = word.tokens
    writes = cap.subject.family == "decoder"
    if cap.subject.family not in ("decoder", "encoder") or (writes and place == 0):
        return
    row = cap.logits_at(place - 1 if writes else place)[0]
    if row.shape[-1] != cap.subject.vocab_size:
        return
    best = row.topk(TRIED).indices.tolist()
    yield from (other for token in best if (other := _alike(cap, token, word)))


def _drawn(cap: Capture, word: _Word, seed: int) -> Iterator[str]:
    """Words drawn from the vocabulary, one token long as this one."""
    size = cap.subject.vocab_size
    if not size or cap.subject.decode is None or len(word.tokens) != 1:
        return
    draw = torch.randint(size, (50 * TRIED,), generator=torch.Generator().manual_seed(seed)).tolist()
    yield from (other for token in draw if (other := _alike(cap, token, word)))


def _alike(cap: Capture, token: int, word: _Word) -> str:
    """How a token reads, where that is a whole word, another one, and capital like this one; else ""."""
    read = label(cap.subject, token)
    other = read.strip()
    whole = WORD.fullmatch(other) and other.isascii() and len(other) > 1 and not read.startswith("##")
    cased = other[:1].isupper() == word.text[:1].isupper() or cap.subject.family == "encoder"
    spaced = read[:1] == " " or cap.subject.family == "encoder"
    return other if whole and cased and spaced and other.lower() != word.text.lower() else ""


def _with(text: str, changes: list[Change]) -> str:
    for word, other in sorted(changes, key=lambda change: -change[0].start):
        text = text[: word.start] + other + text[word.end :]
    return text


def _fits(cap: Capture, raw: str | tuple[str, str], text: str, changes: list[Change]) -> bool:
    """Whether it is cut into as many tokens, and differs in those of the changed words alone."""
    try:
        inputs = _encoded(cap, _as(raw, text))
    except InputError:
        return False
    name = next(iter(cap.axes))
    ids, own = inputs.kwargs.get("input_ids"), cap.inputs.kwargs.get("input_ids")
    if not isinstance(ids, Tensor) or not isinstance(own, Tensor) or ids.shape != own.shape:
        return False
    changed = {token for word, _ in changes for token in word.tokens}
    differs = (ids[0] != own[0]).nonzero().flatten().tolist()
    return bool(differs) and {*differs} <= changed and aligned(cap.axes[name], inputs.axes[name]).whole


# -- pictures and recordings -------------------------------------------------------------------------------------------
def _of_media(cap: Capture, name: str, axis: Axis, seed: int) -> Iterator[Corruption]:
    dims = 4 if axis.grid is not None else 3
    inputs = cap.inputs
    found = [k for k, v in inputs.kwargs.items() if isinstance(v, Tensor) and v.is_floating_point() and v.ndim == dims]
    if len(found) != 1:
        return
    (key,) = found
    old = inputs.kwargs[key]
    for kind, new in (_pictures if dims == 4 else _sounds)(old, axis, seed):
        axes = {**inputs.axes, name: _shown(axis, kind, new, seed)}
        yield Corruption(kind, replace(inputs, kwargs={**inputs.kwargs, key: new}, axes=axes), SAY[kind])


def _pictures(old: Tensor, axis: Axis, seed: int) -> Iterator[tuple[str, Tensor]]:
    """(B, channels, height, width)."""
    height, width = old.shape[-2:]
    middle = old.clone()
    middle[..., height // 4 : -(height // 4), width // 4 : -(width // 4)] = old.mean((-2, -1), keepdim=True)
    yield "middle", middle
    size = 2 * (max(height, width) // 16) + 1
    yield "blurred", avg_pool2d(old, size, 1, size // 2, count_include_pad=False)
    yield "mirrored", old.flip(-1)
    yield "noise", old + old.std() * torch.randn(old.shape, generator=torch.Generator().manual_seed(seed)).to(old)


def _sounds(old: Tensor, axis: Axis, seed: int) -> Iterator[tuple[str, Tensor]]:
    """(B, pitches, frames): as far as the recording lasts."""
    sound = axis.sound
    frames = min(old.shape[-1], max(3, round(sound.seconds / (sound.step * len(axis)) * old.shape[-1])))
    silent = old.clone()
    silent[..., frames // 3 : 2 * frames // 3] = old.min()
    yield "silenced", silent
    noise = torch.randn(old.shape, generator=torch.Generator().manual_seed(seed)).to(old)
    noisy = old.clone()
    noisy[..., :frames] += (old.std() * noise)[..., :frames]
    yield "noisy", noisy


def _shown(axis: Axis, kind: str, new: Tensor, seed: int) -> Axis:
    """The axis, lying on what the corrupted picture or recording looks like."""
    if axis.sound is not None:
        drawn = replace(axis.sound, spectrogram=new[0].float().cpu().numpy())
        return replace(axis, sound=drawn) if drawn.spectrogram.shape == axis.sound.spectrogram.shape else axis
    if axis.picture is None:
        return axis
    pixels = torch.from_numpy(axis.picture.pixels.copy()).permute(2, 0, 1)[None].float()
    left, top, right, bottom = (round(edge) for edge in axis.picture.box)
    rows, columns = slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0))
    part = pixels[..., rows, columns]
    if min(part.shape[-2:]) < 4:
        return axis
    pixels[..., rows, columns] = dict(_pictures(part, axis, seed))[kind]
    drawn = pixels[0].permute(1, 2, 0).clamp(0, 255).byte().numpy()
    return replace(axis, picture=PixelGrid(drawn, axis.picture.box))
