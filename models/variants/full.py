"""Full attention: every token weighs every token before it. The measure of all the others.

Vaswani et al. 2017, "Attention Is All You Need", equation 1: softmax(QKᵀ/√d) V, O(n²·d) time, O(n²) memory where the
matrix is kept and O(n·d) where it is not. Its mask is ``Causal()``; its weights are the attention weights themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headwise.models.architectures.blocks import Attention
from headwise.models.variants.steps import Memory


class Full(Attention):
    """The attention of ``blocks``, one step at a time as well."""

    def step(self, x: Tensor, state: Memory | None, start: int, rotary: bool) -> tuple[Tensor, Memory]:
        """The next tokens x (B, n, C) at positions ``start`` …, and the keys and values of those before them."""
        positions = torch.arange(start, start + x.shape[1], device=x.device)[None] if rotary else None
        q, k, v = self.project(x, positions=positions)
        state = Memory(k, v) if state is None else state.grown(k, v)
        seen = torch.ones(q.shape[2], state.k.shape[2], dtype=torch.bool, device=x.device)
        seen = seen.tril(state.k.shape[2] - q.shape[2])  # aligned at the end
        out = torch.nn.functional.scaled_dot_product_attention(q, state.k, state.v, seen)
        return self.output(out.transpose(1, 2).flatten(2)), state
