"""The mechanisms as a reader meets them: what each is, what it costs, and what can be turned on it.

A table, not code: pages and commands read it, ``make`` builds the mechanism that ``beside`` puts next to full
attention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from headwise.interp.attention.banded import Masked
from headwise.interp.attention.report import Mechanism
from headwise.interp.masks import Causal, Segments
from headwise.models.variants.bigbird import Scattered
from headwise.models.variants.longformer import Band
from headwise.models.variants.performer import Favor, drawn
from headwise.models.variants.shared import Hashed
from headwise.models.variants.sparse import Stripes


@dataclass(frozen=True)
class Option:
    """A number that can be turned: what it is called, its ends, where it begins, and a sentence."""

    name: str
    label: str
    low: int
    high: int
    start: int
    told: str


@dataclass(frozen=True)
class Head:
    """The head that a mechanism is made for: its width, how many heads there are, and which way they look."""

    width: int
    heads: int
    causal: bool


@dataclass(frozen=True)
class Offered:
    """A mechanism: the idea in a sentence, where it comes from (title, address), what time and memory grow with, what
    its weights are, its options, and how it is made.

    ``only`` says of which heads, "" of all · ``compared`` with what, "" with the head as it is · ``work`` of options
    and a length: how many pairs of query and key cost as much, where it is not those that its mask allows.
    """

    title: str
    idea: str
    paper: tuple[str, str]
    cost: str
    weights: str
    options: tuple[Option, ...]
    make: Callable[[Mapping[str, int], Head], Mechanism]
    only: str = ""
    compared: str = ""
    work: Callable[[Mapping[str, int], int], int] | None = None


WINDOW = Option("window", "Window", 0, 128, 16, "How many keys a side a query sees; a decoder’s, on its left.")
STRIDE = Option("stride", "Stride", 1, 64, 8, "How long a stretch is; about the square root of the text is cheapest.")
DRAW = Option("draw", "Draw", 0, 9, 0, "Another draw of what is random.")
ARXIV = "https://arxiv.org/abs/"


def _band(options: Mapping[str, int], head: Head) -> Mechanism:
    return Band(options["window"], options["dilation"], options["globals"], head.causal)


def _stripes(kind: str) -> Callable[[Mapping[str, int], Head], Mechanism]:
    def make(options: Mapping[str, int], head: Head) -> Mechanism:
        width = min(options.get("columns", 1), options["stride"])
        return Stripes(options["stride"], width, kind, head.heads, head.causal)

    return make


def _scattered(options: Mapping[str, int], head: Head) -> Mechanism:
    return Scattered(
        options["block"], options["near"], options["shared"], options["random"], options["draw"], causal=head.causal
    )


def _features(options: Mapping[str, int], head: Head) -> Mechanism:
    generator = torch.Generator().manual_seed(options["draw"])
    return Favor(drawn(options["features"], head.width, generator), head.causal)


def _hashed(options: Mapping[str, int], head: Head) -> Mechanism:
    buckets, published = 2 * options["buckets"] or 1, bool(options["sorted"])
    alone = min(options["alone"], options["rounds"])
    return Hashed(buckets, options["rounds"], options["chunk"], published, head.causal, options["draw"], alone)


def _segments(options: Mapping[str, int], head: Head) -> Mechanism:
    return Masked(head.width**-0.5, Causal() & Segments(options["segment"], options["memory"]))


OFFERED: dict[str, Offered] = {
    "longformer": Offered(
        "Longformer",
        "A token sees its neighbours, and a few tokens are seen by all.",
        ("Beltagy et al. 2020", f"{ARXIV}2004.05150"),
        "n · window",
        "softmax over the keys it sees",
        (
            WINDOW,
            Option("dilation", "Dilation", 1, 8, 1, "Look at every second or third neighbour: further."),
            Option("globals", "Global tokens", 0, 16, 1, "How many tokens at the start are seen by all and see all."),
        ),
        _band,
    ),
    "sparse": Offered(
        "Sparse Transformer, strided",
        "Even heads see their neighbours, odd ones every so many tokens back: two layers reach everything.",
        ("Child et al. 2019", f"{ARXIV}1904.10509"),
        "n · √n",
        "softmax over the keys it sees",
        (STRIDE,),
        _stripes("strided"),
    ),
    "fixed": Offered(
        "Sparse Transformer, fixed",
        "Even heads see their own stretch of text, odd ones its last columns, which sum up each stretch.",
        ("Child et al. 2019", f"{ARXIV}1904.10509"),
        "n · √n",
        "softmax over the keys it sees",
        (
            STRIDE,
            Option("columns", "Summary columns", 1, 8, 1, "How many tokens that end a stretch all see."),
        ),
        _stripes("fixed"),
    ),
    "bigbird": Offered(
        "BigBird",
        "Neighbouring blocks, the first blocks, and some at random: short paths between any two tokens.",
        ("Zaheer et al. 2020", f"{ARXIV}2007.14062"),
        "n · block",
        "softmax over the keys it sees",
        (
            Option("block", "Block", 1, 64, 8, "How many tokens stand together."),
            Option("near", "Neighbouring blocks", 0, 4, 1, "How many blocks beside its own a query sees."),
            Option("shared", "Global blocks", 0, 4, 1, "How many blocks at the start are seen by all."),
            Option("random", "Random blocks", 0, 6, 1, "How many more, at random, each row of blocks sees."),
            DRAW,
        ),
        _scattered,
    ),
    "performer": Offered(
        "Performer",
        "Random features stand for the exponential, so keys are summed up once; it sees all, with an error.",
        ("Choromanski et al. 2021", f"{ARXIV}2009.14794"),
        "n · features",
        "φ(q)ᵀφ(k) / Z, an estimate of the softmax",
        (
            Option("features", "Features", 1, 256, 64, "How many random directions; the error falls with the root."),
            DRAW,
        ),
        _features,
        work=lambda options, length: 2 * options["features"] * length,  # to make them, and to add and read sums
    ),
    "reformer": Offered(
        "Reformer",
        "A hash puts like queries into one bucket, and only those of a bucket meet; queries are keys.",
        ("Kitaev et al. 2020", f"{ARXIV}2001.04451"),
        "n · rounds · chunk",
        "softmax over who was met in any round",
        (
            Option("rounds", "Rounds", 1, 8, 2, "How often tokens are hashed: one round finds what another misses."),
            Option("alone", "Round shown", 0, 8, 0, "0: what is met in any round; 1 … 8: in that round alone."),
            Option("buckets", "Pairs of buckets", 0, 32, 4, "Half the number of buckets; 0 is one bucket for all."),
            Option("chunk", "Chunk", 1, 128, 32, "How many tokens of its bucket a query meets at most."),
            Option(
                "sorted",
                "As published",
                0,
                1,
                0,
                "1: sorted into chunks, whose borders later tokens move.",
            ),
            DRAW,
        ),
        _hashed,
        compared="full attention of queries that are keys, not with this model’s keys",
    ),
    "transformer-xl": Offered(
        "Transformer-XL",
        "The text is read in segments; each sees the keys that the one before it left in memory.",
        ("Dai et al. 2019", f"{ARXIV}1901.02860"),
        "n · (segment + memory)",
        "softmax over its segment and the memory left of it; positions stay those of this model",
        (
            Option("segment", "Segment", 1, 128, 32, "How many tokens are read at a time."),
            Option("memory", "Memory", 0, 128, 16, "How many keys before the segment are still there."),
        ),
        _segments,
        only="decoder",
    ),
}
