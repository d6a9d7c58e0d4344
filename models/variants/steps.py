"""What attention remembers between two chunks of one text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Memory:
    """Keys (B, Hk, K, D) and values (B, Hk, K, Dv) of the tokens so far, or of the last of them."""

    k: Tensor
    v: Tensor

    def grown(self, k: Tensor, v: Tensor) -> Memory:
        return Memory(torch.cat([self.k, k], 2), torch.cat([self.v, v], 2))

    def last(self, count: int) -> Memory:
        """Of the last ``count`` tokens."""
        first = max(0, self.k.shape[2] - count)
        return Memory(self.k[:, :, first:], self.v[:, :, first:])


@dataclass(frozen=True)
class Places:
    """The same of tokens that need not stand side by side: ``positions`` (K,)."""

    k: Tensor
    v: Tensor
    positions: Tensor

    def grown(self, new: Places) -> Places:
        return Places(
            torch.cat([self.k, new.k], 2), torch.cat([self.v, new.v], 2), torch.cat([self.positions, new.positions])
        )

    def only(self, some: Tensor) -> Places:
        """Those of them where ``some`` (K,) is True."""
        return self if bool(some.all()) else Places(self.k[:, :, some], self.v[:, :, some], self.positions[some])
