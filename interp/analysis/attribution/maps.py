"""The attention of a run as a method of attribution needs it: weights of all heads, their gradients, and the rows from
which the answer is read.

Letters: H heads, Q queries, K keys, T positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from headwise.interp.analysis.attribution.features import Features
from headwise.interp.analysis.attribution.model import Job
from headwise.interp.analysis.attribution.sequences import Sequence
from headwise.interp.attention.call import AttentionCall
from headwise.interp.errors import InputError
from headwise.interp.run.acting import read_sites
from headwise.interp.run.capture import Capture
from headwise.interp.run.sites import HeadOutput, Pattern

SIDES = {"enc": ("source", "input"), "dec": ("target", "input")}  # how a stack's name begins → its sequence
FAINT = 1e-6  # a row whose gradient is smaller, beside the largest, is not read


@dataclass(frozen=True, eq=False)
class Map:
    """``weights`` (H, Q, K) of one attention, and the ``gradient`` of the answer by them."""

    call: AttentionCall
    weights: Tensor
    gradient: Tensor

    @property
    def positive(self) -> Tensor:
        """The mean over heads of what speaks for the answer, (∇A ⊙ A)⁺ → (Q, K) (Chefer et al. 2021, eq. 5)."""
        return (self.gradient * self.weights).clamp_min(0).mean(0)


def averaged(cap: Capture, stack: str) -> list[Tensor]:
    """The weights of each layer of a stack, the mean over its heads → (Q, K) each, in the order they ran."""
    return [call.band(0, call.queries)[0].mean(0) for call in cap.calls if call.stack == stack]


def maps(job: Job) -> list[Map]:
    """All attentions of the run in the order they ran, with gradients: one run."""
    sites = [Pattern(call.layer, None, call.stack) for call in job.cap.calls]
    values, gradients = read_sites(job.cap, sites, lambda logits: job.target.measured(logits.float())[0])
    job.check()
    return [
        Map(call, values[site][0].float(), gradients[site][0].float())
        for call, site in zip(job.cap.calls, sites, strict=True)
    ]


def read_rows(job: Job, stack: str) -> Tensor:
    """From which positions of a stack the answer is read, in equal shares → (T,), summing to 1: those where what its
    last attention says has a gradient. For a classifier that is [CLS], for a writer the last token."""
    last = [call for call in job.cap.calls if call.stack == stack][-1]
    site = HeadOutput(last.layer, None, stack)
    _, gradients = read_sites(job.cap, [site], lambda logits: job.target.measured(logits.float())[0])
    sizes = gradients[site][0].float().norm(dim=-1).sum(0)  # (H, Q, D) → (Q,)
    job.check()
    read = (sizes > FAINT * sizes.max()).float()
    if not bool(read.any()):
        raise InputError(f"The answer does not depend on what the last attention of the {stack} says.")
    return read / read.sum()


def sequence_of(features: Features, call: AttentionCall) -> Sequence | None:
    """The sequence whose positions are the keys of a call; None where none fits."""
    fitting = [one for one in features.sequences if len(one.places) == call.keys]
    start = "enc" if call.stack == "cross" else call.stack[:3]
    wanted = SIDES.get(start, ())
    return next((one for name in wanted for one in fitting if one.name == name), next(iter(fitting), None))


def scattered(features: Features, scores: dict[str, Tensor]) -> Tensor:
    """Scores (T,) of the positions of some sequences → (U,) of all units; the others have 0."""
    return torch.cat(
        [
            one.from_positions(scores[one.name]) if one.name in scores else torch.zeros(len(one))
            for one in features.sequences
        ]
    )
