"""A decoder-only transformer (GPT) in one file, to be read from top to bottom.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (GPT-2): pre-LN, tied embedding.
Vaswani et al. 2017, "Attention Is All You Need", section 3.2: softmax(Q Kᵀ / √D) V, split over H heads.
Su et al. 2021, "RoFormer", section 3.2: rotary positions, here with the two halves of D paired as in Llama.

Axis letters: B batch, T positions, C model width, H heads, D = C / H head width, V vocabulary.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class DecoderConfig:
    vocab_size: int
    context: int  # the longest input, in tokens
    layers: int
    heads: int
    width: int
    positions: Literal["rotary", "learned"] = "rotary"

    def __post_init__(self):
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not split into {self.heads} heads; make it a multiple")
        if self.positions not in ("rotary", "learned"):
            raise ValueError(f'positions must be "rotary" or "learned", not {self.positions!r}')


def rotate(x: Tensor, positions: Tensor, base: float = 10_000.0) -> Tensor:
    """Turn each pair of features of x (B, H, T, D) by an angle that grows with its position (B or 1, T).

    Pair i turns by position · base^(−2i/D), so a query at m and a key at n meet at the angle of m − n alone:
    ⟨rotate(q, m), rotate(k, n)⟩ depends on q, k and m − n (Su et al. 2021, equation 16).
    """
    half = x.shape[-1] // 2
    frequencies = base ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)  # (D/2,)
    angles = positions[:, None, :, None] * frequencies  # (B or 1, 1, T, D/2)
    cos, sin = angles.cos(), angles.sin()
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)  # (B, H, T, D)


class Attention(nn.Module):
    """Causal self-attention: every position reads from itself and from the positions before it."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.heads = config.heads
        self.rotary = config.positions == "rotary"
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.output = nn.Linear(config.width, config.width)

    def project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, C) → q, k, v, each (B, H, T, D); q and k already carry their rotary positions."""

        def split(y):
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, T, H, D) → (B, H, T, D)

        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        if self.rotary:
            q, k = rotate(q, positions), rotate(k, positions)
        return q, k, v

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = self.project(x, positions)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)  # (B, H, T, D)
        return self.output(out.transpose(1, 2).flatten(2))  # (B, H, T, D) → (B, T, H, D) → (B, T, C)


class MLP(nn.Module):
    """Two linear maps with a GELU between them, applied to each position alone."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.expand = nn.Linear(config.width, 4 * config.width)
        self.contract = nn.Linear(4 * config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(F.gelu(self.expand(x), approximate="tanh"))  # (B, T, C) → (B, T, 4C) → (B, T, C)


class Block(nn.Module):
    """Attention, then MLP; each reads a normalised copy of the residual stream and adds its result to it."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), positions, mask)
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
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        """Normal: 0.02 for embeddings, 1/√inputs for maps, and 1/√(2L) of that for those that write to x."""
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)
        if isinstance(module, Block):  # comes after its parts
            for writes in (module.attention.output, module.mlp.contract):
                writes.weight.data /= (2 * self.config.layers) ** 0.5

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """`attention_mask` (B, T) is 1 at real tokens and 0 at padding, on either side."""
        x, positions, mask = self.embed(input_ids, attention_mask)
        for block in self.blocks:
            x = block(x, positions, mask)
        return F.linear(self.final_norm(x), self.token_embedding.weight)  # tied: (B, T, C) → (B, T, V)

    def embed(self, input_ids: Tensor, attention_mask: Tensor | None = None):
        """→ residual stream (B, T, C), positions (B or 1, T), mask (B, 1, T, T) or None if plainly causal."""
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
            x = x + self.position_embedding(positions)
        return x, positions, mask
