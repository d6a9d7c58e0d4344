"""LongT5 of Hugging Face (Guo et al. 2022): local attention, and transient-global attention, in which each stretch of
the text has a summary that all see. The summaries are keys beyond the text's own.

Rows of padding are taken as seeing nothing: the module weighs them all alike.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from headwise.interp.attention.banded import Bias, Masked
from headwise.interp.attention.watch import Given, Watched
from headwise.interp.masks import Marked, Window, within
from headwise.models.sources.watched.layouts import joined, split

HIDDEN = -1e9  # the library adds −1e10


class Local:
    """Knows ``LongT5LocalAttention`` and ``LongT5TransientGlobalAttention``."""

    keeps = ("linear",)

    def applies(self, module: nn.Module) -> bool:
        return True

    def __call__(self, module: nn.Module, given: Given) -> Watched | str:
        x, mask = given.arguments["hidden_states"], given.arguments.get("mask")
        if mask is None:
            return "it was given no mask, so the zeros it puts beside the text have a part of the weight"
        length, block, heads = x.shape[1], module.block_len, module.n_heads
        maps = given.kept["linear"]  # q, k, v, then k and v of the summaries where there are any, o
        summaries = [kept.out for kept in maps[3:-1]]
        q, k, v = (split(kept.out, heads) for kept in maps[:3])
        if summaries:
            k, v = (torch.cat([t, split(s, heads)], 2) for t, s in zip((k, v), summaries, strict=True))
        real = mask.bool() if mask.ndim == 2 else mask[:, 0, :, :, block : 2 * block].diagonal(0, 2, 3).flatten(1)
        real = real[:, :length]
        added = given.output[1].detach()  # (B | 1, N | 1, H, b, 3b + G): positions and mask
        allowed = within(Window(block - 1, block - 1), real)
        if k.shape[2] > length:
            side = (added[..., 3 * block :] > HIDDEN).transpose(2, 3).flatten(1, 2)[:, :length, 0] & real[..., None]
            ours = torch.arange(k.shape[2], device=x.device) < length
            there = torch.cat([torch.zeros_like(real), side.any(1)], 1)  # (B, T + G)
            allowed = allowed & Marked(ours) | Marked(there)
        if not bool(real.all()):
            allowed = allowed & Marked(real, "query")
        output = split(maps[-1].args[0], heads).masked_fill(~real[:, None, :, None], 0)

        def back(z: Tensor) -> tuple:
            new = torch.where(real[..., None], module.o(joined(z)), given.output[0])
            return new, *given.output[1:]

        return Watched(q, k, v, Masked(1.0, allowed, _bias(added, block, k.shape[2], length)), output, back)


def _bias(added: Tensor, block: int, keys: int, length: int) -> Bias:
    """What is added to the scores of a block and its neighbours (B | 1, N | 1, H, b, 3b + G), by query and key."""
    added = added.masked_fill(added < HIDDEN, 0)  # what is hidden the mask says

    def bias(start: int, stop: int, heads: slice) -> Tensor:
        row = torch.arange(start, stop, device=added.device)
        number = row // block
        some = added[:, number.clamp(max=added.shape[1] - 1), :, row % block]  # (R, B | 1, H, 3b + G)
        some = some.permute(1, 2, 0, 3)[:, heads]
        key = (number[:, None] - 1) * block + torch.arange(3 * block, device=added.device)  # (R, 3b)
        key = key.masked_fill((key < 0) | (key >= length), length)  # beyond the text: dropped
        laid = some.new_zeros(*some.shape[:3], length + 1)
        laid.scatter_(-1, key.expand(*some.shape[:3], -1), some[..., : 3 * block])
        return torch.cat([laid[..., :length], some[..., 3 * block :]], -1)[..., :keys]

    return bias


WATCHER = Local()
