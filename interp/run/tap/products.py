"""Queries and keys of attention written by hand: which product a softmax's input was made from, and with what scale.

A product of two tensors is followed by identity through what attention does to its scores: a scale, a bias, a mask, a
cap, another shape with the same last two axes. What does anything else is not followed, and such a call shows its
scores only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from headwise.interp.attention.scores import Factors
from headwise.interp.run.tap.places import named

TIMES = {"mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__"}
OVER = {"div", "div_", "divide", "true_divide", "__truediv__", "__itruediv__"}
PLUS = {"add", "add_", "__add__", "__radd__", "__iadd__", "sub", "sub_", "__sub__", "__isub__"}
HIDES = {"masked_fill", "masked_fill_", "where", "maximum", "max", "clamp", "clamp_", "tanh", "nan_to_num"}
SAME = {
    "to", "float", "double", "half", "bfloat16", "type", "type_as", "contiguous", "clone",
    "view", "reshape", "unflatten", "flatten", "unsqueeze", "squeeze",
}  # fmt: skip
SWAPS = {"sub", "__sub__", "sub_", "__isub__", *OVER}  # what it does depends on which side the scores stand


@dataclass(frozen=True, eq=False)
class Product:
    """``left`` (…, Q, D) · ``right`` (…, K, D), along D, times ``scale``, and perhaps something added or hidden."""

    left: Tensor
    right: Tensor
    scale: float = 1.0

    def factors(self, four) -> Factors:
        """As queries and keys; ``four`` lays any tensor out as (B, H, rows, columns)."""
        return Factors(four(self.left).detach(), four(self.right).detach(), self.scale)


def made(tap, left: Tensor, right: Tensor, out: Tensor, scale: float = 1.0) -> None:
    """``out`` is left (…, Q, D) @ right (…, D, K): scores, if a softmax follows."""
    if isinstance(out, Tensor) and left.ndim == right.ndim == out.ndim > 2 and out.is_floating_point():
        tap.products[out] = Product(left, right.mT, scale)


def made_by(tap, equation: str, operands: list, out: Tensor) -> None:
    """The same written as an equation."""
    order = score_axes(equation) if isinstance(equation, str) and len(operands) == 2 else None
    if order is not None and out.is_floating_point():
        left, right = (t.permute(axes) for t, axes in zip(operands, order, strict=True))
        tap.products[out] = Product(left, right)


def follow(tap, func, args: tuple, kwargs: dict, out) -> None:
    """Carry a product over to what an operation made of it."""
    name = named(func)
    if name == "baddbmm":
        return _added_product(tap, args, kwargs, out)
    places = [i for i, arg in enumerate(args) if isinstance(arg, Tensor) and arg in tap.products]
    if len(places) != 1 or not isinstance(out, Tensor):
        if isinstance(out, Tensor):
            tap.products.pop(out, None)  # in place, from two products: neither tells
        return
    scores, others = args[places[0]], [a for i, a in enumerate(args) if i != places[0]]
    carried = _after(name, tap.products[scores], places[0], others) if _keeps_axes(name, scores, out) else None
    if carried is not None and not kwargs.keys() & {"alpha", "rounding_mode", "out"}:
        tap.products[out] = carried
    else:
        tap.products.pop(out, None)


def _added_product(tap, args: tuple, kwargs: dict, out: Tensor) -> None:
    """beta · input + alpha · (left @ right)."""
    rest = [*args[1:], *(kwargs[n] for n in ("batch1", "batch2") if n in kwargs)]
    if len(rest) == 2:
        made(tap, *rest, out, float(kwargs.get("alpha", 1)))


def _after(name: str, product: Product, place: int, others: list) -> Product | None:
    if place and name in SWAPS:
        return None
    if name in TIMES | OVER:
        factor = _number(others[0]) if len(others) == 1 else None
        if not factor:
            return None
        return replace(product, scale=product.scale * factor if name in TIMES else product.scale / factor)
    return product if name in PLUS | HIDES | SAME else None


def _keeps_axes(name: str, scores: Tensor, out: Tensor) -> bool:
    if name in SAME:
        return out.numel() == scores.numel() and out.shape[-2:] == scores.shape[-2:]
    return out.shape == scores.shape


def _number(value) -> float | None:
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 else None
    return float(value) if isinstance(value, int | float) else None


def score_axes(equation: str) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Axes of both operands as (batch…, query, width) and (batch…, key, width), read off an einsum whose result is
    (batch…, query, key), or None.

    >>> score_axes("bqhd,bkhd->bhqk")
    ((0, 2, 1, 3), (0, 2, 1, 3))
    >>> score_axes("ibnd,jbnd->bnij"), score_axes("b h i d, b h j d -> b h j i")
    (((1, 2, 0, 3), (1, 2, 0, 3)), None)
    """
    equation = equation.replace(" ", "")
    if equation.count("->") != 1 or equation.count(",") != 1 or "." in equation:
        return None
    inputs, result = equation.split("->")
    left, right = inputs.split(",")
    if len(result) < 2:
        return None
    *batch, query, key = result
    summed = [c for c in left if c in right and c not in result]
    whole = sorted((*batch, query, *summed)) == sorted(left) and sorted((*batch, key, *summed)) == sorted(right)
    if len(summed) != 1 or len(batch) > 2 or not whole:
        return None
    return tuple(tuple(t.index(c) for c in (*batch, one, *summed)) for t, one in ((left, query), (right, key)))
