"""MRA (Zeng et al. 2022) as Hugging Face runs it: attention at two resolutions, in blocks of 32 tokens.

The blocks of scores that matter most are computed in full; everywhere else ("full" mode) all pairs of two blocks share
the score of the blocks' means (§4), or are left out ("sparse" mode). One softmax goes over both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headwise.interp.attention.linear import ByScores, Modify
from headwise.interp.attention.watch import Given, Watched
from headwise.models.sources.watched.layouts import joined, split
from headwise.models.sources.watched.states import OTHER

BLOCK = 32
WARP = 32  # narrower heads are filled up to it with zeros, and scores divided by the root of that width
NO_KERNEL = (
    "without its CUDA kernel (kernels-community/mra) Hugging Face's module computes no attention and returns zeros: "
    "run the model on a GPU with the package kernels"
)


@dataclass(frozen=True, eq=False)
class TwoResolutions(ByScores):
    scale: float
    fine: Tensor  # (B, H, Q / 32, K / 32) bool: blocks computed in full
    real: Tensor  # (B, H, K) bool
    coarse: bool  # whether the other blocks count at all

    def modify(self, q: Tensor, k: Tensor) -> Modify:
        low = None
        if self.coarse:
            count = self.real.unflatten(2, (-1, BLOCK)).sum(-1)[..., None] + 1e-6  # (B, H, K / 32, 1)
            queries, keys = ((t * self.real[..., None]).unflatten(2, (-1, BLOCK)).sum(3) / count for t in (q, k))
            low = queries @ keys.mT * self.scale  # (B, H, Q / 32, K / 32)

        def modified(scores: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            where = (slice(None), h[:, None, None], query[:, None] // BLOCK, key // BLOCK)
            rough = scores.new_full((), -math.inf) if low is None else low[where].to(scores.dtype)
            seen = self.real[:, h][:, :, query, None] & self.real[:, h, None]
            return torch.where(self.fine[where], scores, rough).masked_fill(~seen, -math.inf)

        return modified


class Mra:
    """Knows MraSelfAttention."""

    keeps = ("topk",)

    def applies(self, module: nn.Module) -> bool:
        return True

    def __call__(self, module: nn.Module, given: Given) -> Watched | str:
        if "topk" not in given.kept:
            return OTHER if bool(given.output[0].any()) else NO_KERNEL
        x, heads = given.arguments["hidden_states"], module.num_attention_heads
        q, k, v = (split(part(x), heads) for part in (module.query, module.key, module.value))
        blocks = x.shape[1] // BLOCK
        fine = torch.zeros(len(x) * heads, blocks * blocks, dtype=torch.bool, device=x.device)
        fine = fine.scatter(1, given.kept["topk"][0].out.indices, True).view(len(x), heads, blocks, blocks)
        mask = given.arguments["attention_mask"]
        real = mask[:, 0, -1] == 0 if mask.ndim == 4 else mask > 0  # (B, K)
        real = real.repeat(heads, 1).view(len(x), heads, -1)  # in the module's order, which mixes up the samples
        by = TwoResolutions(max(q.shape[-1], WARP) ** -0.5, fine, real, module.approx_mode == "full")
        return Watched(q, k, v, by, split(given.output[0], heads), lambda z: (joined(z),))


WATCHER = Mra()
