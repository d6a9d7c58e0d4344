"""A decoder-only transformer (GPT): predicts the next token from those before it.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (GPT-2): pre-LN, tied embedding.
Su et al. 2021, "RoFormer": rotary positions, unless they are learned as in GPT-2.

Axis letters: B batch, T positions, C model width, V vocabulary.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.models.architectures.blocks import MLP, Attention, initialise


@dataclass(frozen=True)
class DecoderConfig:
    vocab_size: int
    context: int  # the longest input, in tokens
    layers: int
    heads: int
    width: int
    positions: Literal["rotary", "learned"] = "rotary"

    def __post_init__(self):
        if self.positions not in ("rotary", "learned"):
            raise ValueError(f'positions must be "rotary" or "learned", not {self.positions!r}')


class Block(nn.Module):
    """Attention, then MLP; each reads a normalised copy of the residual stream and adds its result to it."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config.width, config.heads)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.mlp = MLP(config.width, "gelu_tanh")

    def forward(self, x: Tensor, positions: Tensor | None, mask: Tensor | None) -> Tensor:
        """``positions`` (B or 1, T) turn queries and keys; None where the embedding holds them."""
        x = x + self.attention(self.attention_norm(x), mask=mask, causal=mask is None, positions=positions)
        return x + self.mlp(self.mlp_norm(x))


class Decoder(nn.Module):
    """input_ids (B, T) → logits (B, T, V): at every position, a score for each possible next token."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        if config.positions == "learned":
            self.position_embedding = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width)
        writers = [linear for block in self.blocks for linear in (block.attention.output, block.mlp.contract)]
        initialise(self, writers, depth=len(writers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """`attention_mask` (B, T) is 1 at real tokens and 0 at padding, on either side."""
        x, positions, mask = self.embed(input_ids, attention_mask)
        for block in self.blocks:
            x = block(x, positions, mask)
        return F.linear(self.final_norm(x), self.token_embedding.weight)  # tied: (B, T, C) → (B, T, V)

    def embed(self, input_ids: Tensor, attention_mask: Tensor | None = None):
        """→ residual stream (B, T, C), rotary positions (B or 1, T) or None, mask (B, 1, T, T) or None if plainly
        causal."""
        length = input_ids.shape[1]
        if length > self.config.context:
            raise ValueError(f"{length} tokens exceed the context of {self.config.context}; shorten the input")
        if attention_mask is None:
            positions, mask = torch.arange(length, device=input_ids.device)[None], None  # (1, T)
        else:
            real = attention_mask.bool()  # (B, T)
            positions = (real.cumsum(1) - 1).clamp(min=0)  # the first real token is at 0
            causal = torch.ones(length, length, dtype=torch.bool, device=real.device).tril()  # (T, T)
            mask = causal & real[:, None, None, :]  # (B, 1, T, T), True = may attend
        x = self.token_embedding(input_ids)  # (B, T, C)
        if self.config.positions == "learned":
            x, positions = x + self.position_embedding(positions), None
        return x, positions, mask
