"""Attention in other people's modules that cuts its matrix up, told by what goes into the module and comes out of it.

A watcher knows one class of modules. Beside the module's arguments and its output it is given what some operations in
it made, such as a sort or a draw of random numbers. Nothing of the module is rewritten or run again: that the weights
it tells are the module's own is proven on every run (``report.gap``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from headwise.interp.attention.report import Mechanism


class Kept(NamedTuple):
    """One operation that ran inside a watched module."""

    args: tuple
    kwargs: Mapping[str, Any]
    out: Any


@dataclass(frozen=True, eq=False)
class Given:
    """One run of a watched module: its arguments by name, what it returned, and the operations its watcher asked for,
    by name, in the order in which they ran."""

    arguments: Mapping[str, Any]
    output: Any
    kept: Mapping[str, list[Kept]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Watched:
    """The attention of that run: what ``report.attend`` takes, and the output it had.

    ``output`` (B, H, Q, Dv) is the module's own, before its output projection. ``back`` makes of another such tensor
    what the module returns then. ``at`` is the tensor of the run in which ``output`` stands, gated or not, heads side
    by side, where the module goes on from it: by default what it returns. Letters as in ``scores``.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    by: Mechanism
    output: Tensor
    back: Callable[[Tensor], Any]
    at: Tensor | None = None
    kind: str | None = None  # "self" | "cross" where the watcher knows better than the module's name


class Watcher(Protocol):
    """Knows the attention of one class of modules."""

    keeps: tuple[str, ...]  # names of torch's operations whose arguments and results it needs

    def applies(self, module: nn.Module) -> bool:
        """Whether this module, as it is configured, needs watching: else its operations are seen as any others'."""

    def __call__(self, module: nn.Module, given: Given) -> Watched | str:
        """What attention was, or a sentence why its weights cannot be told."""
