"""Mamba (Gu & Dao 2023) and Mamba-2 (Dao & Gu 2024) as Hugging Face runs them: states that decay by what they read.

Written out, the state space makes of its inputs x a sum over the past, and so has weights of its own ("The Hidden
Attention of Mamba", Ali et al. 2024, eq. 12): a[t, i] = Σₙ C[t, n] · exp(A[n]·(s[t] − s[i])) · B[i, n] · Δ[i], where s
sums up the steps Δ, and D more for t = i. C stands where a query does and B where a key does. The weights may be
negative and have any sum. In Mamba every channel is a head of its own; Mamba-2 has heads. The convolution before makes
each x of the last few tokens; the gate comes after.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.interp.attention.linear import ByWeights, Linear
from headwise.interp.attention.watch import Given, Watched
from headwise.interp.masks import Causal
from headwise.models.sources.watched.layouts import joined, split
from headwise.models.sources.watched.states import OTHER, STATE, goes_on, ungated


@dataclass(frozen=True, eq=False)
class States(ByWeights):
    """Values are the inputs x. ``rate`` has one A a head, (H, 1), or one for each number of its state, (H, N)."""

    rate: Tensor  # A, below 0
    steps: Tensor  # (B, H, T) Δ
    skip: Tensor  # (H,) D

    def form(self, q: Tensor, k: Tensor) -> Linear:
        steps = (self.steps if q.requires_grad else self.steps.detach())[..., : k.shape[2]]
        passed = steps.double().cumsum(-1)  # s: differences of long sums must keep their last digits

        def made(c: Tensor, b: Tensor, query: Tensor, heads: slice) -> Tensor:
            rate, key = self.rate[heads].to(c.dtype), torch.arange(b.shape[2], device=c.device)
            since = passed[:, heads, query[:, 0], None] - passed[:, heads, None, :]  # (B, h, R, K)
            since = since.clamp_min(0).to(c.dtype)  # below 0 are later keys
            if rate.shape[-1] == 1:
                met = (c @ b.mT) * torch.exp(rate[..., None] * since)
            else:
                met = sum(
                    c[..., n, None] * b[..., None, :, n] * torch.exp(rate[:, n, None, None] * since)
                    for n in range(rate.shape[-1])
                )
            return met * steps[:, heads, None].to(c.dtype) + self.skip[heads, None, None] * (query == key)

        return Linear(q, k, Causal(), made)


class Mamba:
    """Knows MambaMixer."""

    keeps = ("linear",)

    def applies(self, module: nn.Module) -> bool:
        return True

    def __call__(self, module: nn.Module, given: Given) -> Watched | str:
        if len(given.kept.get("linear", ())) != 3:
            return OTHER
        first, selected, last = given.kept["linear"]
        x = selected.args[0]  # (B, T, C)
        sizes = [module.time_step_rank, module.ssm_state_size, module.ssm_state_size]
        step, b, c = torch.split(selected.out, sizes, dim=-1)  # (B, T, …)
        steps = F.softplus(step @ module.dt_proj.weight.T + module.dt_proj.bias.float())
        q, k = (t[:, None].expand(-1, x.shape[-1], -1, -1) for t in (c, b))  # (B, C, T, N): one for all channels
        gate = F.silu(first.out.chunk(2, dim=-1)[1])
        v, gate, product = (t.transpose(1, 2)[..., None] for t in (x, gate, last.args[0]))
        by = States(-torch.exp(module.A_log.detach().float()), steps.transpose(1, 2), module.D.detach())
        output = ungated(product, gate, by, (q, k, v))
        if goes_on(q, k, v, by, output):
            return STATE

        def back(z: Tensor) -> Tensor:
            return module.out_proj((gate * z).to(x.dtype)[..., 0].transpose(1, 2))

        return Watched(q, k, v, by, output, back, last.args[0])


class Mamba2:
    """Knows Mamba2Mixer."""

    keeps = ("split", "reshape")

    def applies(self, module: nn.Module) -> bool:
        return True

    def __call__(self, module: nn.Module, given: Given) -> Watched | str:
        made = given.kept["reshape"][-1].out if "reshape" in given.kept else None  # of chunks, (B, T, H · D)
        if len(given.kept.get("split", ())) != 2:
            return OTHER
        heads = module.num_heads
        gate, _, steps = given.kept["split"][0].out  # (B, T, …)
        x, b, c = given.kept["split"][1].out
        steps = F.softplus(steps + module.dt_bias).clamp(*module.time_step_limit).transpose(1, 2)  # (B, H, T)
        q, k = (split(t, module.n_groups).repeat_interleave(heads // module.n_groups, 1) for t in (c, b))
        by = States(-torch.exp(module.A_log.detach().float())[:, None], steps, module.D.detach())
        v = split(x, heads)
        if made is None or made.shape != x.shape or goes_on(q, k, v, by, split(made, heads)):
            return STATE

        def back(z: Tensor) -> Tensor:
            return module.out_proj(module.norm(joined(z), gate).to(x.dtype))

        return Watched(q, k, v, by, split(made, heads), back, made)


MAMBA, MAMBA2 = Mamba(), Mamba2()
