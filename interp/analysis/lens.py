"""What a model would say if it stopped after each block: the residual stream, read early.

The logit lens (nostalgebraist 2020, "interpreting GPT: the logit lens") hands the stream after a block to the model's
own last norm and unembedding. The tuned lens (Belrose et al. 2023, "Eliciting Latent Predictions from Transformers with
the Tuned Lens", §3) first carries it into the basis of the last block, by an affine map trained for each block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch
from torch import Tensor

from headwise.interp.analysis.tuned import Translators, divergence, translators
from headwise.interp.attention.axes import Axis, numbered
from headwise.interp.errors import InputError
from headwise.interp.run.anatomy import Stream
from headwise.interp.run.capture import Capture
from headwise.interp.run.generate import label

KEPT_BYTES = 256 * 2**20  # of logits; more than that is computed again whenever somebody looks
TOP = 10


@dataclass(frozen=True, eq=False)
class Lens:
    """The first sample's stream read at R = L + 1 places: where it starts, and after each of L blocks. The last of them
    is the model's own answer.

    ``labels`` name the rows, ``axis`` the T positions that are read · ``note`` says what must be known of the reading ·
    ``translators`` are those of the tuned lens, None for the logit lens. Everything is in float32, probabilities are a
    softmax over the V answers, KL in nats.
    """

    cap: Capture
    labels: tuple[str, ...]
    axis: Axis
    states: tuple[Tensor, ...]  # R of (B, T, C)
    unembed: Callable[[Tensor], Tensor]
    note: str = ""
    translators: Translators | None = None

    @property
    def tuned(self) -> bool:
        return self.translators is not None

    def logits(self, row: int) -> Tensor:
        """(T, V) of one row."""
        return self._kept[row] if self._kept is not None else self._read(row)

    @cached_property
    def _kept(self) -> tuple[Tensor, ...] | None:
        last = self._read(-1)
        if last.nbytes * len(self.labels) > KEPT_BYTES:
            return None
        return (*(self._read(row) for row in range(len(self.labels) - 1)), last)

    def _read(self, row: int) -> Tensor:
        state = self.states[row]
        if self.translators is not None and state is not self.states[-1]:
            state = self.translators.carry(row, state)
        with torch.no_grad():
            logits = self.unembed(state)[0].float()
        return logits if logits.ndim == 2 else logits[None]

    # -- what a page asks -----------------------------------------------------------------------------------------
    @cached_property
    def _summary(self) -> tuple[Tensor, Tensor, Tensor]:
        """(best ids (R, T), their probability, KL of the model's own answer to the row's), in one pass."""
        end = self.logits(len(self.labels) - 1)  # (T, V)
        found = []
        for row in range(len(self.labels)):
            here = self.logits(row)
            confidence, best = here.softmax(-1).max(-1)
            found.append((best, confidence, divergence(end, here).clamp_min(0)))
        best, confidence, kl = (torch.stack(part) for part in zip(*found, strict=True))
        return best, confidence, kl

    @property
    def best(self) -> Tensor:
        """Ids of the most probable answers → (R, T)."""
        return self._summary[0]

    @property
    def confidence(self) -> Tensor:
        """Their probability → (R, T)."""
        return self._summary[1]

    @property
    def kl(self) -> Tensor:
        """KL(model's answer ‖ answer read here) → (R, T) nats; 0 in the last row."""
        return self._summary[2]

    @cached_property
    def best_labels(self) -> list[list[str]]:
        """The most probable answers as they read, R lists of T."""
        names = {int(token): self.name(int(token)) for token in self.best.unique()}
        return [[names[token] for token in row] for row in self.best.tolist()]

    def probability(self, token: int) -> Tensor:
        """Of one answer → (R, T)."""
        return self._answer(token)[0]

    def rank(self, token: int) -> Tensor:
        """Place of one answer among all, 1 is the most probable → (R, T)."""
        return self._answer(token)[1]

    def _answer(self, token: int) -> tuple[Tensor, Tensor]:
        """(probability, rank) of one answer, in one pass that is remembered."""
        if token not in self._answers:
            found = []
            for row in range(len(self.labels)):
                logits = self.logits(row)
                wanted = logits[:, token]
                found.append(((wanted - logits.logsumexp(-1)).exp(), (logits > wanted[:, None]).sum(-1) + 1))
            probability, rank = (torch.stack(part) for part in zip(*found, strict=True))
            self._answers[token] = probability, rank
        return self._answers[token]

    @cached_property
    def _answers(self) -> dict[int, tuple[Tensor, Tensor]]:
        return {}

    def top(self, row: int, position: int, count: int = TOP) -> list[tuple[int, str, float]]:
        """(id, how it reads, probability) of the most probable answers at one place, the best first."""
        probabilities = self.logits(row)[position].softmax(-1)
        best = probabilities.topk(min(count, len(probabilities)))
        return [(t, self.name(t), p) for t, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]

    def name(self, token: int) -> str:
        """How an answer reads."""
        labels = self.cap.subject.labels
        return (
            labels[token] if not self.cap.scores_positions and token < len(labels) else label(self.cap.subject, token)
        )

    def table(self, token: int) -> pd.DataFrame:
        """Everything about one answer: layer, position, token read there, best, its probability, and the chosen
        answer's probability and rank, KL to the end."""
        probability, rank = self.probability(token), self.rank(token)
        return pd.DataFrame(
            {
                "after": name,
                "position": position,
                "token": self.axis.labels[position],
                "best": self.best_labels[row][position],
                "best probability": float(self.confidence[row, position]),
                "probability": float(probability[row, position]),
                "rank": int(rank[row, position]),
                "kl": float(self.kl[row, position]),
            }
            for row, name in enumerate(self.labels)
            for position in range(len(self.axis))
        )


def lens(cap: Capture, *, tuned: bool = False, stream: str | None = None) -> Lens:
    """Read the stream of a run after each block. ``tuned`` uses the trained translators of the bundled models.

    Raises InputError where the stream has not been proven, where nothing is read off it (no unembedding), where the
    result is read off another stream, and where a tuned lens was not trained.
    """
    anatomy = cap.anatomy
    chosen = proven_stream(cap, stream)
    if chosen is not anatomy.streams[0]:
        raise InputError(
            f"{cap.subject.name} gives its answer from its {anatomy.streams[0].name}; the {chosen.name} is read by no "
            "unembedding, so no lens can read it."
        )
    if anatomy.readout is None or anatomy.readout.kind == "none":
        why = anatomy.readout.why_not if anatomy.readout is not None else "; ".join(anatomy.refused)
        raise InputError(f"{cap.subject.name} has no unembedding to read its stream early with: {why or 'none'}.")
    reading = cap.stream
    states = reading.blocks(chosen.name)
    carried = translators(cap.subject, len(states)) if tuned else None
    last = reading.unembed(states[-1])
    axis = _axis(cap, last.shape[1] if last.ndim == 3 else 1)
    return Lens(cap, row_labels(chosen), axis, states, reading.unembed, _note(anatomy.readout.kind), carried)


def norms(cap: Capture, stream: str | None = None) -> pd.DataFrame:
    """How long the stream is and where it turns, for the first sample: one line for each place and position.

    Columns: after ("start", "0", …), position, token, norm ‖x‖, change ‖x − x before‖, cosine to the state before
    (NaN at the start). Raises InputError where no stream has been proven.
    """
    chosen = proven_stream(cap, stream)
    states = [state[0].float() for state in cap.stream.blocks(chosen.name)]
    axis = _axis(cap, states[0].shape[0], chosen.name)
    lines = []
    for row, (name, state) in enumerate(zip(row_labels(chosen), states, strict=True)):
        before = states[row - 1] if row else state
        change = (state - before).norm(dim=-1)
        cosine = torch.cosine_similarity(state, before, -1) if row else torch.full_like(change, float("nan"))
        figures = zip(axis.labels, state.norm(dim=-1).tolist(), change.tolist(), cosine.tolist(), strict=True)
        lines += [(name, position, *each) for position, each in enumerate(figures)]
    return pd.DataFrame(lines, columns=["after", "position", "token", "norm", "change", "cosine"])


def proven_stream(cap: Capture, name: str | None = None) -> Stream:
    """The stream of that name, or the one the answer is read from. Raises InputError where none has been proven."""
    if not cap.anatomy.streams:
        raise InputError(
            f"The residual stream of {cap.subject.name} could not be proven: {'; '.join(cap.anatomy.refused[:2])}."
        )
    return cap.anatomy.stream(name)


def row_labels(stream: Stream) -> tuple[str, ...]:
    """ "start", then the number of the block after which it stands."""
    return ("start", *map(str, range(len(stream.blocks))))


def _axis(cap: Capture, length: int, stream: str = "") -> Axis:
    """What the positions of a stream are called: as those of its attention's queries, if they are as many."""
    names = [call.query_axis for call in cap.calls if call.kind == "self" and stream in ("", call.stack)]
    fits = [axis for axis in names if len(axis) == length]
    return fits[-1] if fits else Axis(("whole input",)) if length == 1 else numbered(length)


def _note(kind: str) -> str:
    return "" if kind == "direct" else "the model's head bends what it reads, so directions are not simply added up"
