"""What a case of the zoo is, and the tiny models that all of them are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCABULARY, WIDTH, HEADS = 37, 16, 4


@dataclass(frozen=True)
class Case:
    """One real bug and its fix."""

    name: str
    cls: str  # class of the finding, one of ``check.CLASSES``
    report: str  # "owner/repo#number" of the public report, or "" for a common form without one
    symptom: str  # what its user saw, one sentence
    make_bug: Callable[[], nn.Module]
    make_twin: Callable[[], nn.Module]
    options: Mapping = field(default_factory=dict)  # keyword arguments of check
    layer: int | None = None  # where the finding must point; None when it is in no layer
    module: str | None = None  # module path the finding must start with
    shows: Callable[[nn.Module], str] | None = None  # a short text or number in which the bug shows

    @property
    def link(self) -> str:
        """Address of the report, "" where there is none."""
        where, _, number = self.report.partition("#")
        return f"https://github.com/{where}/issues/{number}" if number else ""

    def bug(self) -> nn.Module:
        return seeded(self.make_bug)

    def twin(self) -> nn.Module:
        return seeded(self.make_twin)

    def show(self, model: nn.Module) -> str:
        """The symptom as a short text or number, of the bug or of the twin."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            return (self.shows or peek_ahead)(model)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A model with the same random weights every time, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()


def causal(length: int) -> Tensor:
    """(T, T) bool, True = may attend."""
    return torch.ones(length, length, dtype=torch.bool).tril()


def heads_of(x: Tensor, heads: int = HEADS) -> Tensor:
    """(B, T, C) → (B, H, T, D)"""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class Attention(nn.Module):
    """Causal self-attention. A bug overrides ``allowed`` (what may be seen) or ``mix`` (how it is done)."""

    def __init__(self, width: int = WIDTH, heads: int = HEADS):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """x (B, T, C), real (B, T) bool → (B, T, C)"""
        q, k, v = (heads_of(part, self.heads) for part in self.qkv(x).chunk(3, -1))  # (B, H, T, D)
        return self.output(self.mix(q, k, v, real).transpose(1, 2).flatten(2))

    def allowed(self, length: int, real: Tensor | None) -> Tensor:
        """True = may attend, broadcasting to (B, H, T, T). Padding queries see themselves, so that no row is empty."""
        mask = causal(length)
        if real is not None:
            mask = (mask & real[:, None, None, :]) | torch.eye(length, dtype=torch.bool)
        return mask

    def mix(self, q, k, v, real):
        return F.scaled_dot_product_attention(q, k, v, self.allowed(q.shape[2], real))


class ByHand(Attention):
    """The same, written out, for bugs that need the scores."""

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5  # (B, H, T, T)

    def mix(self, q, k, v, real):
        scores = self.scores(q, k).masked_fill(~self.allowed(q.shape[2], real), -torch.inf)
        return scores.softmax(-1) @ v


class Block(nn.Module):
    def __init__(self, attention: type[nn.Module] | Callable[[], nn.Module] = Attention, width: int = WIDTH):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = attention()
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        x = x + self.attention(self.norm(x), *args, **kwargs)
        return x + self.mlp(x)


class Language(nn.Module):
    """ids (B, T), attention_mask (B, T) with 1 = real → logits (B, T, V). ``layers`` names the attention of each
    block.
    """

    def __init__(self, *layers: Callable[[], nn.Module], block=Block, positions: bool = False):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.place = nn.Embedding(128, WIDTH) if positions else None
        self.blocks = nn.ModuleList(block(layer) for layer in (layers or (Attention, Attention)))
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def positions(self, ids: Tensor, real: Tensor | None) -> Tensor:
        """Position of each token, counted from its sample's first real one."""
        return torch.arange(ids.shape[1])[None] if real is None else (real.long().cumsum(1) - 1).clamp(min=0)

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        real = None if attention_mask is None else attention_mask.bool()
        x = self.embed(ids)
        if self.place is not None:
            x = x + self.place(self.positions(ids, real))
        for block in self.blocks:
            x = block(x, real)
        return self.head(x)


class Plain(Language):
    """The same without a padding mask: ids (B, T) → logits (B, T, V)."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids)


class Series(nn.Module):
    """x (B, T, 6) → (B, T, 6): floats through a list of layers, each of which keeps the time axis."""

    def __init__(self, *layers: nn.Module, channels: int = 6):
        super().__init__()
        self.enter = nn.Linear(channels, WIDTH)
        self.layers = nn.ModuleList(layers)
        self.leave = nn.Linear(WIDTH, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for layer in self.layers:
            x = x + layer(x)
        return self.leave(x)


# -- what shows a bug
# ---------------------------------------------------------------------------------------------------
def sample(model: nn.Module, batch: int = 2, length: int = 9) -> Tensor:
    """Ids for a token model, floats for the others."""
    token = any(isinstance(m, nn.Embedding) for m in model.modules())
    return torch.randint(2, VOCABULARY, (batch, length)) if token else torch.randn(batch, length, 6)


def peek_ahead(model: nn.Module) -> str:
    """Change the last input: which outputs before it move?"""
    x = sample(model)
    other = x.clone()
    other[:, -1] = 1 if not x.is_floating_point() else 3.0
    moved = (first_tensor(model(x)) - first_tensor(model(other))).abs().flatten(2).amax((0, 2))[:-1]
    n = int((moved > 1e-6).sum())
    return (
        f"change the last input: {n} of {len(moved)} earlier outputs move, "
        f"by up to {float(moved.max()) if n else 0:.2g}"
    )


def first_tensor(output) -> Tensor:
    return (
        output
        if isinstance(output, Tensor)
        else next(
            v for v in (output.values() if isinstance(output, dict) else output) if isinstance(v, Tensor) and v.ndim
        )
    )


def padded_answer(model: nn.Module, left: bool = False) -> str:
    """The same sample alone and padded: the token it would say next."""
    x = torch.randint(2, VOCABULARY, (1, 6))
    pad = torch.ones(1, 3, dtype=torch.long)
    order = (pad, x) if left else (x, pad)
    real = torch.cat([torch.full_like(t, int(t is x)) for t in order], 1)
    alone = model(x, torch.ones_like(x))[0, -1]
    together = model(torch.cat(order, 1), real)[0, -1 if left else 5]
    return (
        f"next token alone {int(alone.argmax())}, with three pads "
        f"{int(together.argmax())}; logits differ by {float((alone - together).abs().max()):.2g}"
    )


def left_padded_answer(model: nn.Module) -> str:
    return padded_answer(model, left=True)
