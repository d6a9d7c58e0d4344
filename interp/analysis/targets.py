"""What an answer is measured by: the logit of a token or class where the model gives its answer, or how far it stands
above another's.

A difference of logits is what most circuits are measured by: what moves all tokens alike drops out of it (Wang et al.
2023, "Interpretability in the Wild", §2.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import Tensor

from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture, capture
from headwise.interp.run.generate import extend, label, next_position
from headwise.interp.subject import Subject

Wanted = int | str | None  # a token id or class number, what it reads, or None: what the model itself says
MEASURES = ("logit", "log-probability")
VISIBLE_SPACE = "·"

_vocabularies: WeakKeyDictionary[Subject, dict[str, int]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Target:
    """An answer as one number.

    ``token`` and ``against`` are token ids, or numbers of classes · ``position`` is where the answer is read, None
    where the model scores the input as a whole · ``measure`` "logit", or "log-probability", which of a word of several
    tokens can be summed.
    """

    token: int
    against: int | None = None
    position: int | None = None
    names: tuple[str, str] = ("", "")
    measure: str = "logit"

    def __post_init__(self):
        if self.measure not in MEASURES:
            raise ValueError(f"measure expects {' or '.join(MEASURES)}; got {self.measure!r}.")
        if self.token == self.against:
            raise InputError(
                f"The answer and its alternative are the same, {self.names[0] or self.token!r}, so their difference "
                "is 0 whatever happens. Choose another alternative."
            )

    def __str__(self) -> str:
        one, other = (
            name.replace(" ", VISIBLE_SPACE) or str(token)
            for name, token in zip(self.names, (self.token, self.against), strict=True)
        )
        return one if self.against is None else f"{one} − {other}"

    def of(self, row: Tensor) -> Tensor:
        """The number in logits (…, V) of the target's position → (…)."""
        row = row if self.measure == "logit" else row.log_softmax(-1)
        score = row[..., self.token]
        return score if self.against is None else score - row[..., self.against]

    def measured(self, logits: Tensor) -> Tensor:
        """The number in all logits, (B, T, V) or (B, V) → (B,)."""
        return self.of(logits if self.position is None else logits[:, self.position])

    def value(self, cap: Capture) -> float:
        """The number in a run of the same kind of input, of its first sample."""
        return float(self.of(row_at(cap, self.position)))


def target(cap: Capture, wanted: Wanted | Target = None, against: Wanted = None, position: int | None = None) -> Target:
    """The target that a person means: ``wanted``, or what the model itself answers, and what it is measured
    ``against``.

    A word may be given with its leading space, as " Mary" or "·Mary", or without; of a word of several tokens it is the
    first (``phrase`` takes them all). ``position`` is where the model gives its answer, unless said. Raises InputError
    for what is no token or class of the model, for an answer that is its own alternative, and where the model gives no
    answer.
    """
    if isinstance(wanted, Target):
        return wanted
    place = answer_position(cap) if position is None else _checked(cap, position)
    row = row_at(cap, place)
    token = int(row.argmax()) if wanted is None else tokens_of(cap, wanted, len(row), place)[0]
    other = None if against is None else tokens_of(cap, against, len(row), place)[0]
    names = tuple("" if t is None else name_of(cap.subject, t, place) for t in (token, other))
    return Target(token, other, place, names)


def phrase(cap: Capture, word: str) -> tuple[Capture, tuple[Target, ...]]:
    """A word of several tokens, all of them: a run in which the model reads it after the input, and a target for each
    token, whose sum is the word's log-probability. Raises InputError where the subject writes nothing."""
    place = next_position(cap.subject, cap.inputs)
    tokens = tokens_of(cap, word, cap.subject.vocab_size or 0, place)
    longer = capture(cap.subject, extend(cap.subject, cap.inputs, tokens[:-1])) if len(tokens) > 1 else cap
    names = [(name_of(cap.subject, token, place), "") for token in tokens]
    return longer, tuple(
        Target(token, None, place + step, name, "log-probability")
        for step, (token, name) in enumerate(zip(tokens, names, strict=True))
    )


def answer_position(cap: Capture) -> int | None:
    """Where the model gives its answer: a writer at its last token, a masked language model at its first mask, others
    at the end; None where one row of logits is for the whole input."""
    if not cap.scores_positions:
        return None
    try:
        return next_position(cap.subject, cap.inputs)
    except InputError:  # it writes nothing
        ids = cap.inputs.kwargs.get("input_ids")
        if cap.subject.mask_token is not None and isinstance(ids, Tensor) and ids.ndim == 2:
            masks = (ids[0] == cap.subject.mask_token).nonzero().flatten().tolist()
            if masks:
                return masks[0]
    return _length(cap) - 1


def row_at(cap: Capture, position: int | None) -> Tensor:
    """Logits (V,) of the first sample, in float32, at a position or of the whole input. Raises InputError where they
    are not finite, and where the model returns something else."""
    if position is None:
        logits = cap.logits
        if logits.ndim != 2:
            raise InputError(
                f"{cap.subject.name} returns {tuple(logits.shape)}, which are no scores of tokens or classes (B, V)."
            )
        row = logits[0].float()
    else:
        row = cap.logits_at(position)[0].float()
    if bool(row.isnan().any()):
        raise InputError("The model's logits are NaN on this input. Load it in float32, or check its weights.")
    return row


def tokens_of(cap: Capture, wanted: int | str, size: int, position: int | None) -> tuple[int, ...]:
    """Token ids that ``wanted`` stands for, as it would be read at this place; the number of a class for its name.
    Raises InputError where it stands for none."""
    subject = cap.subject
    if isinstance(wanted, int):
        if not 0 <= wanted < size:
            raise InputError(f"{subject.name} has answers 0 … {size - 1:,}; there is no {wanted}.")
        return (wanted,)
    if position is None and subject.labels:
        if wanted in subject.labels:
            return (subject.labels.index(wanted),)
        raise InputError(f"{subject.name} knows the classes {', '.join(subject.labels[:8])}; {wanted!r} is none.")
    word = wanted.replace(VISIBLE_SPACE, " ")
    if subject.decode is None or not word.strip():
        raise InputError(
            f"{wanted!r} is no token of {subject.name}. Give a word, or a token's number from 0 to {size - 1:,}."
        )
    for spelling in dict.fromkeys((word if word[0] == " " else f" {word}", word)):  # inside a text most words have one
        if (single := _vocabulary_of(subject, size).get(spelling)) is not None:
            return (single,)
    return _spelled(cap, word if word[0] == " " else f" {word}")


def name_of(subject: Subject, token: int, position: int | None) -> str:
    """What an answer reads."""
    if position is None and token < len(subject.labels):
        return subject.labels[token]
    return label(subject, token)


def _spelled(cap: Capture, word: str) -> tuple[int, ...]:
    """The tokens of a word after a text, as the subject's own reader cuts it."""
    subject = cap.subject
    try:
        ids, longer = (subject.encode(text).kwargs["input_ids"][0].tolist() for text in ("a", f"a{word}"))
    except (InputError, KeyError, TypeError):
        raise InputError(
            f"{word.strip()!r} is not one token of {subject.name}. Give one of its tokens, or a token's number."
        ) from None
    while ids and longer and ids[-1] == longer[-1]:  # what ends every input
        ids, longer = ids[:-1], longer[:-1]
    return tuple(longer[len(ids) :])


def _vocabulary_of(subject: Subject, size: int) -> dict[str, int]:
    """How each token reads → its number; of several the first."""
    if subject not in _vocabularies:
        found: dict[str, int] = {}
        for token in range(size):
            found.setdefault(label(subject, token), token)
        _vocabularies[subject] = found
    return _vocabularies[subject]


def _length(cap: Capture) -> int:
    """How many positions have logits."""
    return cap.result.length


def _checked(cap: Capture, position: int) -> int | None:
    if not cap.scores_positions:
        return None
    count = _length(cap)
    if not -count <= position < count:
        raise InputError(f"The input has positions 0 … {count - 1}; there is no {position}.")
    return position % count
