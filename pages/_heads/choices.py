"""The choices of the Heads page."""

from __future__ import annotations

from typing import Any

from headwise.interp.drawing.paper.colour import COLOURS, SCALES
from headwise.interp.drawing.quantities import QUANTITIES
from headwise.pages._shared import changes
from headwise.pages._shared.choices import INPUT, MODEL, POSITIONS, Choice, HeadChoices, dashed, numbers

SIDES = ("after", "before", "change")  # of an edited run
BESIDE = 4  # heads beside each other
MEAN = -1  # in the place of a layer or a head: the mean over all of them
WORDS = ("first", "whole")  # what counts of a word of several tokens


def _region(text: str) -> tuple[int, int, int, int]:
    """query start and end, key start and end."""
    found = numbers(text)
    if len(found) != 4:
        raise ValueError(text)
    return found


def _token(text: str) -> dict[str, Any]:
    axis, index = text.split("-")
    if axis not in ("query", "key"):
        raise ValueError(text)
    return {"axis": axis, "index": int(index)}


def _heads(text: str) -> tuple[tuple[int, int], ...]:
    """ "1.6-mean.3" → ((1, 6), (MEAN, 3)), layer and head of each."""
    pairs = [tuple(MEAN if part == "mean" else int(part) for part in pair.split(".")) for pair in text.split("-")]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(text)
    return tuple(dict.fromkeys(pairs))[:BESIDE]


def _dotted(heads: tuple[tuple[int, int], ...]) -> str:
    return "-".join(".".join("mean" if part == MEAN else str(part) for part in pair) for pair in heads)


class HeadsChoices(HeadChoices):
    """Which head is looked at, and how."""

    compare = Choice("", until=MODEL)  # the model that this one is subtracted from
    view = Choice("", among=("heatmap", "bipartite", "picture"))  # "" is what suits the input best
    views = Choice((), link=False)  # that this input has, the best first
    quantity = Choice("weights", among=tuple(QUANTITIES))
    scale = Choice("linear", among=SCALES)
    words = Choice(False)
    special = Choice(True)
    padding = Choice(False)
    order = Choice("layer")
    role = Choice("all", until=MODEL)  # the heads that the grid shows, by what they do
    metrics = Choice("map", among=("map", "table", "scatter"))
    induction = Choice(False, link=False)
    across = Choice("", link=False)
    up = Choice("", link=False)
    temperature = Choice(1.0, between=(0.0, 2.0))
    top_k = Choice(0, between=(0, 100))
    top_p = Choice(1.0, between=(0.05, 1.0))
    seed = Choice(0, between=(0, 2**31 - 1))
    beside = Choice((), read=_heads, write=_dotted, until=MODEL, key="pinned")
    zoom = Choice(None, read=_region, write=dashed, until=POSITIONS)
    neuron = Choice(-1, between=(-1, None), until=POSITIONS)  # the key whose score is taken apart; −1: the strongest
    apart = Choice("size", among=("size", "dimension"))
    edits = Choice((), read=changes.read, write=changes.write, until=MODEL, left=changes.left)
    how = Choice("mean", among=changes.HOWS)
    side = Choice("after", among=SIDES)
    counted = Choice("first", among=WORDS)
    forbidding = Choice(False, link=False)  # does a click on a cell forbid its edge?
    factor = Choice(1.0, between=changes.FACTORS, link=False)  # of the chosen head, on its slider
    mask = Choice("", link=False)  # being written for the chosen layer
    borrowed = Choice("", link=False)  # the text whose pattern may be swapped in
    trouble = Choice("", link=False)  # what was wrong with the last act
    heard = Choice("whole", among=("whole", "written"), link=False)  # which part of a score is played
    greeted = Choice(None, link=False)  # has the first visit's line been sent away? None until it is asked
    tour = Choice(-1, link=False)  # the step of the tour; −1: nobody takes it
    going = Choice(None, link=False, key="next")  # the token that was just chosen to go on with
    spoken = Choice(None, link=False)  # the run that is written on though that takes long
    figure_width = Choice(0.0, between=(0.0, 120.0), link=False)  # centimetres; 0: as wide as it comes
    figure_font = Choice(9.0, between=(3.0, 40.0), link=False)  # points
    figure_colours = Choice(COLOURS[0], among=COLOURS, link=False)
    figure_top = Choice(0.0, between=(0.0, None), link=False)  # at the end of the colour scale; 0: the largest
    exact = Choice(False, link=False, until=INPUT)  # is every query of a long text looked at?
    whole_layer = Choice(True, link=False)  # of the numbers that are downloaded
    mapped = Choice(False, link=False)  # is the dear map of all removals wanted?
    pin = Choice(None, read=_token, write=lambda token: f"{token['axis']}-{token['index']}", until=POSITIONS)


state = HeadsChoices()
