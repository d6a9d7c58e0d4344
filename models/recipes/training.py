"""What a training run is made of, and the parts that several recipes share.

Hidden matrices learn by Muon (Jordan et al. 2024), the rest by AdamW (Loshchilov & Hutter 2019).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Recipe:
    """The numbers of a run. Every step draws its batch from (seed, step), so a run that was stopped goes on as if it
    had not been."""

    steps: int
    seed: int = 1
    warmup: int = 50
    matrix_lr: float = 0.02  # Muon
    other_lr: float = 0.003  # embeddings, biases, gains
    weight_decay: float = 0.2  # Muon's
    bfloat16: bool = True  # products in bfloat16, weights and sums in float32

    def factor(self, step: int) -> float:
        """Of the learning rates: linear warm-up, then linear decay to zero at the last step."""
        return min((step + 1) / self.warmup, 1 - step / self.steps)

    def generator(self, step: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 1_000_003 + step)


@dataclass
class Training:
    """A model in training, as ``headwise train`` drives it."""

    recipe: Recipe
    module: nn.Module
    config: dict[str, Any]  # of config.json
    batch: Callable[[int], tuple[Tensor, ...]]  # step → what loss takes
    loss: Callable[..., Tensor]
    progress: Callable[[], str]  # cheap held-out figures on the way
    card: str  # README.md; {recipe}, {config}, {minutes}, {parameters} and {report} are filled in
    save: Callable[[Path], None] = lambda folder: None  # what a model needs beside its weights, such as a tokenizer
    optimizers: list[torch.optim.Optimizer] = field(default_factory=list)

    def __post_init__(self):
        self.optimizers = self.optimizers or optimizers(self.module, self.recipe)


def optimizers(module: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    embeddings = {id(p) for part in module.modules() if isinstance(part, nn.Embedding) for p in part.parameters()}
    matrices = [p for p in module.parameters() if p.ndim == 2 and id(p) not in embeddings]
    hidden = {id(p) for p in matrices}
    others = [p for p in module.parameters() if id(p) not in hidden]
    return [
        torch.optim.Muon(matrices, lr=recipe.matrix_lr, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(others, lr=recipe.other_lr, betas=(0.9, 0.95), weight_decay=0),
    ]
