"""Where in a model's anatomy a site of the residual stream is, and what is done there.

Nothing is known here of a model but its proven anatomy (``interp/run/anatomy``): places, layouts, and which attention
calls feed which write.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headwise.interp.errors import InputError
from headwise.interp.run.sites import AttentionSite, Residual, Site, Write
from headwise.interp.run.tap.changes import Act
from headwise.interp.run.tap.listening import recording
from headwise.interp.run.tap.places import Place, Seam, Side

if TYPE_CHECKING:
    from headwise.interp.attention.call import AttentionCall
    from headwise.interp.run.anatomy.model import Branch, Layout, Stream
    from headwise.interp.run.capture import Capture


@dataclass(frozen=True)
class Point:
    """One tensor of a run: an argument of the operation at a place, or what it made."""

    place: Place
    side: Side = None
    output: int = 0  # of an operation that makes several
    layout: Layout | None = None
    sign: float = 1.0  # of a write that is subtracted


@dataclass(eq=False)
class PointChange:
    """What is done to one tensor of a run, as (B, T, C). One that was only looked at passes as it is."""

    point: Point
    acts: list[Act] = field(default_factory=list)

    def __call__(self, met: Tensor | tuple) -> Tensor | tuple | None:
        if not isinstance(met, Tensor):
            new = self(met[self.point.output])
            return None if new is None else (*met[: self.point.output], new, *met[self.point.output + 1 :])
        wide = self.point.sign * self.point.layout.wide(met, recording().batch)
        new = wide.clone()
        for act in self.acts:
            act(new)
        if not new.requires_grad and torch.equal(new, wide):
            return None
        return self.point.layout.met(new / self.point.sign, met.shape)


@dataclass(frozen=True)
class Growth:
    """At one state of the stream, where its one copy of the input becomes several: so many more, and which state."""

    point: Point
    more: int

    def __call__(self, met: Tensor) -> Tensor:
        if not isinstance(met, Tensor) or met.ndim != 3 or met.shape[0] != recording().batch:
            raise InputError("The stream cannot grow here: its first axis is not the batch.")
        recording().batch += self.more
        return torch.cat([met, met[:1].expand(self.more, -1, -1)])


def point_of(cap: Capture, site: Residual | Write, edit: object) -> Point:
    """Where a site of the stream is. Raises InputError where the stream is not proven, or the site is not there."""
    stream = stream_of(cap, site.stream, edit)
    branches = _block(stream, site.block, edit)
    if isinstance(site, Residual):
        return state_point(stream, _state_number(stream, branches, site))
    found = [branch for branch in branches if branch.kind == site.kind]
    if len(found) != 1:
        kinds = ", ".join(branch.kind for branch in branches)
        what = "more than one write of that kind" if found else "no such write"
        raise InputError(f"{edit} names {what}: block {site.block} writes {kinds}.")
    (branch,) = found
    return Point(branch.place, branch.side, 0, branch.layout, branch.sign)


def stream_of(cap: Capture, name: str | None, edit: object) -> Stream:
    """One of the subject's residual streams. Raises InputError where it has none that is proven, or none of that
    name."""
    anatomy = cap.anatomy
    if not anatomy.streams:
        why = " ".join(anatomy.refused).rstrip(".")
        raise InputError(f"{edit} needs the residual stream of {cap.subject.name}, which could not be proven: {why}.")
    names = [stream.name for stream in anatomy.streams]
    if name is not None and name not in names:
        raise InputError(f"{edit} names a stream that is not there; {cap.subject.name} has {', '.join(names)}.")
    return anatomy.stream(name)


def real_positions(cap: Capture, name: str) -> Tensor | None:
    """Bool (B, T): the positions of a stream that are no padding, where the input says so."""
    target = "cross" in cap.stacks and name.startswith("dec")
    return cap.inputs.real_target if target else cap.inputs.real


def entry(cap: Capture, site: Site, call: AttentionCall | None) -> int | None:
    """The number of the stream's state at which the block of a site begins; None where that is not known. ``call`` is
    the one an attention site is at."""
    stream = cap.anatomy.stream()
    if isinstance(site, AttentionSite):
        own = [branch for branch in stream.writes if (call.name, call.occurrence) in branch.calls]
        block = own[0].block if own else None
    else:
        block = site.block
    states = [branch.state for branch in stream.writes if branch.block == block]
    return min(states) if states and block is not None else None


def growth(cap: Capture, seam: Seam, starts: list[int | None]) -> None:
    """Let the stream grow by a copy for each of ``starts``, numbers of states in rising order."""
    stream = cap.anatomy.stream()
    for number in dict.fromkeys(starts):
        point = state_point(stream, number)
        seam.change(point.place, None, Growth(point, starts.count(number)))


def state_point(stream: Stream, number: int) -> Point:
    """Where a state of a stream is, numbered as in ``Stream.states``."""
    place, output = stream.spots[number + 1]  # the first is the embedding's
    return Point(place, None, output, stream.layout)


def _block(stream: Stream, block: int, edit: object) -> list[Branch]:
    found = [branch for branch in stream.writes if branch.block == block]
    if not found:
        raise InputError(f"{edit} names a block that is not there: {stream.name} has 0 … {len(stream.blocks) - 1}.")
    return found


def _state_number(stream: Stream, branches: list[Branch], site: Residual) -> int:
    states = [branch.state for branch in branches]
    if site.when == "before":
        return min(states)
    if site.when == "after":
        return max(states) + 1
    mlps = [branch.state for branch in branches if branch.kind == "mlp"]
    middle = min(mlps, default=max(states))
    if middle == min(states) or "parallel" in stream.style:
        raise InputError(f"{site} is not there: the attention and the MLP of block {site.block} read the same stream.")
    return middle
