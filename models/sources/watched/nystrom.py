"""Nyströmformer (Xiong et al. 2021) as Hugging Face runs it: n queries meet n keys by way of m landmarks.

The softmax matrix is rebuilt as F·A⁺·B (eq. 13): queries to landmark keys, the pseudoinverse between landmarks, and
landmark queries to keys. The product is the weight of each key, which an inverse may turn negative; a depthwise
convolution of the values, where there is one, adds weights that depend on the distance alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headwise.interp.attention.linear import ByWeights, Linear
from headwise.interp.attention.watch import Given, Watched
from headwise.models.sources.watched.layouts import joined, split


@dataclass(frozen=True, eq=False)
class Landmarks(ByWeights):
    """Queries and keys come scaled by D^(−1/4) each."""

    count: int
    inverse: Callable[[Tensor], Tensor]  # (B, H, M, M) → its pseudoinverse, as the module approximates it
    added: Tensor | None = None  # mask, broadcasts to (B, H, M, K)
    convolution: Tensor | None = None  # (H, width): weights by distance

    def form(self, q: Tensor, k: Tensor) -> Linear:
        queries, keys = (t.unflatten(2, (self.count, -1)).mean(3) for t in (q, k))  # (B, H, M, D)
        to_keys = queries @ k.mT
        to_keys = (to_keys if self.added is None else to_keys + self.added).softmax(-1)  # (B, H, M, K)
        between = self.inverse((queries @ keys.mT).softmax(-1))  # (B, H, M, M)
        to_landmarks = (q @ keys.mT).softmax(-1) @ between  # (B, H, Q, M)
        return Linear(to_landmarks, to_keys.mT, made=None if self.convolution is None else self._convolved)

    def _convolved(self, left: Tensor, right: Tensor, query: Tensor, heads: slice) -> Tensor:
        kernel = self.convolution[heads].to(left.dtype)  # (h, width)
        tap = torch.arange(right.shape[2], device=left.device) - query + kernel.shape[-1] // 2  # (R, K)
        near = (tap >= 0) & (tap < kernel.shape[-1])
        return left @ right.mT + kernel[:, tap.clamp(0, kernel.shape[-1] - 1)] * near


class Nystrom:
    """Knows NystromformerSelfAttention."""

    keeps = ()

    def applies(self, module: nn.Module) -> bool:
        return module.num_landmarks != module.seq_len  # else it is softmax attention, seen as such

    def __call__(self, module: nn.Module, given: Given) -> Watched:
        x, heads = given.arguments["hidden_states"], module.num_attention_heads
        q, k, v = (split(part(x), heads) for part in (module.query, module.key, module.value))
        q, k = (t * module.attention_head_size**-0.25 for t in (q, k))
        kernel = None if module.conv_kernel_size is None else module.conv.weight.detach()[:, 0, :, 0]
        by = Landmarks(module.num_landmarks, module.iterative_inv, given.arguments.get("attention_mask"), kernel)
        return Watched(q, k, v, by, split(given.output[0], heads), lambda z: (joined(z), *given.output[1:]))


WATCHER = Nystrom()
