"""The choices of the Variants page."""

from __future__ import annotations

from headwise.models.variants.offered import OFFERED, Option
from headwise.pages._shared.choices import MODEL, Choice, InputChoices

SIDES = ("left", "right")
OPTIONS: dict[str, Option] = {option.name: option for each in OFFERED.values() for option in each.options}


def turned(name: str) -> Choice:
    """The choice of an option, as the table of mechanisms describes it."""
    return Choice(OPTIONS[name].start, between=(OPTIONS[name].low, OPTIONS[name].high))


class VariantsChoices(InputChoices):
    """Which head, through which two mechanisms, and what is turned on them. ``stack``, ``layer`` and ``head`` are the
    Heads page's too; −1 is the head that is most worth a first look."""

    stack = Choice("", until=MODEL)
    layer = Choice(-1, between=(-1, None), until=MODEL)
    head = Choice(-1, between=(-1, None), until=MODEL)
    left = Choice("longformer", among=tuple(OFFERED))
    right = Choice("performer", among=tuple(OFFERED))
    layers = Choice(4, between=(1, 12))  # of reach
    timed = Choice(False, link=False)  # somebody wants it timed here

    window = turned("window")
    dilation = turned("dilation")
    globals = turned("globals")
    stride = turned("stride")
    columns = turned("columns")
    block = turned("block")
    near = turned("near")
    shared = turned("shared")
    random = turned("random")
    draw = turned("draw")
    features = turned("features")
    rounds = turned("rounds")
    buckets = turned("buckets")
    chunk = turned("chunk")
    sorted = turned("sorted")
    segment = turned("segment")
    memory = turned("memory")


state = VariantsChoices()
