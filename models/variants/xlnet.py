"""Two-stream attention: a text is predicted in any order of its positions. The query stream knows where a token stands
and what came before it in that order, and predicts it; the content stream also knows the token, and is what others see.

Yang et al. 2019, "XLNet: Generalized Autoregressive Pretraining for Language Understanding", §2.3, z the order:
g_zt ← Attention(Q = g_zt, KV = h_z<t), h_zt ← Attention(Q = h_zt, KV = h_z≤t), with the same weights; positions as in
Transformer-XL (§2.4), ahead too. O(n²·D) time, twice. The weights are attention weights, of two calls a layer. With
``order`` = z the masks are ``Order(z)`` and ``Order(z, own=False)``; left to right they are ``Causal()`` and

>>> print(streams(None)[1])
⬚⬚⬚⬚⬚⬚⬚⬚
■⬚⬚⬚⬚⬚⬚⬚
■■⬚⬚⬚⬚⬚⬚
■■■⬚⬚⬚⬚⬚
■■■■⬚⬚⬚⬚
■■■■■⬚⬚⬚
■■■■■■⬚⬚
■■■■■■■⬚

What comes first sees nothing here and takes nothing. In Hugging Face's code (and the authors') its scores are all
−10³⁰ alike, so that it takes the mean of all values, its own answer among them.

Axis letters: B batch, H heads, T positions, C model width, D head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from headwise.interp.attention.report import attend
from headwise.interp.masks import Bidirectional, Causal, Mask, Order
from headwise.models.architectures.blocks import Attention, sinusoids
from headwise.models.variants.steps import Memory
from headwise.models.variants.transformer_xl import Biased


def streams(order: Sequence[int] | None) -> tuple[Mask, Mask]:
    """What the content stream and the query stream see when the text is predicted in this order, None for left to
    right."""
    return (Causal(), Causal(-1)) if order is None else (Order(tuple(order)), Order(tuple(order), own=False))


@dataclass(frozen=True, eq=False)
class Stream(Biased):
    """Content and distance, under a mask of any kind: ``seen``."""

    causal: bool = False
    seen: Mask = field(default_factory=Bidirectional)

    def mask(self, length=None):
        return self.seen

    def allowed(self, at, keys, batch):
        sample, head = torch.arange(batch, device=keys.device)[:, None, None, None], at.new_zeros(1)
        return self.seen.allowed(sample, head, (at - self.before)[:, None], keys)


class TwoStream(Attention):
    """Both streams of one layer; they share all weights, and keys and values come from the content."""

    def __init__(self, width: int, heads: int):
        super().__init__(width, heads)
        self.distance = nn.Linear(width, width, bias=False)
        self.about_content, self.about_distance = (nn.Parameter(torch.zeros(heads, width // heads)) for _ in range(2))

    def forward(
        self, h: Tensor, g: Tensor, seen: tuple[Mask, Mask], state: Memory | None = None
    ) -> tuple[Tensor, Tensor, Memory]:
        """Content h and queries g (B, T, C), what each stream sees, and the keys and values of the tokens before → what
        is added to h and to g, and the keys and values of all."""
        q, k, v = self.project(h)
        before = 0 if state is None else state.k.shape[2]
        state = Memory(k, v) if state is None else state.grown(k, v)
        known = {"u": self.about_content, "v": self.about_distance, "before": before, **self._table(state.k.shape[2])}
        content, query = (
            self.output(attend(q, state.k, state.v, Stream(seen=mask, **known)).transpose(1, 2).flatten(2))
            for q, mask in zip((q, self.split(self.query(g))), seen, strict=True)
        )
        return content, query, state

    def _table(self, length: int) -> dict:
        """W_R R of distances −(T − 1) … T − 1, from keys ahead to keys behind (H, 2T − 1, D)."""
        behind = sinusoids(length, self.distance.in_features).to(self.distance.weight)  # (T, C)
        turned = behind.new_tensor([-1.0, 1.0]).repeat(behind.shape[1] // 2)  # sin(−x) = −sin(x)
        both = torch.cat([(behind * turned)[1:].flip(0), behind])
        return {"distances": self.split(self.distance(both)[None])[0], "ahead": length - 1}
