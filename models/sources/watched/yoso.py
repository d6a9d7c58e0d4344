"""YOSO (Zeng et al. 2021) as Hugging Face runs it in expectation: the chance of a collision takes softmax's place.

The weight of a key is (1 − arccos(q·k)/π)^τ, the chance that it falls into the query's bucket under τ random
hyperplanes (eq. 5), q and k of length one. Every row of the output is then brought to length one itself, so only the
proportions of weights count, and they are told as the softmax of τ·log(1 − arccos(q·k)/π).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.interp.attention.linear import ByScores, Modify
from headwise.interp.attention.watch import Given, Watched
from headwise.models.sources.watched.layouts import joined, split

DRAWN = (
    "it draws its hashes anew in a CUDA kernel that shows none of them: load the model with use_expectation=True, and "
    "its weights are the chances of falling into one bucket"
)


@dataclass(frozen=True, eq=False)
class Collisions(ByScores):
    """Queries and keys come with length one."""

    bits: int  # τ
    real: Tensor  # (B, K) bool
    scale: float = 1.0

    def modify(self, q: Tensor, k: Tensor) -> Modify:
        def modified(products: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            scores = self.bits * torch.log(1 - torch.acos(products.clamp(-1, 1)) / math.pi)
            seen = self.real[:, None, query, None] & self.real[:, None, None, key]
            return scores.masked_fill(~seen, -math.inf)

        return modified


class Yoso:
    """Knows YosoSelfAttention."""

    keeps = ("matmul",)

    def applies(self, module: nn.Module) -> bool:
        return True

    def __call__(self, module: nn.Module, given: Given) -> Watched | str:
        if not module.use_expectation:
            return DRAWN
        x, heads, mask = given.arguments["hidden_states"], module.num_attention_heads, given.arguments["attention_mask"]
        q, k, v = (split(part(x), heads) for part in (module.query, module.key, module.value))
        by = Collisions(module.hash_code_len, (1.0 + mask / 10000.0).int() > 0)
        chances, summed = given.kept["matmul"][-1].args[0], given.kept["matmul"][-1].out  # (B·H, Q, K), (B·H, Q, D)
        total = chances.sum(-1, keepdim=True).clamp_min(torch.finfo(chances.dtype).tiny)
        beside = module.conv(v * mask[:, None, :, None]) if module.use_conv else 0

        def back(z: Tensor) -> tuple:
            return (joined(F.normalize(z, dim=-1) + beside),) * len(given.output)

        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        return Watched(q, k, v, by, (summed / total).unflatten(0, (-1, heads)), back)


WATCHER = Yoso()
