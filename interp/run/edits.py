"""Changes made at the attention seam in a re-run: what if this head were not there, or this edge forbidden?

Pass them to ``capture(subject, raw, edits=(ZeroHead(3, 1),))``. They hold for that run and that thread alone;
weights and modules of the model are never touched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from headwise.interp.attention.scores import SENTINEL
from headwise.interp.errors import InputError
from headwise.interp.masks import Causal, Mask

Site = tuple[str, int]  # module path, how often it had run before


@dataclass(frozen=True)
class Edit:
    """Base of edits: a layer (of a stack, the model's first when None) and what changes there."""

    layer: int

    stack = None

    def mask(self, attn_mask: Tensor | None, is_causal: bool, q: Tensor, k: Tensor) -> tuple[Tensor | None, bool]:
        """The mask SDPA is given; q (B, H, Q, D), k (B, Hk, K, D)."""
        return attn_mask, is_causal

    def output(self, out: Tensor) -> Tensor:
        """What SDPA returned, (B, H, Q, Dv), safe to write into."""
        return out

    def weights(self, weights: Tensor, scores: Tensor, sink: Tensor | None = None, mixed: bool = False) -> Tensor:
        """Weights of attention written by hand, (B, H, Q, K), about to meet the values. ``sink`` (B, H, Q, 1) is the
        weight that goes to no key; ``mixed`` says that heads were mixed after the softmax."""
        return weights

    def _refuse_mixed(self, mixed: bool) -> None:
        if mixed:
            raise InputError(
                f"{type(self).__name__}(layer {self.layer}) cannot change single keys here: the model mixes its heads "
                "after the softmax, so no row of weights sums to one. Use ZeroHead or MeanHead."
            )


@dataclass(frozen=True)
class ZeroHead(Edit):
    """The head adds nothing (zero ablation: Michel et al. 2019, §2.2)."""

    head: int
    stack: str | None = None

    def output(self, out):
        out[:, self.head] = 0
        return out

    def weights(self, weights, scores, sink=None, mixed=False):
        weights = weights.clone()
        weights[:, self.head] = 0
        return weights


@dataclass(frozen=True)
class MeanHead(Edit):
    """The head adds its mean over positions at every position: what it says on average, without where it looks."""

    head: int
    stack: str | None = None

    def output(self, out):
        out[:, self.head] = out[:, self.head].mean(1, keepdim=True)
        return out

    def weights(self, weights, scores, sink=None, mixed=False):
        weights = weights.clone()
        weights[:, self.head] = weights[:, self.head].mean(1, keepdim=True)
        return weights


@dataclass(frozen=True)
class ForbidEdge(Edit):
    """Query may not see key, in one head or (None) in all of them; the rest of its row renormalises."""

    query: int
    key: int
    head: int | None = None
    stack: str | None = None

    def mask(self, attn_mask, is_causal, q, k):
        allowed = _dense(attn_mask, is_causal, q, k).clone()
        heads = slice(None) if self.head is None else self.head
        allowed[:, heads, self.query, self.key] = False if allowed.dtype == torch.bool else -math.inf
        return allowed, False

    def weights(self, weights, scores, sink=None, mixed=False):
        self._refuse_mixed(mixed)
        weights = weights.clone()
        heads = slice(None) if self.head is None else self.head
        weights[:, heads, self.query, self.key] = 0
        return _renormalised(weights, sink)


@dataclass(frozen=True)
class ReplaceMask(Edit):
    """Attention under another mask, in place of the model's own. Additive position biases stay."""

    to: Mask
    stack: str | None = None

    def mask(self, attn_mask, is_causal, q, k):
        allowed = self._allowed(q.shape[0], q.shape[1], q.shape[2], k.shape[2], q.device)
        if attn_mask is not None and attn_mask.is_floating_point():
            return torch.where(attn_mask > SENTINEL, attn_mask, 0).masked_fill(~allowed, -math.inf), False
        return allowed, False

    def weights(self, weights, scores, sink=None, mixed=False):
        self._refuse_mixed(mixed)
        if bool((scores <= SENTINEL).any()):
            hidden = self._allowed(*scores.shape, scores.device) & (scores <= SENTINEL)
            if bool(hidden.any()):
                raise InputError(
                    f"ReplaceMask(layer {self.layer}) cannot open keys in attention written by hand: their "
                    "scores are already "
                    "overwritten by the model's mask. Use a mask that only forbids more."
                )
        if sink is not None:
            return _renormalised(weights.masked_fill(~self._allowed(*scores.shape, scores.device), 0), sink)
        return torch.softmax(
            scores.float().masked_fill(~self._allowed(*scores.shape, scores.device), -math.inf), -1
        ).nan_to_num(0)

    def _allowed(self, batch, heads, queries, keys, device) -> Tensor:
        b, h, q, k = (torch.arange(n, device=device) for n in (batch, heads, queries, keys))
        return self.to(b[:, None, None, None], h[:, None, None], q[:, None], k).expand(batch, heads, queries, keys)


def resolve(edits: Iterable[Edit], calls) -> dict[Site, list[Edit]]:
    """Where each edit happens, by the calls of a run without it. Raises ValueError for a layer or head that is not
    there."""
    sites: dict[Site, list[Edit]] = {}
    for edit in edits:
        stack = edit.stack or (calls[0].stack if calls else None)
        call = next((c for c in calls if c.layer == edit.layer and c.stack == stack), None)
        if call is None:
            raise ValueError(
                f"{edit} names a layer this run has not: {stack} has {[c.layer for c in calls if c.stack == stack]}."
            )
        head = getattr(edit, "head", None)
        if head is not None and not 0 <= head < call.heads:
            raise ValueError(
                f"{edit} names a head that is not there: layer {edit.layer} has heads 0 … {call.heads - 1}."
            )
        sites.setdefault((call.name, call.occurrence), []).append(edit)
    return sites


def _renormalised(weights: Tensor, sink: Tensor | None) -> Tensor:
    """Rows that sum to one again, together with the sink (B, H, Q, 1), which keeps its share beside the keys left."""
    total = weights.sum(-1, keepdim=True) + (0 if sink is None else sink)
    return weights / total.clamp_min(torch.finfo(weights.dtype).tiny)


def _dense(attn_mask: Tensor | None, is_causal: bool, q: Tensor, k: Tensor) -> Tensor:
    """SDPA's mask arguments as one tensor (B, H, Q, K), bool or float."""
    shape = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
    if is_causal:
        attn_mask = Causal().rows(0, shape[2], shape[3], device=q.device)
    elif attn_mask is None:
        attn_mask = torch.ones(shape, dtype=torch.bool, device=q.device)
    return attn_mask.expand(shape)
