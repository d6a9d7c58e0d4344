"""Two runs beside each other: two prompts, two models, before and after fine-tuning, before and after an edit.

    one, other = (capture(load(name), text) for name in ("tiny-encoder", "tiny-classifier"))
    compare(one, other).table   # the heads that look elsewhere, the furthest first

Positions are aligned by what stands there; rows of a pattern are compared as distributions over the keys that both runs
have, and one more for all the weight that goes anywhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch

from headwise.interp.analysis.comparing.places import shares
from headwise.interp.analysis.comparing.rows import Rows, divergence, rows_of
from headwise.interp.analysis.patching.alignment import Alignment, aligned
from headwise.interp.attention.call import AttentionCall
from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture
from headwise.interp.run.sweeping import Cancelled

MATCHES = ("number", "pattern")
SAMPLED = 24  # rows by which heads of different places are held against each other
PLACE = ["stack", "layer", "head"]
COLUMNS = [*PLACE, "other_layer", "other_head", "divergence", "largest", "query", "other_query", "token"]
REFUSED = {
    "nothing": "{one} and {other} share nothing that could be compared: {why}.",
    "stacks": "the first has attention in its {one}, the second in its {other}",
    "alike": "their inputs are not equally long and no position of one is alike in the other",
}
KINDS = {"edit": "edit", "inputs": "two inputs", "models": "two models", "both": "two models on two inputs"}
Head = tuple[int, int]  # layer, head


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two captures side by side.

    ``kind`` "edit" (one input, one model), "inputs", "models" or "both" · ``alignments`` of the sequences by name ·
    ``pairs`` of heads by stack: (layer, head) of the one → of the other · ``table`` a row a head of the one that has a
    partner, the furthest apart first: stack, layer, head, other_layer, other_head · ``divergence`` the Jensen–Shannon
    divergence of the two patterns in bits (0 the same, 1 nothing in common), the mean over aligned queries · the
    ``largest`` of them, at ``query`` of the one and ``other_query`` of the other, where ``token`` stands · then for
    each kind of key that ``places.shares`` knows, and for its entropy, the other's less the one's.
    """

    one: Capture
    other: Capture
    kind: str
    alignments: Mapping[str, Alignment]
    pairs: Mapping[str, Mapping[Head, Head]]
    table: pd.DataFrame
    match: str = "number"
    notes: tuple[str, ...] = ()

    @cached_property
    def divergences(self) -> pd.Series:
        """By (stack, layer, head)."""
        return self.table.set_index(PLACE)["divergence"]

    def rows(self, stack: str, layer: int, head: int) -> Rows:
        """The pattern of a head and that of its partner, on the positions that both runs have. Raises InputError for a
        head that has none."""
        partner = self.pairs.get(stack, {}).get((layer, head))
        if partner is None:
            raise InputError(f"Head {layer}·{head} of {stack} has no partner in {self.other.subject.name}.")
        mine = self.one.find(layer, stack)
        theirs = self.other.find(partner[0], stack_of(self.other, stack))
        sides = alignments_of(self.alignments, self.one, mine)
        return next(rows_of((mine, theirs), sides, ([head], [partner[1]])).each())

    def moved(self, stack: str, layer: int, head: int, query: int | None = None) -> Move:
        """What a head looks at less and more in the other run, from one query (of the one run); from the one that
        changed most by default."""
        rows = self.rows(stack, layer, head)
        index = rows.furthest if query is None else rows.index(query)
        return Move.of(rows, index)


@dataclass(frozen=True)
class Move:
    """One query of two patterns: the key that lost most weight, and that which gained most, each with its weight in
    either. A position of None is everywhere else, where the other run has no such position."""

    query: tuple[int, int]
    divergence: float
    lost: tuple[int | None, float, float]
    gained: tuple[int | None, float, float]

    @classmethod
    def of(cls, rows: Rows, index: int) -> Move:
        one, other = rows.one[index], rows.other[index]
        ends = []
        for place in ((other - one).argmin(), (other - one).argmax()):
            key = rows.keys[int(place)][0] if int(place) < len(rows.keys) else None
            ends.append((key, float(one[place]), float(other[place])))
        return cls(rows.queries[index], float(rows.divergence[index]), *ends)


def compare(
    one: Capture,
    other: Capture,
    match: str = "number",
    *,
    progress: Callable[[float], None] = lambda fraction: None,
    cancel: Callable[[], bool] = lambda: False,
) -> Comparison:
    """Which heads look elsewhere in another run, and how far.

    ``match`` "number" holds each head against that of its own layer and number; models of different shapes have no such
    heads, so these are matched by "pattern": each head with the one that looks most alike, no two with the same, so
    that the whole is nearest (an assignment problem: Kuhn 1955).
    ``progress`` is told the fraction done; a True of ``cancel`` raises Cancelled. Raises InputError where the two share
    no stack, or no position.
    """
    if match not in MATCHES:
        raise InputError(f"compare expects match to be {' or '.join(MATCHES)}; got {match!r}.")
    stacks = {stack: stack_of(other, stack) for stack in one.stacks if stack_of(other, stack) is not None}
    if not stacks:
        why = REFUSED["stacks"].format(one=_named(one), other=_named(other))
        raise InputError(_refused(one, other, why))
    alignments = _alignments(one, other, stacks)
    if not any(found.whole or not all(found.differs) for found in alignments.values()):
        raise InputError(_refused(one, other, REFUSED["alike"]))
    notes, pairs, lines = [], {}, []
    for number, (stack, theirs) in enumerate(stacks.items()):
        calls = one.stack(stack), other.stack(theirs)
        if match == "number" and not _one_shape(*calls):
            match = "pattern"
            notes.append("The two models differ in shape, so heads are matched by their patterns.")
        sides = alignments_of(alignments, one, calls[0][0])
        found = _by_number(*calls) if match == "number" else _by_pattern(calls, sides)
        pairs[stack] = found
        for step, (layer, partners) in enumerate(_by_layers(found).items()):
            if cancel():
                raise Cancelled("The comparison was cancelled.")
            lines += _lines(stack, one.find(layer, stack), (other, theirs), sides, partners)
            progress((number + step / len(calls[0])) / len(stacks))
    table = pd.DataFrame(lines, columns=COLUMNS)
    table = _with_shares(table, shares(one), shares(other), stacks)
    table = table.sort_values("divergence", ascending=False, kind="stable", ignore_index=True)
    progress(1.0)
    return Comparison(one, other, _kind(one, other), alignments, pairs, table, match, tuple(notes))


# -- what is held against what ----------------------------------------------------------------------------------------
def stack_of(cap: Capture, stack: str) -> str | None:
    """The stack of another run that stands for one: that of its name, or the only one where each has but one."""
    if stack in cap.stacks:
        return stack
    return cap.stacks[0] if len(cap.stacks) == 1 and stack != "cross" else None


def alignments_of(
    alignments: Mapping[str, Alignment], cap: Capture, call: AttentionCall
) -> tuple[Alignment, Alignment]:
    """Of the queries and of the keys of a call."""
    return alignments[_sequence(cap, call, "query")], alignments[_sequence(cap, call, "key")]


def _sequence(cap: Capture, call: AttentionCall, side: str) -> str:
    """What the positions of a call are called: a sequence of the input, or the stack's own."""
    axis = getattr(call, f"{side}_axis")
    named = next((name for name, own in cap.axes.items() if own is axis), None)
    return named or f"{call.stack} {side}"


def _alignments(one: Capture, other: Capture, stacks: Mapping[str, str]) -> dict[str, Alignment]:
    found: dict[str, Alignment] = {}
    for stack, theirs in stacks.items():
        mine, their = one.stack(stack)[0], other.stack(theirs)[0]
        for side in ("query", "key"):
            name = _sequence(one, mine, side)
            if name not in found:
                axes = (getattr(call, f"{side}_axis") for call in (mine, their))
                try:
                    found[name] = aligned(*axes)
                except InputError as error:
                    raise InputError(_refused(one, other, REFUSED["alike"])) from error
    return found


def _one_shape(one: tuple[AttentionCall, ...], other: tuple[AttentionCall, ...]) -> bool:
    return [(c.layer, c.heads) for c in one] == [(c.layer, c.heads) for c in other]


def _by_number(one: tuple[AttentionCall, ...], other: tuple[AttentionCall, ...]) -> dict[Head, Head]:
    return {(call.layer, head): (call.layer, head) for call in one for head in range(call.heads)}


def _by_pattern(calls: tuple[tuple[AttentionCall, ...], ...], sides: tuple[Alignment, Alignment]) -> dict[Head, Head]:
    """Heads with the partners that are nearest on the whole, by a sample of their rows."""
    from scipy.optimize import linear_sum_assignment  # here, for those whose models differ in shape

    heads, patterns = [], []
    for number, side in enumerate(calls):
        found = [rows_of((call, call), sides, side=number, most=SAMPLED).one for call in side]
        heads.append([(call.layer, head) for call in side for head in range(call.heads)])
        patterns.append(torch.cat(found))  # (heads, queries, keys + 1)
    costs = torch.stack([divergence(row[None], patterns[1]).mean(-1) for row in patterns[0]])
    mine, theirs = linear_sum_assignment(costs.numpy())
    return {heads[0][m]: heads[1][t] for m, t in zip(mine, theirs, strict=True)}


def _by_layers(pairs: Mapping[Head, Head]) -> dict[int, dict[int, Head]]:
    found: dict[int, dict[int, Head]] = {}
    for (layer, head), partner in sorted(pairs.items()):
        found.setdefault(layer, {})[head] = partner
    return found


def _lines(
    stack: str,
    call: AttentionCall,
    theirs: tuple[Capture, str],
    sides: tuple[Alignment, Alignment],
    partners: Mapping[int, Head],
) -> list[tuple]:
    """A row for each head of a layer that has a partner."""
    lines = []
    for layer in dict.fromkeys(layer for layer, _ in partners.values()):
        other = theirs[0].find(layer, theirs[1])
        mine = {head: partner for head, (place, partner) in partners.items() if place == layer}
        for head, rows in zip(
            mine, rows_of((call, other), sides, (list(mine), list(mine.values()))).each(), strict=True
        ):
            index = rows.furthest
            query, their_query = rows.queries[index]
            lines.append((
                stack, call.layer, head, layer, mine[head], float(rows.divergence.mean()),
                float(rows.divergence[index]), query, their_query, call.query_axis.labels[query],
            ))  # fmt: skip
    return lines


def _with_shares(
    table: pd.DataFrame, one: pd.DataFrame, other: pd.DataFrame, stacks: Mapping[str, str]
) -> pd.DataFrame:
    """The table with how the shares of weight changed, head by head; of kinds of keys that both runs have."""
    names = [name for name in one.columns if name not in PLACE and name in other]
    mine = table[PLACE].merge(one, on=PLACE, how="left")[names]
    theirs = pd.DataFrame(
        {"stack": table["stack"].map(stacks), "layer": table["other_layer"], "head": table["other_head"]}
    ).merge(other, on=PLACE, how="left")[names]
    return pd.concat([table, theirs - mine], axis=1)


# -- words ------------------------------------------------------------------------------------------------------------
def _kind(one: Capture, other: Capture) -> str:
    same_model = one.subject is other.subject
    if same_model and one.inputs is other.inputs:
        return "edit"
    labels = [tuple(axis.labels for axis in cap.axes.values()) for cap in (one, other)]
    return "inputs" if same_model else "models" if labels[0] == labels[1] else "both"


def _named(cap: Capture) -> str:
    return ", ".join(cap.stacks) or "nothing that was seen"


def _refused(one: Capture, other: Capture, why: str) -> str:
    return REFUSED["nothing"].format(one=one.subject.name, other=other.subject.name, why=why)
