"""Relative attention: a key counts by what it holds and by how far back it stands, each distance with an embedding.

Huang et al. 2018, "Music Transformer", equation 3: softmax((QKᵀ + S_rel) / √D) V, S_rel[q, k] = Q_q · E_(q − k); E is
``distances``, a row for each head and distance, of which those beyond ``reach`` share the last (Shaw et al. 2018,
§3.2). Skewing (§3.4.1) makes S_rel of the product QEᵀ: O(n·D) memory for E instead of the O(n²·D) of gathering a row a
pair, in O(n²·D) time as full attention. The weights are the attention weights themselves; the mask:

>>> print(Distances(distances=torch.zeros(1, 4, 2)).mask())
■⬚⬚⬚⬚⬚⬚⬚
■■⬚⬚⬚⬚⬚⬚
■■■⬚⬚⬚⬚⬚
■■■■⬚⬚⬚⬚
■■■■■⬚⬚⬚
■■■■■■⬚⬚
■■■■■■■⬚
■■■■■■■■
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.models.variants.blockwise import whole
from headwise.models.variants.positions import Paired, Pairs


def skewed(products: Tensor) -> Tensor:
    """Queries × distances (…, R, K + R − 1), the largest first, → queries × keys (…, R, K): every row stands one step
    further to the right than the row below it, and nothing is copied pair by pair.

    >>> skewed(torch.tensor([[3, 2, 1, 0, -1], [3, 2, 1, 0, -1], [3, 2, 1, 0, -1]]))  # 3 queries, 3 keys: no row
    tensor([[ 1,  0, -1],
            [ 2,  1,  0],
            [ 3,  2,  1]])
    """
    rows, length = products.shape[-2:]
    flat = F.pad(products, (0, 1)).flatten(-2)  # (…, R · (length + 1))
    moved = flat[..., rows - 1 : rows - 1 + rows * length].unflatten(-1, (rows, length))
    return moved[..., : length - rows + 1]


@dataclass(frozen=True, eq=False)
class Distances(Pairs):
    """``distances`` (H, reach, D): row r is the embedding of keys r positions back, or r − ``ahead`` where there are
    embeddings of keys ahead too."""

    distances: Tensor = field(default_factory=lambda: torch.zeros(1, 1, 1))
    ahead: int = 0

    def added(self, q, at, keys, heads=slice(None)):
        return self.met(q, at, keys, heads) * q.shape[-1] ** -0.5

    def met(self, q: Tensor, at: Tensor, keys: Tensor, heads: slice) -> Tensor:
        """S_rel (B, h, R, K) of queries (B, h, R, D) at ``at`` and keys at ``keys``."""
        furthest, nearest = at[-1] - keys[0], at[0] - keys[-1]
        back = torch.arange(int(furthest), int(nearest) - 1, -1, device=q.device)  # (K + R − 1,)
        rows = self.distances[heads][:, (back + self.ahead).clamp(0, self.distances.shape[1] - 1)]  # (h, K + R − 1, D)
        return skewed(q @ rows.transpose(-1, -2).to(q.dtype))


class Relative(Paired):
    """Attention with an embedding for each of the distances 0 … reach − 1."""

    def __init__(self, width: int, heads: int, reach: int = 512):
        super().__init__(width, heads)
        if not whole(reach, 1):
            raise ValueError(f"reach expects a number of distances, 1 or more; got {reach}")
        self.distances = nn.Parameter(torch.randn(heads, reach, width // heads) * 0.02)

    def bound(self, causal):
        return Distances(causal, distances=self.distances)
