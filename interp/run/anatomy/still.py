"""Steps run again with norms held still: then each is linear, and what parts of its source become can be added up."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.interp.run.anatomy.graph import Tape, Value, again
from headwise.interp.run.anatomy.model import Heads, Link

LAST = slice(-1, None, None)  # the positions whose logits a capture computes


def linear(tape: Tape, link: Link, part: Tensor) -> Tensor:
    """What becomes of a ``part`` of the link's source, shaped as that is; constants left out. Differentiable."""
    source = tape[link.source]
    if link.kind == "norm":
        return link.norm.linear(part, link.norm.scale(source.tensor.detach()))
    if link.kind in ("shift", "add"):
        return part
    value = tape[link.made]
    if link.kind == "linear" and value.operation == "linear":
        weight = value.args[1] if len(value.args) > 1 else value.kwargs["weight"]
        wide = torch.promote_types(weight.dtype, torch.float32)
        return F.linear(part.to(wide), weight.detach().to(wide))
    part = part.to(source.out.dtype)
    made = follow(tape, link, part)
    return made - follow(tape, link, torch.zeros_like(part)) if link.kind == "linear" else made


def constant(tape: Tape, link: Link) -> Tensor | None:
    """What the step adds whatever comes in; broadcasts to what it made."""
    value = tape[link.made]
    if link.kind == "norm":
        return link.norm.bias if bool(link.norm.bias.any()) else None
    if link.kind == "linear" and value.operation == "linear":
        bias = value.args[2] if len(value.args) > 2 else value.kwargs.get("bias")
        return None if bias is None else bias.detach()
    if link.kind in ("shift", "linear"):
        return follow(tape, link, torch.zeros_like(tape[link.source].tensor))
    return None


def follow(tape: Tape, link: Link, state: Tensor) -> Tensor:
    """The step as the model does it, on another ``state`` in the place of its source."""
    new = {tape[link.source]: state}
    for spot in link.steps:
        value = tape[spot]
        new[value] = again(value, new)
    return new[tape[link.made]]


def completed(tape: Tape, links: tuple[Link, ...]) -> None:
    """Make the logits of all positions where the run made those of the last alone, as captures do: the step that takes
    it takes all of them, and what follows is run again. Does nothing where they are there."""
    taken = False
    for link in links:
        for spot in link.steps if link.kind != "select" else ():  # where the model itself selects, it selects
            value = tape[spot]
            if not taken and value.operation == "__getitem__" and LAST in _index(value):
                index = tuple(slice(None) if part == LAST else part for part in _index(value))
                value.args, taken = (value.args[0], index), True
            if taken:
                value.out = again(value, {})


def _index(value: Value) -> tuple:
    return value.args[1] if isinstance(value.args[1], tuple) else (value.args[1],)


def bring(tape: Tape, parts: tuple[Heads, ...], outputs: tuple[Tensor, ...]) -> Tensor:
    """Other outputs z of a write's attentions → the write they would make, norms and gates held still. Affine in them.
    ``parts`` are attentions of the same write."""
    new = {tape[heads.z]: z for heads, z in zip(parts, outputs, strict=True)}
    norms = {tape[spot]: held for heads in parts for spot, held in heads.norms.items()}
    region = sorted({tape[spot] for heads in parts for spot in heads.region}, key=lambda value: value.index)
    for value in region:
        source, norm = norms.get(value, (None, None))
        if source is not None and tape[source] in new:
            made = norm.linear(new[tape[source]], norm.scale(tape[source].tensor.detach()))
            new[value] = (made + norm.bias.to(made.dtype)).to(value.out.dtype)
        else:
            new[value] = again(value, new)
    return new[region[-1]]
