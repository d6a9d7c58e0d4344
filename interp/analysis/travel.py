"""How far information travels: what a mask allows over several layers, and what a changed token really changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from headwise.interp.errors import InputError
from headwise.interp.masks import Bidirectional, Mask
from headwise.interp.run.capture import Capture, capture

ROUNDING = 1e-5  # of the largest change at a depth: what sums in another order may differ by, where tokens are sorted


def travel(cap: Capture, position: int, token: int | None = None) -> Tensor:
    """Change one input token and see what changes → (L + 1, T) float32, largest |Δ| of the residual stream at each
    depth and position.

    Row 0 is the embedding, row l what leaves block l. In a causal model everything left of ``position`` is exactly
    0; anything else is a leak, and the first row that shows it is the layer where it enters. ``token`` is the id
    put in its place, by default one half a vocabulary away. Two more runs of the model. Raises InputError when the
    subject takes no token ids or its blocks cannot be told.
    """
    token = exchange(cap, position)[1] if token is None else token
    before = cap.residuals
    if not before:
        raise InputError(
            f"The blocks of {cap.subject.name} cannot be told, so the change cannot be followed through them."
        )
    changed = _ids(cap).clone()
    changed[0, position] = token
    name = "decoder_input_ids" if "decoder_input_ids" in cap.inputs.kwargs else "input_ids"
    inputs = replace(cap.inputs, kwargs={**cap.inputs.kwargs, name: changed})
    after = capture(cap.subject, inputs, cap.edits).residuals
    return torch.stack([(a[0].float() - b[0].float()).abs().amax(-1) for a, b in zip(after, before, strict=True)])


def exchange(cap: Capture, position: int) -> tuple[int, int]:
    """The token that stands there and the one that is put in its place, half a vocabulary away. Raises InputError where
    none can be."""
    ids, size = _ids(cap), cap.subject.vocab_size
    if not size:
        raise InputError(f"{cap.subject.name} takes no token ids, so no token can be changed.")
    if not 0 <= position < ids.shape[1]:
        raise InputError(f"There is no token {position}: the text has tokens 0 … {ids.shape[1] - 1}.")
    old = int(ids[0, position])
    return old, (old + size // 2) % size


def _ids(cap: Capture) -> Tensor:
    """(B, T) the tokens that the answer is read from."""
    ids = cap.inputs.kwargs.get("decoder_input_ids", cap.inputs.kwargs.get("input_ids"))
    if ids is None:
        raise InputError(f"{cap.subject.name} takes no token ids, so no token can be changed.")
    return ids


@dataclass(frozen=True, eq=False)
class Travel:
    """How far a changed token travelled, against how far the model promises that it can.

    ``moved`` (L + 1, T) float32 as `travel` gives it · ``forbidden`` bool (L + 1, T), where the promises of the layers
    let nothing arrive · ``rounding`` the largest change there that is none, 0 where all is the same to the last bit: a
    mechanism that sorts its tokens sums them in another order when one is changed.
    """

    position: int
    moved: Tensor
    forbidden: Tensor
    rounding: float = 0.0

    @property
    def depths(self) -> tuple[str, ...]:
        """What the rows are called."""
        return ("embedding", *(f"after block {layer}" for layer in range(len(self.moved) - 1)))

    @cached_property
    def leaks(self) -> Tensor:
        """Bool (L + 1, T): something arrived where nothing may."""
        return self.forbidden & (self.moved > 0)

    @property
    def leaked(self) -> tuple[str, ...]:
        """The depths that show a leak; the first is where it enters."""
        return tuple(name for name, row in zip(self.depths, self.leaks, strict=True) if row.any())

    @property
    def promised(self) -> bool:
        """Is there anything that this token may not reach?"""
        return bool(self.forbidden.any())

    @property
    def past(self) -> bool:
        """Are the positions that it may not reach those before it?"""
        before = torch.arange(self.forbidden.shape[1]) < self.position
        return self.promised and bool((self.forbidden == before).all())


def followed(cap: Capture, position: int) -> Travel:
    """Change a token and judge how far that goes. Raises InputError where `travel` does."""
    moved = travel(cap, position).cpu()
    forbidden = ~_allowed(cap, position, moved.shape)
    tolerance = ROUNDING if any(call.sorts for call in cap.calls) else 0.0
    rounded = forbidden & (moved <= tolerance * moved.amax(1, keepdim=True))
    rounding = float(moved[rounded].max()) if rounded.any() else 0.0
    return Travel(position, moved.masked_fill(rounded, 0.0), forbidden, rounding)


def _allowed(cap: Capture, position: int, shape: tuple[int, int]) -> Tensor:
    """Where a change at ``position`` may show, bool (L + 1, T): the boolean product of what the layers claim, up to
    each of them. The embedding is judged like the first block, for what is mixed before it; where the layers cannot be
    told, all of them count at every depth. Where nobody says what a layer may see, it may see everything."""
    depth, length = shape
    masks = _claims(cap, length)
    bands = {mask: mask.rows(0, length, length).cpu() for mask in dict.fromkeys(masks)}
    steps = [bands[mask] for mask in masks]
    if len(steps) != depth - 1:
        every = torch.stack(list(bands.values())).any(0) if bands else torch.ones(length, length, dtype=torch.bool)
        steps = [every] * (depth - 1)
    reached = torch.zeros(length, dtype=torch.bool)
    reached[position] = True
    rows = []
    for allowed in steps:
        reached = reached | allowed[:, reached].any(1)
        rows.append(reached)
    return torch.stack([rows[0], *rows])


def _claims(cap: Capture, length: int) -> list[Mask]:
    """What the self-attention claims that made the outputs, layer by layer."""
    calls = [call for call in cap.calls if call.kind == "self" and call.queries == call.keys == length]
    return [call.claim.mask or Bidirectional() for call in calls if call.stack == calls[-1].stack]
