"""What an attention call says it may see, as the check asks it."""

from __future__ import annotations

import torch
from torch import Tensor

from headwise.interp.attention.call import AttentionCall
from headwise.interp.masks import Bidirectional

FAR = -5_000  # no real score is as low


def told(call: AttentionCall, b: int) -> Tensor:
    """Keys that sample ``b`` may see by the call's own mask → bool (H, Q, K)."""
    b, q, h = min(b, call.batch - 1), torch.arange(call.queries), torch.arange(call.heads)
    return call.mask(torch.tensor(b), h[:, None, None], q[:, None], torch.arange(call.keys)).cpu()


def allowed(call: AttentionCall, b: int) -> Tensor:
    """The same, counting what has weight as allowed → bool (H, Q, K)."""
    weights = call.band(0, call.queries)[min(b, call.batch - 1)].cpu()
    if call.mask == Bidirectional():
        return torch.ones_like(weights, dtype=torch.bool)
    return told(call, b) | (weights > 0)


def scores(call: AttentionCall, b: int) -> Tensor:
    """Scores as they met the softmax, mask and all → (H, Q, K)."""
    return call.score_band(0, call.queries)[b].float().cpu()


def given_floats(call: AttentionCall | None) -> Tensor | None:
    """The mask tensor that was given, where it is added to the scores."""
    mask = call.given if call is not None else None
    return mask if mask is not None and mask.is_floating_point() else None


def masks_each_sample(call: AttentionCall) -> bool:
    return call.given is not None and call.given.ndim == 4


def masks_queries(call: AttentionCall) -> bool:
    """Does the mask stand on the query axis, (B, 1, Q, 1)?"""
    return masks_each_sample(call) and call.given.shape[-1] == 1


def hides_all(call: AttentionCall) -> bool:
    """Does no query see any key, by emptiness or by a score that no real one reaches?"""
    return (
        bool(call.empty_rows().all())
        or float(call.score_band(0, call.queries).max()) < FAR
        or (call.bias is not None and float(call.bias.max()) < FAR)
    )
