"""Tensors between the layouts of modules and of calls."""

from __future__ import annotations

from torch import Tensor


def split(x: Tensor, heads: int) -> Tensor:
    """(B, T, H · D) → (B, H, T, D)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def joined(z: Tensor) -> Tensor:
    """(B, H, T, D) → (B, T, H · D)."""
    return z.transpose(1, 2).flatten(2)


def real_length(real: Tensor) -> int:
    """Up to where some sample has a real token (B, T); all, if none has any."""
    places = real.any(0).nonzero()
    return int(places[-1]) + 1 if len(places) else real.shape[1]
