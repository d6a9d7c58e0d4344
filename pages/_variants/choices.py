"""The choices of the Variants page."""

from __future__ import annotations

from headwise.models.variants.offered import OFFERED, Option
from headwise.models.variants.orders import ORDERS
from headwise.pages._shared.choices import INPUT, MODEL, Choice, InputChoices

SIDES = ("left", "right")
PARTS = {"head": "One head, cheaper", "trained": "Trained alike", "order": "In another order"}
OWN = "one’s own"  # order
OPTIONS: dict[str, Option] = {option.name: option for each in OFFERED.values() for option in each.options}


def turned(name: str) -> Choice:
    """The choice of an option, as the table of mechanisms describes it."""
    return Choice(OPTIONS[name].start, between=(OPTIONS[name].low, OPTIONS[name].high))


class VariantsChoices(InputChoices):
    """Which head, through which two mechanisms, and what is turned on them. ``stack``, ``layer`` and ``head`` are the
    Heads page's too; −1 is the head that is most worth a first look."""

    part = Choice("head", among=tuple(PARTS))
    stack = Choice("", until=MODEL)
    layer = Choice(-1, between=(-1, None), until=MODEL)
    head = Choice(-1, between=(-1, None), until=MODEL)
    left = Choice("longformer", among=tuple(OFFERED))
    right = Choice("performer", among=tuple(OFFERED))
    layers = Choice(4, between=(1, 12))  # of reach
    timed = Choice(False, link=False)  # somebody wants it timed here

    way = Choice("every other first", among=(*ORDERS, OWN))
    order = Choice("", longest=400)  # which positions come first in one's own
    shuffle = Choice(0, between=(0, 9))
    asked = Choice(-1, between=(-1, None), until=INPUT)  # the position that is predicted, −1 the last
    drawn = Choice("masks", among=("masks", "weights"))
    order_layer = Choice(2, between=(0, None))
    order_head = Choice(1, between=(0, None))

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
    alone = turned("alone")
    buckets = turned("buckets")
    chunk = turned("chunk")
    sorted = turned("sorted")
    segment = turned("segment")
    memory = turned("memory")


state = VariantsChoices()
