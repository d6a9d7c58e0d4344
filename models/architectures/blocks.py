"""The parts that every transformer here is made of.

Vaswani et al. 2017, "Attention Is All You Need": attention (§3.2), the position-wise MLP (§3.3), sinusoids (§3.5).
Su et al. 2021, "RoFormer", §3.2: rotary positions, here with the two halves of D paired as in Llama.

Axis letters: B batch, T positions, Q queries, K keys, C model width, H heads, D = C / H head width.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rotate(x: Tensor, positions: Tensor, base: float = 10_000.0) -> Tensor:
    """Turn each pair of features of x (B, H, T, D) by an angle that grows with its position (B or 1, T).

    Pair i turns by position · base^(−2i/D), so a query at m and a key at n meet at the angle of m − n alone:
    ⟨rotate(q, m), rotate(k, n)⟩ depends on q, k and m − n (Su et al. 2021, equation 16).
    """
    half = x.shape[-1] // 2
    frequencies = base ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)  # (D/2,)
    angles = positions[:, None, :, None] * frequencies  # (B or 1, 1, T, D/2)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)  # angles in float32 also where x is not
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)  # (B, H, T, D)


def sinusoids(length: int, width: int, base: float = 10_000.0) -> Tensor:
    """Fixed positions → (length, width): sin(pos / base^(2i/C)) in feature 2i, the cosine in 2i + 1 (§3.5).

    >>> sinusoids(2, 4)  # sin 1, cos 1, sin 0.01, cos 0.01 at position 1
    tensor([[0.0000, 1.0000, 0.0000, 1.0000],
            [0.8415, 0.5403, 0.0100, 0.9999]])
    """
    rates = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)  # (C/2,)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates  # (length, C/2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()


class Attention(nn.Module):
    """Every position of x reads from the positions of ``memory``, or of x itself (self-attention)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} does not split into {heads} heads; make it a multiple")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def project(
        self, x: Tensor, memory: Tensor | None = None, positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, Q, C), memory (B, K, C) → q (B, H, Q, D), k and v (B, H, K, D); q and k turned when rotary
        ``positions`` (B or 1, T) are given."""
        memory = x if memory is None else memory
        q, k, v = self.split(self.query(x)), self.split(self.key(memory)), self.split(self.value(memory))
        if positions is not None:
            q, k = rotate(q, positions), rotate(k, positions)
        return q, k, v

    def split(self, y: Tensor) -> Tensor:
        """(B, T, C) → (B, H, T, D)."""
        return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        positions: Tensor | None = None,
    ) -> Tensor:
        """``mask`` broadcasts to (B, H, Q, K), True = may attend; ``causal`` hides the future without one."""
        q, k, v = self.project(x, memory, positions)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)  # (B, H, Q, D)
        return self.output(out.transpose(1, 2).flatten(2))  # (B, H, Q, D) → (B, Q, H, D) → (B, Q, C)


BENDS = {"relu": F.relu, "gelu": F.gelu, "gelu_tanh": partial(F.gelu, approximate="tanh")}


class MLP(nn.Module):
    """Two linear maps with a bend between them, applied to each position alone."""

    def __init__(self, width: int, bend: str):
        super().__init__()
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.bend = BENDS[bend]

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(self.bend(self.expand(x)))  # (B, T, C) → (B, T, 4C) → (B, T, C)


def padding_mask(real: Tensor | None) -> Tensor | None:
    """Real keys (B, K), 1 or True, → a mask (B, 1, 1, K) for every query, or None when none was given."""
    return None if real is None else real.bool()[:, None, None, :]


def initialise(module: nn.Module, writers: list[nn.Linear], depth: int) -> None:
    """Normal weights: 0.02 for embeddings, 1/√inputs for maps, and 1/√depth of that for ``writers``, the maps that add
    to the residual stream ``depth`` times (Radford et al. 2019, §2.3); biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for writer in writers:
        writer.weight.data /= depth**0.5
