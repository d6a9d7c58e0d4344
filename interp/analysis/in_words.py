"""Heads in words: what the field calls a head that looks where this one looks, and the figure that says so.

    found = in_words(cap, survey(cap).table)                # a row for each head and role
    chips(cap, found, "decoder")                            # role → the heads that have it, then the others

A role is a metric above a threshold, so it costs nothing where the metrics are there. What a head puts onto the answer
is told in ``circuits.roles``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from headwise.interp.analysis import metrics
from headwise.interp.analysis.metrics import Metric, ToPrevious
from headwise.interp.analysis.targets import VISIBLE_SPACE
from headwise.interp.attention.axes import Axis
from headwise.interp.attention.call import AttentionCall
from headwise.interp.masks import Causal
from headwise.interp.run.capture import Capture

COLUMNS = ["stack", "layer", "head", "role", "metric", "score", "least", "evidence"]
ELHAGE = ("Elhage et al. 2021", "https://transformer-circuits.pub/2021/framework/index.html")
CLARK = ("Clark et al. 2019", "https://arxiv.org/abs/1906.04341")
HUANG = ("Huang et al. 2018", "https://arxiv.org/abs/1809.04281")
WANG = ("Wang et al. 2023", "https://arxiv.org/abs/2211.00593")


@dataclass(frozen=True)
class Role:
    """What a head with this role does, the score from which on it has it (of those in CYCLIC in multiples of what a
    head gives that weighs all keys alike), what is said of a head that has, where the role was first described, and
    the metric that tells it; none where it is told by the answer."""

    sentence: str
    least: float
    evidence: str
    paper: tuple[str, str]
    metric: str = ""


ROLES = {
    "previous token": Role(
        "looks at the {unit} before", 0.4, "gives {score:.0%} of its weight to the {unit} before", ELHAGE, "previous"
    ),
    "next token": Role(
        "looks at the {unit} after", 0.4, "gives {score:.0%} of its weight to the {unit} after", CLARK, "next"
    ),
    "current token": Role(
        "looks at its own {unit}", 0.4, "gives {score:.0%} of its weight to its own {unit}", CLARK, "self"
    ),
    "first token": Role(
        "rests on the first position when it has nothing to say",
        0.5,
        "gives {score:.0%} of its weight to {first}, the first position",
        ("Xiao et al. 2023", "https://arxiv.org/abs/2309.17453"),
        "first",
    ),
    "special tokens": Role(
        "rests on the tokens that separate or end the input when it has nothing to say",
        0.5,
        "gives {score:.0%} of its weight to {special}",
        CLARK,
        "special",
    ),
    "follows the source": Role(
        "moves along the source as the target is written",
        0.7,
        "its target and source positions rise together: their correlation is {score:.2f}",
        ("Bahdanau et al. 2014", "https://arxiv.org/abs/1409.0473"),
        "follows",
    ),
    "broad": Role(
        "looks at everything about alike", 0.95, "its entropy is {score:.0%} of the most it could be", CLARK,
        "entropy_normalised",
    ),
    "period": Role(
        "looks at the same place in earlier cycles",
        3.0,
        "gives {score:.0%} of its weight to the same place in earlier {cycle}s; by chance it would be {chance:.0%}",
        HUANG,
        "period",
    ),
    "next period": Role(
        "looks at where what comes next stood in earlier cycles",
        3.0,
        "gives {score:.0%} of its weight to where the {unit} that comes next stood in earlier {cycle}s; by chance it "
        "would be {chance:.0%}",
        HUANG,
        "next_period",
    ),
    "next in voice": Role(
        "looks at where the next note of its own voice stood in earlier bars",
        3.0,
        "gives {score:.0%} of its weight to where the next {unit} of its own voice stood in earlier {cycle}s; by "
        "chance it would be {chance:.0%}",
        HUANG,
        "next_in_voice",
    ),
    "duplicate token": Role(
        "looks at an earlier place of the same token",
        0.4,
        "on {where} it gives {score:.0%} of its weight to another place of the same token",
        WANG,
        "duplicate",
    ),
    "induction": Role(
        "looks at what came after the present token the last time",
        0.4,
        "on {where} it gives {score:.0%} of its weight to what came next the last time",
        ("Olsson et al. 2022", "https://arxiv.org/abs/2209.11895"),
        "induction",
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
}  # fmt: skip
CYCLIC = {"period": "period", "next period": "next_period", "next in voice": "next_in_voice"}  # and their metrics
IN_ORDER = {"previous token", "next token", "current token"}  # of one sequence, whose positions follow each other
OTHERS = "others"


# -- the metrics that are looked at for this alone --------------------------------------------------------------------
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

    def __init__(self, labels: tuple[str, ...]):
        super().__init__()
        numbers = {label: number for number, label in enumerate(labels)}
        self.ids = torch.tensor([numbers[label] for label in labels])

    def _twice(self, rows) -> Tensor:
        ids = self.ids.to(rows.key.device)
        same = (ids[rows.query] == ids[rows.key]) & (rows.query != rows.key)  # (R, K)
        return same & rows.allowed  # (B, 1, R, K)

    def rows(self, weights, rows):
        return _weight_at(weights, self._twice(rows))

    def counts(self, rows):
        return self._twice(rows).any(-1)


class ToSpecial(Metric):
    """Weight on the tokens that the tokenizer put after or between the texts, such as [SEP] or </s> (Clark et al. 2019,
    §3.2)."""

    name = "special"

    def __init__(self, special: Tensor):
        super().__init__()
        self.special = special  # (K,) bool

    def rows(self, weights, rows):
        return _weight_at(weights, self.special.to(weights.device))


class Follows(Metric):
    """How far the keys that are looked at move along with the query: the correlation of both positions, each pair
    counted by its weight. 1 looks along a line from the first key to the last, 0 looks at the same keys from
    everywhere. What an alignment does (Bahdanau et al. 2014, §5.2.1)."""

    name = "follows"

    def __init__(self):
        super().__init__()
        self.sums: Tensor | float = 0.0  # Σ a · (1, q, k, q², k², q·k) of each draw of a stratum, (6, B, H, draws)

    def update(self, weights, rows):
        real = weights.masked_fill(~rows.real[..., None], 0.0).double()
        key, query = rows.key[0].double(), rows.query[:, 0].double()
        mass, first, second = real.sum(-1), real @ key, real @ key.square()  # (B, H, R)
        sums = (mass, mass * query, first, mass * query.square(), second, first * query)
        self.sums = self.sums + (torch.stack(sums) * rows.share).unflatten(-1, (-1, rows.draws)).sum(-2)

    def result(self):
        return _correlation(self.sums.sum(-1)).nanmean(0)

    def error(self):
        """From how the draws differ, each taken alone; 0 where every row was seen."""
        draws = self.sums.shape[-1]
        if draws == 1:
            return torch.zeros(self.sums.shape[2], dtype=torch.float64)
        own = _correlation(self.sums).std(-1) / draws**0.5  # (B, H)
        return own.square().nansum(0).sqrt() / own.isfinite().sum(0)


def _correlation(sums: Tensor) -> Tensor:
    """(6, …) → (…); 0 where all keys are one, NaN where all queries are."""
    n, q, k, qq, kk, qk = sums
    wide, spread = n * qq - q.square(), n * kk - k.square()
    found = torch.where(spread > 1e-9 * n.square(), (n * qk - q * k) / (wide * spread).clamp_min(0).sqrt(), 0.0)
    return torch.where(wide > 1e-9 * n.square(), found, torch.nan)


DEFINITIONS = metrics.DEFINITIONS | {
    metric.name: metric.__doc__.split("\n\n")[0] for metric in (ToNext, ToSame, ToSpecial, Follows)
}


def telling(cap: Capture, call: AttentionCall) -> tuple[Metric, ...]:
    """The metrics that tell roles of a call, beside the standard ones; as far as they mean something there."""
    axis, found = call.key_axis, []
    if call.kind == "cross":
        found.append(Follows())
    elif _of_one_sequence(call) and not axis.grid:
        if not call.obeys(Causal()):
            found.append(ToNext())
        if axis.sound is None and cap.subject.family != "decoder":  # of which random tokens tell more
            found.append(ToSame(axis.labels))
    if (special := _special(axis)).any():
        found.append(ToSpecial(special))
    return tuple(found)


# -- roles ------------------------------------------------------------------------------------------------------------
def in_words(cap: Capture, told: pd.DataFrame) -> pd.DataFrame:
    """The roles of heads → a row for each head and role: stack, layer, head, role (a key of ``ROLES``), metric, score,
    least (the threshold it passed) and evidence, a sentence; the surest role of a head first.

    ``told`` holds metrics, a head a row: those of ``survey``, and of ``metrics.induction`` where they were measured. A
    role whose metric is not there is not told. A head that looks at everything alike is nothing but broad.
    """
    rows = []
    calls = {(call.stack, call.layer): call for call in cap.calls}
    for row in told.to_dict("records"):
        call = calls.get((row["stack"], row["layer"]))
        if call is not None:
            for role, metric, score, least, evidence in _of_head(cap, call, row):
                rows.append((row["stack"], row["layer"], row["head"], role, metric, score, least, evidence))
    found = pd.DataFrame(rows, columns=COLUMNS)
    order = {stack: number for number, stack in enumerate(cap.stacks)}
    found = found.assign(place=found["stack"].map(order), sure=-found["score"] / found["least"])
    return found.sort_values(["place", "layer", "head", "sure"], kind="stable", ignore_index=True)[COLUMNS]


def _of_head(cap: Capture, call: AttentionCall, row: dict) -> Iterator[tuple[str, str, float, float, str]]:
    """(role, metric, score, threshold, evidence) of one head by its row of metrics."""
    words = _words(call)
    broad = row.get("entropy_normalised", 0.0) >= ROLES["broad"].least
    for role, what in ROLES.items():
        metric = "same" if role == "duplicate token" and cap.subject.family != "decoder" else what.metric
        score = row.get(metric, torch.nan)
        if not _applies(role, call) or score != score or (broad and role != "broad"):
            continue
        least = what.least * (words["chance"] if role in CYCLIC else 1)
        if score >= least:
            where = "this text" if metric == "same" else "random tokens said twice"
            yield role, metric, float(score), least, what.evidence.format(score=score, where=where, **words)


def _applies(role: str, call: AttentionCall) -> bool:
    """Whether heads of a call can have a role."""
    if role in IN_ORDER:
        return _of_one_sequence(call) and (role == "current token" or not call.key_axis.grid)
    if role == "follows the source":
        return call.kind == "cross"
    return call.key_axis.track is not None if role in CYCLIC else True


def _words(call: AttentionCall) -> dict[str, object]:
    """What the sentences of a call's heads speak of."""
    axis = call.key_axis
    special = dict.fromkeys(axis.labels[i] for i in _special(axis).nonzero().flatten().tolist())
    track = {} if axis.track is None else {"cycle": axis.track.cycle, "chance": 1 / axis.track.period}
    names = {"unit": unit(axis), "first": shown(axis.labels[0]), "special": " and ".join(map(shown, special))}
    return names | track


@dataclass(frozen=True)
class Chip:
    """A role and the heads of a stack that have it, (layer, head) each; ``sentence`` says what such a head does, and
    ``least`` the figure from which on it is called so."""

    role: str
    heads: tuple[tuple[int, int], ...]
    sentence: str
    least: str = ""


def chips(cap: Capture, found: pd.DataFrame, stack: str) -> tuple[Chip, ...]:
    """The roles that heads of a stack have, in the order of ``ROLES``, and at last the heads that have none. ``found``
    is what ``in_words`` found."""
    every = [(call.layer, head) for call in cap.stack(stack) for head in range(call.heads)]
    own, made = found[found["stack"] == stack], []
    for role, what in ROLES.items():
        rows = own[own["role"] == role]
        if len(rows):
            call = cap.find(int(rows["layer"].iloc[0]), stack)
            least = f"{rows['metric'].iloc[0]} ≥ {rows['least'].iloc[0]:.2g}"
            heads = tuple(zip(rows["layer"].tolist(), rows["head"].tolist(), strict=True))
            made.append(Chip(role, heads, what.sentence.format(unit=unit(call.key_axis)), least))
    named = {head for chip in made for head in chip.heads}
    rest = tuple(head for head in every if head not in named)
    return (*made, Chip(OTHERS, rest, "passes none of these tests on this input")) if rest else tuple(made)


# -- words ------------------------------------------------------------------------------------------------------------
def shown(label: str) -> str:
    """A token as it is written in a sentence."""
    return label.replace(" ", VISIBLE_SPACE)


def unit(axis: Axis) -> str:
    """What one position is."""
    if axis.track is not None:
        return axis.track.step
    return "patch" if axis.grid else "frame" if axis.sound is not None else "token"


def _special(axis: Axis) -> Tensor:
    """(K,) bool: the tokenizer's own tokens, the first position aside."""
    special = torch.tensor(axis.special or [False] * len(axis), dtype=torch.bool)
    special[:1] = False
    return special


def _of_one_sequence(call: AttentionCall) -> bool:
    return call.kind == "self" and call.queries == call.keys


def _weight_at(weights: Tensor, keys: Tensor) -> Tensor:
    """(B, H, R, K) and the keys that count → (B, H, R)."""
    return torch.where(keys, weights, 0.0).sum(-1)
