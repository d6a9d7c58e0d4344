"""Attention written by hand, recognised by what is done, not by names: a softmax whose result, whole, is then
multiplied onto values.

A softmax inside an attention module that is cut up first (block-sparse, banded, bucketed) is not dense attention: such
a module ends in ``unseen`` with the reason, never in ``calls`` with wrong axes.
"""

from __future__ import annotations

from torch import Tensor, nn

from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.scores import Seen
from headwise.interp.run.tap.recorder import Softmax


# -- operations ----------------------------------------------------------------------------------------------------
def softmax(tap, func, input, dim=None, *args, **kwargs):
    """It may become attention weights."""
    out = func(input, dim, *args, **kwargs) if dim is not None else func(input, *args, **kwargs)
    if dim is None or input.ndim < 2 or not input.is_floating_point():
        return out
    seen = Softmax(input, out, out.shape, dim % out.ndim)
    tap.softmaxes[out] = seen, False
    if tap.recorder.frames:
        tap.recorder.frames[-1].softmaxes.append(seen)
    return out


def dropout(tap, func, input, *args, **kwargs):
    """Attention weights are those before dropout."""
    out = func(input, *args, **kwargs)
    if (found := tap.softmaxes.get(input)) is not None:
        tap.softmaxes[out] = found
    return out


def product(tap, func, *operands, **kwargs):
    """weights @ values, or valuesᵀ @ weightsᵀ: the axis summed out must be the softmax's own."""
    left, right, *rest = (*operands, *(kwargs.pop(n) for n in ("input", "other", "mat2") if n in kwargs))
    if _sums_softmax(tap, left, -1) and not _is_parameter(right):
        carried, flipped = tap.softmaxes[left]
        left = _observe(tap, carried, left, flipped, v=right)
    elif _sums_softmax(tap, right, -2) and not _is_parameter(left):
        carried, flipped = tap.softmaxes[right]
        right = _observe(tap, carried, right.mT, not flipped, v=left.mT).mT
    return func(left, right, *rest, **kwargs)


def einsum(tap, func, equation, *operands, **kwargs):
    """The same written as an equation, which tells what each axis is."""
    operands = list(operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands)
    if isinstance(equation, str) and len(operands) == 2:
        for side, weights in enumerate(operands):
            carried, flipped = tap.softmaxes.get(weights, (None, None))
            values = operands[1 - side]
            if flipped is not False or carried.used or weights.shape != carried.shape or _is_parameter(values):
                continue
            order = attention_axes(equation, side == 1, weights.ndim, values.ndim)
            if order is not None and order[-1] == carried.dim:
                seen = _observe(tap, carried, weights.permute(order), order=order)
                operands[side] = seen.permute(_inverse(order))
    return func(equation, *operands, **kwargs)


def carry_on(tap, args, out: Tensor) -> None:
    """A tensor of the same size made from a softmax still is those weights: reshaped, cast, scaled, transposed."""
    for arg in args:
        found = tap.softmaxes.get(arg) if isinstance(arg, Tensor) else None
        if found is not None and out.numel() == arg.numel():
            (carried, flipped), turned = found, _turned(arg, out)
            tap.softmaxes[out] = carried, None if flipped is None or turned is None else flipped != turned
            if arg is carried.weights and out.shape == arg.shape and turned is False and out.is_floating_point():
                carried.weights = out
            return


# -- recognising ---------------------------------------------------------------------------------------------------
def _sums_softmax(tap, t: Tensor, summed: int) -> bool:
    """Does ``t`` carry a softmax on whose own axis is ``summed``, and was it not used yet?"""
    carried, flipped = tap.softmaxes.get(t, (None, None))
    if carried is None or carried.used or not 2 <= t.ndim <= 4:
        return False
    if len(carried.shape) == 2 and t.ndim == 3:  # (B, K) made (B, 1, K): one query a sample
        pooled = t.shape[0] == carried.shape[0] == tap.recorder.batch
        return pooled and carried.dim == 1 and t.shape[summed] == carried.shape[1]
    axis = carried.dim - len(carried.shape)
    return flipped is not None and summed == (-3 - axis if flipped else axis)


def _observe(
    tap,
    carried: Softmax,
    t: Tensor,
    flipped: bool | None = False,
    *,
    v: Tensor | None = None,
    order: tuple[int, ...] | None = None,
) -> Tensor:
    """Record weights that arrive as t (…, query, key): the softmax's result flipped and reshaped, or permuted by
    ``order``. Returns t, or what edits make of it.
    """
    carried.used = True
    kept = carried.weights, carried.scores  # before dropout, so not t itself
    if order is not None:
        weights, scores = (x.permute(order) for x in kept)
    else:
        weights, scores = ((x.mT if flipped and x.ndim == t.ndim else x).reshape(t.shape) for x in kept)
    batch = tap.recorder.batch
    heads_first = order is not None and t.ndim == 4 and t.shape[0] != batch == t.shape[1]
    four_w, four_s = (tap.four(x.transpose(0, 1) if heads_first else x) for x in (weights, scores))
    four_v = tap.four(v).detach() if v is not None and v.ndim >= 2 else None
    if four_v is not None and (four_v.shape[0] != four_w.shape[0] or four_w.shape[1] % four_v.shape[1]):
        four_v = None
    here = tap.recorder.edits_here()
    form = Seen(four_s.detach(), four_w.detach(), how="mha" if tap.mha_heads else "softmax")
    tap.recorder.add(AttentionCall(*tap.place(), form, four_v))
    if not here:
        return t
    for edit in here:
        four_w = edit.weights(four_w, four_s)
    edited = four_w.transpose(0, 1) if heads_first else four_w
    return edited.reshape(t.shape).to(t.dtype)


def attention_axes(equation: str, flip: bool, weight_axes: int, value_axes: int) -> tuple[int, ...] | None:
    """Axes of the weights operand as (batch…, query, key), read off an einsum of weights and values, or None.

    The key letter is summed out, the query letter is in weights and result but not in the values, the others are batch.

    >>> attention_axes("ijbn,jbnd->ibnd", False, 4, 4)
    (2, 3, 0, 1)
    >>> attention_axes("... i j, ... j d -> ... i d", False, 4, 4)
    (0, 1, 2, 3)
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
    if len(key) != 1 or len(query) != 1 or len(batch) > 2 or len(weights) != len(batch) + 2:
        return None
    return tuple(weights.index(c) for c in (*batch, *query, *key))


def _inverse(order: tuple[int, ...]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)


def _turned(arg: Tensor, out: Tensor) -> bool | None:
    """Did the operation that made ``out`` exchange the last two axes of ``arg``? None: it did something else to
    them."""
    ours, theirs = (list(zip(t.shape, t.stride(), strict=True))[-2:] for t in (out, arg))
    if out.untyped_storage().data_ptr() != arg.untyped_storage().data_ptr():  # a copy, element by element or reshaped
        return False if out.shape[-2:] == arg.shape[-2:] else None
    return False if ours == theirs else True if ours == theirs[::-1] else None


def _is_parameter(t: Tensor) -> bool:
    """Values are what positions say; a weighted sum of a model's own parameters (a soft embedding) is no attention."""
    return isinstance(t, nn.Parameter) or isinstance(t._base, nn.Parameter)
