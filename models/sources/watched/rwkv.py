"""RWKV-4 (Peng et al. 2023) as Hugging Face runs it: a sum over the past in which every channel is a head of its own.

Channel c gives token i, seen from token t, the score k[i, c] − (t − 1 − i)·w[c], and itself k[t, c] + u[c]; a softmax
of these weighs the values (eq. 16). There are no queries: a query of 1 stands for them. The receptance that gates the
sum comes after.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from headwise.interp.attention.banded import Masked
from headwise.interp.attention.watch import Given, Watched
from headwise.interp.masks import Causal
from headwise.models.sources.watched.states import OTHER, STATE, goes_on, ungated


def fading(decay: Tensor, bonus: Tensor, keys: int, start: int, stop: int, heads: slice) -> Tensor:
    """What w (H,), above 0, and u (H,) add to the scores of some rows and heads → (h, R, K)."""
    decay, bonus = (t.float()[heads, None, None] for t in (decay, bonus))
    query, key = torch.arange(start, stop, device=decay.device)[:, None], torch.arange(keys, device=decay.device)
    return torch.where(query == key, bonus, decay * (1 - (query - key)))


class Rwkv:
    """Knows RwkvSelfAttention."""

    keeps = ("linear",)

    def applies(self, module: nn.Module) -> bool:
        return True

    def __call__(self, module: nn.Module, given: Given) -> Watched | str:
        if len(given.kept.get("linear", ())) != 4:
            return OTHER
        keys, values, receptance, gated = given.kept["linear"]
        k, v, gate, product = (
            t.transpose(1, 2)[..., None]  # (B, T, C) → (B, C, T, 1)
            for t in (keys.out, values.out, torch.sigmoid(receptance.out), gated.args[0])
        )
        decay, bonus = torch.exp(module.time_decay.detach()), module.time_first.detach()
        by = Masked(1.0, Causal(), partial(fading, decay, bonus, k.shape[2]))
        q = torch.ones_like(k)
        output = ungated(product, gate, by, (q, k, v))
        if goes_on(q, k, v, by, output):
            return STATE

        def back(z: Tensor) -> tuple:
            return module.output((gate * z)[..., 0].transpose(1, 2)), *given.output[1:]

        return Watched(q, k, v, by, output, back, gated.args[0])


WATCHER = Rwkv()
