"""``torch.nn.attention.flex_attention``, run uncompiled: (query, key, value, …) → (out, logsumexp, max)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.scores import Modified


def attention(tap, func, query, key, value, score_mod, block_mask, scale, *rest):
    """The higher-order operation that flex_attention ends in, recorded, with the edits of this place applied."""
    _, score_buffers, mask_buffers = rest  # after the kernel's options, what the two functions closed over
    out, *statistics = func(query, key, value, score_mod, block_mask, scale, *rest)
    modify = _scores(score_mod, score_buffers, block_mask[-1], mask_buffers)
    k, v = (t.detach().expand(query.shape[0], *t.shape[1:]) for t in (key, value))
    here = tap.recorder.edits_here()
    call = AttentionCall(*tap.place(), Modified(query.detach(), k, scale, modify), v)
    tap.recorder.add(call)
    if here:
        weights, scores = call.band(0, call.queries), call.score_band(0, call.queries)
        for edit in here:
            weights = edit.weights(weights, scores)
        out = (weights @ v.float().repeat_interleave(call.heads // call.kv_heads, 1)).to(out.dtype)
    return out, *statistics


def _scores(score_mod, score_buffers: tuple, mask_mod, mask_buffers: tuple):
    """flex_attention's two functions of one (b, h, q, k) → one function of a block of scores (B, H, R, K)."""
    from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex  # a second, the first time
    from torch.nn.attention.flex_attention import _vmap_for_bhqkv

    score_all = _vmap_for_bhqkv(score_mod, prefix=(0,), suffix=(None,) * len(score_buffers))
    mask_all = _vmap_for_bhqkv(mask_mod, prefix=(), suffix=(None,) * len(mask_buffers))

    def modify(scores: Tensor, *index: Tensor) -> Tensor:
        with TransformGetItemToIndex():
            return torch.where(mask_all(*index, *mask_buffers), score_all(scores, *index, *score_buffers), -math.inf)

    return modify
