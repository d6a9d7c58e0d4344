"""A decoder whose attention is one of the mechanisms in ``variants``; all else is that of ``decoder``.

Axis letters: B batch, T positions, C model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.models.architectures.blocks import MLP, initialise, padding_mask, sinusoids
from headwise.models.variants import mechanism
from headwise.models.variants.reversible import in_chunks, reversible


@dataclass(frozen=True)
class VariantConfig:
    """``options`` are the mechanism's own: a window, a number of features …"""

    mechanism: str
    vocab_size: int
    context: int  # the longest input, in tokens
    layers: int
    heads: int
    width: int
    positions: Literal["rotary", "learned", "sinusoids", "none"] = "rotary"  # "none": the mechanism has its own
    options: Mapping[str, Any] = field(default_factory=dict)
    reversible: bool = False  # two residual streams, whose activations need not be kept (Reformer)
    feed_forward_chunk: int = 0  # positions that the MLP treats at a time, 0: all

    def __post_init__(self):
        if self.positions not in ("rotary", "learned", "sinusoids", "none"):
            raise ValueError(f"positions must be rotary, learned, sinusoids or none, not {self.positions!r}")


class Block(nn.Module):
    """Attention, then MLP; each reads a normalised copy of the residual stream and adds its result to it."""

    def __init__(self, config: VariantConfig):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = mechanism(config.mechanism)(config.width, config.heads, **config.options)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.mlp = MLP(config.width, "gelu_tanh")
        self.chunk = config.feed_forward_chunk

    def attended(self, x: Tensor, positions: Tensor | None, mask: Tensor | None) -> Tensor:
        """What attention adds to the stream."""
        return self.attention(self.attention_norm(x), mask=mask, causal=True, positions=positions)

    def fed(self, x: Tensor) -> Tensor:
        """What the MLP adds to it."""
        return in_chunks(self.mlp, self.mlp_norm(x), self.chunk)

    def forward(self, x: Tensor, positions: Tensor | None, mask: Tensor | None) -> Tensor:
        """``mask`` (B, 1, 1, T) tells real tokens from padding, None where all are real."""
        x = x + self.attended(x, positions, mask)
        return x + self.fed(x)

    def step(self, x: Tensor, state: Any, start: int, rotary: bool) -> tuple[Tensor, Any]:
        """The next tokens (B, n, C), from position ``start``, and what attention remembers of those before."""
        y, state = self.attention.step(self.attention_norm(x), state, start, rotary)
        x = x + y
        return x + self.fed(x), state

    def step_reversible(self, first: Tensor, second: Tensor, *held) -> tuple[Tensor, Tensor, Any]:
        """The same of two streams."""
        y, state = self.attention.step(self.attention_norm(second), *held)
        first = first + y
        return first, second + self.fed(first), state


class VariantDecoder(nn.Module):
    """input_ids (B, T) → logits (B, T, V): at every position, a score for each possible next token."""

    def __init__(self, config: VariantConfig):
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
        """``attention_mask`` (B, T) is 1 at real tokens and 0 at padding, on either side."""
        length = input_ids.shape[1]
        positions = torch.arange(length, device=input_ids.device)[None]  # (1, T)
        if attention_mask is not None:
            positions = (attention_mask.long().cumsum(1) - 1).clamp(min=0)  # the first real token is at 0
        x = self._embedded(input_ids, positions)
        rotary = positions if self.config.positions == "rotary" else None
        mask = padding_mask(attention_mask)
        if self.config.reversible:
            pairs = [(partial(block.attended, positions=rotary, mask=mask), block.fed) for block in self.blocks]
            return self._unembedded(reversible(pairs, x, list(self.blocks.parameters()) if self.training else ()))
        for block in self.blocks:
            x = block(x, rotary, mask)
        return self._unembedded(x)

    def step(self, input_ids: Tensor, state: tuple[int, list] | None = None) -> tuple[Tensor, tuple[int, list]]:
        """The next tokens of a text (B, n), and the state that the last step returned → logits (B, n, V), state: what
        ``forward`` gives for the whole text at these places."""
        start, states = state or (0, [None] * len(self.blocks))
        positions = torch.arange(start, start + input_ids.shape[1], device=input_ids.device)[None]
        x, rotary, after = self._embedded(input_ids, positions), self.config.positions == "rotary", []
        other = x
        for block, held in zip(self.blocks, states, strict=True):
            if self.config.reversible:
                other, x, held = block.step_reversible(other, x, held, start, rotary)
            else:
                x, held = block.step(x, held, start, rotary)
            after.append(held)
        x = (other + x) / 2 if self.config.reversible else x
        return self._unembedded(x), (start + input_ids.shape[1], after)

    def _embedded(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        """Tokens (B, T) at positions (B or 1, T) → the residual stream (B, T, C)."""
        context, length = self.config.context, int(positions.max()) + 1
        if length > context:
            raise ValueError(f"{length} tokens exceed the context of {context}; shorten the input")
        x = self.token_embedding(input_ids)
        if self.config.positions == "learned":
            return x + self.position_embedding(positions)
        if self.config.positions == "sinusoids":
            return x + sinusoids(length, x.shape[-1]).to(x)[positions]
        return x

    def _unembedded(self, x: Tensor) -> Tensor:
        return F.linear(self.final_norm(x), self.token_embedding.weight)  # tied: (B, T, C) → (B, T, V)
