"""tiny-vit: a Vision Transformer that names handwritten digits."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.models.architectures.vision import VisionConfig, VisionTransformer
from headwise.models.recipes.data import DIGITS, load_digits
from headwise.models.recipes.training import Recipe, Training
from headwise.models.sources.bundled import load_bundled

RECIPE = Recipe(steps=2600, matrix_lr=0.01, other_lr=0.002, weight_decay=0.1, bfloat16=False)
CONFIG = VisionConfig(image=28, patch=4, channels=1, layers=4, heads=4, width=64, classes=tuple("0123456789"))
PICTURES_PER_STEP = 96
CARD = """\
# {name}

A Vision Transformer (Dosovitskiy et al. 2021) in small: {config[layers]} layers × {config[heads]} heads, width
{config[width]}, {parameters:,} parameters. A digit of 28 × 28 pixels is cut into 7 × 7 patches of 4 × 4; [CLS] reads
them and names the digit.

**Data.** {about}, from `{package}`; {licence}. Every 5th picture of each digit is held out: 1,996 of 10,000.

**Training.** `headwise train {name}`: {recipe.steps:,} steps of {pictures} pictures, each turned, shifted,
scaled and sheared a little at random, seed {recipe.seed}, {minutes:.0f} minutes on one CPU core beside other work. Muon
for the hidden matrices, AdamW for the rest, label smoothing 0.1, linear decay to zero.

**Measured** by `headwise evaluate {name}` on the held-out pictures:

```
{report}
```

**Limits.** It knows ten digits, light on dark, in the middle, and calls anything else one of them. Weights are stored
as float16.
"""


def prepare() -> Training:
    torch.manual_seed(RECIPE.seed)
    (pictures, labels), held_out = load_digits()
    pictures, labels = torch.from_numpy(pictures)[:, None], torch.from_numpy(labels)  # (N, 1, 28, 28), (N,)
    module = VisionTransformer(CONFIG)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        generator = RECIPE.generator(step)
        chosen = torch.randint(len(labels), (PICTURES_PER_STEP,), generator=generator)
        return jitter(pictures[chosen], generator), labels[chosen]

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(module(x), y, label_smoothing=0.1)

    card = CARD.replace("{pictures}", str(PICTURES_PER_STEP))
    for key in ("about", "package", "licence"):
        card = card.replace("{" + key + "}", getattr(DIGITS, key))
    return Training(
        RECIPE,
        module,
        {"architecture": "vision", **asdict(CONFIG)},
        batch,
        loss,
        lambda: f"held-out: {accuracy(module, *held_out):.4f} right",
        card,
    )


def jitter(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Turn by up to 12°, scale and shear by up to 12 %, shift by up to 2 pixels: (B, 1, S, S) → the same."""

    def uniform(width: float) -> Tensor:
        return (torch.rand(len(pictures), generator=generator) * 2 - 1) * width

    angle, size, shear = uniform(math.radians(12)), 1 + uniform(0.12), uniform(0.12)
    shift = 2 / (pictures.shape[-1] / 2)  # in units of half a picture
    first = torch.stack([size * angle.cos(), size * (shear - angle.sin()), uniform(shift)], 1)
    second = torch.stack([size * angle.sin(), size * angle.cos(), uniform(shift)], 1)
    grid = F.affine_grid(torch.stack([first, second], 1), pictures.shape, align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False)


@torch.no_grad()
def accuracy(module: VisionTransformer, pictures: np.ndarray, labels: np.ndarray) -> float:
    x = torch.from_numpy(pictures)[:, None]
    said = torch.cat([module(part).argmax(1) for part in x.split(256)])
    return float((said == torch.from_numpy(labels)).float().mean())


def nearest_neighbour(training: tuple[np.ndarray, np.ndarray], pictures: np.ndarray, labels: np.ndarray) -> float:
    """The simple baseline: the label of the training picture with the smallest squared distance of pixels."""
    known = torch.from_numpy(training[0]).flatten(1)  # (N, 784)
    said = [torch.cdist(part, known).argmin(1) for part in torch.from_numpy(pictures).flatten(1).split(256)]
    return float((torch.from_numpy(training[1])[torch.cat(said)] == torch.from_numpy(labels)).float().mean())


def report(seed: int = 1000) -> str:
    """Every figure below is computed here and now. Nothing is drawn at random, so the seed changes nothing."""
    module, _, _ = load_bundled("tiny-vit")
    training, held_out = load_digits()
    return "\n".join(
        [
            f"data                    {DIGITS}",
            f"held out                {len(held_out[1]):,} pictures; nothing is random, seed {seed} is not used",
            f"parameters              {sum(p.numel() for p in module.parameters()):,}",
            f"accuracy                {accuracy(module, *held_out):.4f}",
            f"nearest neighbour       {nearest_neighbour(training, *held_out):.4f}",
        ]
    )
