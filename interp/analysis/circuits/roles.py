"""Heads in words: what the field calls a head that does this, and what was seen of it here.

    roles(capture(load("tiny-attention-only"), "The people of the United States"))

A role is found by a test, not read off a picture: where a head looks in this text, where it looks on random tokens said
twice, and what it puts onto the answer from the places where the answer's own token stands. A head may have several
roles, and most have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from headwise.interp.analysis.ablation import ablate
from headwise.interp.analysis.metrics import (
    Metric,
    ToFirst,
    ToPrevious,
    ToSelf,
    induction,
    measure,
    periodic,
    table,
)
from headwise.interp.analysis.targets import VISIBLE_SPACE, Target, Wanted, row_at, target
from headwise.interp.attention.axes import Axis
from headwise.interp.attention.call import AttentionCall
from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture
from headwise.interp.run.sites import HeadOutput
from headwise.interp.run.sweeping import Cancelled

COLUMNS = ["stack", "layer", "head", "role", "score", "evidence"]
ELHAGE = ("Elhage et al. 2021", "https://transformer-circuits.pub/2021/framework/index.html")
CLARK = ("Clark et al. 2019", "https://arxiv.org/abs/1906.04341")
HUANG = ("Huang et al. 2018", "https://arxiv.org/abs/1809.04281")
WANG = ("Wang et al. 2023", "https://arxiv.org/abs/2211.00593")
MOST_CONFIRMED = 12  # heads that are removed, to see what the answer is without them

Found = Iterator[tuple[str, str, int, int, float, str]]  # role, stack, layer, head, score, evidence


@dataclass(frozen=True)
class Role:
    """What a head with this role does, the score from which on it has it (of those in CYCLIC in multiples of what a
    head gives that weighs all keys alike), what is said of a head that has, and where the role was first described."""

    sentence: str
    least: float
    evidence: str
    paper: tuple[str, str]


ROLES = {
    "previous token": Role(
        "looks at the {unit} before", 0.4, "gives {score:.0%} of its weight to the {unit} before", ELHAGE
    ),
    "next token": Role("looks at the {unit} after", 0.4, "gives {score:.0%} of its weight to the {unit} after", CLARK),
    "current token": Role("looks at its own {unit}", 0.4, "gives {score:.0%} of its weight to its own {unit}", CLARK),
    "first token": Role(
        "rests on the first position when it has nothing to say",
        0.5,
        "gives {score:.0%} of its weight to {first}, the first position",
        ("Xiao et al. 2023", "https://arxiv.org/abs/2309.17453"),
    ),
    "period": Role(
        "looks at the same place in earlier cycles",
        3.0,
        "gives {score:.0%} of its weight to the same place in earlier {cycle}s; by chance it would be {chance:.0%}",
        HUANG,
    ),
    "next period": Role(
        "looks at where what comes next stood in earlier cycles",
        3.0,
        "gives {score:.0%} of its weight to where the {unit} that comes next stood in earlier {cycle}s; by chance it "
        "would be {chance:.0%}",
        HUANG,
    ),
    "next in voice": Role(
        "looks at where the next note of its own voice stood in earlier bars",
        3.0,
        "gives {score:.0%} of its weight to where the next {unit} of its own voice stood in earlier {cycle}s; by "
        "chance it would be {chance:.0%}",
        HUANG,
    ),
    "duplicate token": Role(
        "looks at an earlier place of the same token",
        0.4,
        "on {where} it gives {score:.0%} of its weight to another place of the same token",
        WANG,
    ),
    "induction": Role(
        "looks at what came after the present token the last time",
        0.4,
        "on {where} it gives {score:.0%} of its weight to what came next the last time",
        ("Olsson et al. 2022", "https://arxiv.org/abs/2209.11895"),
    ),
    "name mover": Role(
        "looks at the answer in the text and writes it out",
        0.05,
        "from {query} it gives {weight:.0%} of its weight to {token} and puts {put:+.2f} logits onto {token} from there"
        "{without}",
        WANG,
    ),
    "copy suppression": Role(
        "looks at a word that is about to be said and writes against it",
        0.05,
        "from {query} it gives {weight:.0%} of its weight to {token} and puts {put:+.2f} logits onto {token} from there"
        "{without}",
        ("McDougall et al. 2023", "https://arxiv.org/abs/2310.04625"),
    ),
}
CYCLIC = {"period": "period", "next period": "next_period", "next in voice": "next_in_voice"}  # and their metrics
UNTESTED = {
    "alone": "Where heads look in the text is only told of one sample; this input has {count}.",
    "grid": "Patches lie in two directions, so none is the one before or after.",
    "random": "Induction is looked for on random tokens said twice, which {name} does not read.",
    "repeat": "No token of the text is there twice, so no duplicate-token head could show.",
    "answer": "Name movers and copy suppression were not looked for: {why}",
    "absent": "the answer {token} does not stand in the text.",
    "class": "{name} answers with a class, which stands nowhere in the text.",
}


class ToNext(ToPrevious):
    """Weight given to the position after (Clark et al. 2019, §3.1)."""

    name = "next"

    def rows(self, weights, rows):
        return _weight_at(weights, (rows.key == rows.query + 1)[None, None])

    def counts(self, rows):
        return (rows.query[:, 0] < rows.key.shape[1] - 1)[None, None]


class ToSame(Metric):
    """Weight on other places of the query's own token, of queries whose token is in sight a second time (Wang et al.
    2023, §3.3)."""

    name = "same"

    def __init__(self, call: AttentionCall):
        super().__init__()
        self.same = torch.zeros(call.queries, call.keys, dtype=torch.bool)
        axis = call.key_axis
        if _of_one_sequence(call) and axis.grid is None and axis.sound is None:  # patches and frames have no names
            labels = list(axis.labels)
            ids = torch.tensor([labels.index(label) for label in labels])
            self.same = (ids[:, None] == ids) & ~torch.eye(len(ids), dtype=torch.bool)

    def _twice(self, rows) -> Tensor:
        return self.same.to(rows.key.device)[rows.query[:, 0]] & rows.allowed  # (B, 1, R, K)

    def rows(self, weights, rows):
        return _weight_at(weights, self._twice(rows))

    def counts(self, rows):
        return self._twice(rows).any(-1)


def roles(
    cap: Capture,
    target: Wanted | Target = None,
    against: Wanted = None,
    *,
    scores: pd.DataFrame | None = None,
    progress: Callable[[float], None] = lambda fraction: None,
    cancel: Callable[[], bool] = lambda: False,
) -> pd.DataFrame:
    """The heads of a capture that have a role → a row for each head and role: stack, layer, head, role (a key of
    ``ROLES``), score, and a sentence of evidence.

    The score is a mean share of weight, 0 … 1; of "name mover" and "copy suppression" the share of the answer's logit,
    over the mean logit, that the head fetches from where the token stands and writes straight onto it (positive or
    negative), and the evidence says what the answer loses when the head is replaced by its mean.

    ``target`` and ``against`` are those of ``targets.target``; ``scores`` the table of ``metrics.induction`` where it
    is there already. ``progress`` is told the fraction done, and a True of ``cancel`` raises Cancelled.
    ``attrs["untested"]`` says of each role that could not be looked for why. Raises InputError for an answer that is
    none, or that is its own alternative.
    """
    untested: list[str] = []
    steps = (
        lambda: list(_by_pattern(cap, untested)),
        lambda: list(_by_repetition(cap, scores, untested)),
        lambda: list(_by_answer(cap, target, against, untested)),
    )
    found = []
    for number, step in enumerate(steps):
        if cancel():
            raise Cancelled("The search for roles was cancelled.")
        found += step()
        progress((number + 1) / len(steps))
    rows = [(stack, layer, head, role, score, said) for role, stack, layer, head, score, said in found]
    made = pd.DataFrame(rows, columns=COLUMNS)
    made["place"] = made["stack"].map({stack: number for number, stack in enumerate(cap.stacks)})
    made = made.sort_values(
        ["place", "layer", "head", "score"], ascending=[True] * 3 + [False], kind="stable", ignore_index=True
    )[COLUMNS]
    made.attrs["untested"] = tuple(untested)
    return made


# -- where it looks ---------------------------------------------------------------------------------------------------
def _by_pattern(cap: Capture, untested: list[str]) -> Found:
    """Roles that show in where a head looks in this text."""
    if cap.inputs.batch > 1:
        untested.append(UNTESTED["alone"].format(count=cap.inputs.batch))
        return
    calls = {(call.stack, call.layer): call for call in cap.calls}
    if any(call.key_axis.grid for call in cap.calls):
        untested.append(UNTESTED["grid"])
    found = table(measure(cap, [ToPrevious, ToNext, ToSelf, ToFirst, *periodic(cap)], own=ToSame))
    for row in found.itertuples():
        call = calls[row.stack, row.layer]
        unit, first = _unit(call.key_axis), _shown(call.key_axis.labels[0])
        shares = {"first token": row.first}
        if _of_one_sequence(call):
            shares["current token"] = row.self
            if not call.key_axis.grid:
                shares |= {"previous token": row.previous, "next token": row.next}
            if call.key_axis.track is not None:
                shares |= {role: getattr(row, name) for role, name in CYCLIC.items() if name in found}
            elif cap.subject.family != "decoder":
                shares["duplicate token"] = row.same
        words = {"unit": unit, "first": first, "where": "this text", **_cycle(call.key_axis)}
        for role, share in shares.items():
            if share >= ROLES[role].least * (words["chance"] if role in CYCLIC else 1):
                said = ROLES[role].evidence.format(score=share, **words)
                yield role, row.stack, row.layer, row.head, float(share), said
    if cap.subject.family != "decoder" and not periodic(cap) and found["same"].isna().all():
        untested.append(UNTESTED["repeat"])


def _of_one_sequence(call: AttentionCall) -> bool:
    return call.kind == "self" and call.queries == call.keys


def _weight_at(weights: Tensor, keys: Tensor) -> Tensor:
    """(B, H, R, K) and the keys that count → (B, H, R)."""
    return torch.where(keys, weights, 0.0).sum(-1)


# -- on random tokens said twice --------------------------------------------------------------------------------------
def _by_repetition(cap: Capture, scores: pd.DataFrame | None, untested: list[str]) -> Found:
    """Induction and duplicate-token heads of a decoder."""
    try:
        scores = induction(cap.subject) if scores is None else scores
    except InputError:
        untested.append(UNTESTED["random"].format(name=cap.subject.name))
        return
    for role, column in (("induction", "induction"), ("duplicate token", "duplicate")):
        for row in scores[scores[column] >= ROLES[role].least].itertuples():
            share = float(getattr(row, column))
            said = ROLES[role].evidence.format(score=share, where="random tokens said twice")
            yield role, row.stack, row.layer, row.head, share, said


# -- onto the answer --------------------------------------------------------------------------------------------------
def _by_answer(cap: Capture, wanted: Wanted | Target, against: Wanted, untested: list[str]) -> Found:
    """Heads that fetch the answer, or its alternative, from where it stands in the text and write it out, or against
    it."""
    try:
        aim = target(cap, wanted, against)
    except InputError as error:
        if wanted is not None or against is not None:
            raise
        untested.append(UNTESTED["answer"].format(why=str(error)))  # it gives none
        return
    if aim.position is None:
        untested.append(UNTESTED["answer"].format(why=UNTESTED["class"].format(name=cap.subject.name)))
        return
    whole = abs(_above_mean(row_at(cap, aim.position), aim.token))
    found, present = [], False
    for token, name in zip((aim.token, aim.against), aim.names, strict=True):
        if token is None:
            continue
        try:
            writers = _fetched(cap, token, name, aim.position)
        except InputError as error:
            untested.append(UNTESTED["answer"].format(why=str(error)))
            return
        present |= writers is not None
        for call, head, put, weight in writers or ():
            role = "name mover" if put > 0 else "copy suppression"
            if abs(put) >= ROLES[role].least * whole:
                found.append((role, call, head, put, weight, name))
    if not present:
        untested.append(UNTESTED["answer"].format(why=UNTESTED["absent"].format(token=_shown(aim.names[0]))))
    yield from _confirmed(cap, aim, whole, sorted(found, key=lambda each: -abs(each[3])))


def _fetched(
    cap: Capture, token: int, name: str, position: int
) -> list[tuple[AttentionCall, int, float, float]] | None:
    """What each head fetches from the places of a token and puts onto its logit over the mean logit, at a position:
    (call, head, logits, weight on those places). None where the token does not stand in the text. Raises InputError
    where the readout is not direct."""
    parts = cap.stream.parts(lambda logits: _above_mean(logits[0, position], token))
    calls = {(call.name, call.occurrence): call for call in cap.calls}
    found, present = [], False
    for part in parts:
        call = calls.get(part.call) if part.head is not None else None
        places = (
            [] if call is None else [k for k, own in enumerate(call.key_axis.labels) if own.strip() == name.strip()]
        )
        present |= bool(places)
        keys = part.by_key() if places else None
        if keys is not None:
            weight = call.weights(part.head, (position, position + 1))[0, 0, places].sum()
            found.append((call, part.head, float(keys[0, position, places].sum()), float(weight)))
    return found if present else None


def _above_mean(row: Tensor, token: int) -> Tensor:
    """What stands out of a row of logits (…, V): adding the same to all of them says nothing."""
    return row[..., token] - row.mean(-1)


def _confirmed(cap: Capture, aim: Target, whole: float, found: list[tuple]) -> Found:
    """With what the answer is without each head, of the strongest ones."""
    sites = [HeadOutput(call.layer, head, call.stack) for _, call, head, *_ in found[:MOST_CONFIRMED]]
    sites = list(dict.fromkeys(sites))
    effects = ablate(cap, sites, "mean", aim)["effect"].tolist() if sites else []
    changes = dict(zip(sites, effects, strict=True))
    for role, call, head, put, weight, name in found:
        change = changes.get(HeadOutput(call.layer, head, call.stack))
        said = ROLES[role].evidence.format(
            query=f"{_shown(call.query_axis.labels[aim.position])} ({aim.position})",
            weight=weight,
            token=_shown(name),
            put=put,
            without="" if change is None else f"; replaced by its mean, {aim} changes by {change:+.2f}",
        )
        yield role, call.stack, call.layer, head, abs(put) / float(whole), said.replace("-", "−")


def _shown(label: str) -> str:
    return label.replace(" ", VISIBLE_SPACE)


def _unit(axis: Axis) -> str:
    if axis.track is not None:
        return axis.track.step
    return "patch" if axis.grid else "frame" if axis.sound is not None else "token"


def _cycle(axis: Axis) -> dict[str, object]:
    """The words for what repeats along a series or a score."""
    track = axis.track
    return {} if track is None else {"cycle": track.cycle, "chance": 1 / track.period}
