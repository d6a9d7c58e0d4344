"""How far attributions can be believed, ready to be drawn: their curves beside random orders, what is left of them when
weights are random, and in words which of two to believe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headwise.interp.analysis.attribution.faithfulness import FIGURES, Agreement, Faithfulness, Orders
from headwise.interp.analysis.attribution.sanity import Sanity
from headwise.interp.drawing.streams import percent, signed_number

CLOSE = 0.1  # two gains that differ by less than this part of the larger one are about the same
TOLD = 0.2  # the share of units whose step is told where nobody points
LEVELS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0)  # steps of a scale of chances
CURVES = {  # a curve → its title, what is better, and what is done to the units
    "deletion": ("Take away", "strongest first: lower is better", "taken away"),
    "insertion": ("Put back", "strongest first: higher is better", "put back"),
}
GAIN = (
    "The gain is the area under the curve “put back” less that under “take away”: how far the order of a method stands "
    "apart from a random one, whose gain is 0 on average."
)
VERDICTS = {
    "better": (
        "Believe {better} here.",
        "Both beat random orders, but what {better} marks first decides more: gain {high} against {low}.",
    ),
    "only": (
        "Believe {better} here, not {worse}.",
        "Only the first beats random orders on this input: gain {high} against {low}, and ± {spread} by chance.",
    ),
    "either": (
        "Either can be believed here.",
        "Both beat random orders, and by about as much: gain {high} and {low}.",
    ),
    "part": (
        "Believe what {better} marks first, not the rest.",
        "Without it the answer goes (comprehensiveness {needed} against {floor} at random), but no order as a whole "
        "beats random ones: gain {high} and {low}, and ± {spread} by chance.",
    ),
    "neither": (
        "Believe neither here.",
        "No order beats random ones on this input: gain {high} and {low}, and ± {spread} by chance.",
    ),
}
ALONE = {True: "{method} can be believed here.", False: "Do not believe {method} here."}
AGREEMENTS = (  # from this rank correlation on → in words
    (0.7, "They largely agree"),
    (0.3, "They partly agree"),
    (-0.3, "They hardly agree"),
    (-1.1, "They contradict each other"),
)
RANKED = "{better} of {count} beat random orders, whose gain is 0.00 ± {spread}."
AGREED = "{words}: rank correlation {correlation}, {shared} of the {top} strongest shared."
CONSTANT = "One of them gives every part the same score, so ranks cannot be compared."


@dataclass(frozen=True)
class Chart:
    """Lines over S ``places``, 0 … 1, one for each method, None where there is none.

    ``band`` (low, mean, high) of random orders · ``said`` what is told at each place, and at ``rest`` while nobody
    points at one · ``counts`` how many units are dealt with there · ``levels`` (value, text) and ``ticks`` (place,
    text, anchor) · ``low`` and ``high`` the ends of the values.
    """

    kind: str
    title: str
    small: str
    places: list[float]
    lines: list[list[float] | None]
    said: list[str]
    rest: int
    low: float
    high: float
    levels: list[tuple[float, str]]
    ticks: list[tuple[float, str, str]]
    counts: list[int] | None = None
    band: dict[str, list[float]] | None = None


def curve(kind: str, tested: Sequence[Faithfulness | None]) -> Chart:
    """The chance of the answer as units are taken away ("deletion") or put back ("insertion"), by each method."""
    one = next(each for each in tested if each is not None)
    title, small, done = CURVES[kind]
    floor = getattr(one.random, kind).numpy()
    mean, spread = floor.mean(0), floor.std(0)
    lines = [None if each is None else getattr(each, kind).values.tolist() for each in tested]
    most = max(float((mean + spread).max()), *(max(line) for line in lines if line is not None))
    step = next((step for step in LEVELS if most / step <= 4), 1.0)
    high = min(1.0, max(most * 1.03, step))
    fractions = one.own.fractions.tolist()
    said = [
        f"{percent(fraction)} {done}: {', '.join(percent(line[i]) for line in lines if line is not None)}; "
        f"random {percent(float(mean[i]))}"
        for i, fraction in enumerate(fractions)
    ]
    return Chart(
        kind,
        title,
        small,
        fractions,
        lines,
        said,
        one.own.at(TOLD),
        0.0,
        high,
        [(n * step, percent(n * step) if n else "0%") for n in range(int(high / step + 1e-6) + 1)],
        [(0, "nothing", "start"), (0.5, "50%", "middle"), (1, "all", "end")],
        one.own.counts.tolist(),
        {
            "low": np.clip(mean - spread, 0, 1).tolist(),
            "mean": mean.tolist(),
            "high": np.clip(mean + spread, 0, high).tolist(),
        },
    )


def depths(checked: Sequence[Sanity]) -> Chart:
    """What is left of each map as the weights become random, from the answer down."""
    names = checked[0].depths
    last = max(1, len(names) - 1)
    lines = [[0.0 if math.isnan(value) else value for value in each.correlations] for each in checked]
    said = [f"random down to {name}: {', '.join(signed_number(line[i]) for line in lines)}"
            for i, name in enumerate(names)]  # fmt: skip
    return Chart(
        "sanity",
        "What is left of the map",
        "rank correlation: lower is better",
        [i / last for i in range(len(names))],
        lines,
        ["the model as it is", *said[1:]],
        len(names) - 1,
        min(-0.25, *(value for line in lines for value in line)),
        1.0,
        [(0.0, "0"), (0.5, "0.5"), (1.0, "1")],
        [(0, "as it is", "start"), (1, f"random to the {names[-1]}", "end")],
    )


@dataclass(frozen=True)
class Column:
    """A method in the table of figures: each as text, and whether it is the best of its line."""

    name: str
    figures: tuple[str, ...]
    best: tuple[bool, ...]


def columns(tested: Sequence[Faithfulness]) -> tuple[Column, ...]:
    """The figures of each method, then of random orders, in the order of FIGURES, and how many of these it beats."""
    random = tested[0].random
    found, shown = [], [[signed_number(getattr(each, name)) for name in FIGURES] for each in tested]
    for place, each in enumerate(tested):
        best = []
        for figure, (name, more) in enumerate(FIGURES.items()):
            wins = (max if more else min)(tested, key=lambda one, name=name: getattr(one, name)) is each
            alone = [texts[figure] for texts in shown].count(shown[place][figure]) == 1
            best.append(wins and alone and len(tested) > 1)
        texts = (*shown[place], f"{each.beaten} of {len(random.gain)}")
        found.append(Column(each.method, texts, (*best, False)))
    floor = []
    for name in FIGURES:
        values = getattr(random, name)
        floor.append(f"{signed_number(float(values.mean()))} ± {float(values.std(correction=0)):.2f}")
    return (*found, Column("random orders", (*floor, ""), (False,) * (len(floor) + 1)))


def ranking(tested: Sequence[Faithfulness], floor: Orders) -> tuple[list[dict[str, Any]], str]:
    """Bars of the gain of each method, the best first, and the sentence below them."""
    order = sorted(tested, key=lambda each: -each.gain)
    lines = [{"name": each.method, "value": each.gain, "text": signed_number(each.gain)} for each in order]
    better = sum(each.better_than_random for each in order)
    spread = float(floor.gain.std(correction=0))
    return lines, RANKED.format(better=better, count=len(order), spread=f"{spread:.2f}")


# -- sentences --------------------------------------------------------------------------------------------------------
def verdict(one: Faithfulness, other: Faithfulness) -> tuple[str, str]:
    """Which of two to believe on this input, and why."""
    better, worse = sorted((one, other), key=lambda each: (-each.better_than_random, -each.needed, -each.gain))
    if not better.better_than_random:
        kind = "part" if better.needed else "neither"
    elif not worse.better_than_random:
        kind = "only"
    else:
        better, worse = (one, other) if one.gain >= other.gain else (other, one)
        kind = "either" if better.gain - worse.gain <= CLOSE * better.gain else "better"
    words = {
        "better": better.method,
        "worse": worse.method,
        "high": signed_number(better.gain),
        "low": signed_number(worse.gain),
        "needed": signed_number(better.comprehensiveness),
        "floor": signed_number(float(one.random.comprehensiveness.mean())),
        "spread": f"{float(one.random.gain.std(correction=0)):.2f}",
    }
    told, why = VERDICTS[kind]
    return told.format(**words), why.format(**words)


def alone(one: Faithfulness) -> tuple[str, str]:
    """Whether to believe a single one, and why."""
    name = f"{one.method[:1].upper()}{one.method[1:]}" if one.better_than_random else one.method
    return ALONE[one.better_than_random].format(method=name), one.sentence


def agreement_sentence(found: Agreement) -> str:
    """How far two agree."""
    if math.isnan(found.correlation):
        return CONSTANT
    words = next(words for least, words in AGREEMENTS if found.correlation >= least)
    correlation = f"{found.correlation:.2f}".replace("-", "−")
    return AGREED.format(words=words, correlation=correlation, shared=found.shared, top=found.top)
