"""Are the parts all the parts? Every claim of an anatomy as a number, on one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headwise.interp.run.anatomy import still
from headwise.interp.run.anatomy.graph import Spot, Tape, Unrepeatable, again
from headwise.interp.run.anatomy.model import Heads, Proof, Stream

if TYPE_CHECKING:
    from headwise.interp.run.anatomy.reading import Reading

TOTAL, HEADS = 1e-5, 1e-5  # relative errors that are believed in float32
BROKEN = (Unrepeatable, RuntimeError, TypeError, ValueError, IndexError, KeyError)


def allowed(dtype: torch.dtype, limit: float, sums: int = 1) -> float:
    """What rounding may do: ``limit`` in float32, some of its own steps in a narrower type, the more the more
    additions."""
    return max(limit, 4 * torch.finfo(dtype).eps * max(1, sums) ** 0.5)


def prove(reading: Reading, *, readout: bool = True, heads: float | None = None) -> Proof:
    """The sum checked, and where asked the readout; ``heads`` is the largest error of the heads, where it is known."""
    tape, anatomy = reading.tape, reading.anatomy
    exact, total, smallest = True, 0.0, float("inf")
    for stream in anatomy.streams:
        exact &= all(repeats(tape, link.made) for link in stream.links if link.kind == "add")
        error, least = added_up(tape, stream)
        total, smallest = max(total, error), min(smallest, least)
    logits = attribution = None
    if readout and anatomy.readout is not None and anatomy.readout.kind == "direct":
        logits, attribution = _readout(reading), _attribution(reading)
    return Proof(exact, total, smallest, logits, attribution, heads)


def repeats(tape: Tape, spot: Spot) -> bool:
    """Does the addition, run again on the operands that were recorded, give the stream bit for bit?"""
    value = tape[spot]
    try:
        return torch.equal(again(value, {}), value.tensor)
    except BROKEN:
        return False


def added_up(tape: Tape, stream: Stream) -> tuple[float, float]:
    """(error of embedding + Σ writes at the stream's end in float64, norms held still; the smallest write), relative to
    the largest value of the stream."""
    state = tape[stream.spots[0]].tensor.detach().double()
    end = tape[stream.spots[-1]].tensor.detach()
    largest, smallest = float(end.abs().max()) or 1.0, float("inf")
    branches: dict = {}
    for branch in stream.writes:
        branches.setdefault(branch.after, []).append(branch)
    for link in stream.links:
        state = still.linear(tape, link, state).double()
        if link.kind != "add" and (constant := still.constant(tape, link)) is not None:
            state = state + constant.double()
        for branch in branches.get(link.made[0], ()) if link.kind == "add" else ():
            added = branch.sign * tape[branch.place, 0].operands[branch.side].tensor.detach().double()
            state, smallest = state + added, min(smallest, float(added.abs().max()))
    return _relative(state, end), smallest / largest


def heads_error(tape: Tape, heads: Heads) -> float:
    """How far Σ heads + constant is from the write, and the write from affine in the attention's output."""
    z, wanted = tape[heads.z].tensor.detach(), tape[heads.region[-1]].tensor.detach()
    with torch.no_grad():
        constant = still.bring(tape, (heads,), (torch.zeros_like(z),)).double()
        labels = heads.labels(z)
        made = constant.clone()
        for head in range(heads.count):
            made += still.bring(tape, (heads,), (z * (labels == head),)).double() - constant
        doubled = still.bring(tape, (heads,), (2 * z,)).double() - constant
        return max(_relative(made, wanted), _relative((doubled + 2 * constant) / 2, wanted))


def _readout(reading: Reading) -> float:
    """Logits from the stream's end by the formulas of norm and linear map, in float64 but for the map."""
    tape, links = reading.tape, reading.anatomy.readout.links
    state = tape[reading.anatomy.stream().spots[-1]].tensor.detach().double()
    with torch.no_grad():
        for link in links:
            if link.kind in ("norm", "linear", "shift"):
                constant = still.constant(tape, link)
                state = link.norm(state) if link.kind == "norm" else still.linear(tape, link, state)
                state = state if constant is None or link.kind == "norm" else state + constant
            else:
                state = still.follow(tape, link, state)
    return _relative(state, tape[links[-1].made].tensor.detach()) if links else 0.0


def _attribution(reading: Reading) -> float:
    """The remainder of the largest logit's parts, against the largest logit."""
    largest = int(reading.logits.detach().abs().argmax())
    found = reading.parts(lambda logits: logits.flatten()[largest])
    return abs(found.remainder) / max(abs(found.value), 1e-30)


def _relative(made: Tensor, wanted: Tensor) -> float:
    wanted = wanted.double()
    return float((made.double() - wanted).abs().max() / wanted.abs().max().clamp_min(1e-30))
