"""What two runs say, side by side: the probabilities of the answers that either finds likely, and how far the two
distributions are apart."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from headwise.interp.analysis.answers import independent
from headwise.interp.analysis.comparing.compare import Comparison
from headwise.interp.analysis.comparing.rows import divergence
from headwise.interp.analysis.effects import answers_at_all, asked
from headwise.interp.analysis.targets import Target, Wanted, answer_position, name_of, row_at, target
from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture

COLUMNS = ["answer", "token", "one", "other", "change"]
WHOLE = "the whole input"
NO_ANSWER = "{} gives no answer, a token or a class, that could be compared."
UNLIKE = "The first answers with {one}, the second with {other}, so their answers cannot be subtracted."


@dataclass(frozen=True, eq=False)
class Answers:
    """What two runs answer. ``table`` a row an answer, those first whose probability changed most: how it reads, its
    token or class, the probability in either run, and the other's less the one's · ``best`` what each finds most
    probable · ``divergence`` Jensen–Shannon, in bits · ``positions`` where each is read, None: of the whole input ·
    ``aim`` what is ``measured``: the logit of an answer, or its distance to another's, in the one run and the other."""

    table: pd.DataFrame
    best: tuple[str, str]
    divergence: float
    positions: tuple[int | None, int | None]
    aim: Target
    measured: tuple[float, float]


def answers_of(found: Comparison, wanted: Wanted | Target = None, against: Wanted = None, count: int = 6) -> Answers:
    """What two runs say, at the places where each gives its answer; the ``count`` most probable of either. Of targets
    that have ended it is what came where they first differ.

    ``wanted`` and ``against`` are those of ``targets.target``; by default what the one run says, against what the other
    says where that is something else. Raises InputError where either gives no answer, where they answer with different
    things (tokens, classes), and for an answer that is its own alternative.
    """
    one, other = found.one, found.other
    silent = next((cap for cap in (one, other) if not answers_at_all(cap)), None)
    if silent is not None:
        raise InputError(NO_ANSWER.format(silent.subject.name))
    places = _places(found)
    rows = [row_at(cap, place) for cap, place in zip((one, other), places, strict=True)]
    _check(one, other, rows, places)
    chances = [_chances(cap, row, place) for cap, row, place in zip((one, other), rows, places, strict=True)]
    likely = [chance.topk(min(count, len(chance))).indices.tolist() for chance in chances]
    lines = [
        (name_of(one.subject, token, places[0]), token, float(chances[0][token]), float(chances[1][token]))
        for token in dict.fromkeys((*likely[0], *likely[1]))
    ]
    table = pd.DataFrame([(*line, line[3] - line[2]) for line in lines], columns=COLUMNS)
    order = table["change"].abs().sort_values(ascending=False, kind="stable").index
    best = tuple(name_of(one.subject, tokens[0], places[0]) for tokens in likely)
    if wanted is None and against is None and likely[0][0] != likely[1][0]:
        wanted, against = likely[0][0], likely[1][0]
    aim = target(one, wanted, against)
    measured = tuple(float(aim.of(row)) for row in rows)
    return Answers(table.loc[order].reset_index(drop=True), best, _apart(one, chances), tuple(places), aim, measured)


def _places(found: Comparison) -> list[int | None]:
    target = found.alignments.get("target")
    both = (found.one, found.other)
    if target is not None and all(_ended(cap) for cap in both):
        pairs = zip(target.pairs, target.differs, strict=True)
        first = next((pair for pair, differs in pairs if differs and min(pair) > 0), None)
        if first is not None:
            return [place - 1 for place in first]
    return [answer_position(cap) for cap in both]


def _ended(cap: Capture) -> bool:
    """Whether all is written, so that there is no next token of interest."""
    return all(each.measure == "log-probability" for each in asked(cap))


def _check(one: Capture, other: Capture, rows: list[Tensor], places: list[int | None]) -> None:
    kinds = [_kind(cap, place, len(row)) for cap, place, row in zip((one, other), places, rows, strict=True)]
    told = one.subject is other.subject or _read_alike(one, other, rows, places)
    if kinds[0] != kinds[1] or not told:
        said = kinds if kinds[0] != kinds[1] else [f"tokens of {cap.subject.name}" for cap in (one, other)]
        raise InputError(UNLIKE.format(one=said[0], other=said[1]))


def _kind(cap: Capture, place: int | None, size: int) -> str:
    return f"{size:,} tokens" if place is not None else "classes " + ", ".join(cap.subject.labels[:4])


def _read_alike(one: Capture, other: Capture, rows: list[Tensor], places: list[int | None]) -> bool:
    """Whether the answers that either finds most likely are called the same in both."""
    if len(rows[0]) != len(rows[1]):
        return False
    tokens = {token for row in rows for token in row.topk(min(20, len(row))).indices.tolist()}
    names = ([name_of(cap.subject, t, place) for t in tokens] for cap, place in zip((one, other), places, strict=True))
    return next(names) == next(names)


def _chances(cap: Capture, row: Tensor, place: int | None) -> Tensor:
    return row.sigmoid() if independent(cap.subject) and place is None else row.softmax(-1)


def _apart(cap: Capture, chances: list[Tensor]) -> float:
    """Of classes that do not exclude each other the mean of each."""
    if independent(cap.subject) and abs(float(chances[0].sum()) - 1) > 1e-3:
        chances = [torch.stack([chance, 1 - chance], -1) for chance in chances]
    return float(divergence(*chances).mean())
