"""What a module of another field is: right, or with one bug of its own kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

WIDTH, WORDS = 16, 31


@dataclass(frozen=True)
class Field:
    """``make(wrong)`` builds it; it is checked by its plain factory, or with the one hint of ``options``."""

    name: str
    make: Callable[[bool], nn.Module]
    bug: str  # what is planted
    expect: str = "causal"
    options: Mapping = field(default_factory=dict)
    where: str = ""  # the module path that the finding must start with, where its place is a module of its own

    def built(self, wrong: bool) -> nn.Module:
        """The same random weights every time, in eval mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make(wrong).eval()


def causal(length: int) -> Tensor:
    """(T, T) bool, True = may attend."""
    return torch.ones(length, length, dtype=torch.bool).tril()


def drawn(*shape: int, below: int = 0, seed: int = 5) -> Tensor:
    """Floats, or ids ``below`` a number."""
    g = torch.Generator().manual_seed(seed)
    return torch.randint(below, shape, generator=g) if below else torch.randn(shape, generator=g)
