"""``scaled_dot_product_attention``: q, k, v and the mask as given."""

from __future__ import annotations

import math

from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.scores import Computed


def attention(
    tap, func, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """The operation as torch defines it, recorded, with the edits of this place applied."""
    q, k, v = (tap.four(t) for t in (query, key, value))  # (B, H, Q, D), (B, Hk, K, D), (B, Hk, K, Dv)
    m = attn_mask
    if m is not None and m.ndim > 2 and query.ndim != 4:
        m = tap.four(m.expand(*query.shape[:-1], key.shape[-2]))
    here = tap.recorder.edits_here()
    if here:
        for edit in here:
            m, is_causal = edit.mask(m, is_causal, q, k)
        m = m.to(q.dtype) if m is not None and m.is_floating_point() else m
        out = func(q, k, v, m, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa).clone()  # (B, H, Q, Dv)
        for edit in here:
            out = edit.output(out)
        out = out.reshape(*query.shape[:-1], value.shape[-1])
    else:
        out = func(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    how = "mha" if tap.mha_heads else "sdpa"
    form = Computed(q.detach(), k.detach(), factor, m, is_causal, how)
    tap.recorder.add(AttentionCall(*tap.place(), form, v.detach()))
    return out
