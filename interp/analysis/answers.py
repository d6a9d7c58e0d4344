"""What a model says about its input, in words: the next token, the masked ones, a class, whether two texts follow."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture
from headwise.interp.run.generate import Sampling, distribution, next_logits, next_position, top
from headwise.interp.subject import Subject

MASKS = 5  # masked positions that are answered at most, the first ones
NEXT_SENTENCE = ("next_sentence", "seq_relationship_logits")  # what that output (B, 2) is called


@dataclass(frozen=True)
class Answer:
    """One thing a model says: ``rows`` of (label, probability), the most probable first. ``position`` is where in its
    sequence it is read off, None when it is about the whole input."""

    question: str
    rows: tuple[tuple[str, float], ...]
    position: int | None = None


def answers(cap: Capture, count: int = 5) -> tuple[Answer, ...]:
    """What the subject says about its input (the first of a batch), at most ``count`` rows each; () when it says
    nothing.

    A decoder, with or without an encoder before it: the next token. A masked language model: the first five masked
    tokens, and of two texts, where it was trained to tell, whether the second follows the first (Devlin et al. 2019,
    §3.1). A classifier: its classes. Probabilities are a softmax in float32; a sigmoid where classes do not exclude
    each other. Raises InputError for NaN logits.
    """
    if cap.scores_positions:
        return _next_token(cap, count) or (*_masked(cap, count), *_next_sentence(cap))
    return _classes(cap, count)


def independent(subject: Subject) -> bool:
    """Whether its classes do not exclude each other, so that each has a probability of its own."""
    config = getattr(subject.module, "config", None)
    return getattr(config, "problem_type", None) == "multi_label_classification"


def _next_token(cap: Capture, count: int) -> tuple[Answer, ...]:
    try:
        position = next_position(cap.subject, cap.inputs)
    except InputError:  # it writes nothing, so it has no next token to tell
        return ()
    best = top(distribution(next_logits(cap), Sampling()), cap.subject, count)
    return (Answer("Next token", tuple((label, probability) for _, label, probability in best), position),)


def _masked(cap: Capture, count: int) -> tuple[Answer, ...]:
    subject, ids = cap.subject, cap.inputs.kwargs.get("input_ids")
    if subject.mask_token is None or not isinstance(ids, Tensor) or ids.ndim != 2:
        return ()
    positions = (ids[0] == subject.mask_token).nonzero().flatten().tolist()[:MASKS]
    found = []
    for number, position in enumerate(positions, 1):
        logits = cap.logits_at(position)[0]
        if len(logits) != subject.vocab_size:  # hidden states, or labels of tokens
            return ()
        # as the token reads by itself: between WordPiece tokens a decoder puts a space that belongs to neither
        rows = [
            (subject.decode([token]) if subject.decode else label, probability)
            for token, label, probability in top(distribution(logits, Sampling()), subject, count)
        ]
        question = "Masked token" if len(positions) == 1 else f"Masked token {number}"
        found.append(Answer(question, tuple(rows), position))
    return tuple(found)


def _next_sentence(cap: Capture) -> tuple[Answer, ...]:
    segments = cap.inputs.kwargs.get("token_type_ids")
    logits = next((cap.outputs[name] for name in NEXT_SENTENCE if name in cap.outputs), None)
    if logits is None or segments is None or not bool(segments[0].any()):  # one text follows nothing
        return ()
    follows, random = distribution(logits[0], Sampling()).tolist()
    return (Answer("Does the second text follow the first?", _sorted([("follows", follows), ("random", random)])),)


def _classes(cap: Capture, count: int) -> tuple[Answer, ...]:
    names, logits = cap.subject.labels, cap.logits
    if len(names) < 2 or logits.ndim != 2 or logits.shape[1] != len(names):
        return ()
    probabilities = logits[0].float().sigmoid() if independent(cap.subject) else distribution(logits[0], Sampling())
    return (Answer("Class", _sorted(list(zip(names, probabilities.tolist(), strict=True)))[:count]),)


def _sorted(rows: list[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    return tuple(sorted(rows, key=lambda row: -row[1]))
