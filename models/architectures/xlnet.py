"""XLNet: a text is predicted token by token in an order of its positions that is drawn anew for every text, so that
each token learns to be told from any of the others, and yet no token is masked.

Yang et al. 2019, "XLNet: Generalized Autoregressive Pretraining for Language Understanding", §2.3–2.4: two streams
(``variants.xlnet``) through post-LN blocks that share their weights; the query stream starts from one vector w for all
positions. Segment encodings (§2.5) are left out: texts come alone.

Axis letters: B batch, T positions, C model width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.interp.masks import Dense, Mask, Padding
from headwise.models.architectures.blocks import MLP, initialise
from headwise.models.variants.steps import Memory
from headwise.models.variants.xlnet import TwoStream, streams

State = list[Memory | None]


@dataclass(frozen=True)
class XLNetConfig:
    vocab_size: int
    context: int  # the longest input, in tokens
    layers: int
    heads: int
    width: int


class Block(nn.Module):
    """Post-LN: attention, then MLP, each added to what it read and the sum normalised, for both streams alike."""

    def __init__(self, config: XLNetConfig):
        super().__init__()
        self.attention = TwoStream(config.width, config.heads)
        self.attention_norm = nn.LayerNorm(config.width, eps=1e-12)
        self.mlp = MLP(config.width, "gelu")
        self.mlp_norm = nn.LayerNorm(config.width, eps=1e-12)

    def forward(
        self, h: Tensor, g: Tensor, seen: tuple[Mask, Mask], held: Memory | None = None
    ) -> tuple[Tensor, Tensor, Memory]:
        """Content h and queries g (B, T, C), what each sees, and what is remembered of earlier tokens → the same."""
        content, query, held = self.attention(h, g, seen, held)
        h, g = (self.attention_norm(stream + read) for stream, read in ((h, content), (g, query)))
        h, g = (self.mlp_norm(stream + self.mlp(stream)) for stream in (h, g))
        return h, g, held


class XLNet(nn.Module):
    """input_ids (B, T) → logits (B, T, V): at every position a score for each token that may stand *there*, given
    those that come before it in the order."""

    def __init__(self, config: XLNetConfig):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.start = nn.Parameter(torch.randn(config.width) * 0.02)  # w: what the query stream is at first
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.output_bias = nn.Parameter(torch.zeros(config.vocab_size))
        initialise(self, [], depth=1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, order: Tensor | None = None) -> Tensor:
        """``order`` (T,) are the positions in the order in which they are predicted, left to right where it is None;
        ``attention_mask`` (B, T) is 1 at real tokens and 0 at padding."""
        if order is not None and order.numel() != input_ids.shape[1]:
            raise ValueError(f"order expects each of the {input_ids.shape[1]} positions once, got {order.numel()}")
        seen = streams(None if order is None else order.flatten().tolist())
        if attention_mask is not None:
            seen = tuple(mask & real_keys(attention_mask.bool()) for mask in seen)
        return self._run(input_ids, seen, [None] * len(self.blocks))[0]

    def step(self, input_ids: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The next tokens (B, n) left to right, and what the last step returned → logits (B, n, V) of these tokens,
        each told from those before it, and the state."""
        before = 0 if state is None else state[0].k.shape[2]
        seen = tuple(type(mask)(mask.offset + before) for mask in streams(None))
        return self._run(input_ids, seen, state or [None] * len(self.blocks))

    def _run(self, input_ids: Tensor, seen: tuple[Mask, Mask], state: State) -> tuple[Tensor, State]:
        length = input_ids.shape[1] + (0 if state[0] is None else state[0].k.shape[2])
        if length > self.config.context:
            raise ValueError(f"{length} tokens exceed the context of {self.config.context}; shorten the input")
        h = self.token_embedding(input_ids)
        g, after = self.start.expand_as(h), []
        for block, held in zip(self.blocks, state, strict=True):
            h, g, held = block(h, g, seen, held)
            after.append(held)
        return F.linear(g, self.token_embedding.weight, self.output_bias), after  # tied: (B, T, C) → (B, T, V)


def real_keys(real: Tensor) -> Mask:
    """The mask of real tokens (B, T): an expression where they stand side by side."""
    first, counts = real.int().argmax(1).tolist(), real.sum(1).tolist()
    if all(bool(row[f : f + n].all()) for row, f, n in zip(real, first, counts, strict=True)):
        return Padding(tuple(counts), starts=tuple(first))
    return Dense(real[:, None, None])
