"""What edits did to a model's answer: one run beside another of the same input.

    cap = capture(load("tiny-decoder"), "The people of the United")
    changed = rerun(cap, [MeanHead(1, 6)])
    effect(cap, changed, target(cap)).change  # of the logit

The measures are those of circuit analysis: the change of a logit or of a difference of logits (Wang et al. 2023,
"Interpretability in the Wild", §2.2), of a probability, and KL(before ‖ after) of the whole answer (Conmy et al. 2023,
"Towards Automated Circuit Discovery", §2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from headwise.interp.analysis.ablation import HOW, measuring
from headwise.interp.analysis.answers import independent
from headwise.interp.analysis.targets import Target, Wanted, name_of, phrase, row_at, target
from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture, rerun
from headwise.interp.run.edits import Edit, HeadOutput
from headwise.interp.run.generate import extend, finished, label, next_logits, next_position, restart
from headwise.interp.run.outputs import Result
from headwise.interp.run.sweeping import Measure, sweep_edits
from headwise.interp.subject import Inputs


@dataclass(frozen=True)
class Chance:
    """A token or class, what it reads, and its probability before and after the edits."""

    token: int
    label: str
    before: float
    after: float


@dataclass(frozen=True)
class Effect:
    """What edits did to an answer.

    ``name`` what was measured, ``measure`` in what · ``before`` and ``after`` that number in either run ·
    ``probability`` of the answer, before and after · ``kl`` KL(before ‖ after) of the answer's distribution in nats;
    where it is read at several places, their mean · ``top`` the most probable answers after the edits, and ``moved``
    the one whose probability changed most, both where the KL is largest: at ``position``.
    """

    name: str
    measure: str
    before: float
    after: float
    probability: tuple[float, float]
    kl: float
    top: tuple[Chance, ...]
    moved: Chance
    position: int | None

    @property
    def change(self) -> float:
        return self.after - self.before


@dataclass(frozen=True)
class Moved:
    """How far an output moved that is no answer: ``relative`` ‖after − before‖ ÷ ‖before‖, ``cosine`` of the angle
    between the two, the mean over positions."""

    relative: float
    cosine: float


def effect(plain: Capture, edited: Capture, wanted: Target | Sequence[Target], count: int = 5) -> Effect:
    """What the edits of a run did to an answer; to several at once, such as the tokens of a word, to their sum.

    Nothing edited gives exactly 0. Raises InputError where either run gives no finite logits there.
    """
    targets = (wanted,) if isinstance(wanted, Target) else tuple(wanted)
    pairs = [(row_at(plain, t.position), _edited_row(edited, t.position)) for t in targets]
    before, after = (sum(float(t.of(pair[i])) for t, pair in zip(targets, pairs, strict=True)) for i in (0, 1))
    own = independent(plain.subject) and not plain.scores_positions
    chances = [tuple(_chances(row, own) for row in pair) for pair in pairs]
    likely = tuple(math.prod(float(c[i][t.token]) for t, c in zip(targets, chances, strict=True)) for i in (0, 1))
    gaps = [divergence(*pair, independent=own) for pair in pairs]
    worst = max(range(len(gaps)), key=gaps.__getitem__)
    was, now = chances[worst]
    place = targets[worst].position

    def chance(token: int) -> Chance:
        return Chance(token, name_of(plain.subject, token, place), float(was[token]), float(now[token]))

    return Effect(
        "".join(str(t) for t in targets),
        targets[0].measure + ("" if targets[0].against is None else " difference"),
        before,
        after,
        (likely[0], likely[1]),
        sum(gaps) / len(gaps),
        tuple(chance(token) for token in now.topk(min(count, len(now))).indices.tolist()),
        chance(int((now - was).abs().argmax())),
        place,
    )


def word_effect(plain: Capture, edited: Capture, wanted: str, against: str | None = None, count: int = 5) -> Effect:
    """``effect`` on a word of several tokens, all of them: on the sum of their log-probabilities, each read after those
    before it; less that of the alternative, where there is one. One or two more runs each.

    Raises InputError as ``target`` does, and where the subject writes nothing.
    """
    read = {}
    for word in dict.fromkeys(w for w in (wanted, against) if w is not None):
        longer, targets = phrase(plain, word)
        changed = edited if longer is plain else rerun(longer, edited.edits)
        read[word] = targets, effect(longer, changed, targets, count)
    targets, whole = read[wanted]
    first = effect(plain, edited, targets[0], count)  # the answer's distribution is that of the first token
    whole = replace(whole, kl=first.kl, top=first.top, moved=first.moved, position=first.position)
    if against is None:
        return whole
    others, other = read[against]
    if targets == others:
        target(plain, targets[0].token, targets[0].token)  # says that they are the same
    return replace(
        whole,
        name=f"{whole.name} − {other.name}",
        measure=f"{whole.measure} difference",
        before=whole.before - other.before,
        after=whole.after - other.after,
    )


def asked(cap: Capture, wanted: Wanted = None, against: Wanted = None) -> tuple[Target, ...]:
    """The target that a person means, as ``target`` finds it. A target that has ended, or that the model would end now,
    has no next token of interest: then it is all of what was written, the sum of its log-probabilities, or, for a word,
    the first place written at."""
    start = _start(cap)
    if start is None:
        return (target(cap, wanted, against),)
    if wanted is not None or against is not None:
        return (target(cap, wanted, against, position=start - 1),)
    ids = _sequence(cap.inputs)
    return tuple(
        Target(token, None, place - 1, (label(cap.subject, token), ""), "log-probability")
        for place, token in enumerate(ids)
        if place >= start
    )


def answers_at_all(cap: Capture) -> bool:
    """Whether the output is scores of tokens or classes, rather than vectors or a number of another kind."""
    if not cap.scores_positions:
        return cap.logits.ndim == 2 and len(cap.subject.labels) == cap.logits.shape[1] > 1
    try:
        next_position(cap.subject, cap.inputs)
    except InputError:
        return cap.subject.vocab_size is not None and cap.logits_at(0).shape[-1] == cap.subject.vocab_size
    return True


def moved(plain: Capture, edited: Capture) -> Moved:
    """How far the output of the first sample moved, over its real positions."""
    was, now = (run.logits[0].double().reshape(-1, run.logits.shape[-1]) for run in (plain, edited))  # (T, C) or (1, C)
    real = plain.inputs.real
    if real is not None and len(real[0]) == len(was):
        was, now = was[real[0]], now[real[0]]
    if torch.equal(was, now):
        return Moved(0.0, 1.0)
    return Moved(float((now - was).norm() / was.norm()), float(cosine_similarity(was, now, dim=-1).mean()))


def continued(
    cap: Capture, edits: Sequence[Edit] = (), count: int = 5, progress: Callable[[float], None] = lambda part: None
) -> tuple[tuple[int, str], ...]:
    """What the model writes on, the best token each time, every step a whole run under the edits → (token, label) of
    each. Edits by position stay where they are. A sequence that has ended is written anew from its start.

    Raises InputError where the subject writes nothing, and where it takes no longer text.
    """
    subject = cap.subject
    inputs = cap.inputs if _start(cap) is None else restart(cap.inputs)
    run = cap if inputs is cap.inputs and tuple(edits) == cap.edits else rerun(replace(cap, inputs=inputs), edits)
    found: list[tuple[int, str]] = []
    while True:
        token = int(next_logits(run).argmax())
        found.append((token, label(subject, token)))
        progress(len(found) / count)
        if len(found) == count or token == subject.eos:
            return tuple(found)
        inputs = extend(subject, inputs, [token])
        run = rerun(replace(cap, inputs=inputs), edits)


def removals(
    cap: Capture,
    stack: str,
    how: str = "mean",
    targets: Sequence[Target] = (),
    progress: Callable[[float], None] = lambda part: None,
) -> Tensor:
    """What removing each head of a stack does → (L, H) float32, rows by layer, NaN where a layer has fewer heads: the
    change of the targets' sum, or, without a target, how far the output moves, ``Moved.relative``. One sweep."""
    calls = cap.stack(stack)
    places = [(row, head) for row, call in enumerate(calls) for head in range(call.heads)]
    sets = [(HOW[how](HeadOutput(calls[row].layer, head, stack)),) for row, head in places]
    done = sweep_edits(cap, sets, _summed(targets) if targets else _distance(cap), progress=progress)
    found = torch.full((len(calls), max(call.heads for call in calls)), math.nan)
    for place, figure in zip(places, done.figures[:, 0] - done.plain[0], strict=True):
        found[place] = figure
    return found


def divergence(before: Tensor, after: Tensor, *, independent: bool = False) -> float:
    """KL(before ‖ after) in nats of the distributions that two rows of logits (V,) mean; of classes that do not exclude
    each other the sum over them. Never negative, and 0 for the same logits."""
    if independent:
        rows = [torch.stack([torch.zeros_like(x), x]).double().log_softmax(0) for x in (before, after)]
    else:
        rows = [x.double().log_softmax(-1) for x in (before, after)]
    was, now = rows
    terms = torch.where(was > -math.inf, was.exp() * (was - now), 0.0)
    return max(0.0, float(terms.sum()))


def _summed(targets: Sequence[Target]) -> Measure:
    parts = [measuring(one) for one in targets]
    return lambda result: sum(part(result) for part in parts)


def _distance(cap: Capture) -> Measure:
    """How far each row of a result is from a capture's first sample, relative to that."""
    was, real = cap.logits[:1].double(), cap.inputs.real
    seen = torch.ones(was.shape[:-1], dtype=torch.bool) if real is None or was.ndim < 3 else real[:1]

    def measure(result: Result) -> Tensor:
        gaps = torch.where(seen[..., None], result.logits().double() - was, 0).flatten(1)
        return (gaps.norm(dim=1) / torch.where(seen[..., None], was, 0).norm()).float()

    return measure


def _chances(row: Tensor, independent: bool) -> Tensor:
    return row.sigmoid() if independent else row.softmax(-1)


def _edited_row(edited: Capture, position: int | None) -> Tensor:
    try:
        return row_at(edited, position)
    except InputError as error:
        raise InputError(
            "The edited run gives no finite numbers where the answer is read. Take the last edit back."
        ) from error


def _start(cap: Capture) -> int | None:
    """Where writing began, in a target that has ended or that the model would end now; None for all others."""
    try:
        start = len(_sequence(restart(cap.inputs)))
        over = finished(cap.subject, cap.inputs) or int(next_logits(cap).argmax()) == cap.subject.eos
    except InputError:  # it writes nothing, or has no target of its own
        return None
    return start if over and start < len(_sequence(cap.inputs)) else None


def _sequence(inputs: Inputs) -> list[int]:
    return inputs.kwargs["decoder_input_ids"][0].tolist()
