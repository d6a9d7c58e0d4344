"""Sites: where in a run something can be read or changed, in the field's words.

At an attention: its query, key, value, scores, pattern, and what a head says before the output projection. Beside the
attention: the residual stream between its writes, and each write, where the anatomy of the model is proven.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import Tensor

from headwise.interp.errors import InputError

WHENS = ("before", "middle", "after")


@dataclass(frozen=True, repr=False)
class Site:
    """Base of all sites. ``of`` is the part of a tensor at its place that the site means, a view into it; its last two
    axes are positions and width."""

    def of(self, t: Tensor) -> Tensor:
        return t

    def __repr__(self) -> str:
        return brief(self)


@dataclass(frozen=True, repr=False)
class AttentionSite(Site):
    """Something of one head, or of all of them (None), of the attention of a layer. ``stack`` is "encoder", "decoder",
    "cross" …, the model's first when None."""

    layer: int
    head: int | None
    stack: str | None = None

    part: ClassVar[str] = ""  # what the tap calls it
    rows: ClassVar[str] = "query"  # whose positions its rows are
    shared: ClassVar[bool] = False  # one for several query heads in grouped-query attention

    def of(self, t: Tensor) -> Tensor:
        """Of (B, heads, rows, columns) → (B, rows, columns)."""
        return t if self.head is None else t[:, self.head]


@dataclass(frozen=True, repr=False)
class HeadOutput(AttentionSite):
    """What the head says at each position, z (B, Q, Dv), before the output projection mixes the heads."""

    part = "output"


@dataclass(frozen=True, repr=False)
class Pattern(AttentionSite):
    """The weights of the head (B, Q, K), which are multiplied onto the values. A row that is changed is not made to sum
    to one again."""

    part = "pattern"


@dataclass(frozen=True, repr=False)
class Scores(AttentionSite):
    """Its scores before the softmax (B, Q, K), position biases included. A key that the mask hides stays hidden."""

    part = "scores"


@dataclass(frozen=True, repr=False)
class Query(AttentionSite):
    """Its queries (B, Q, D), positions already in them where they are rotated."""

    part = "query"


@dataclass(frozen=True, repr=False)
class Key(AttentionSite):
    """Keys (B, K, D); ``head`` counts key/value heads, which in grouped-query attention several queries share."""

    part, rows, shared = "key", "key", True


@dataclass(frozen=True, repr=False)
class Value(AttentionSite):
    """Values (B, K, Dv); ``head`` counts key/value heads."""

    part, rows, shared = "value", "key", True


@dataclass(frozen=True, repr=False)
class Residual(Site):
    """The residual stream (B, T, C) at a block: before its first write, in the middle, between attention and MLP, or
    after its last. ``stream`` is "encoder" or "decoder", the one the answer is read from when None."""

    block: int
    when: str = "before"
    stream: str | None = None

    def __post_init__(self):
        if self.when not in WHENS:
            raise InputError(f"Residual expects when to be {', '.join(WHENS[:-1])} or {WHENS[-1]}; got {self.when!r}.")


@dataclass(frozen=True, repr=False)
class Write(Site):
    """What one part of a block adds to the stream (B, T, C): its "attention", "cross", "mlp", "mixer" or "mixed"."""

    block: int
    kind: str
    stream: str | None = None


def brief(thing: Any) -> str:
    """A dataclass as one would write it, without what is as it is by default; tensors by their shapes.

    >>> Write(3, "mlp")
    Write(3, 'mlp')
    >>> HeadOutput(3, 1, stack="cross")
    HeadOutput(3, 1, 'cross')
    """
    shown, plain = [], True
    for one in fields(thing):
        value = getattr(thing, one.name)
        if not isinstance(value, Tensor) and value == one.default:
            plain = False  # those after it are told by name
            continue
        said = f"<{'×'.join(map(str, value.shape)) or 'number'}>" if isinstance(value, Tensor) else repr(value)
        shown.append(said if plain else f"{one.name}={said}")
    return f"{type(thing).__name__}({', '.join(shown)})"
