"""Two runs beside each other, ready to be drawn: all heads by how far they look elsewhere, one head as what one run
gives less the other, the two texts laid beside each other; and each with its sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from headwise.interp.analysis.comparing.answer import Answers
from headwise.interp.analysis.comparing.compare import Comparison, Move, alignments_of, stack_of
from headwise.interp.analysis.comparing.likeness import SHORT, HeadMap
from headwise.interp.analysis.patching.alignment import Alignment, align
from headwise.interp.drawing.matrix import Matrix, Span
from headwise.interp.drawing.paper.text import visible
from headwise.interp.drawing.quantities import Quantity
from headwise.interp.drawing.streams import percent, signed_number

Head = tuple[str, int, int]  # stack, layer, head

ELSEWHERE = "elsewhere"
LARGEST = 384  # positions of a head that are drawn
NAMED = 3  # differences that a sentence names
STILL = 1e-6  # bits: rounding
DRAWN = ("change", "one", "other")  # of a head
TITLES = {"change": "{other} − {one}", "one": "{one}", "other": "{other}"}
SENTENCES = {
    "still": "No head looks elsewhere: all patterns are the same.",
    "heads": "{first} looks elsewhere most, {most} bits a query on average; {few} of {all} heads make half of it all.",
    "one": "{first} is {most} bits a query apart, on average.",
    "edit": "Taking away or scaling what a head says does not change where it looks: only heads after it can.",
    "moved": "From {query} {lost} and {gained}: {bits} bits there.",
    "same": "This head looks where it looked, to {bits} bits.",
    "answer": "{one} in the first, {other} in the second: their answers are {bits} bits apart.",
    "again": "Both say {one}, {before} and {after}; their answers are {bits} bits apart.",
    "aim": "{aim}: {before} in the first, {after} in the second, {change}.",
    "pca": "The nearer two heads, the more alike they look, as far as two directions can show.",
    "tsne": "Neighbours look alike; how far apart groups lie says nothing.",
}


@dataclass(frozen=True)
class Beside:
    """One place of two texts: what stands there in either ("" where nothing does), whether it differs, the positions,
    and the weight that either run gives it from the query that is looked at."""

    one: str
    other: str
    differs: bool
    places: tuple[int | None, int | None]
    weights: tuple[float, float] = (0.0, 0.0)


def divergence_matrix(found: Comparison, stack: str) -> Matrix:
    """How far each head of a stack looks elsewhere: layers down, heads across; NaN where it has no partner."""
    calls = found.one.stack(stack)
    rows = {call.layer: row for row, call in enumerate(calls)}
    values = torch.full((len(calls), max(call.heads for call in calls)), math.nan)
    for row in found.table[found.table["stack"] == stack].itertuples():
        values[rows[row.layer], row.head] = row.divergence
    return Matrix(
        values,
        Span(tuple(str(call.layer) for call in calls), "layers"),
        Span(tuple(map(str, range(values.shape[1]))), "heads"),
        Quantity("bits apart"),
    )


def furthest_head(found: Comparison, stack: str) -> tuple[int, int]:
    """The head of a stack that looks elsewhere most."""
    row = found.table[found.table["stack"] == stack].iloc[0]
    return int(row["layer"]), int(row["head"])


def head_matrix(found: Comparison, head: Head, drawn: str = "change") -> Matrix:
    """One head on the positions that both runs have: what the other run gives less what the one gives, or either; the
    last column is all the weight that goes elsewhere, where anything does."""
    rows = found.rows(*head)
    queries, keys = rows.queries[:LARGEST], rows.keys[:LARGEST]
    values = {"one": rows.one, "other": rows.other, "change": rows.other - rows.one}[drawn]
    beyond = values[: len(queries), len(keys) :].sum(-1, keepdim=True)
    values = values[: len(queries), : len(keys)]
    names = [_both(side, pairs) for side, pairs in zip(sides(found, head), (queries, keys), strict=True)]
    if float(max(rows.one[:, -1].max(), rows.other[:, -1].max())) > 1e-4 or len(keys) < len(rows.keys):
        values, names[1] = torch.cat([values, beyond], -1), (*names[1], ELSEWHERE)
    lies = _seen(found, head, drawn, (len(queries), len(names[1])))
    quantity = Quantity("weight", many="weights")
    return Matrix(
        values,
        Span(names[0], "queries", **lies[0]),
        Span(names[1], "keys", **lies[1]),
        quantity.difference if drawn == "change" else quantity,
        title=f"layer {head[1]} · head {head[2]}",
        of=TITLES[drawn].format(one=side_name(found, 0), other=side_name(found, 1)),
    )


def laid(found: Comparison, head: Head, move: Move) -> tuple[Beside, ...]:
    """The keys of a head in both runs, beside each other, with what the query of a move gives them."""
    side = sides(found, head)[1]
    stack, layer, number = head
    partner = found.pairs[stack][layer, number]
    calls = found.one.find(layer, stack), found.other.find(partner[0], stack_of(found.other, stack))
    weights = [
        call.weights(which, (query, query + 1))[0, 0].tolist()
        for call, which, query in zip(calls, (number, partner[1]), move.query, strict=True)
    ]
    return tuple(_beside(side, weights))


def head_name(found: Comparison, head: Head) -> str:
    """ "24·4", or "0·1 → 2·3" where its partner is another one."""
    stack, layer, number = head
    partner = found.pairs.get(stack, {}).get((layer, number), (layer, number))
    own = f"{layer}·{number}"
    return own if partner == (layer, number) else f"{own} → {partner[0]}·{partner[1]}"


def side_name(found: Comparison, side: int) -> str:
    """What a run is called beside the other."""
    cap = (found.one, found.other)[side]
    if found.kind in ("models", "both"):
        return cap.subject.name
    words = {"edit": ("before", "edited")}.get(found.kind, ("first", "second"))
    return words[side]


def share_lines(found: Comparison, head: Head) -> list[tuple[str, float]]:
    """How the shares of weight of a head changed, by kind of key → (words, other less one), the largest changes
    first."""
    table = found.table
    row = table[(table["stack"] == head[0]) & (table["layer"] == head[1]) & (table["head"] == head[2])].iloc[0]
    lines = [(words, float(row[name])) for name, words in SHORT.items() if name in table and np.isfinite(row[name])]
    return sorted((line for line in lines if abs(line[1]) >= 5e-4), key=lambda line: -abs(line[1]))


# -- sentences --------------------------------------------------------------------------------------------------------
def heads_sentence(found: Comparison, stack: str) -> str:
    """Which head looks elsewhere most, and how many make most of the change."""
    rows = found.table[found.table["stack"] == stack]
    values = rows["divergence"].to_numpy(float)
    if values.max() < STILL:
        return " ".join([SENTENCES["still"], *([SENTENCES["edit"]] if found.kind == "edit" else [])])
    few = int((values.cumsum() < values.sum() / 2).sum()) + 1
    first = head_name(found, (stack, *furthest_head(found, stack)))
    said = SENTENCES["heads" if len(values) > 1 else "one"]
    return said.format(first=first, most=bits(values[0]), few=few, all=len(values))


def move_sentence(found: Comparison, head: Head, move: Move) -> str:
    """What a head looks at less and more."""
    if move.divergence < STILL:
        return SENTENCES["same"].format(bits=bits(move.divergence))
    queries, keys = sides(found, head)
    ends = []
    for (key, before, after), word in ((move.lost, "less"), (move.gained, "more")):
        where = "elsewhere" if key is None else f"at {_pair_name(keys, key)}"
        ends.append(f"{word} {where} ({percent(before)} → {percent(after)})")
    query = _pair_name(queries, move.query[0])
    return SENTENCES["moved"].format(query=query, lost=ends[0], gained=ends[1], bits=bits(move.divergence))


def aligned_sentence(found: Comparison, head: Head) -> str:
    """What differs in the sequences of a head's stack."""
    queries, keys = sides(found, head)
    if keys.clean.grid is not None or keys.clean.sound is not None:
        keys = align(found.one, found.other)  # by what is seen and heard, for their positions have numbers alone
    if queries is keys or queries.clean is keys.clean:
        return alignment_sentence(keys)
    names = {id(axis): f"{name.capitalize()}: " for name, axis in found.one.axes.items()}
    told = (names.get(id(side.clean), "") + alignment_sentence(side) for side in (queries, keys))
    return " ".join(said[:1].upper() + said[1:] for said in told)


def alignment_sentence(side: Alignment) -> str:
    """What differs, and what has no partner."""
    noun = "patches" if side.clean.grid else "frames" if side.clean.sound else "tokens"
    changed = [pair for pair, differs in zip(side.pairs, side.differs, strict=True) if differs]
    said = (
        f"{len(changed):,} of {len(side.pairs):,} {noun} differ" if changed else f"The same {len(side.pairs):,} {noun}"
    )
    if changed and noun == "tokens":
        named = [f"{_label(side.clean, one)} → {_label(side.corrupted, other)}" for one, other in changed[:NAMED]]
        said += f": {', '.join(named)}{' …' if len(changed) > NAMED else ''}"
    for axis, alone, name in zip((side.clean, side.corrupted), side.alone, ("first", "second"), strict=True):
        if alone:
            named = ", ".join(_label(axis, place) for place in alone[:NAMED]) + (" …" if len(alone) > NAMED else "")
            said += f"; only in the {name}: {named}"
    return f"{said}."


def answer_sentence(said: Answers) -> str:
    """What both say, and how far apart that is."""
    table = said.table.set_index("answer")
    one, other = (visible(name) for name in said.best)
    if said.best[0] == said.best[1]:
        row = table.loc[said.best[0]]
        told = SENTENCES["again"].format(
            one=one, before=percent(row["one"]), after=percent(row["other"]), bits=bits(said.divergence)
        )
    else:
        first, second = (percent(table.loc[name][side]) for name, side in zip(said.best, ("one", "other"), strict=True))
        told = SENTENCES["answer"].format(one=f"{one} {first}", other=f"{other} {second}", bits=bits(said.divergence))
    before, after = said.measured
    name = " − ".join(visible(name) for name in said.aim.names if name)
    numbers = {"before": signed_number(before), "after": signed_number(after), "change": signed_number(after - before)}
    return f"{told} {SENTENCES['aim'].format(aim=f'Logit of {name}', **numbers)}"


def map_sentence(found: HeadMap) -> str:
    """What nearness means on a map, and, of two runs, how many heads changed their group."""
    sides = found.table.pivot_table(index=["layer", "head"], columns="side", values="group")
    said = SENTENCES[found.method]
    if "other" in sides and sides.notna().all(None):
        changed = int((sides["one"] != sides["other"]).sum())
        said += f" {changed} of {len(sides)} heads are in another group in the second run."
    return said


def bits(value: float) -> str:
    """A divergence."""
    return f"{value:.2f}" if value >= 0.095 else f"{value:.3f}" if value >= 0.0005 else "< 0.001" if value > 0 else "0"


def table_lines(found: Comparison, stack: str) -> pd.DataFrame:
    """The table of a stack without what the page says elsewhere."""
    rows = found.table[found.table["stack"] == stack].reset_index(drop=True)
    partners = ["other_layer", "other_head"] if found.match == "pattern" else []
    names = [name for name in rows.columns if name in SHORT or name == "entropy"]
    return rows[["layer", "head", *partners, "divergence", "largest", "query", "token", *names]]


# -- inside -----------------------------------------------------------------------------------------------------------
def sides(found: Comparison, head: Head) -> tuple[Alignment, Alignment]:
    """How the queries and the keys of a head's stack are aligned."""
    return alignments_of(found.alignments, found.one, found.one.find(head[1], head[0]))


def _seen(found: Comparison, head: Head, drawn: str, sizes: tuple[int, int]) -> tuple[dict, dict]:
    """What the positions of a head's queries and keys lie on, for pictures and recordings whose positions are all
    drawn: of the run that is drawn, of a change the first."""
    shown = []
    for side, size in zip(sides(found, head), sizes, strict=True):
        axis = side.corrupted if drawn == "other" else side.clean
        whole = side.whole and size == len(axis)
        shown.append(
            {"picture": axis.picture, "grid": axis.grid, "sound": axis.sound, "track": axis.track} if whole else {}
        )
    return tuple(shown)


def _both(side: Alignment, pairs: tuple[tuple[int, int], ...]) -> tuple[str, ...]:
    """What aligned positions are called: once, where both are called the same."""
    names = ((side.clean.labels[one], side.corrupted.labels[other]) for one, other in pairs)
    return tuple(one if one == other else f"{one}|{other.strip()}" for one, other in names)


def _label(axis, place: int) -> str:
    return f"{visible(axis.labels[place])} ({place})"


def _pair_name(side: Alignment, place: int) -> str:
    """A position of the one run, as it is called in both."""
    other = side.partner(place)
    mine, theirs = visible(side.clean.labels[place]), "" if other is None else visible(side.corrupted.labels[other])
    return f"{mine if theirs in ('', mine) else f'{mine}|{theirs}'} ({place})"


def _beside(side: Alignment, weights: list[list[float]]) -> Iterator[Beside]:
    """All positions of both, in order: pairs, and between them what has none."""
    one = other = 0

    def alone(until: tuple[int, int]) -> Iterator[Beside]:
        for place in range(one, until[0]):
            yield Beside(side.clean.labels[place], "", True, (place, None), (weights[0][place], 0.0))
        for place in range(other, until[1]):
            yield Beside("", side.corrupted.labels[place], True, (None, place), (0.0, weights[1][place]))

    for pair, differs in zip(side.pairs, side.differs, strict=True):
        yield from alone(pair)
        mine, theirs = side.clean.labels[pair[0]], side.corrupted.labels[pair[1]]
        yield Beside(mine, theirs, differs, pair, (weights[0][pair[0]], weights[1][pair[1]]))
        one, other = pair[0] + 1, pair[1] + 1
    yield from alone((len(side.clean), len(side.corrupted)))
