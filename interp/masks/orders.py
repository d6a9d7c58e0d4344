"""Masks of permutation language modelling: who comes before whom in an order that is not that of the text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from headwise.interp.masks.patterns import Mask


@dataclass(frozen=True)
class Order(Mask):
    """A query sees what comes before it in ``order``, the positions in the order in which they are predicted, and
    itself where ``own`` (Yang et al. 2019, §2.3: the content stream sees itself, the query stream does not).

    >>> print(Order((2, 0, 3, 1)))
    ■⬚■⬚
    ■■■■
    ⬚⬚■⬚
    ■⬚■■
    >>> print(Order((2, 0, 3, 1), own=False))
    ⬚⬚■⬚
    ■⬚■■
    ⬚⬚⬚⬚
    ■⬚■⬚
    """

    order: tuple[int, ...]
    own: bool = True

    def __post_init__(self):
        object.__setattr__(self, "order", tuple(map(int, self.order)))
        if sorted(self.order) != list(range(len(self.order))):
            raise ValueError(f"Order expects each position 0 … n − 1 once, got {self.order}.")

    @cached_property
    def ranks(self) -> Tensor:
        """When each position is predicted."""
        return torch.tensor(self.order, dtype=torch.long).argsort()

    @property
    def size(self):
        return len(self.order), len(self.order)

    def allowed(self, b, h, q, k):
        if max(int(q.max()), int(k.max())) >= len(self.order):
            raise IndexError(
                f"Order: {len(self.order)} positions were given, position {max(int(q.max()), int(k.max()))} asked."
            )
        ranks = self.ranks.to(q.device)
        return ranks[k] <= ranks[q] if self.own else ranks[k] < ranks[q]

    def __repr__(self) -> str:
        return f"Order({self.order}{'' if self.own else ', own=False'})"
