"""The chapters of a story, each made of what one analysis found.

Reading order: ``chapters``, then one function a chapter, in the order in which they are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from headwise.interp.analysis.ablation import ablate
from headwise.interp.analysis.attribution import METHODS, Attribution, explain, features, why_not
from headwise.interp.analysis.attribution.faithfulness import Faithfulness, agreement, faithfulness, random_orders
from headwise.interp.analysis.circuits.graph import graph
from headwise.interp.analysis.circuits.roles import ROLES, roles
from headwise.interp.analysis.lens import lens
from headwise.interp.analysis.logits import logit_attribution
from headwise.interp.analysis.patching import patch
from headwise.interp.drawing import faithful, streams
from headwise.interp.drawing.files import bars_figure, cells_figure, maps_figure
from headwise.interp.drawing.paper.text import visible
from headwise.interp.drawing.report.page import Chapter, Figure, Table, Text
from headwise.interp.drawing.report.story import Story
from headwise.interp.drawing.streams import Cells, signed_number
from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture

ABOUT = {  # a chapter → what it can and cannot tell, and the papers
    "heads": (
        "Each head was replaced by what it says on average over this input, in a run of its own. A head whose work "
        "others take over shows less than it does.",
        [
            ("Wang et al. 2023", "https://arxiv.org/abs/2211.00593"),
            ("McGrath et al. 2023", "https://arxiv.org/abs/2307.15771"),
        ],
    ),
    "lens": (
        "The lens reads every state as if it were the last. Early rows may hold the answer in directions that it does "
        "not read.",
        [("nostalgebraist 2020", "https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens")],
    ),
    "rests": (
        "Whether the answer changes when what a method puts first is taken away, on this input. Inputs with parts "
        "taken away are unlike any the model was trained on; a good figure says that the order is right, not why.",
        [("DeYoung et al. 2020", "https://aclanthology.org/2020.acl-main.408/")],
    ),
    "paths": (
        "Edges were proposed by gradients; what is said of the graph comes from runs in which everything outside it "
        "has the other input’s values. Another graph may restore as much.",
        [
            ("Conmy et al. 2023", "https://arxiv.org/abs/2304.14997"),
            ("Syed et al. 2023", "https://arxiv.org/abs/2310.10348"),
        ],
    ),
    "patched": (
        "The other input was run with what stands here at one place put into it, a run a place. It shows what suffices "
        "to bring the answer back; a part whose work another does as well shows here and not when it is taken away.",
        [
            ("Meng et al. 2022", "https://arxiv.org/abs/2202.05262"),
            ("Heimersheim & Nanda 2024", "https://arxiv.org/abs/2404.15255"),
        ],
    ),
    "parts": (
        "Parts are what each head and MLP writes straight onto the answer, with the last norm held still; what it does "
        "through later parts does not show.",
        [("Elhage et al. 2021", "https://transformer-circuits.pub/2021/framework/index.html")],
    ),
}
PATCHED = {"residual": "The stream before each block", "attention": "What attentions write", "mlp": "What MLPs write"}
FIGURES = (("comprehensiveness", "↑"), ("sufficiency", "↓"), ("gain", "↑"))
TESTED = (
    "Comprehensiveness: what the answer’s chance loses without what a method marks first; sufficiency: with that "
    "alone; gain: the one less the other, less what random orders have."
)
MOST_EDGES = 60  # of the graph, in its table
MOST_NAMED = 6  # heads of a role, told one by one


def chapters(story: Story) -> Iterator[Chapter]:
    """One after the other, as they are made. One that does not apply to the model says why, in its sentence."""
    for title, make in CHAPTERS.items():
        try:
            yield make(story)
        except InputError as error:
            yield Chapter(title, str(error))
        story.progress(title, 1.0)


def _heads(story: Story) -> Chapter:
    told = ablate(story.cap, "heads", "mean", story.aim, progress=lambda part: story.progress("What heads do", part))
    ranked = told.reindex(told["effect"].abs().sort_values(ascending=False).index)
    best = [f"{row.layer}.{row.head} ({signed_number(row.effect)})" for row in ranked.head(5).itertuples()]
    parts: list = []
    for stack, rows in told.groupby("stack", sort=False):
        cells = signed_cells(rows.pivot(index="layer", columns="head", values="effect"), "change of the answer")
        parts.append((f"Removing each head{f', {stack}' if told['stack'].nunique() > 1 else ''}", _cells(cells)))
    found = roles(story.cap, story.aim)
    if len(found):
        parts.append(("Heads in words", Table(_in_words(found))))
    for sentence in found.attrs.get("untested", ()):
        parts.append(("", Text(sentence)))
    said = f"Removing heads moves the answer most at {', '.join(best)}."
    return Chapter("What heads do", said, parts, *ABOUT["heads"])


def _in_words(found: pd.DataFrame) -> pd.DataFrame:
    """Heads by role, the strongest first, and what was seen of that one; roles that few heads have come first."""
    rows = []
    several = found["stack"].nunique() > 1
    for role, own in sorted(found.groupby("role"), key=lambda pair: len(pair[1])):
        own = own.sort_values("score", ascending=False, kind="stable")
        names = [f"{f'{row.stack} ' if several else ''}{row.layer}.{row.head}" for row in own.itertuples()]
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        evidence = f"{names[0]} {own['evidence'].iloc[0]}"
        rows.append(
            {
                "role": role,
                "what it does": ROLES[role].sentence.format(unit="token"),
                "heads": ", ".join(names[:MOST_NAMED]) + more,
                "evidence": evidence,
            }
        )
    return pd.DataFrame(rows)


def _when(story: Story) -> Chapter:
    read, aim = lens(story.cap), story.aim
    states, positions = len(read.labels), len(read.axis)
    at = aim.position if aim.position is not None else 0
    shown = streams.window(states, positions, (states - 1, at))
    cells = streams.lens_cells(read, aim.token, aim.names[0], "chance", shown)
    said = streams.when_sentence(read, aim.token, aim.names[0], at)
    return Chapter("When it appears", said, [("", _cells(cells))], *ABOUT["lens"])


def _who(story: Story) -> Chapter:
    table = logit_attribution(story.cap, story.aim)
    rows = [(part.name, part.value, signed_number(part.value)) for part in streams.parts(table)]
    total, own = float(table.attrs["total"]), float(table.attrs["own"])
    sums = [("sum", signed_number(total)), ("the model’s own", signed_number(own))]
    figure = Figure("parts of the answer", lambda theme: bars_figure(rows, sums, "svg", theme=theme))
    return Chapter("Who says it", streams.who_sentence(table, total), [("", figure)], *ABOUT["parts"])


def _rests(story: Story) -> Chapter:
    """What the answer rests on, by every method that applies, each tested on this input."""
    title, cap, aim = "What it rests on", story.cap, story.aim
    floor = random_orders(features(cap), aim)
    methods = [name for name in METHODS if why_not(cap, name) is None]
    tested: list[tuple[Attribution, Faithfulness]] = []
    for number, name in enumerate(methods):
        found = explain(cap, name, aim)
        tested.append((found, faithfulness(found, randoms=floor)))
        story.progress(title, (number + 1) / len(methods))
    tested.sort(key=lambda pair: -pair[1].gain)
    best = [found for found, _ in tested[:2]]
    told = faithful.verdict(tested[0][1], tested[1][1])
    both = faithful.agreement_sentence(agreement(*best))
    parts: list = [
        ("The two that did best", Figure(f"what {aim} rests on", lambda theme: maps_figure(best, "svg", theme=theme))),
        ("Each method on this very input", Table(_tested(tested), TESTED)),
        ("", Text(" ".join(story_of.sentence for _, story_of in tested[:1]))),
    ]
    parts += [("", Text(sentence)) for name in METHODS if (sentence := why_not(cap, name)) is not None]
    papers = [METHODS[found.method].paper for found in best]
    return Chapter(title, f"{told[0]} {told[1]} {both}", parts, ABOUT["rests"][0], [*papers, *ABOUT["rests"][1]])


def _tested(tested: Sequence[tuple[Attribution, Faithfulness]]) -> pd.DataFrame:
    rows = [
        {
            "method": found.method,
            "comprehensiveness ↑": result.comprehensiveness,
            "sufficiency ↓": result.sufficiency,
            "gain ↑": result.gain,
            "random orders beaten": f"{result.beaten} of {len(result.random.gain)}",
            "adds up to": float("nan") if found.gap is None else 1 - found.gap,
            "seconds": found.seconds,
        }
        for found, result in tested
    ]
    floor = tested[0][1].random
    means = {f"{name} {arrow}": float(getattr(floor, name).mean()) for name, arrow in FIGURES}
    return pd.DataFrame([*rows, {"method": "random orders, on average", **means}])


def _patched(story: Story) -> Chapter:
    """Which states carry the difference between the two inputs."""
    title, cap = "Which states carry it", story.cap
    other = story.corrupted
    if other is None:
        raise InputError("No corrupted input was given, and none could be made of this one.")
    parts: list = [("The other input", Text(_sequence(other)))]
    best: list[str] = []
    for number, kind in enumerate(("residual", "attention", "mlp")):
        table = patch(
            cap, other, kind, story.aim, progress=lambda part, n=number: story.progress(title, (n + part) / 3)
        )
        for (stream, write), rows in table.groupby(["stack", "kind"], sort=False):
            wide = rows.pivot(index="block", columns="position", values="restored")
            tokens = rows.drop_duplicates("position").set_index("position")["token"]
            cells = signed_cells(wide.rename(columns=tokens), "share restored")
            own = f", {stream}" if table["stack"].nunique() > 1 else ""
            own += ", cross" if write == "cross" else ""
            parts.append((f"{PATCHED[kind]}{own}", _cells(cells)))
        top = table.loc[table["restored"].idxmax()]
        name = PATCHED[kind]
        best.append(f"{name[:1].lower()}{name[1:]} {top.restored:.0%} (block {top.block}, at {visible(top.token)})")
    clean, corrupted = (signed_number(table.attrs[side]) for side in ("clean", "corrupted"))
    said = f"The answer is {clean} here and {corrupted} on the other input; of that one place alone restores: "
    return Chapter(title, f"{said}{', '.join(best)}.", parts, *ABOUT["patched"])


def _paths(story: Story) -> Chapter:
    """The graph of the answer, and how much of it the graph alone restores."""
    title = "By which paths"
    found = graph(
        story.cap, story.corrupted, story.aim, progress=lambda fraction: story.progress(title, min(fraction, 0.99))
    )
    edges = found.table()
    return Chapter(
        title, found.sentence, [("Its edges, the strongest first", Table(edges.head(MOST_EDGES)))], *ABOUT["paths"]
    )


def _sequence(cap: Capture) -> str:
    """What an input reads."""
    axis = next(iter(cap.axes.values()), None)
    return "" if axis is None else axis.text or " ".join(axis.labels)


def signed_cells(wide: pd.DataFrame, quantity: str) -> Cells:
    """A table of signed numbers, layers down with the last on top."""
    wide = wide.sort_index(ascending=False)
    values = wide.to_numpy(float)
    most = float(np.nanmax(np.abs(values), initial=0)) or 1.0
    rows = tuple(f"{wide.index.name or 'row'} {name}" for name in wide.index)
    low, high = signed_number(-most), signed_number(most)
    columns = tuple(visible(str(name)) for name in wide.columns)
    shades = 0.5 + 0.5 * values / most
    return Cells(rows, columns, values, shades, quantity, low, high, tuple(range(len(rows))), signed=True)


def _cells(cells: Cells) -> Figure:
    return Figure(cells.quantity, lambda theme: cells_figure(cells, "svg", theme=theme))


CHAPTERS: dict[str, Callable[[Story], Chapter]] = {
    "What heads do": _heads,
    "When it appears": _when,
    "Who says it": _who,
    "What it rests on": _rests,
    "Which states carry it": _patched,
    "By which paths": _paths,
}
