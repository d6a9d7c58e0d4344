"""What a person changes in a run, as words, in an address, as edits of the engine, and as Python.

In an address changes are joined by ~: ``zero-1-6~forbid-1-6-40-13~mask-cross-2-Causal()``. Each names its kind, the
stack where a model has several, the layer, the head where it is about one, and what else it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from headwise import Capture, edits
from headwise.interp.attention.call import AttentionCall
from headwise.interp.drawing.paper.text import visible
from headwise.interp.errors import InputError
from headwise.interp.masks.spoken import LONGEST as LONGEST_MASK
from headwise.interp.masks.spoken import spoken_mask
from headwise.interp.run.edits import Edit
from headwise.pages._shared.choices import INPUT

MOST = 64  # changes
LONGEST_TEXT = 600  # letters of a text whose pattern is borrowed
HOWS = ("mean", "zero", "resample")  # what stands where a removed head was
FACTORS = (0.0, 2.0)


@dataclass(frozen=True)
class Change:
    """One change. ``head`` is −1 where it is about a whole layer, ``stack`` "" in a model's first one; ``given`` is
    what else its kind needs."""

    kind: str
    layer: int
    head: int = -1
    stack: str = ""
    given: tuple = ()

    @property
    def place(self) -> tuple[str, int, int]:
        return self.stack, self.layer, self.head

    @property
    def name(self) -> str:
        """ "1·6", "cross 1·6", "layer 1"."""
        where = f"{self.layer}·{self.head}" if self.head >= 0 else f"layer {self.layer}"
        return f"{self.stack} {where}" if self.stack else where


@dataclass(frozen=True)
class Kind:
    """A kind of change: how what it is ``given`` is ``read`` from the address's texts and written there, what it says
    of itself, the edits it is, and these as Python, one string each.

    ``whole`` is it about a layer rather than a head? ``fixed`` does it name positions of the input?
    """

    read: Callable[[list[str]], tuple]
    words: Callable[[Change, AttentionCall], str]
    code: Callable[[Change, AttentionCall], list[str]]
    most: int = 0  # texts it is given
    write: Callable[[Any], str] = str
    whole: bool = False
    fixed: bool = False


def read(text: str) -> tuple[Change, ...]:
    """Changes of an address. What means nothing is left out."""
    found = (_read_one(part) for part in text.split("~")[:MOST] if part)
    return tuple(dict.fromkeys(change for change in found if change is not None))


def write(changes: tuple[Change, ...]) -> str:
    def one(change: Change) -> str:
        kind = KINDS[change.kind]
        head = [] if kind.whole else [str(change.head)]
        parts = [change.kind, *filter(None, [change.stack]), str(change.layer), *head, *map(kind.write, change.given)]
        return "-".join(parts)

    return "~".join(map(one, changes))


def left(changes: tuple[Change, ...], life: str) -> tuple[Change, ...]:
    """What is left of changes after a new input, or a new model."""
    return tuple(change for change in changes if not KINDS[change.kind].fixed) if life == INPUT else ()


def wrong(cap: Capture, change: Change) -> str:
    """Why a change cannot be made in this run, in one sentence; "" where it can."""
    stack = change.stack or cap.stacks[0]
    layers = [call.layer for call in cap.stack(stack)]
    if change.layer not in layers:
        there = f"{stack} has layers {layers[0]} … {layers[-1]}" if layers else f"there is no {stack} here"
        return f"Layer {change.layer} is not there: {there}."
    call = cap.find(change.layer, stack)
    if change.head >= call.heads:
        return f"Head {change.head} is not there: layer {change.layer} has heads 0 … {call.heads - 1}."
    if change.kind == "forbid":
        for side, position, count in zip(("Query", "Key"), change.given, (call.queries, call.keys), strict=True):
            if position >= count:
                return f"{side} {position} is not there: this input has 0 … {count - 1}."
    return ""


def words(cap: Capture, change: Change) -> str:
    """What a change says of itself; tokens in it are anybody's text."""
    return KINDS[change.kind].words(change, cap.find(change.layer, change.stack or cap.stacks[0]))


def code(cap: Capture, change: Change) -> list[str]:
    """The same as Python, an expression for each edit; ``other`` is a capture of the text it borrows from."""
    return KINDS[change.kind].code(change, cap.find(change.layer, change.stack or cap.stacks[0]))


def engine(cap: Capture, change: Change, other: Capture | None = None) -> list[Edit]:
    """The edits that a change is. ``other`` is the run whose pattern it borrows."""
    stack, layer, head = change.stack or cap.stacks[0], change.layer, change.head
    site = edits.HeadOutput(layer, head, stack)
    match change.kind:
        case "only":
            return [
                made
                for rest in range(cap.find(layer, stack).heads)
                if rest != head
                for made in engine(cap, Change(change.given[0], layer, rest, stack))
            ]
        case "zero":
            return [edits.Zero(site)]
        case "mean":
            return [edits.Mean(site)]
        case "resample":
            return [edits.Resample(site)]
        case "scale":
            return [edits.Scale(site, change.given[0])]
        case "forbid":
            return [edits.ForbidEdge(layer, *change.given, head=head, stack=stack)]
        case "mask":
            return [edits.ReplaceMask(layer, spoken_mask(change.given[0]), stack)]
        case "swap":
            return [edits.Resample(edits.Pattern(layer, head, stack), source=other)]
    raise InputError(f"There is no change called {change.kind!r}.")


# -- reading ----------------------------------------------------------------------------------------------------------
def _read_one(text: str) -> Change | None:
    name, _, rest = text.partition("-")
    kind = KINDS.get(name)
    if kind is None:
        return None
    first, _, after = rest.partition("-")
    stack, rest = ("", rest) if first.isdecimal() else (first, after)
    if stack and not stack.replace("_", "").replace(".", "").isalnum():
        return None
    places = 1 if kind.whole else 2
    parts = rest.split("-", places + kind.most - 1)
    if len(parts) != places + kind.most or not all(part.isdecimal() and len(part) < 7 for part in parts[:places]):
        return None
    try:
        given = kind.read(parts[places:])
    except ValueError:  # an InputError too
        return None
    layer, head = int(parts[0]), -1 if kind.whole else int(parts[1])
    return Change(name, layer, head, stack, given)


def _nothing(texts: list[str]) -> tuple:
    return ()


def _positions(texts: list[str]) -> tuple[int, int]:
    query, key = (int(text) for text in texts)
    if not 0 <= min(query, key) <= max(query, key) < 10**6:
        raise ValueError(texts)
    return query, key


def _factor(texts: list[str]) -> tuple[float]:
    factor = float(texts[0])
    if not FACTORS[0] <= factor <= FACTORS[1]:
        raise ValueError(factor)
    return (factor,)


def _how(texts: list[str]) -> tuple[str]:
    if texts[0] not in HOWS:
        raise ValueError(texts[0])
    return (texts[0],)


def _mask(texts: list[str]) -> tuple[str]:
    said = repr(spoken_mask(texts[0].replace("!", "~")[:LONGEST_MASK]))
    return (said,)


def _text(texts: list[str]) -> tuple[str]:
    text = unquote(texts[0])
    if not text.strip() or len(text) > LONGEST_TEXT:
        raise ValueError(text)
    return (text,)


# -- saying -----------------------------------------------------------------------------------------------------------
def _removed(change: Change, call: AttentionCall) -> str:
    return f"{change.name} removed ({change.kind})"


def _edge(change: Change, call: AttentionCall) -> str:
    ends = []
    for axis, position in zip((call.query_axis, call.key_axis), change.given, strict=True):
        token = visible(axis.labels[position])[:14] if position < len(axis.labels) else ""
        ends.append(f"{position} {token}".strip() if token != str(position) else token)
    return f"{ends[0]} ↛ {ends[1]} in {change.name}"


def _of_head(name: str, *more: Callable[[Change], str]) -> Callable[[Change, AttentionCall], list[str]]:
    def said(change: Change, call: AttentionCall) -> list[str]:
        site = f"edits.HeadOutput({change.layer}, {change.head}, {call.stack!r})"
        return [f"edits.{name}({', '.join([site, *(part(change) for part in more)])})"]

    return said


def _rest(change: Change, call: AttentionCall) -> list[str]:
    of = KINDS[change.given[0]].code
    return [
        part
        for head in range(call.heads)
        if head != change.head
        for part in of(Change(change.given[0], change.layer, head, change.stack), call)
    ]


KINDS = {
    "zero": Kind(_nothing, _removed, _of_head("Zero")),
    "mean": Kind(_nothing, _removed, _of_head("Mean")),
    "resample": Kind(_nothing, _removed, _of_head("Resample")),
    "only": Kind(_how, lambda c, call: f"only {c.name} in its layer (others: {c.given[0]})", _rest, most=1),
    "scale": Kind(
        _factor,
        lambda c, call: f"{c.name} × {c.given[0]:g}",
        _of_head("Scale", lambda c: f"{c.given[0]:g}"),
        most=1,
        write=lambda factor: f"{factor:g}",
    ),
    "forbid": Kind(
        _positions,
        _edge,
        lambda c, call: [
            f"edits.ForbidEdge({c.layer}, query={c.given[0]}, key={c.given[1]}, head={c.head}, stack={call.stack!r})"
        ],
        most=2,
        fixed=True,
    ),
    "mask": Kind(
        _mask,
        lambda c, call: f"{c.name}'s mask: {c.given[0]}",
        lambda c, call: [f"edits.ReplaceMask({c.layer}, spoken_mask({c.given[0]!r}), {call.stack!r})"],
        most=1,
        write=lambda text: text.replace(" ", "").replace("~", "!"),
        whole=True,
    ),
    "swap": Kind(
        _text,
        lambda c, call: f"{c.name} looks as in “{visible(c.given[0])[:24]}{'…' if len(c.given[0]) > 24 else ''}”",
        lambda c, call: [
            f"edits.Resample(edits.Pattern({c.layer}, {c.head}, {call.stack!r}), "
            f"source=capture(subject, {c.given[0]!r}))"
        ],
        most=1,
        write=lambda text: quote(text, safe=" ").replace("~", "%7E"),
        fixed=True,
    ),
}
