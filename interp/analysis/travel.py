"""How far information travels: what a mask allows over several layers, and what a changed token really changes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture, capture


def travel(cap: Capture, position: int, token: int | None = None) -> Tensor:
    """Change one input token and see what changes → (L + 1, T) float32, largest |Δ| of the residual stream at each
    depth and position.

    Row 0 is the embedding, row l what leaves block l. In a causal model everything left of ``position`` is exactly
    0; anything else is a leak, and the first row that shows it is the layer where it enters. ``token`` is the id
    put in its place, by default one half a vocabulary away. Two more runs of the model. Raises InputError when the
    subject takes no token ids or its blocks cannot be told.
    """
    ids = cap.inputs.kwargs.get("decoder_input_ids", cap.inputs.kwargs.get("input_ids"))
    if ids is None or not cap.subject.vocab_size:
        raise InputError(f"{cap.subject.name} takes no token ids, so no token can be changed.")
    if not 0 <= position < ids.shape[1]:
        raise InputError(f"There is no token {position}: the text has tokens 0 … {ids.shape[1] - 1}.")
    before = cap.residuals
    if not before:
        raise InputError(
            f"The blocks of {cap.subject.name} cannot be told, so the change cannot be followed through them."
        )
    old = int(ids[0, position])
    changed = ids.clone()
    changed[0, position] = (old + cap.subject.vocab_size // 2) % cap.subject.vocab_size if token is None else token
    name = "decoder_input_ids" if "decoder_input_ids" in cap.inputs.kwargs else "input_ids"
    inputs = replace(cap.inputs, kwargs={**cap.inputs.kwargs, name: changed})
    after = capture(cap.subject, inputs, cap.edits).residuals
    return torch.stack([(a[0].float() - b[0].float()).abs().amax(-1) for a, b in zip(after, before, strict=True)])
