"""What follows from gradients by the input: saliency, input × gradient, integrated gradients, GradientSHAP, DeepLIFT.

All of them are Captum's own, on the answer as a function of the input's tensors. Its DeepLIFT hooks the modules of a
model, so it is given modules of its own, which share only the numbers with the subject's.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from headwise.interp.analysis.attribution.copies import own_modules
from headwise.interp.analysis.attribution.features import Forward
from headwise.interp.analysis.attribution.model import Found, Job, shortfall
from headwise.interp.errors import InputError

NOISE = 0.1  # of GradientSHAP, in standard deviations of the input's own numbers
SEED = 0
PIECES, POINTS = 16, 4  # that the way of integrated gradients is cut into first, and in each of them
RUN = 16  # points in one run at most: more are no faster, and who waits can stop between runs
LONGEST = 32  # times the steps asked for are taken at most
COMPLETE = 0.05  # a gap above it is said

_numpy = threading.Lock()  # Captum draws from numpy's one generator


def saliency(job: Job) -> Found:
    """Σ |∂ value / ∂ x| over a unit's numbers (Simonyan et al. 2014, §3)."""
    from captum.attr import Saliency

    found = Saliency(job.counted(1)).attribute(job.leaves(), abs=True)
    return Found(job.features.gathered(*found).detach())


def input_x_gradient(job: Job) -> Found:
    """Σ x · ∂ value / ∂ x over a unit's numbers (Shrikumar et al. 2016)."""
    from captum.attr import InputXGradient

    found = InputXGradient(job.counted(1)).attribute(job.leaves())
    return Found(job.features.gathered(*found).detach())


def integrated_gradients(job: Job) -> Found:
    """(x − x′) · the mean of the gradient on the way from the baseline x′ to x (Sundararajan et al. 2017, §3).

    Where ``steps`` points are too few for the scores to add up, the way is cut into pieces, and those that miss their
    own change are cut again: the integral is the sum of theirs.
    """
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(job.counted(2 * job.steps))
    found = method.attribute(
        job.leaves(),
        baselines=job.background,
        n_steps=job.steps,
        internal_batch_size=_at_once(job),
    )
    scores, note = job.features.gathered(*found), ""
    if shortfall(job, scores) > COMPLETE:
        scores, points = _in_pieces(job, abs(job.change) * COMPLETE)
        note = CUT.format(job.steps, points)
    gap = shortfall(job, scores)
    return Found(scores, gap, note if gap <= COMPLETE else NOT_YET.format(gap, points))


def _in_pieces(job: Job, tolerance: float) -> tuple[Tensor, int]:
    """The integral in pieces, cut until what they miss is within a ``tolerance`` → scores (U,), points taken."""
    from captum.attr import IntegratedGradients

    features, budget, points = job.features, LONGEST * job.steps, 0
    method = IntegratedGradients(job.counted(budget))
    way = tuple(one - other for one, other in zip(features.embedded, job.background, strict=True))
    pieces: dict[tuple[float, float], tuple[Tensor, float]] = {}  # from, to → its scores, by how much they miss
    wanted = [(piece / PIECES, (piece + 1) / PIECES) for piece in range(PIECES)]
    while wanted:
        rows = max(1, _at_once(job) // POINTS)
        for some in (wanted[start : start + rows] for start in range(0, len(wanted), rows)):
            begin, end = (
                tuple(other + _column(edge, one) * one for one, other in zip(way, job.background, strict=True))
                for edge in zip(*some, strict=True)
            )
            size = None if len(some) * POINTS <= _at_once(job) else _at_once(job)
            found, missed = method.attribute(
                end, begin, n_steps=POINTS, internal_batch_size=size, return_convergence_delta=True
            )
            for row, piece in enumerate(some):
                pieces[piece] = features.gathered(*(one[row : row + 1] for one in found)), float(missed[row])
            points += len(some) * POINTS
        if sum(abs(miss) for _, miss in pieces.values()) <= tolerance:
            break
        coarse = [piece for piece, (_, miss) in pieces.items() if abs(miss) > tolerance / len(pieces)]
        coarse.sort(key=lambda piece: -abs(pieces[piece][1]))
        coarse = coarse[: max(0, budget - points) // (2 * POINTS)]
        wanted = [half for low, high in coarse for half in ((low, (low + high) / 2), ((low + high) / 2, high))]
        for piece in coarse:
            del pieces[piece]
    return torch.stack([scores for scores, _ in pieces.values()]).sum(0), points


def _at_once(job: Job) -> int:
    return min(job.features.copies, RUN)


def _column(numbers: tuple[float, ...], like: Tensor) -> Tensor:
    """Numbers (N,) as (N, 1, …), to be multiplied onto copies of ``like``."""
    return torch.tensor(numbers, dtype=like.dtype, device=like.device).view(-1, *(1,) * (like.ndim - 1))


def gradient_shap(job: Job) -> Found:
    """(x − x′) · the mean of the gradient at random places between x′ and x, x with some noise (Lundberg & Lee
    2017)."""
    from captum.attr import GradientShap

    method, total, done = GradientShap(job.counted(job.steps)), None, 0
    spread = tuple(NOISE * float(one.std()) for one in job.features.embedded)
    with _seeded(SEED):
        while done < job.steps:
            count = min(job.steps - done, _at_once(job))
            found = method.attribute(job.leaves(), job.background, n_samples=count, stdevs=spread)
            scores = job.features.gathered(*found) * (count / job.steps)
            total, done = scores if total is None else total + scores, done + count
    gap = shortfall(job, total)
    return Found(total, gap, "" if gap <= COMPLETE else NOISY.format(gap))


def deeplift(job: Job) -> Found:
    """Differences from the baseline, carried through nonlinear modules by their own ratio (Shrikumar et al. 2017,
    §3.2, the rescale rule)."""
    from captum.attr import DeepLift

    subject = replace(job.cap.subject, module=own_modules(job.cap.subject))
    value = replace(job.features, cap=replace(job.cap, subject=subject)).forward(job.target)
    with torch.no_grad():  # so that no run of one, which checks them, comes between its hooks
        value(*(torch.cat(pair) for pair in zip(job.features.embedded, job.background, strict=True)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that hooks are set, which nobody else meets
        try:
            found = DeepLift(_Answer(subject.module, value)).attribute(job.leaves(), job.background)
        except InputError:
            raise
        except (RuntimeError, AssertionError, ValueError) as error:  # as Captum has it
            raise InputError(
                f"Captum's DeepLIFT cannot follow {job.cap.subject.name}: a module of it is used more than once, or "
                "inputs are not taken in a batch. Use integrated gradients."
            ) from error
    scores = job.features.gathered(*found).detach()
    gap = shortfall(job, scores)
    return Found(scores, gap, "" if gap <= COMPLETE else NOT_ALL_RULES.format(gap))


CUT = "With {} steps the scores did not add up, so the way was cut where the answer changes fast: {} steps in all."
NOT_YET = (
    "The scores miss the change that they explain by {:.0%} even with {:,} steps: the answer jumps on the way from the "
    "baseline. Take another baseline."
)
NOISY = "The scores miss the change that they explain by {:.0%}: they add up on average over many samples only."
NOT_ALL_RULES = (
    "The scores miss the change that they explain by {:.0%}: Captum has DeepLIFT's rule for some modules like ReLU, "
    "and takes the plain gradient of everything else, such as attention."
)


class _Answer(nn.Module):
    """A target's value as a module, as Captum wants it; ``model`` is where it finds what to hook."""

    def __init__(self, model: nn.Module, value: Forward):
        super().__init__()
        self.model, self.value = model, value

    def forward(self, *embedded: Tensor) -> Tensor:
        return self.value(*embedded)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Everything drawn inside is the same every time, and nobody outside notices."""
    with _numpy, torch.random.fork_rng(devices=[]):
        before = np.random.get_state()
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)
