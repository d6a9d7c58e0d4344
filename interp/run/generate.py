"""Writing on, one token at a time: what comes next, how one token is chosen, and the input with it appended.

Every step is a full run, without a key/value cache, because the map of a head needs all of its rows. Choosing works
on logits alone, so that another temperature needs no new run.

    cap = capture(subject, inputs)
    step = next_token(cap, Sampling(temperature=0.7), number)
    inputs = extend(subject, inputs, [step.token])
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headwise.interp.attention.axes import Axis
from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture
from headwise.interp.run.parts import lacks_head
from headwise.interp.subject import Inputs, Subject

GREEDY = 1e-5  # temperatures below it leave the best token alone, and float32 no room
CONTEXT = 32  # tokens decoded before a new one, so that it comes out as it reads there
PARTS = 8  # tokens after which bytes that made no character are taken for broken
BROKEN = "\ufffd"  # what decoders write for bytes that are no character (yet)


@dataclass(frozen=True)
class Sampling:
    """How one token is drawn from a distribution. Raises ValueError for values outside their range.

    ``temperature`` divides the logits, 0 takes the best token · ``top_k`` keeps the k best (Fan et al. 2018, §5.3), 0
    is off · ``top_p`` keeps the smallest set of best tokens whose probability is at least p (Holtzman et al. 2020,
    §3.1), 1 is off · ``seed`` fixes every draw.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self):
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is 0 (the best token) or a positive number; got {self.temperature}.")
        if not isinstance(self.top_k, int) or self.top_k < 0:
            raise ValueError(f"top_k is a whole number of tokens, or 0 for all of them; got {self.top_k}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is a probability above 0 and at most 1; got {self.top_p}.")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed is a whole number, 0 or more; got {self.seed}.")


@dataclass(frozen=True)
class Step:
    """One chosen token: its id, how it reads, its probability under the sampling, and the best of that distribution
    as (id, label, probability)."""

    token: int
    label: str
    probability: float
    top: tuple[tuple[int, str, float], ...]


def distribution(logits: Tensor, sampling: Sampling) -> Tensor:
    """Logits (V,) → the probabilities (V,) in float32 that a token is drawn from: temperature, then top-k, then top-p
    of what is left, as Hugging Face's ``generate`` does. At temperature 0 all of it is on the best token.

    A logit of −inf is a token that cannot come. Raises InputError when nothing else is left, or for NaN or +inf.
    """
    scores = logits.float()
    if bool(scores.isnan().any()) or bool((scores == float("inf")).any()):
        raise InputError(
            "The model's logits are NaN or infinite on this input. Load it in float32, or check its weights."
        )
    if not bool(scores.isfinite().any()):
        raise InputError("The model rules out every token: all of its logits are −inf.")
    if sampling.temperature < GREEDY:
        return torch.nn.functional.one_hot(scores.argmax(), len(scores)).float()
    scores = scores / sampling.temperature
    if sampling.top_k:
        least = scores.topk(min(sampling.top_k, len(scores))).values[-1]
        scores = scores.masked_fill(scores < least, float("-inf"))
    if sampling.top_p < 1:
        rising, order = scores.sort()
        beyond = rising.softmax(-1).cumsum(-1) <= 1 - sampling.top_p  # the mass from here down can be spared
        beyond[-1] = False
        scores = scores.masked_fill(beyond.scatter(0, order, beyond), float("-inf"))
    return scores.softmax(-1)


def choose(logits: Tensor, sampling: Sampling, step: int) -> int:
    """The token of generation step ``step`` from its logits (V,).

    Drawn by inverting the cumulative distribution at a number that depends on (seed, step) alone: step n is the same
    on any thread, and whether one steps there or runs on.
    """
    return _draw(distribution(logits, sampling), sampling, step)


def _draw(probabilities: Tensor, sampling: Sampling, step: int) -> int:
    exact = probabilities.double().cpu().numpy()
    return int(np.random.default_rng((sampling.seed, step)).choice(len(exact), p=exact / exact.sum()))


def next_position(subject: Subject, inputs: Inputs) -> int:
    """The last real position of the sequence that the subject writes on: there its logits are about the next token.
    Raises InputError as ``next_logits`` does."""
    ids, _ = _written(subject, inputs)
    if lacks_head(subject.module):
        raise InputError(
            f"{type(subject.module).__name__} has no output over a vocabulary. Load a checkpoint with its "
            "language-model head."
        )
    real = inputs.real if subject.family == "decoder" else inputs.real_target
    if real is not None and real.shape == ids.shape and bool(real.any()):
        return int(real[0].nonzero()[-1])
    return ids.shape[1] - 1


def next_logits(cap: Capture) -> Tensor:
    """(V,) float32: a score for each token that may come next. Computes the output embedding at one position only.

    Raises InputError for what writes nothing: encoders, vision, audio without a decoder, models without a
    language-model head, and for batches.
    """
    return cap.logits_at(next_position(cap.subject, cap.inputs))[0].float()


def next_token(cap: Capture, sampling: Sampling, step: int, count: int = 10) -> Step:
    """The token that comes next, chosen as ``choose`` does, with the ``count`` best beside it."""
    probabilities = distribution(next_logits(cap), sampling)
    token = _draw(probabilities, sampling, step)
    best = tuple(top(probabilities, cap.subject, count))
    return Step(token, label(cap.subject, token), float(probabilities[token]), best)


def top(probabilities: Tensor, subject: Subject, n: int = 10) -> list[tuple[int, str, float]]:
    """The n most probable tokens of (V,) as (id, label, probability), best first, without those that cannot come."""
    best = probabilities.topk(min(n, len(probabilities)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [(token, label(subject, token), value) for token, value in pairs if value > 0]


def label(subject: Subject, token: int) -> str:
    """A token as it reads inside a text. Said twice, because decoders drop the space before a text's first word, and
    with it the difference between " the" and "the"."""
    alone = _decoded(subject, [token])
    twice = _decoded(subject, [token, token])
    inside = twice[len(alone) :] if twice.startswith(alone) and not alone.startswith("##") else alone
    return inside or alone or _unnamed(subject, token)


def ended(subject: Subject, tokens: Sequence[int]) -> bool:
    """Whether the tokens generated so far, without those of the prompt, reached the subject's end of sequence."""
    return subject.eos is not None and subject.eos in tokens


def extend(subject: Subject, inputs: Inputs, tokens: Sequence[int]) -> Inputs:
    """The same inputs with ``tokens`` written after them: to the input of a decoder, else to the target.

    Masks and positions of the sequence grow along, and so does its axis: labels, special, and the text with its
    offsets where it has one, so that words can still be merged. A character whose bytes are spread over tokens reads
    "🙂 1/3" in each of them; until it is complete, they read "� 1/…". Appending one by one or all at once gives the
    same.

    Raises InputError beyond ``subject.max_tokens``, for tokens outside the vocabulary, for a batch, for padding on
    the right, and where the subject writes nothing.
    """
    ids, name = _written(subject, inputs)
    tokens = [int(token) for token in tokens]
    length, limit = ids.shape[1] + len(tokens), subject.max_tokens
    if limit is not None and length > limit:
        raise InputError(f"{subject.name} takes at most {limit:,} tokens; start again with a shorter text.")
    known = subject.vocab_size if subject.family == "decoder" else None  # a target may have a vocabulary of its own
    for token in tokens:
        if token < 0 or (known is not None and token >= known):
            until = f" to {known - 1:,}" if known else ""
            raise InputError(f"Token {token} is not in the vocabulary of {subject.name}, which counts from 0{until}.")
    own = _target_only if subject.family != "decoder" else lambda argument: True
    kwargs = {
        argument: _grown(argument, value, ids.shape[1], len(tokens)) if own(argument) else value
        for argument, value in inputs.kwargs.items()
        if argument != name
    }
    kwargs[name] = torch.cat([ids, ids.new_tensor([tokens])], dim=1)  # (1, T + len(tokens))
    axes = dict(inputs.axes)
    which = "input" if subject.family == "decoder" else "target"
    if which in axes and len(axes[which]) == ids.shape[1]:
        grown = getattr(subject.encode, "grown", None)  # a reader whose tokens are no text knows how its axis goes on
        axes[which] = (
            grown(axes[which], tokens) if grown else _grown_axis(subject, axes[which], kwargs[name][0].tolist())
        )
    return dataclasses.replace(inputs, kwargs={argument: kwargs[argument] for argument in inputs.kwargs}, axes=axes)


def restart(inputs: Inputs) -> Inputs:
    """The same inputs with the target cut back to the special tokens it starts with, from where it can be written step
    by step. Raises InputError without a target axis that tells them."""
    axis = inputs.axes.get("target")
    ids = inputs.kwargs.get("decoder_input_ids")
    if axis is None or axis.special is None or not isinstance(ids, Tensor):
        raise InputError("This input has no target whose start is known, so it cannot be written from there.")
    start = max(1, next((place for place, special in enumerate(axis.special) if not special), len(axis)))
    if start == len(axis) > 1:  # nothing but special tokens: the last one ends it
        start -= 1
    kwargs = {
        argument: value[:, :start]
        if _target_only(argument) and isinstance(value, Tensor) and value.shape[1:2] == ids.shape[1:]
        else value
        for argument, value in inputs.kwargs.items()
    }
    first = dataclasses.replace(
        axis,
        labels=axis.labels[:start],
        offsets=None if axis.offsets is None else ((0, 0),) * start,
        special=axis.special[:start],
        text=None if axis.text is None else "",
    )
    notes = tuple(note for note in inputs.notes if "wrote the target" not in note)
    return dataclasses.replace(inputs, kwargs=kwargs, axes={**inputs.axes, "target": first}, notes=notes)


def finished(subject: Subject, inputs: Inputs) -> bool:
    """Whether the sequence that the subject writes ends with its end of sequence already."""
    ids, _ = _written(subject, inputs)
    return ids.shape[1] > 1 and ended(subject, [int(ids[0, -1])])


def _written(subject: Subject, inputs: Inputs) -> tuple[Tensor, str]:
    """The tokens (1, T) that the subject writes after, and the argument that holds them."""
    if subject.family not in ("decoder", "encoder-decoder", "audio"):
        raise InputError(
            f"{subject.name} ({subject.family}) writes no text. Choose a decoder, an encoder-decoder, or a speech "
            "model with a decoder."
        )
    name = "input_ids" if subject.family == "decoder" else "decoder_input_ids"
    if subject.family == "decoder" and name not in inputs.kwargs:  # somebody's module may call its argument otherwise
        whole = [k for k, v in inputs.kwargs.items() if isinstance(v, Tensor) and v.dtype in (torch.int64, torch.int32)]
        name = whole[0] if len(whole) == 1 else name
    ids = inputs.kwargs.get(name)
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.shape[1] == 0:
        raise InputError(f"{subject.name} writes on from {name} (1, tokens), which this input does not have.")
    if ids.shape[0] != 1:
        raise InputError(f"Writing goes on from one text; this input is a batch of {ids.shape[0]}.")
    return ids, name


def _target_only(argument: str) -> bool:
    return argument.startswith(("decoder_", "tgt_"))


def _grown(argument: str, value: object, length: int, count: int) -> object:
    """An argument that goes with the tokens, grown with them from ``length`` by ``count``."""
    if not isinstance(value, Tensor) or value.ndim < 2 or value.shape[-1] != length:
        return value
    if value.ndim == 2 and value.shape[0] == 1:
        last = value[:, -1:]
        if argument.endswith(("attention_mask", "key_padding_mask")):
            if bool(last.bool()) == argument.endswith("key_padding_mask"):
                raise InputError("This input is padded on the right, where writing would go on. Pad it on the left.")
            return torch.cat([value, last.expand(-1, count)], dim=1)
        if argument.endswith("token_type_ids"):
            return torch.cat([value, last.expand(-1, count)], dim=1)
        if argument.endswith("position_ids"):
            return torch.cat([value, last + torch.arange(1, count + 1, device=value.device)], dim=1)
    if value.ndim == 2 or "mask" in argument:
        raise InputError(
            f"The input has {argument} of shape {tuple(value.shape)}, which cannot grow with the text. Leave it out."
        )
    return value


def _grown_axis(subject: Subject, axis: Axis, ids: list[int]) -> Axis:
    """The axis of all ``ids``, of which it names the first."""
    labels, text = list(axis.labels), axis.text
    offsets = list(axis.offsets) if axis.offsets is not None and text is not None else None
    special = None
    if axis.special is not None:
        special = (*axis.special, *(_is_special(subject, token) for token in ids[len(axis) :]))
    for index in range(len(axis), len(ids)):
        runs = _runs(subject, ids, index, _waiting(labels))
        first = index + 1 - sum(len(names) for _, names in runs)  # a character that was not complete is read anew
        if offsets is not None and first < index:
            text = text[: offsets[first][0]]
        del labels[first:]
        for piece, names in runs:
            if offsets is not None:
                offsets[len(labels) :] = [(len(text), len(text) + len(piece))] * len(names)
                text += piece
            labels += names
    return dataclasses.replace(
        axis, labels=tuple(labels), offsets=None if offsets is None else tuple(offsets), special=special, text=text
    )


def _runs(subject: Subject, ids: list[int], index: int, waiting: int) -> list[tuple[str, list[str]]]:
    """The text that token ``index`` and the ``waiting`` ones before it stand for, and their labels: mostly one run.
    Two when the waiting ones turn out to be broken bytes."""
    first = index - waiting
    start = max(0, first - CONTEXT)
    before, held, after = (_decoded(subject, ids[start:stop]) for stop in (first, index, index + 1))
    special = _is_special(subject, ids[index])
    piece = after[len(before) :] if after.startswith(before) else _decoded(subject, ids[first : index + 1])
    open_still = piece.endswith(BROKEN) and not special and waiting < PARTS
    if waiting and not open_still and (special or after.startswith(held)):
        return [(held[len(before) :], [BROKEN] * waiting), *_runs(subject, ids, index, 0)]
    if open_still:
        return [(piece, [f"{BROKEN} {part}/…" for part in range(1, waiting + 2)])]
    if waiting:
        return [(piece, [f"{piece.strip() or piece} {part}/{waiting + 1}" for part in range(1, waiting + 2)])]
    alone = _decoded(subject, ids[index : index + 1])
    if special:
        return [("", [alone or _unnamed(subject, ids[index])])]
    return [(piece, [alone if alone.startswith("##") else piece or alone or _unnamed(subject, ids[index])])]


def _waiting(labels: list[str]) -> int:
    """How many labels at the end belong to a character that is not complete."""
    count = 0
    while count < len(labels) and re.fullmatch(rf"{BROKEN} \d+/…", labels[-1 - count]):
        count += 1
    return count


def _is_special(subject: Subject, token: int) -> bool:
    return token in (subject.bos, subject.eos)


def _decoded(subject: Subject, ids: list[int]) -> str:
    return subject.decode(ids) if subject.decode is not None and ids else ""


def _unnamed(subject: Subject, token: int) -> str:
    """What a token that decodes to nothing is called."""
    return "<eos>" if token == subject.eos else str(token)
