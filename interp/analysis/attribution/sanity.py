"""Does an attribution show what the model has learned? Its weights are randomised from the answer down to the input,
one depth after the other, and the map is made again: a map that stays was not about the weights (Adebayo et al. 2018,
"Sanity Checks for Saliency Maps", §3.1, "cascading randomization").

It is a check that a map can fail, not one that proves it: that a map changes does not say that it was right.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from headwise.interp.analysis.attribution import explain
from headwise.interp.analysis.attribution.faithfulness import agreement
from headwise.interp.analysis.targets import Target
from headwise.interp.errors import InputError
from headwise.interp.run import parts
from headwise.interp.run.capture import Capture, capture
from headwise.interp.run.sweeping import Cancelled

MOST = 8  # depths of a deep model, spread evenly
CLEAR, DOUBTFUL = 0.3, 0.6  # rank correlations that are left when all weights are random: below one, above the other
SAME = 0.99  # from here on a map has not changed
SENTENCES = {
    "clear": "{method} passes: with all weights random, little of its map is left (rank correlation {last}).",
    "doubtful": "{method} passes in part: with all weights random, some of its map is still there (rank correlation "
    "{last}).",
    "failed": "{method} fails: with all weights random, its map is still there (rank correlation {last}). It shows the "
    "input and the architecture more than what the model has learned.",
    "constant": "{method} passes: with all weights random, it gives every part the same score.",
}
BLIND = " It stays the same while only the weights behind the last block are random, so it does not know the answer."


@dataclass(frozen=True)
class Sanity:
    """``correlations`` of the map with itself after all weights of the depths up to this one are random; the first of
    ``depths`` is the model as it is. NaN where a map gives every unit the same score."""

    method: str
    depths: tuple[str, ...]
    correlations: tuple[float, ...]

    @property
    def last(self) -> float:
        return self.correlations[-1]

    @property
    def verdict(self) -> str:
        """ "clear", "doubtful", "failed", or "constant"."""
        left = abs(self.last)
        if math.isnan(left):
            return "constant"
        return "clear" if left < CLEAR else "failed" if left > DOUBTFUL else "doubtful"

    @property
    def blind(self) -> bool:
        """Whether the map is the same whatever the answer's own weights are."""
        return "output" in self.depths and self.correlations[self.depths.index("output")] >= SAME

    @property
    def sentence(self) -> str:
        name = f"{self.method[:1].upper()}{self.method[1:]}"
        told = SENTENCES[self.verdict].format(last=f"{self.last:.2f}".replace("-", "−"), method=name)
        return told + (BLIND if self.blind else "")


def sanity(
    cap: Capture,
    method: str,
    target: Target,
    *,
    baseline: str | None = None,
    seed: int = 0,
    progress: Callable[[float], None] = lambda fraction: None,
    cancel: Callable[[], bool] = lambda: False,
) -> Sanity:
    """Randomise a copy of the model from its answer to its input, and make the map of ``method`` at each depth.

    A weight becomes a draw from the normal distribution with the mean and the spread that its tensor had, so that
    activations stay about as large. The model itself, which others share, is never touched; the copy takes as much
    memory again. Of many blocks some are stopped at, spread evenly.

    Raises what ``explain`` raises, InputError for a model that cannot be copied or whose weights are packed, and
    Cancelled.
    """
    plain = explain(cap, method, target, baseline=baseline)
    module = _copied(cap)
    steps = _depths(cap, module)
    drawing = torch.Generator().manual_seed(seed)
    names, found = ["as it is"], [1.0]
    for number, (name, weights) in enumerate(steps, 1):
        if cancel():
            raise Cancelled("The check was cancelled.")
        for weight in weights:
            _randomise(weight, drawing)
        names.append(name)
        changed = capture(replace(cap.subject, module=module), cap.inputs)
        found.append(agreement(plain, explain(changed, method, target, baseline=baseline), 1).correlation)
        progress(number / len(steps))
    return Sanity(method, tuple(names), tuple(found))


def _copied(cap: Capture) -> nn.Module:
    try:
        return copy.deepcopy(cap.subject.module)
    except Exception as error:  # a stranger's module may hold anything
        raise InputError(
            f"{cap.subject.name} cannot be copied ({type(error).__name__}), and its own weights are not to be touched."
        ) from error


def _depths(cap: Capture, module: nn.Module) -> list[tuple[str, list[Tensor]]]:
    """What is randomised at each step, from the answer to the input: what stands behind the last block, the blocks of
    the last stack backwards, several at a time where there are many, those of the stack before, and the rest. A weight
    that is used twice, such as tied embeddings, belongs to the rest: it is where the input comes in."""
    weights = dict(module.named_parameters())
    if not weights or not all(weight.is_floating_point() for weight in weights.values()):
        raise InputError(f"{cap.subject.name} holds packed weights, or none, so they cannot be randomised.")
    stacks: dict[str, list[str]] = {}
    for call in cap.calls:
        if call.kind == "self":
            stacks.setdefault(call.stack, []).append(call.name)
    blocks = [
        (f"{f'{stack} ' if len(stacks) > 1 else ''}block {number}", path)
        for stack, names in stacks.items()
        for number, path in enumerate(parts.blocks(names))
    ]
    output = _behind(module, [path for _, path in blocks], weights)
    found = [("output", [weights.pop(name) for name in output])] if output else []
    for several in _spread(blocks[::-1]):
        inside = [name for name in weights if any(name.startswith(f"{path}.") for _, path in several)]
        found.append((several[-1][0], [weights.pop(name) for name in inside]))
    found.append(("embeddings" if blocks else "all weights", list(weights.values())))
    return [(name, given) for name, given in found if given]


def _behind(module: nn.Module, blocks: Sequence[str], weights: Iterable[str]) -> list[str]:
    """Weights that stand behind the last block in the order in which the model names its parts, and are not used
    twice."""
    names = list(weights)
    last = max((place for place, name in enumerate(names) if any(name.startswith(f"{b}.") for b in blocks)), default=-1)
    shared = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    tied = {name for name in names if sum(_same(module, name, other) for other in shared) > 1}
    return [name for name in names[last + 1 :] if name not in tied] if last >= 0 else []


def _same(module: nn.Module, one: str, other: str) -> bool:
    return module.get_parameter(one) is module.get_parameter(other)


def _spread(blocks: Sequence[tuple[str, str]]) -> list[Sequence[tuple[str, str]]]:
    """At most MOST groups, as even as can be, in their order."""
    groups = min(MOST, len(blocks))
    ends = [round(group * len(blocks) / groups) for group in range(groups + 1)] if groups else [0]
    return [blocks[start:end] for start, end in pairwise(ends)]


def _randomise(weight: Tensor, drawing: torch.Generator) -> None:
    """In place: the tensor's own mean and spread, and nothing else of it."""
    with torch.no_grad():
        plain = weight.float()
        drawn = torch.randn(weight.shape, generator=drawing) * plain.std(correction=0).cpu() + plain.mean().cpu()
        weight.copy_(drawn)
