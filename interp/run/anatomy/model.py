"""What an anatomy is: places of the residual stream, not values. It holds on any input of the same kind.

Axis letters: B batch, T positions, C width of the stream, H heads, D width of a head, V vocabulary. A tensor "as met"
is laid out as the model has it at that place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from headwise.interp.run.anatomy.graph import Spot
from headwise.interp.run.anatomy.norms import Norm
from headwise.interp.run.tap.places import Place, Side

CallKey = tuple[str, int]  # module path of an attention call, how often it had been called before


@dataclass(frozen=True)
class Layout:
    """How a place lays out (B, T, C): "btc", also with several axes of positions or with B and T in one, "tbc", or
    "bct", channels before positions."""

    order: str = "btc"

    def wide(self, met: Tensor, batch: int) -> Tensor:
        """A tensor as met → (B, T, C)."""
        if self.order == "tbc":
            return met.transpose(0, 1)
        if self.order == "bct":
            return met.flatten(2).transpose(1, 2)
        if met.ndim == 3 and met.shape[0] == batch:
            return met  # itself, so that gradients are taken at it
        return met.reshape(batch, -1, met.shape[-1])

    def met(self, wide: Tensor, shape: torch.Size) -> Tensor:
        """(B, T, C) → laid out as a tensor of this ``shape`` is at the place."""
        if self.order == "tbc":
            return wide.transpose(0, 1)
        return (wide.transpose(1, 2) if self.order == "bct" else wide).reshape(shape)


def layout_of(shape: torch.Size, batch: int, width: int) -> Layout:
    """Told by the sizes of a tensor of ``width`` channels, of ``batch`` samples that have more or fewer positions."""
    if len(shape) > 2 and shape[0] == batch and shape[-1] != width and shape[1] == width:
        return Layout("bct")
    if len(shape) == 3 and shape[0] != batch and shape[1] == batch:
        return Layout("tbc")
    return Layout("btc")


@dataclass(frozen=True, eq=False)
class Heads:
    """How the output z of one attention call comes into the stream, and whose z is whose.

    ``axis`` of z is that of the heads; None where batch and heads share the first one, the heads inside; −1 where heads
    and their features share the last one, the heads outside.
    """

    call: CallKey
    z: Spot
    axis: int | None
    count: int
    region: tuple[Spot, ...]  # from z, exclusive, to the write
    norms: Mapping[Spot, tuple[Spot, Norm]] = field(default_factory=dict)  # in the region: made → (source, norm)

    def labels(self, z: Tensor) -> Tensor:
        """The head of each element of z; broadcasts to it."""
        heads = torch.arange(self.count, device=z.device)
        if self.axis is None:
            return heads.repeat(z.shape[0] // self.count).view(-1, *(1,) * (z.ndim - 1))
        if self.axis == -1:
            return heads.repeat_interleave(z.shape[-1] // self.count)
        return heads.view([-1 if i == self.axis else 1 for i in range(z.ndim)])

    def four(self, z: Tensor, batch: int) -> Tensor:
        """z → (B, H, Q, D)."""
        if self.axis is None:
            return z.reshape(batch, self.count, *z.shape[1:])
        if self.axis == -1:
            return z.unflatten(-1, (self.count, -1)).transpose(1, 2)
        if self.axis == 0:
            return z.transpose(0, 1)
        return z.transpose(1, 2) if self.axis == 2 else z.reshape(batch, self.count, -1, z.shape[-1])


@dataclass(frozen=True, eq=False)
class Branch:
    """One write: what is added to the stream, sign included, is ``sign`` · the operand ``side`` at ``place``."""

    block: int | None  # None: outside all blocks
    kind: str  # "attention" | "cross" | "mlp" | "mixer" | "mixed" | "other"
    path: str  # of the module that made it
    place: Place
    side: Side
    after: Place  # the addition to the stream itself: the same place but for a sum of parallel writes
    state: int  # index into Stream.states of what it is added to
    sign: float = 1.0
    calls: tuple[CallKey, ...] = ()
    parts: tuple[Heads, ...] = ()  # one a call, where its heads are proven
    why_no_heads: str = ""
    layout: Layout = Layout()

    @property
    def heads(self) -> bool:
        """Whether the write is proven to be the sum of its heads and a constant."""
        return bool(self.parts)

    def __repr__(self) -> str:
        return f"Branch(block {self.block}, {self.kind}, {self.path!r})"


@dataclass(frozen=True, eq=False)
class Link:
    """One step of the stream, or on the way to the logits. All are linear once norms are held still, but "cap" and
    "other"."""

    kind: str  # "add" | "norm" | "view" | "select" | "scale" | "shift" | "linear" | "cap" | "other"
    made: Spot
    source: Spot
    norm: Norm | None = None
    region: tuple[Spot, ...] = ()  # where it is several operations
    writes: tuple[tuple[Place, Side, float], ...] = ()  # of an addition: where what was added stands, and its sign

    @property
    def steps(self) -> tuple[Spot, ...]:
        return self.region or (self.made,)


@dataclass(frozen=True, eq=False)
class Stream:
    """One residual stream. ``states``: where it stands before each addition, and at its end; of a post-LN model after
    the norm."""

    name: str
    embedding: Place
    writes: tuple[Branch, ...]
    blocks: tuple[str, ...]
    states: tuple[Place, ...]
    style: str  # "pre-LN" | "post-LN" | "pre+post-norm", then ", parallel" where writes of a block are
    width: int
    links: tuple[Link, ...] = ()  # from the embedding to the end
    origin: tuple[Link, ...] = ()  # from the first summand to the embedding
    summands: tuple[tuple[Place, Side], ...] = ()  # of the origin, where it is itself a sum
    layout: Layout = Layout()
    spots: tuple[Spot, ...] = ()  # of the embedding, then the states

    def __repr__(self) -> str:
        kinds = {}
        for write in self.writes:
            kinds[write.kind] = kinds.get(write.kind, 0) + 1
        counted = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
        return f"Stream({self.name!r}, {self.style}, {len(self.blocks)} blocks, {counted})"


@dataclass(frozen=True, eq=False)
class Readout:
    """How the result is read from the end of the first stream. "direct": one norm, selected positions, one linear map,
    a scale and a soft cap at most; "none": no linear map, the result is the stream itself or its norm."""

    kind: str  # "direct" | "nonlinear" | "none"
    why_not: str = ""  # it is not direct
    final_norm: Norm | None = None
    weight: Tensor | None = None  # (V, C)
    bias: Tensor | None = None  # (V,)
    scale: float | None = None  # the logits are multiplied by
    cap: float | None = None  # cap · tanh(logits / cap)
    links: tuple[Link, ...] = ()
    layout: Layout = Layout()  # of the result

    def __repr__(self) -> str:
        return f"Readout({self.kind!r}{': ' + self.why_not if self.why_not else ''})"


@dataclass(frozen=True)
class Rotary:
    """How queries and keys are turned by their position before they meet (Su et al. 2021, §3.2): which dimensions make
    a pair. "half": d and d + dims / 2; "adjacent": 2d and 2d + 1."""

    pairing: str
    dims: int  # how many are turned
    start: int = 0  # the first of them

    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Dimensions that turn together.

        >>> Rotary("half", 4).pairs(), Rotary("adjacent", 4).pairs()
        (((0, 2), (1, 3)), ((0, 1), (2, 3)))
        """
        if self.pairing == "half":
            return tuple((self.start + d, self.start + d + self.dims // 2) for d in range(self.dims // 2))
        return tuple((self.start + d, self.start + d + 1) for d in range(0, self.dims, 2))


@dataclass(frozen=True)
class Proof:
    """How far the parts are all the parts: errors relative to the largest value, None where there is nothing to say."""

    exact: bool  # each addition gives the stream bit for bit
    total: float  # embedding + Σ writes, through norms held still, against the stream at its end
    smallest: float  # smallest write against the stream: were one missing, it would show
    logits: float | None = None
    attribution: float | None = None  # Σ direct contributions against the logit
    heads: float | None = None  # Σ heads + constant against the write
    breaks: tuple[str, ...] = ()

    @property
    def worst(self) -> float:
        """One figure for all: the largest error."""
        return max(e for e in (self.total, self.logits, self.attribution, self.heads) if e is not None)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The residual streams of a module, the one the result is read from first. What could not be proven is missing
    here and stands in ``refused``, a sentence each."""

    streams: tuple[Stream, ...] = ()
    readout: Readout | None = None
    proof: Proof = Proof(False, 0.0, 0.0)
    refused: tuple[str, ...] = ()
    rotary: Mapping[CallKey, Rotary] = field(default_factory=dict)

    def stream(self, name: str | None = None) -> Stream:
        """By name; the first without one. Raises LookupError naming those there are."""
        for stream in self.streams:
            if name in (None, stream.name):
                return stream
        there = ", ".join(s.name for s in self.streams) or "none was proven"
        raise LookupError(f"There is no residual stream {name or ''!r}; {there}.")

    def __repr__(self) -> str:
        told = [*map(repr, self.streams), repr(self.readout), *self.refused]
        return "Anatomy(" + "; ".join(told) + ")"

    @cached_property
    def places(self) -> tuple[frozenset[Place], frozenset[Place]]:
        """What a run must show of itself: operations that may be run again, and those of which only the result is
        needed."""
        links = [link for s in self.streams for link in (*s.origin, *s.links)]
        links += self.readout.links if self.readout is not None else ()
        last = self.readout.links if self.readout is not None else ()
        again = {spot for link in links if link.kind != "norm" or link in last for spot in link.steps}
        sums = {place for link in links for place, _, _ in link.writes}
        sums |= {place for s in self.streams for place, _ in s.summands}
        parts = [heads for s in self.streams for write in s.writes for heads in write.parts]
        norms = {spot for heads in parts for made, (source, _) in heads.norms.items() for spot in (made, source)}
        again |= {spot for heads in parts for spot in heads.region if spot not in heads.norms}
        ends = {spot for link in links for spot in (link.made, link.source)} | norms | {heads.z for heads in parts}
        ends |= {spot for s in self.streams for spot in s.spots}
        full = frozenset({place for place, _ in again} | sums)
        return full, frozenset(place for place, _ in ends) - full
