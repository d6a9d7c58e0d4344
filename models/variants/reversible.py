"""Reversible residuals and feed-forward in chunks: what makes the memory of training independent of depth and of the
width of the MLP (Kitaev et al. 2020, §3).

The residual stream is two streams, y₁ = x₁ + f(x₂) and y₂ = x₂ + g(y₁), f attention and g the MLP (equation 9, after
Gomez et al. 2017). The inputs can be computed from the outputs, x₂ = y₂ − g(y₁) and x₁ = y₁ − f(x₂), so the way back
needs no activation but the last. O(n·d) memory for any number of layers, and each layer is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd import Function

Half = Callable[[Tensor], Tensor]
Pair = tuple[Half, Half]  # f and g of a layer


def reversible(pairs: Sequence[Pair], x: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """The residual stream (B, T, C) through all layers, doubled at first and averaged at last.

    ``parameters`` are all that f and g learn: nothing else in them gets a gradient. Where none are given, or no
    gradient is asked for, the layers are run plainly.
    """
    if torch.is_grad_enabled() and any(p.requires_grad for p in parameters):
        first, second = _Streams.apply(pairs, len(parameters), *parameters, x, x)
    else:
        first, second = through(pairs, x, x)
    return (first + second) / 2


def through(pairs: Sequence[Pair], first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both streams through all layers, as autograd sees any others."""
    for f, g in pairs:
        first = first + f(second)
        second = second + g(first)
    return first, second


def in_chunks(layer: Half, x: Tensor, length: int) -> Tensor:
    """A layer that treats each position alone, ``length`` positions (B, T, C) at a time; 0 is all at once."""
    return layer(x) if not length else torch.cat([layer(part) for part in x.split(length, 1)], 1)


class _Streams(Function):
    """``through``, which keeps its outputs only and computes all else again on the way back."""

    @staticmethod
    def forward(ctx, pairs, count, *given):
        ctx.pairs, ctx.parameters = pairs, given[:count]
        first, second = (t.detach() for t in through(pairs, *given[count:]))
        ctx.save_for_backward(first, second)
        return first, second

    @staticmethod
    def backward(ctx, first_grad, second_grad):
        first, second = ctx.saved_tensors
        found: dict[int, Tensor] = {}
        for f, g in reversed(ctx.pairs):
            second, wanted = _undone(g, first, second, second_grad, ctx.parameters, found)
            first_grad = first_grad + wanted
            first, wanted = _undone(f, second, first, first_grad, ctx.parameters, found)
            second_grad = second_grad + wanted
        return None, None, *(found.get(id(p)) for p in ctx.parameters), first_grad, second_grad


def _undone(
    half: Half, read: Tensor, written: Tensor, grad: Tensor, parameters: Sequence[Tensor], found: dict[int, Tensor]
) -> tuple[Tensor, Tensor]:
    """written = before + half(read) → before, and the gradient that ``read`` gets from it; the parameters' is added to
    ``found``."""
    learnt = [p for p in parameters if p.requires_grad]
    with torch.enable_grad():
        read = read.detach().requires_grad_()
        made = half(read)
    wanted, *grads = torch.autograd.grad(made, (read, *learnt), grad, allow_unused=True)
    for parameter, g in zip(learnt, grads, strict=True):
        if g is not None:
            found[id(parameter)] = g if id(parameter) not in found else found[id(parameter)] + g
    return written - made.detach(), torch.zeros_like(read) if wanted is None else wanted
