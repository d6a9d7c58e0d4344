"""``scaled_dot_product_attention``: q, k, v and the mask as given."""

from __future__ import annotations

import math

from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.scores import Computed, Factors, Seen


def attention(
    tap, func, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """The operation as torch defines it, recorded, with what is changed at this place."""
    q, k, v = (tap.four(t) for t in (query, key, value))  # (B, H, Q, D), (B, Hk, K, D), (B, Hk, K, Dv)
    m = attn_mask
    if m is not None and m.ndim > 2 and query.ndim != 4:
        m = tap.four(m.expand(*query.shape[:-1], key.shape[-2]))
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    how, stepwise = "mha" if tap.mha_heads else "sdpa", None
    if (here := tap.recorder.changes_here()) is None:
        out = func(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    else:
        q, k, v = here.changed("query", q), here.changed("key", k), here.changed("value", v)
        m, is_causal = here.told(m, is_causal, (*q.shape[:3], k.shape[2]), q.device)
        m = m.to(q.dtype) if m is not None and m.is_floating_point() else m
        if here.reaches_weights:
            stepwise = here.attended(Computed(q, k, factor, m, is_causal), v)
        if stepwise is not None:
            out = stepwise[-1]
        else:
            as_given = (x.reshape(t.shape) for x, t in ((q, query), (k, key), (v, value)))
            told = m.reshape(*query.shape[:-1], key.shape[-2]) if here.masks else attn_mask
            out = func(*as_given, told, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
            out = out.reshape(*q.shape[:3], v.shape[-1])
        out = here.changed("output", out).reshape(*query.shape[:-1], value.shape[-1])
    if stepwise is not None:
        form = Seen(*(t.detach() for t in stepwise[:2]), factors=Factors(q.detach(), k.detach(), factor), how=how)
    else:
        form = Computed(q.detach(), k.detach(), factor, m, is_causal, how)
    tap.recorder.add(AttentionCall(*tap.place(), form, v.detach()))
    return out
