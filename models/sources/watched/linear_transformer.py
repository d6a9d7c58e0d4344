"""The packages linear-attention-transformer and linformer: attention in linear time, by summing keys up first.

Linear attention (Shen et al. 2018; Katharopoulos et al. 2020) meets features of queries with features of keys,
a[t, i] = Σₘ φ(q[t])ₘ · φ(k[i])ₘ. Linformer (Wang et al. 2020, eq. 7) shortens keys and values to m learned mixtures E
and F of all positions, softmax(q·(E k)ᵀ)·F: the weight of a position is what its mixtures get, of any sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headwise.interp.attention.linear import ByWeights, Linear
from headwise.interp.attention.watch import Given, Watched
from headwise.interp.masks import Bidirectional, Causal, Mask, Segments
from headwise.models.sources.watched.layouts import joined, split
from headwise.models.sources.watched.states import OTHER

SOME_LOCAL = (
    "some of its heads look through a local window and some at summed-up keys, in one module: set n_local_attn_heads "
    "to 0 or to the number of heads to see them"
)
LEAST = 1e-3  # of the sum that causal weights are divided by, as in the package


@dataclass(frozen=True, eq=False)
class Features(ByWeights):
    """Softmax features as ``linear_attn`` and ``causal_linear_attn`` make them. A causal query meets the keys of the
    buckets before its own; where buckets are of one token, its own too."""

    bucket: int | None = None  # None: not causal
    real: Tensor | None = None  # (B, K) bool

    @property
    def pattern(self) -> Mask:
        if self.bucket is None:
            return Bidirectional()
        return Causal() if self.bucket == 1 else Causal() & ~Segments(self.bucket)

    def form(self, q: Tensor, k: Tensor) -> Linear:
        left, hidden = q.softmax(-1) * q.shape[-1] ** -0.5, None
        if self.real is not None:
            hidden = ~self.real[:, None, :, None]
        if self.bucket is None:
            return Linear(left, (k if hidden is None else k.masked_fill(hidden, -torch.inf)).softmax(-2))
        right = k.exp() if hidden is None else k.exp().masked_fill(hidden, 0.0)
        return Linear(left, right, self.pattern, self._shared)

    def _shared(self, left: Tensor, right: Tensor, query: Tensor, heads: slice) -> Tensor:
        key = torch.arange(right.shape[2], device=left.device)
        met = (left @ right.mT) * self.pattern.allowed(None, None, query, key)
        return met / met.sum(-1, keepdim=True).clamp_min(LEAST)


class LinearSelfAttention:
    """Knows SelfAttention of linear-attention-transformer."""

    keeps = ("linear", "softmax", "exp")

    def applies(self, module: nn.Module) -> bool:
        return module.global_attn_heads > 0  # else all its heads look through local-attention's window

    def __call__(self, module: nn.Module, given: Given) -> Watched | str:
        if module.local_attn_heads:
            return SOME_LOCAL
        linear, softmax, exp = (given.kept.get(name, []) for name in self.keeps)
        causal = len(exp) == 1
        if len(linear) != 4 or len(softmax) != 2 - causal:
            return OTHER
        q, k = softmax[0].args[0], (exp[0] if causal else softmax[1]).args[0]  # positions turned in
        v, at = split(linear[2].out, module.heads), linear[3].args[0]
        bucket = module.global_attn_fn.keywords["bucket_size"] if causal else None
        by = Features(bucket, given.arguments.get("context_mask" if module.receives_context else "input_mask"))
        kind = "cross" if module.receives_context else "self"
        return Watched(q, k, v, by, split(at, module.heads), lambda z: module.to_out(joined(z)), at, kind)


@dataclass(frozen=True, eq=False)
class Mixtures(ByWeights):
    keys: Tensor  # (K, M) E, transposed
    values: Tensor  # (K, M) F, transposed

    def form(self, q: Tensor, k: Tensor) -> Linear:
        short = torch.einsum("bhkd,km->bhmd", k, self.keys)  # (B, Hk, M, D)
        share = (q @ short.mT * q.shape[-1] ** -0.5).softmax(-1)  # (B, H, Q, M)
        return Linear(share, self.values.expand(len(q), 1, -1, -1))


class Linformer:
    """Knows LinformerSelfAttention of linformer."""

    keeps = ("linear",)

    def applies(self, module: nn.Module) -> bool:
        return True

    def __call__(self, module: nn.Module, given: Given) -> Watched | str:
        linear = given.kept.get("linear", ())
        if len(linear) != 3 + (not module.share_kv):
            return OTHER
        q, k, v = (split(t.out, t.out.shape[-1] // module.dim_head) for t in (linear[0], linear[1], linear[-2]))
        mixtures = (module.proj_k, module.proj_k if module.share_kv else module.proj_v)
        by = Mixtures(*(mixture.detach()[: k.shape[2]] for mixture in mixtures))
        kind = "self" if given.arguments.get("context") is None else "cross"
        at = linear[-1].args[0]
        return Watched(q, k, v, by, split(at, module.heads), lambda z: module.to_out(joined(z)), at, kind)


LINEAR, LINFORMER = LinearSelfAttention(), Linformer()
