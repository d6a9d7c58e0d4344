"""Attention written by hand, recognised by what is done, not by names: a softmax whose result, whole, is then
multiplied onto values.

What is recorded is what meets the values. A softmax inside an attention module that is cut up first (block-sparse,
banded, bucketed) is not dense attention: such a module ends in ``unseen`` with the reason, never in ``calls`` with
wrong axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.scores import Factors, Seen
from headwise.interp.errors import InputError
from headwise.interp.run.tap import products
from headwise.interp.run.tap.carried import Axes, Carried, after, is_cut, mixed, placed
from headwise.interp.run.tap.changes import CallChanges
from headwise.interp.run.tap.recorder import Lost, Softmax


# -- operations ----------------------------------------------------------------------------------------------------
def softmax(tap, func, input, dim=None, *args, **kwargs):
    """It may become attention weights."""
    out = func(input, dim, *args, **kwargs) if dim is not None else func(input, *args, **kwargs)
    if dim is None or input.ndim < 2 or not input.is_floating_point():
        return out
    product = tap.products.get(input) if dim in (-1, input.ndim - 1) else None
    seen = Softmax(out.shape, dim % out.ndim, factors=None if product is None else product.factors(tap.four))
    axes = tuple(range(out.ndim))
    tap.softmaxes[out] = Carried(seen, axes, (input, axes))
    if tap.recorder.frames:
        tap.recorder.frames[-1].softmaxes.append(seen)
    return out


def dropout(tap, func, input, *args, **kwargs):
    """Attention weights are those before dropout."""
    out = func(input, *args, **kwargs)
    if (found := tap.softmaxes.get(input)) is not None and out is not input:
        rate = args[0] if args else kwargs.get("p", 0.5)
        training = args[1] if len(args) > 1 else kwargs.get("training", kwargs.get("train", True))
        kept = found.before or (input, found.axes)
        tap.softmaxes[out] = replace(found, before=kept) if rate and training else found
    return out


def product(tap, func, *operands, **kwargs):
    """weights @ values, or valuesᵀ @ weightsᵀ: the axis summed out must be the softmax's own."""
    left, right, *rest = (*operands, *(kwargs.pop(n) for n in ("input", "other", "mat2") if n in kwargs))
    _in_blocks(tap, left, right)
    meeting = None
    if _sums_softmax(tap, left, -1) and not _is_parameter(right):
        carried = tap.softmaxes[left]
        meeting = _meet(tap, carried, left, carried.axes, right)
        left, right = meeting.weights, meeting.values
    elif _sums_softmax(tap, right, -2) and not _is_parameter(left):
        carried = tap.softmaxes[right]
        meeting = _meet(tap, carried, right.mT, (*carried.axes[:-2], *carried.axes[:-3:-1]), left.mT)
        left, right = meeting.values.mT, meeting.weights.mT
    out = func(left, right, *rest, **kwargs)
    if meeting is not None and meeting.ends:
        ended = meeting.ended(out) if left is meeting.weights else meeting.ended(out.mT).mT
        return ended if kwargs.get("out") is None else out.copy_(ended)
    if meeting is None and left not in tap.softmaxes and right not in tap.softmaxes:
        products.made(tap, left, right, out)
    if (carried := tap.softmaxes.get(left)) is not None and _is_parameter(right) and right.ndim == 2:
        _carry(tap, mixed(carried, left.ndim - 1, left, out), out)
    return out


def einsum(tap, func, equation, *operands, **kwargs):
    """The same written as an equation, which tells what each axis is."""
    operands = list(operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands)
    talking = None
    _in_blocks(tap, *operands)
    if isinstance(equation, str) and len(operands) == 2:
        for side, weights in enumerate(operands):
            carried, other = tap.softmaxes.get(weights), operands[1 - side]
            if carried is None or carried.softmax.used or None in carried.axes:
                continue
            if _is_parameter(other):
                talking = carried, weights, mixing_axis(equation, side == 1)
                continue
            axes = attention_axes(equation, side == 1, weights.ndim, other.ndim)
            if axes is not None and axes.shared:  # heads and queries are told apart by their place alone
                _, heads, queries, keys = (weights.shape[i] for i in axes.weights)
                axes = None if queries != keys == heads else axes
            if axes is not None and carried.axes[axes.weights[-1]] == carried.dim:
                own = tuple(carried.axes[i] for i in axes.weights)
                values = None if axes.values is None else (other[None] if axes.shared else other).permute(axes.values)
                meeting = _meet(tap, carried, weights.permute(axes.weights), own, values, by_equation=True)
                operands[side] = meeting.weights.permute(_inverse(axes.weights))
                if values is not None:
                    straight = meeting.values.permute(_inverse(axes.values))
                    operands[1 - side] = straight[0] if axes.shared else straight
                out = func(equation, *operands, **kwargs)
                if not meeting.ends:
                    return out
                turned = range(out.ndim) if values is None else axes.result
                return meeting.ended(out.permute(*turned)).permute(_inverse(turned))
    out = func(equation, *operands, **kwargs)
    if not any(operand in tap.softmaxes for operand in operands):
        products.made_by(tap, equation, operands, out)
    if talking is not None and talking[2] is not None:
        carried, weights, axis = talking
        _carry(tap, mixed(carried, axis, weights, out), out)
    return out


def carry_on(tap, func, args: list, out) -> None:
    """Follow a softmax through an operation that is none of the above. Of two that meet, the first is followed."""
    found = [(arg, tap.softmaxes[arg]) for arg in args if isinstance(arg, Tensor) and arg in tap.softmaxes]
    if not found:
        return
    arg, carried = found[0]
    for _, other in found[1:]:
        if other.softmax is not carried.softmax:
            other.softmax.fate = Lost.COMBINED
    others = [a for a in args if a is not arg]
    for made in (out,) if isinstance(out, Tensor) else out if is_cut(func) else ():
        if isinstance(made, Tensor) and made is not arg:
            _carry(tap, after(func, carried, arg, others, made), made)


# -- recognising ---------------------------------------------------------------------------------------------------
def _carry(tap, carried: Carried | None, out: Tensor) -> None:
    if carried is not None:
        tap.softmaxes[out] = carried


def _in_blocks(tap, *operands: Tensor) -> None:
    """Weights with more axes than batch, heads, queries and keys meet values in blocks or windows."""
    for operand in operands:
        carried = tap.softmaxes.get(operand)
        if carried is not None and len(carried.softmax.shape) > 4:
            carried.softmax.fate = Lost.CUT


def _sums_softmax(tap, t: Tensor, summed: int) -> bool:
    """Does ``t`` carry a softmax on whose own axis is ``summed``, and was it not used yet?"""
    carried = tap.softmaxes.get(t)
    if carried is None or carried.softmax.used or not 2 <= t.ndim <= 4:
        return False
    if len(carried.softmax.shape) == 2 and t.ndim == 3:  # (B, K) made (B, 1, K): one query a sample
        batch, keys = carried.softmax.shape
        return t.shape[0] == batch == tap.recorder.batch and carried.dim == 1 and t.shape[summed] == keys
    queries = -1 if summed == -2 else -2
    return carried.axes[summed] == carried.dim and carried.axes[queries] is not None


@dataclass(frozen=True, eq=False)
class Meeting:
    """Weights (…, query, key) and values (…, key, D) about to be multiplied, as they are or as they were changed."""

    weights: Tensor
    values: Tensor | None  # None where it is not known which of their axes is what
    shape: torch.Size  # (B, H, Q, K) of the weights
    layout: Layout
    here: CallChanges | None

    @property
    def ends(self) -> bool:
        """Whether their product is changed."""
        return self.here is not None and "output" in self.here.acts

    def ended(self, product: Tensor) -> Tensor:
        """Their product (…, query, D) as it is changed."""
        output = self.layout.four(product) if self.values is not None else None
        if output is None or output.shape[:3] != self.shape[:3]:
            raise InputError(
                "The outputs of single heads cannot be told here: the product with the values has no axis of heads. "
                "Change the pattern instead."
            )
        return self.layout.back(self.here.changed("output", output), product)


@dataclass(frozen=True, eq=False)
class Layout:
    """How the tensors of one product become (B, H, rows, columns), and back."""

    tap: object
    heads_first: bool

    def four(self, x: Tensor) -> Tensor:
        return self.tap.four(x.transpose(0, 1) if self.heads_first else x)

    def back(self, x: Tensor, like: Tensor) -> Tensor:
        x = x.transpose(0, 1) if self.heads_first else x
        return x.reshape(like.shape).to(like.dtype)


def _meet(tap, carried: Carried, t: Tensor, axes: Axes, v: Tensor | None, by_equation: bool = False) -> Meeting:
    """Record weights that arrive as t (…, query, key), and what is changed of them and of the values v."""
    carried.softmax.used = True
    layout = Layout(tap, by_equation and t.ndim == 4 and t.shape[0] != tap.recorder.batch == t.shape[1])
    weights = layout.four(t if carried.before is None else placed(carried.before, axes, t.shape))  # before dropout
    scores = layout.four(placed(carried.scores, axes, t.shape))
    sink = None if carried.sink is None else layout.four(placed(carried.sink, axes, t.shape))
    values = layout.four(v) if v is not None and v.ndim >= 2 else None
    if values is not None and (values.shape[0] != weights.shape[0] or weights.shape[1] % values.shape[1]):
        values = None
    if (here := tap.recorder.changes_here()) is not None:
        plain = weights
        scores, weights = here.weights(scores, weights, sink, mixed=carried.mixed)
        t = t if weights is plain else layout.back(weights, t)
        if "value" in here.acts:
            if values is None:
                raise InputError("The values cannot be told apart by head here. Change the head's output instead.")
            values = here.changed("value", values)
            v = layout.back(values, v)
    beside = None if sink is None else sink[..., 0].detach()
    how = "mha" if tap.mha_heads else "softmax"
    form = Seen(scores.detach(), weights.detach(), beside, _factors(carried, axes, scores), how)
    tap.recorder.add(AttentionCall(*tap.place(), form, None if values is None else values.detach()))
    return Meeting(t, v, weights.shape, layout, here)


def _factors(carried: Carried, axes: Axes, scores: Tensor) -> Factors | None:
    """The queries and keys of the softmax, where weights (axes of them) and scores (B, H, Q, K) lie as these do."""
    factors, last = carried.softmax.factors, len(carried.softmax.shape) - 1
    straight = axes == tuple(range(last + 1)) or (axes[-2:] == (last - 1, last) and set(axes[:-2]) == {None})
    fits = factors is not None and straight and not carried.mixed and factors.fit(scores.shape)
    return factors if fits else None


def mixing_axis(equation: str, flip: bool) -> int | None:
    """The axis of the weights operand that an einsum with a matrix maps to another, or None; the others stay where
    they are.

    >>> mixing_axis("bhij,hg->bgij", False)
    1
    >>> mixing_axis("bhij,jg->bhig", False), mixing_axis("bhij,hg->ijbg", False)
    (3, None)
    """
    equation = equation.replace(" ", "")
    if equation.count("->") != 1 or "." in equation:
        return None
    inputs, result = equation.split("->")
    weights, matrix = inputs.split(",")[::-1] if flip else inputs.split(",")
    summed = [c for c in weights if c in matrix and c not in result]
    new = [c for c in matrix if c in result and c not in weights]
    if len(matrix) != 2 or len(summed) != 1 or len(new) != 1 or weights.replace(summed[0], new[0]) != result:
        return None
    return weights.index(summed[0])


class AttentionAxes(NamedTuple):
    """The axes of an einsum of weights and values."""

    weights: tuple[int, ...]  # as (batch…, query, key)
    values: tuple[int, ...] | None  # as (batch…, key, D); None where that is not all they have
    result: tuple[int, ...] | None  # as (batch…, query, D)
    shared: bool = False  # whether all heads share the values, which are then taken to have an axis of heads in front


def attention_axes(equation: str, flip: bool, weight_axes: int, value_axes: int) -> AttentionAxes | None:
    """Read off an einsum of weights and values, or None.

    The key letter is summed out, the query letter is in weights and result but not in the values, the others are batch.

    >>> attention_axes("ijbn,jbnd->ibnd", False, 4, 4)
    AttentionAxes(weights=(2, 3, 0, 1), values=(1, 2, 0, 3), result=(1, 2, 0, 3), shared=False)
    >>> attention_axes("... i j, ... j d -> ... i d", False, 4, 4).weights
    (0, 1, 2, 3)
    >>> attention_axes("bhij,bjd->bhid", False, 4, 3)
    AttentionAxes(weights=(0, 1, 2, 3), values=(1, 0, 2, 3), result=(0, 1, 2, 3), shared=True)
    """
    equation = equation.replace(" ", "")
    if equation.count("->") != 1:
        return None
    inputs, result = equation.split("->")
    weights, values = inputs.split(",")[::-1] if flip else inputs.split(",")
    terms = (weights, weight_axes), (values, value_axes)
    hidden = [axes - len(term) + 3 if "..." in term else 0 for term, axes in terms]
    letters = "0123456789"[: max(0, *hidden)]  # the axes an ellipsis stands for, aligned at the right
    weights, values = (
        term.replace("...", letters[len(letters) - n :]) for (term, _), n in zip(terms, hidden, strict=True)
    )
    result = result.replace("...", letters)
    key = [c for c in weights if c in values and c not in result]
    query = [c for c in weights if c in result and c not in values]
    batch = [c for c in weights if c in result and c in values]
    shared = len(weights) == 4 and len(batch) == 1 and len(query) == 2
    if shared:  # the axis of heads is the first of the two that the values have not
        values = query[0] + values
        batch, query = [c for c in weights if c in (*batch, query[0])], query[1:]
    if len(key) != 1 or len(query) != 1 or len(batch) > 2 or len(weights) != len(batch) + 2:
        return None
    order = tuple(weights.index(c) for c in (*batch, *query, *key))
    width = [c for c in values if c not in batch and c not in key]
    if len(width) != 1 or sorted(result) != sorted((*batch, *query, *width)):
        return AttentionAxes(order, None, None)
    sides = (values, (*batch, *key, *width)), (result, (*batch, *query, *width))
    return AttentionAxes(order, *(tuple(term.index(c) for c in letters) for term, letters in sides), shared)


def _inverse(order: Sequence[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)


def _is_parameter(t: Tensor) -> bool:
    """Values are what positions say; a weighted sum of a model's own parameters (a soft embedding) is no attention."""
    return isinstance(t, nn.Parameter) or isinstance(t._base, nn.Parameter)
