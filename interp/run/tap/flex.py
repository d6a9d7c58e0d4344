"""``torch.nn.attention.flex_attention``, run uncompiled: (query, key, value, …) → (out, logsumexp, max)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.scores import Modified, Seen


def attention(tap, func, query, key, value, score_mod, block_mask, scale, *rest):
    """The higher-order operation that flex_attention ends in, recorded, with what is changed at this place."""
    _, score_buffers, mask_buffers = rest  # after the kernel's options, what the two functions closed over
    here = tap.recorder.changes_here()
    if here is not None:
        query, key, value = (here.changed(part, t) for part, t in (("query", query), ("key", key), ("value", value)))
    modify = _scores(score_mod, score_buffers, block_mask[-1], mask_buffers)
    k, v = (t.expand(query.shape[0], *t.shape[1:]) for t in (key, value))
    out, *statistics = func(query, key, value, score_mod, block_mask, scale, *rest)
    form = Modified(query.detach(), k.detach(), scale, modify)
    if here is not None:
        if here.masks or here.reaches_weights:
            stepwise = here.attended(Modified(query, k, scale, modify), v)
            if stepwise is not None:
                form = Seen(*(t.detach() for t in stepwise[:2]), factors=form.factors, how="flex")
                out = stepwise[-1].to(out.dtype)
        out = here.changed("output", out)
    tap.recorder.add(AttentionCall(*tap.place(), form, v.detach()))
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
