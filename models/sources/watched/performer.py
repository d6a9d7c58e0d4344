"""``FastAttention`` of the package performer-pytorch: softmax by random features, other features by a kernel function,
or none (Choromanski et al. 2021; Shen et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from headwise.interp.attention.kernel import Kernel
from headwise.interp.attention.watch import Given, Watched
from headwise.models.variants.performer import Favor

ADDED = 1e-3  # to each feature of a kernel function
FLOOR = 1e-6  # to the sum of a causal query's keys, feature by feature


@dataclass(frozen=True, eq=False)
class Fast:
    """Features of queries and of keys, and their products."""

    features: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    causal: bool

    def output(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self._products(q, k).output(v)

    def form(self, q: Tensor, k: Tensor) -> Kernel:
        return self._products(q, k)

    def _products(self, q: Tensor, k: Tensor) -> Kernel:
        left, right = self.features(q, k)
        floor = FLOOR * left.sum(-1, keepdim=True) if self.causal else 0.0
        return Kernel(left, right, self.causal, floor=floor, met=(q, k, q.shape[-1] ** -0.5))


class FastAttention:
    """Knows ``FastAttention``."""

    keeps = ()

    def applies(self, module: nn.Module) -> bool:
        return True

    def __call__(self, module: nn.Module, given: Given) -> Watched | str:
        a = given.arguments
        by = Fast(_features(module), module.causal)
        return Watched(a["q"], a["k"], a["v"], by, given.output, lambda z: z)


def _features(module: nn.Module) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    directions = module.projection_matrix

    def random(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        found = Favor(directions, module.causal, "global").features(q, k)
        return found.left, found.right

    def through(t: Tensor) -> Tensor:
        return module.kernel_fn(t.shape[-1] ** -0.25 * t @ directions.T.to(t)) + ADDED

    if module.no_projection:
        return lambda q, k: (q.softmax(-1), k.exp() if module.causal else k.softmax(-2))
    if module.generalized_attention:
        return lambda q, k: (through(q), through(k))
    return random


WATCHER = FastAttention()
