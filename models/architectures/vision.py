"""A Vision Transformer: a picture cut into patches, each a token; [CLS] reads them and names the picture.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", §3.1: a linear map of each patch, a class token, learned
positions, pre-LN blocks, the class read off the normalised class token.

Axis letters: B batch, T = 1 + patches, C model width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headwise.models.architectures.blocks import MLP, Attention, initialise


@dataclass(frozen=True)
class VisionConfig:
    image: int  # pixels of a side
    patch: int  # pixels of a patch's side
    channels: int
    layers: int
    heads: int
    width: int
    classes: tuple[str, ...]

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.image // self.patch


class Block(nn.Module):
    """Attention, then MLP; each reads a normalised copy of the residual stream and adds its result to it."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width, eps=1e-12)
        self.attention = Attention(config.width, config.heads)
        self.mlp_norm = nn.LayerNorm(config.width, eps=1e-12)
        self.mlp = MLP(config.width, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class VisionTransformer(nn.Module):
    """pixel_values (B, channels, image, image) → logits (B, classes)."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        if config.image % config.patch:
            raise ValueError(f"patches of {config.patch} do not tile an image of {config.image}; make it a multiple")
        self.config = config
        self.patch_embedding = nn.Conv2d(config.channels, config.width, config.patch, stride=config.patch)
        self.class_token = nn.Parameter(torch.randn(1, 1, config.width) * 0.02)
        self.position_embedding = nn.Parameter(torch.randn(1, 1 + config.grid**2, config.width) * 0.02)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width, eps=1e-12)
        self.classifier = nn.Linear(config.width, len(config.classes))
        writers = [linear for block in self.blocks for linear in (block.attention.output, block.mlp.contract)]
        initialise(self, writers, depth=len(writers))

    def forward(self, pixel_values: Tensor) -> Tensor:
        wanted = (self.config.channels, self.config.image, self.config.image)
        if tuple(pixel_values.shape[1:]) != wanted:
            raise ValueError(
                f"pixel_values should be (B, {', '.join(map(str, wanted))}), got {tuple(pixel_values.shape)}"
            )
        x = self.patch_embedding(pixel_values).flatten(2).mT  # (B, C, rows, columns) → (B, patches, C), row by row
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1) + self.position_embedding  # (B, T, C)
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.final_norm(x)[:, 0])
