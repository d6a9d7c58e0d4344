"""A transformer of attention alone: two layers, no MLP, the smallest model in which induction heads form.

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits": embedding, attention, unembedding, everything
in between a sum. Rotary positions (Su et al. 2021) reach queries and keys only, so what heads move is content: a
previous-token head in layer 0 writes "before me stood A" into the stream, and an induction head in layer 1 looks for
the place where that A is the present token (K-composition; Olsson et al. 2022).

Axis letters: B batch, T positions, C model width, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headwise.models.architectures.blocks import Attention, initialise, padding_mask


@dataclass(frozen=True)
class AttentionOnlyConfig:
    vocab_size: int
    context: int  # the longest input, in tokens
    layers: int
    heads: int
    width: int


class Block(nn.Module):
    """Attention reads a normalised copy of the residual stream and adds its result to it."""

    def __init__(self, config: AttentionOnlyConfig):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config.width, config.heads)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        return x + self.attention(self.attention_norm(x), mask=mask, causal=mask is None, positions=positions)


class AttentionOnly(nn.Module):
    """input_ids (B, T) → logits (B, T, V): at every position, a score for each possible next token."""

    def __init__(self, config: AttentionOnlyConfig):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width)
        self.unembedding = nn.Linear(config.width, config.vocab_size, bias=False)
        writers = [block.attention.output for block in self.blocks]
        initialise(self, writers, depth=len(writers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """``attention_mask`` (B, T) is 1 at real tokens and 0 at padding, on either side."""
        x, positions, mask = self.embed(input_ids, attention_mask)
        for block in self.blocks:
            x = block(x, positions, mask)
        return self.unembedding(self.final_norm(x))

    def embed(self, input_ids: Tensor, attention_mask: Tensor | None = None):
        """→ residual stream (B, T, C), positions (B or 1, T), mask (B, 1, T, T) or None if plainly causal."""
        length = input_ids.shape[1]
        if length > self.config.context:
            raise ValueError(f"{length} tokens exceed the context of {self.config.context}; shorten the input")
        x = self.token_embedding(input_ids)
        if attention_mask is None:
            return x, torch.arange(length, device=x.device)[None], None
        positions = (attention_mask.long().cumsum(1) - 1).clamp(min=0)  # the first real token is at 0
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        return x, positions, padding_mask(attention_mask) & causal
