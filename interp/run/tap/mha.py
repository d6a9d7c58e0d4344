"""``nn.MultiheadAttention``: what it computes inside is seen there; it alone knows its number of heads."""

from __future__ import annotations

from types import FunctionType

import torch.nn.functional as F

from headwise.interp.run.tap.recorder import same

# F.multi_head_attention_forward first asks whether a mode listens, and if so hands itself over to it. This is the same
# function without the question, so that the mode can listen to what happens inside.
BODY = FunctionType(
    F.multi_head_attention_forward.__code__,
    {**F.multi_head_attention_forward.__globals__, "has_torch_function": lambda tensors: False},
    argdefs=F.multi_head_attention_forward.__defaults__,
)


def attention(tap, func, query, key, value, embed_dim, num_heads, *args, **kwargs):
    """The function's body, with the tap still on and told the number of heads."""
    outer = tap.mha_heads, tap.mha_kind
    tap.mha_heads, tap.mha_kind = num_heads, "self" if same(query, key) else "cross"
    try:
        with tap:  # torch switched the mode off for us: listen inside as well
            return BODY(query, key, value, embed_dim, num_heads, *args, **kwargs)
    finally:
        tap.mha_heads, tap.mha_kind = outer
