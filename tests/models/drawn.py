"""Random parts that tests of models share."""

import torch
from torch import nn


def generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def enlarged(module: nn.Module) -> nn.Module:
    """Weights far larger than at initialisation, so that attention is far from uniform."""
    for parameter in module.eval().requires_grad_(False).parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator())
    return module
