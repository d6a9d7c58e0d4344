"""What a method of attribution is asked, what it answers, and what is known of the method itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from headwise.interp.analysis.attribution.features import Features, Forward
from headwise.interp.analysis.targets import Target
from headwise.interp.attention.axes import Axis
from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture
from headwise.interp.run.sweeping import Cancelled

STEPS = 64  # points on a path, samples, or nothing, as a method has it


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each unit of an input adds to an answer, as one method has it.

    ``scores`` (U,) of the units of ``features`` · ``method`` its name in METHODS · ``baseline`` what stood in for a
    unit, None where nothing did · ``gap``: how far the scores are from adding up to what they explain, relative to it,
    None where the method does not promise that they do · ``signed`` whether a score below 0 speaks against the answer ·
    ``note`` is a sentence where something must be said of this one.
    """

    scores: Tensor
    features: Features
    method: str
    target: Target
    baseline: str | None = None
    gap: float | None = None
    signed: bool = True
    seconds: float = 0.0
    note: str = ""

    def of(self, sequence: str) -> tuple[Axis, Tensor]:
        """The units of one sequence, such as "input" or "source", and their scores. Raises InputError for another
        name."""
        names = [name for name, _ in self.features.axes]
        if sequence not in names:
            raise InputError(f"This input has the sequences {', '.join(names)}; there is no {sequence!r}.")
        index = names.index(sequence)
        return self.features.axes[index][1], self.features.parted(self.scores)[index]


@dataclass(frozen=True, eq=False)
class Job:
    """What is to be explained, how carefully, and who is told. ``steps`` are points on a path or samples, for methods
    that have them."""

    features: Features
    target: Target
    baseline: str | None = None
    steps: int = STEPS
    progress: Callable[[float], None] = lambda fraction: None
    cancel: Callable[[], bool] = lambda: False

    @property
    def cap(self) -> Capture:
        return self.features.cap

    @cached_property
    def value(self) -> Forward:
        return self.features.forward(self.target)

    def leaves(self) -> tuple[Tensor, ...]:
        """The input's tensors once more, to take gradients by: the run's own are shared by others."""
        return tuple(one.detach().clone().requires_grad_() for one in self.features.embedded)

    @cached_property
    def background(self) -> tuple[Tensor, ...]:
        """The input with nothing to tell, (1, …) each."""
        return self.features.baseline(self.baseline)

    @cached_property
    def change(self) -> float:
        """value(input) − value(baseline)."""
        with torch.no_grad():
            return self.value.plain - float(self.value(*self.background))

    def counted(self, expected: int, value: Callable[..., Tensor] | None = None) -> Callable[..., Tensor]:
        """The value as a function that tells how much of ``expected`` rows is done, and stops when it is told to."""
        value, done = value or self.value, 0

        def asked(*embedded: Tensor) -> Tensor:
            nonlocal done
            self.check()
            found = value(*embedded)
            done += len(found)
            self.progress(min(1.0, done / max(expected, 1)))
            return found

        return asked

    def check(self) -> None:
        """Raises Cancelled where somebody no longer waits."""
        if self.cancel():
            raise Cancelled("The attribution was cancelled.")


@dataclass(frozen=True, eq=False)
class Found:
    """What a method says: scores (U,), and how far they are from adding up, where it promises that they do."""

    scores: Tensor
    gap: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Method:
    """A method of attribution.

    ``family`` "gradients", "removal", "attention" or "relevance" · ``sentence`` what its scores are · ``limits`` what
    they are not · ``paper`` (authors and title, address) · ``needs`` of a model (see ``NEEDS``) · ``signed`` whether
    scores may speak against the answer · ``baseline`` whether something stands in for what is removed.
    """

    name: str
    family: str
    sentence: str
    limits: str
    paper: tuple[str, str]
    apply: Callable[[Job], Found]
    needs: tuple[str, ...] = ()
    signed: bool = True
    baseline: bool = False


def shortfall(job: Job, scores: Tensor) -> float:
    """How far scores (U,) are from adding up to value(input) − value(baseline), relative to that."""
    return abs(float(scores.detach().sum()) - job.change) / max(abs(job.change), 1e-12)
