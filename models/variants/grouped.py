"""Grouped queries: several heads read the same keys and values, so that what decoding has to remember is as many times
smaller. One group is multi-query attention, as many groups as heads is full attention.

Shazeer 2019, "Fast Transformer Decoding: One Write-Head is All You Need", §3; Ainslie et al. 2023, "GQA", §2.2: head h
of H reads group ⌊h · G / H⌋ of G. O(n²·D) time as full attention, G/H of its memory for keys and values. The weights
are the attention weights themselves, each head's own; the mask is ``Causal()``.
"""

from __future__ import annotations

from torch import Tensor, nn

from headwise.models.architectures.blocks import rotate
from headwise.models.variants.blockwise import whole
from headwise.models.variants.positions import Paired


class Grouped(Paired):
    """Attention whose heads share the keys and values of their group."""

    def __init__(self, width: int, heads: int, groups: int = 1):
        super().__init__(width, heads)
        if not (whole(groups, 1) and heads % groups == 0):
            raise ValueError(f"groups expects a number that divides the {heads} heads; got {groups}")
        self.groups = groups
        self.key, self.value = (nn.Linear(width, width // heads * groups) for _ in range(2))

    def project(self, x: Tensor, memory: Tensor | None = None, positions: Tensor | None = None):
        """x (B, Q, C), memory (B, K, C) → q (B, H, Q, D), k and v (B, G, K, D)."""
        memory = x if memory is None else memory
        q = self.split(self.query(x))
        k, v = (part(memory).unflatten(-1, (self.groups, -1)).transpose(1, 2) for part in (self.key, self.value))
        if positions is not None:
            q, k = rotate(q, positions), rotate(k, positions)
        return q, k, v
