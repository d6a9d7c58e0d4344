"""BigBird of Hugging Face, block-sparse (Zaheer et al. 2020): a window of three blocks, the first and the last block,
and random ones.

The random blocks are drawn while the model trains. At all other times the library takes the first block for each of
them, so that its keys stand in a row's softmax more than once: their weight is that of all of them together.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.interp.attention.banded import Bias, Masked
from headwise.interp.attention.watch import Given, Watched
from headwise.interp.masks import Global, Listed, Segments, within
from headwise.models.sources.watched.layouts import joined, real_length, split


class BlockSparse:
    """Knows ``BigBirdBlockSparseAttention``."""

    keeps = ("tensor",)  # the draw

    def applies(self, module: nn.Module) -> bool:
        return True

    def __call__(self, module: nn.Module, given: Given) -> Watched | str:
        x, real = given.arguments["hidden_states"], given.arguments["to_mask"].flatten(1).bool()  # (B, T, C), (B, T)
        drawn = next((kept.out for kept in given.kept.get("tensor", ()) if kept.out.ndim == 3), None)
        if drawn is None:
            return "the random blocks it drew were not seen"
        whole, heads, block = x.shape[1], module.num_attention_heads, module.block_size
        length, rows = real_length(real), whole // block  # the model adds padding to fill its last block
        x, real = x[:, :length], real[:, :length]
        q, k, v = (split(part(x), heads) for part in (module.query, module.key, module.value))
        lists = tuple(tuple(tuple(dict.fromkeys(row)) for row in [[], *head, []]) for head in drawn.tolist())
        ends = (*range(block), *range(whole - block, whole))
        mask = Segments(block, block, block) | Global(ends) | Listed(block, lists)
        by = Masked(q.shape[-1] ** -0.5, within(mask, real, queries=True), _repeats(drawn, rows, block, length))
        output = split(given.output[0][:, :length], heads)

        def back(z: Tensor) -> tuple:
            return F.pad(joined(z), (0, 0, 0, whole - length)), *given.output[1:]

        return Watched(q, k, v, by, output, back)


def _repeats(drawn: Tensor, rows: int, block: int, length: int) -> Bias | None:
    """What stands in the scores of keys that are met several times, log(times); None where none is. ``drawn`` (H,
    rows − 2, r) are blocks."""
    row = torch.arange(rows, device=drawn.device)
    once = (row[:, None] - row).abs() <= 1
    once[:, [0, -1]] = once[[0, -1]] = True
    times = once.float().repeat(len(drawn), 1, 1)  # (H, rows, rows)
    times[:, 1:-1].scatter_add_(2, drawn, torch.ones_like(drawn, dtype=torch.float))
    if bool((times <= 1).all()):
        return None
    added = times.clamp(min=1).log()

    def bias(start: int, stop: int, heads: slice) -> Tensor:
        queries, keys = (torch.arange(*side, device=added.device) // block for side in ((start, stop), (length,)))
        return added[heads][:, queries][:, :, keys][None]  # (1, h, R, K)

    return bias


WATCHER = BlockSparse()
