"""One run of a subject, read at the places of its anatomy: what stood in the stream, and what was added to it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from headwise.interp.attention.call import AttentionCall
from headwise.interp.errors import InputError
from headwise.interp.run.anatomy import still
from headwise.interp.run.anatomy.graph import Tape
from headwise.interp.run.anatomy.model import Anatomy, Branch, Heads, Link, Proof, Stream
from headwise.interp.run.anatomy.parts import Parts, direct
from headwise.interp.run.anatomy.proof import prove
from headwise.interp.run.running import default_stack, run
from headwise.interp.run.tap.places import Seam
from headwise.interp.run.tap.recorder import Changes
from headwise.interp.subject import Inputs, Subject

NOT_PROVEN = "{} has no residual stream that could be proven: {}"
OTHER_WAY = "This input takes another way through {} than the one its residual stream was found on ({} did not run)."
NO_READOUT = "No logits can be read from the residual stream of {}: {}."
NOT_DIRECT = "The answer of {} cannot be split into direct contributions: {}."

_completing = threading.Lock()  # readings are shared


@dataclass(frozen=True, eq=False)
class Reading:
    """What one run put into its residual streams. All tensors are (B, T, C), whatever layout the model has.

    Everything is computed from this run's own operations, run again where a part must be followed. ``calls``: its
    attention calls; those of a capture are named after its stacks.
    """

    subject: Subject
    anatomy: Anatomy
    tape: Tape = field(repr=False)
    batch: int
    calls: tuple[AttentionCall, ...] = field(repr=False)
    output: Any = field(default=None, repr=False)  # what the module returned
    spared: bool = False  # the run may have made logits of the last position alone

    # -- the stream -----------------------------------------------------------------------------------------------
    def embedding(self, stream: str | None = None) -> Tensor:
        """What the stream starts from."""
        found = self._stream(stream)
        return found.layout.wide(self.tape[found.spots[0]].tensor, self.batch)

    def states(self, stream: str | None = None) -> tuple[Tensor, ...]:
        """Where the stream stands before each addition, and at its end."""
        found = self._stream(stream)
        return tuple(found.layout.wide(self.tape[spot].tensor, self.batch) for spot in found.spots[1:])

    def blocks(self, stream: str | None = None) -> tuple[Tensor, ...]:
        """After the embedding, then after each block: one more than there are blocks."""
        found, states = self._stream(stream), self.states(stream)
        after = {w.block: i + 1 for i, place in enumerate(self._sums(found)) for w in found.writes if w.after == place}
        return states[0], *(states[after[b]] for b in range(len(found.blocks)) if b in after)

    def writes(self, stream: str | None = None) -> tuple[tuple[Branch, Tensor], ...]:
        """What each branch added, sign included, in order."""
        found = self._stream(stream)
        return tuple((branch, self.write(branch)) for branch in found.writes)

    def write(self, branch: Branch) -> Tensor:
        """What one branch added, sign included."""
        made = self.tape[branch.after, 0]
        added = self.tape[branch.place, 0].operands[branch.side].tensor
        added = added if branch.sign == 1.0 else branch.sign * added
        return branch.layout.wide(added.expand(made.shape), self.batch)

    def head(self, branch: Branch, head: int, call: int = 0) -> Tensor:
        """What one head of a branch's ``call`` added, norms and gates held still. Raises InputError where the heads are
        not proven."""
        heads = self._heads(branch, call)
        z = self.tape[heads.z].tensor.detach()
        with torch.no_grad():
            made = still.bring(self.tape, (heads,), (z * (heads.labels(z) == head),)) - self._constant(heads)
        return self._as_write(branch, made)

    def constant(self, branch: Branch, call: int = 0) -> Tensor:
        """What a branch adds when all heads of its ``call`` are zero, such as the bias of its output projection."""
        return self._as_write(branch, self._constant(self._heads(branch, call)))

    def heads(self, branch: Branch, call: int = 0) -> Tensor:
        """All heads of a branch → (B, T, H, C)."""
        count = self._heads(branch, call).count
        return torch.stack([self.head(branch, head, call) for head in range(count)], 2)

    # -- the answer -----------------------------------------------------------------------------------------------
    @property
    def logits(self) -> Tensor:
        """The result, before a soft cap, as the model lays it out."""
        self._complete()
        return self.tape[self.uncapped[-1].made].tensor

    @property
    def uncapped(self) -> tuple[Link, ...]:
        """The steps from the stream's end to the logits before a soft cap."""
        links = self.anatomy.readout.links
        capped = next((i for i, link in enumerate(links) if link.kind == "cap"), None)
        if capped is None:
            return links
        while capped and links[capped - 1].kind == "scale":
            capped -= 1
        return links[:capped]

    def unembed(self, state: Tensor) -> Tensor:
        """A state (B, T, C) read as if it were the last: final norm and unembedding as the model does them, soft cap
        included → (B, T, V) (logit lens: nostalgebraist 2020). Of a model that reads selected positions, all are read.

        Raises InputError where the model has no readout, or reads from more than the end of the stream.
        """
        readout, stream = self.anatomy.readout, self._stream(None)
        if readout is None or readout.kind == "none":
            why = readout.why_not if readout is not None else "; ".join(self.anatomy.refused)
            raise InputError(NO_READOUT.format(self.subject.name, why.rstrip(".")))
        self._complete()
        selected = any(link.kind == "select" for link in readout.links)
        made = state if selected else stream.layout.met(state, self.tape[stream.spots[-1]].shape)
        for link in readout.links:
            if not selected or link.kind not in ("select", "view"):
                made = still.follow(self.tape, link, made)
        return made if selected else readout.layout.wide(made, self.batch)

    def parts(self, functional: Callable[[Tensor], Tensor]) -> Parts:
        """Direct contributions to ``functional``, a scalar of the logits before a soft cap as the model lays them out
        (one logit, a difference of two): of the embedding, each head, each other write, and constants, norms held still
        (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"). They add up where it is linear.

        Raises InputError where the readout is not direct.
        """
        readout = self.anatomy.readout
        if readout is None or readout.kind != "direct":
            why = readout.why_not if readout is not None else "; ".join(self.anatomy.refused)
            raise InputError(NOT_DIRECT.format(self.subject.name, why.rstrip(".")))
        return direct(self, functional)

    @cached_property
    def proof(self) -> Proof:
        """The sum checked on this input: the parts that a run shows anew."""
        return replace(prove(self, readout=False), breaks=self.anatomy.proof.breaks)

    # -- helpers --------------------------------------------------------------------------------------------------
    def _complete(self) -> None:
        if self.spared:
            with _completing, torch.no_grad():
                still.completed(self.tape, self.anatomy.readout.links)

    def _stream(self, name: str | None) -> Stream:
        try:
            return self.anatomy.stream(name)
        except LookupError as error:
            raise InputError(str(error)) from error

    def _sums(self, stream: Stream) -> list:
        return [link.made[0] for link in stream.links if link.kind == "add"]

    def _heads(self, branch: Branch, call: int) -> Heads:
        if not branch.heads:
            raise InputError(f"The heads of {branch.path} are not known: {branch.why_no_heads or 'it has none'}.")
        return branch.parts[call]

    def _constant(self, heads: Heads) -> Tensor:
        z = self.tape[heads.z].tensor.detach()
        with torch.no_grad():
            return still.bring(self.tape, (heads,), (torch.zeros_like(z),))

    def _as_write(self, branch: Branch, made: Tensor) -> Tensor:
        return branch.layout.wide((branch.sign * made).expand(self.tape[branch.after, 0].shape), self.batch)


def reader(anatomy: Anatomy, inputs: Inputs, seam: Seam | None = None) -> tuple[Tape, Seam]:
    """A tape for one run on ``inputs``, and the seam that fills it, with the changes of another seam."""
    full, ends = anatomy.places
    tape = Tape(ends=ends)
    tape.given({**dict(enumerate(inputs.args)), **inputs.kwargs})
    return tape, (seam or Seam()).watched(full | ends, tape)


def read(
    subject: Subject, inputs: Inputs, anatomy: Anatomy, *, changes: Changes | None = None, grad: bool = False
) -> Reading:
    """Run ``subject`` once and keep what its residual stream shows, on any input of the anatomy's kind.

    With ``grad``, tensors keep their graph, which begins at the embedding where weights are frozen. Raises InputError
    where the anatomy was refused, or where this input takes another way through the model.
    """
    refuse_unproven(subject, anatomy)
    changes = changes or Changes()
    tape, seam = reader(anatomy, inputs, changes.seam)
    for stream in anatomy.streams if grad else ():
        seam.change(stream.embedding, None, _differentiable)
    output, recorder = run(subject, inputs, changes=replace(changes, seam=seam), grad=grad)
    calls = tuple(recorder.finished(default_stack(subject))[0])
    return replace(reading_of(subject, anatomy, tape, inputs, calls), output=output)


def _differentiable(embedding: Tensor) -> Tensor:
    """Where the weights are frozen the graph begins at the embedding."""
    return embedding if embedding.requires_grad else embedding.detach().requires_grad_().clone()


def refuse_unproven(subject: Subject, anatomy: Anatomy) -> None:
    """Raises InputError, with the reasons, where there is no stream."""
    if not anatomy.streams:
        why = " ".join(anatomy.refused)
        raise InputError(NOT_PROVEN.format(subject.name, why[:1].lower() + why[1:]))


def reading_of(subject: Subject, anatomy: Anatomy, tape: Tape, inputs: Inputs, calls: tuple) -> Reading:
    """A Reading of a run that is over. Raises InputError when it did not pass the anatomy's places."""
    full, ends = anatomy.places
    there = {place for place, _ in tape.at}
    missed = sorted(place for place in full | ends if place not in there)
    if missed:
        raise InputError(OTHER_WAY.format(subject.name, f"{missed[0].operation} in {missed[0].path or 'the module'}"))
    return Reading(subject, anatomy, tape, inputs.batch, calls)
