"""Tensors between the layouts of modules and of calls."""

from __future__ import annotations

import torch
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


def laid_out(added: Tensor, rows: tuple[int, int], before: int, keys: int) -> Tensor:
    """What stands beside the scores of blocks, by query and key: ``added`` (B | 1, N | 1, H, b, m) is of blocks of b
    queries, whose m keys begin ``before`` positions left of the block → (B | 1, H, rows, keys), 0 where none stands."""
    block = added.shape[3]
    query = torch.arange(*rows, device=added.device)
    some = added[:, (query // block).clamp(max=added.shape[1] - 1), :, query % block]  # (R, B | 1, H, m)
    some = some.permute(1, 2, 0, 3)
    key = (query // block * block - before)[:, None] + torch.arange(added.shape[-1], device=added.device)  # (R, m)
    key = key.masked_fill((key < 0) | (key >= keys), keys)  # beyond the text: dropped
    laid = some.new_zeros(*some.shape[:3], keys + 1)
    return laid.scatter_(-1, key.expand(*some.shape[:3], -1), some)[..., :keys]
