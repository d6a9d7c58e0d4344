"""Heads in words: what the field calls a head that does this, and what was seen of it here.

    roles(capture(load("tiny-attention-only"), "The people of the United States"))

A role is found by a test, not read off a picture: where a head looks in this text, where it looks on random tokens said
twice, and what it puts onto the answer from the places where the answer's own token stands. A head may have several
roles, and most have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd
from torch import Tensor

from headwise.interp.analysis.ablation import ablate
from headwise.interp.analysis.in_words import CYCLIC, ROLES, in_words, shown, telling
from headwise.interp.analysis.metrics import (
    NormalisedEntropy,
    ToFirst,
    ToPrevious,
    ToSelf,
    induction,
    measure,
    periodic,
    table,
)
from headwise.interp.analysis.targets import Target, Wanted, row_at, target
from headwise.interp.attention.call import AttentionCall
from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture
from headwise.interp.run.sites import HeadOutput
from headwise.interp.run.sweeping import Cancelled

__all__ = ["COLUMNS", "CYCLIC", "ROLES", "roles"]

COLUMNS = ["stack", "layer", "head", "role", "score", "evidence"]
MOST_CONFIRMED = 12  # heads that are removed, to see what the answer is without them
UNTESTED = {
    "alone": "Where heads look in the text is only told of one sample; this input has {count}.",
    "grid": "Patches lie in two directions, so none is the one before or after.",
    "random": "Induction is looked for on random tokens said twice, which {name} does not read.",
    "repeat": "No token of the text is there twice, so no duplicate-token head could show.",
    "answer": "Name movers and copy suppression were not looked for: {why}",
    "absent": "the answer {token} does not stand in the text.",
    "class": "{name} answers with a class, which stands nowhere in the text.",
}

Found = Iterator[tuple[str, str, int, int, float, str]]  # role, stack, layer, head, score, evidence


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
    if any(call.key_axis.grid for call in cap.calls):
        untested.append(UNTESTED["grid"])
    standard = [ToPrevious, ToSelf, ToFirst, NormalisedEntropy, *periodic(cap)]
    found = table(measure(cap, standard, own=partial(telling, cap)))
    yield from _told(cap, found)
    if cap.subject.family != "decoder" and not periodic(cap) and found.get("same", found["layer"][:0]).isna().all():
        untested.append(UNTESTED["repeat"])


def _told(cap: Capture, metrics: pd.DataFrame) -> Found:
    for row in in_words(cap, metrics).itertuples():
        yield row.role, row.stack, row.layer, row.head, row.score, row.evidence


# -- on random tokens said twice --------------------------------------------------------------------------------------
def _by_repetition(cap: Capture, scores: pd.DataFrame | None, untested: list[str]) -> Found:
    """Induction and duplicate-token heads of a decoder."""
    try:
        scores = induction(cap.subject) if scores is None else scores
    except InputError:
        untested.append(UNTESTED["random"].format(name=cap.subject.name))
        return
    yield from _told(cap, scores)


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
        untested.append(UNTESTED["answer"].format(why=UNTESTED["absent"].format(token=shown(aim.names[0]))))
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
            query=f"{shown(call.query_axis.labels[aim.position])} ({aim.position})",
            weight=weight,
            token=shown(name),
            put=put,
            without="" if change is None else f"; replaced by its mean, {aim} changes by {change:+.2f}",
        )
        yield role, call.stack, call.layer, head, abs(put) / float(whole), said.replace("-", "−")
