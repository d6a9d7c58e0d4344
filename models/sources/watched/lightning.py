"""Lightning attention (Qin et al. 2024), as MiniMax of Hugging Face has it: linear attention that forgets steadily.

The weight of key i is q[t]·k[i] · exp(−slope·(t − i)) over the past, computed in blocks (§3). Queries, keys and values
come through SiLU, so weights may be negative; nothing makes their sum one, the norm after attention sees to its size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.interp.attention.linear import ByWeights, Linear
from headwise.interp.attention.watch import Given, Watched
from headwise.interp.masks import Causal
from headwise.models.sources.watched.layouts import joined
from headwise.models.sources.watched.states import OTHER, STATE, goes_on


@dataclass(frozen=True, eq=False)
class Forgetting(ByWeights):
    slope: Tensor  # (H,)

    def form(self, q: Tensor, k: Tensor) -> Linear:
        return Linear(q, k, Causal(), self._made)

    def _made(self, left: Tensor, right: Tensor, query: Tensor, heads: slice) -> Tensor:
        ago = (query - torch.arange(right.shape[2], device=left.device)).clamp_min(0)  # (R, K)
        return (left @ right.mT) * torch.exp(-self.slope[heads, None, None].to(left.dtype) * ago)


class Lightning:
    """Knows MiniMaxLightningAttention."""

    keeps = ("split", "cat")

    def applies(self, module: nn.Module) -> bool:
        return True

    def __call__(self, module: nn.Module, given: Given) -> Watched | str:
        if [len(given.kept.get(name, ())) for name in self.keeps] != [1, 1]:
            return OTHER
        q, k, v = (t.transpose(1, 2) for t in given.kept["split"][0].out)
        by, output = Forgetting(module.slope_rate[:, 0, 0]), given.kept["cat"][0].out
        if goes_on(q, k, v, by, output):
            return STATE
        x = given.arguments["hidden_states"]

        def back(z: Tensor) -> tuple:
            return module.out_proj(F.sigmoid(module.output_gate(x)) * module.norm(joined(z))), *given.output[1:]

        return Watched(q, k, v, by, output, back, output)


WATCHER = Lightning()
