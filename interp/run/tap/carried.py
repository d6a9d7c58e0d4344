"""What a softmax has become on its way to the values: scaled, reshaped, turned, cut by its sink, mixed over heads.

The softmax's axes are followed by number, not by name: a tensor made from it knows which of its own axes is which of
the softmax's, as far as sizes and strides tell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.interp.run.tap.recorder import Lost, Softmax

Axes = tuple[int | None, ...]  # for each axis the softmax's axis it is; None where it is several, or unknown
Placed = tuple[Tensor, Axes]

CUTS = {
    "__getitem__", "narrow", "split", "split_with_sizes", "tensor_split", "chunk", "select", "unbind", "gather",
    "index_select", "take_along_dim", "masked_select", "pad", "as_strided", "unfold", "roll", "diagonal",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Carried:
    """What one tensor carries of a softmax. Values that belong to it but are not it bring their own axes along."""

    softmax: Softmax
    axes: Axes
    scores: Placed
    before: Placed | None = None  # the weights before dropout
    sink: Placed | None = None  # the column that was cut off, as wide as one key
    mixed: bool = False  # heads were mixed after the softmax

    @property
    def dim(self) -> int:
        """The softmax's own axis."""
        return self.softmax.dim


def after(func: Callable, carried: Carried, arg: Tensor, others: list, out: Tensor) -> Carried | None:
    """What ``out`` carries, that ``func`` made from ``arg`` and ``others``; None when it carries no weights any more.

    Of the same size it still is those weights. A map over another axis than the softmax's own (Shazeer et al. 2020,
    "Talking-Heads Attention", §3) mixes them. Without the first or last column along the softmax's own axis it is
    attention with a sink.
    """
    if not out.is_floating_point():
        return None
    if func in MAPS and others and isinstance(others[0], Tensor):
        return mixed(carried, MAPS[func] % arg.ndim, arg, out) if _keeps_places(others[0], func) else None
    if out.numel() == arg.numel():
        return replace(carried, axes=relabelled(carried.axes, arg, out))
    cut = without_sink(carried, arg, out)
    if cut is None and is_cut(func):
        carried.softmax.fate = Lost.CUT
    return cut


def mixed(carried: Carried, axis: int, arg: Tensor, out: Tensor) -> Carried | None:
    """The heads along ``axis`` of ``arg``, which a linear map has made those of ``out``."""
    label = carried.axes[axis]
    if label is None or label == carried.dim or out.ndim != arg.ndim:
        return None
    scores, axes = carried.scores
    if label in axes:  # no score belongs to one mixed head: the largest of all says whether a key was hidden from it
        at = axes.index(label)
        wide = [out.shape[axis] if i == at else n for i, n in enumerate(scores.shape)]
        scores = scores.amax(at, keepdim=True).expand(wide)
    carried.softmax.fate = Lost.MIXED
    return Carried(carried.softmax, carried.axes, (scores, axes), mixed=True)


def without_sink(carried: Carried, arg: Tensor, out: Tensor) -> Carried | None:
    """``out`` is ``arg`` without exactly the first or the last column along the softmax's own axis."""
    if out.ndim != arg.ndim or carried.dim not in carried.axes or carried.sink is not None or not _shared(arg, out):
        return None
    axis = carried.axes.index(carried.dim)
    keys = arg.shape[axis] - 1
    expected = [keys if i == axis else n for i, n in enumerate(arg.shape)]
    start = out.storage_offset() - arg.storage_offset()
    if list(out.shape) != expected or out.stride() != arg.stride() or start not in (0, arg.stride(axis)):
        return None
    first, column = int(start > 0), keys * int(start == 0)

    def narrowed(placed: Placed | None) -> Placed | None:
        return placed and (placed[0].narrow(placed[1].index(carried.dim), first, keys), placed[1])

    weights = carried.before or (arg, carried.axes)
    sink = weights[0].narrow(weights[1].index(carried.dim), column, 1), weights[1]
    return replace(carried, scores=narrowed(carried.scores), before=narrowed(carried.before), sink=sink)


def is_cut(func: Callable) -> bool:
    return getattr(func, "__name__", "") in CUTS


def relabelled(axes: Axes, arg: Tensor, out: Tensor) -> Axes:
    """Axes of ``out``, which has the elements of ``arg``: a copy, a permutation, or another shape, of which the last
    axes that are the same are kept."""
    shared = _shared(arg, out)
    if out.shape == arg.shape and not shared:
        return axes
    if shared and (order := _permutation(arg, out)) is not None:
        return tuple(axes[i] for i in order)
    kept = 0
    while kept < min(arg.ndim, out.ndim) and out.shape[-1 - kept] == arg.shape[-1 - kept]:
        if shared and out.stride(-1 - kept) != arg.stride(-1 - kept):
            break
        kept += 1
    return (None,) * (out.ndim - kept) + axes[arg.ndim - kept :]


def placed(value: Placed, axes: Axes, shape: torch.Size) -> Tensor:
    """A value laid out as a tensor with these axes and this shape (its last axis may be 1: a column)."""
    tensor, own = value
    if sorted(own, key=str) == sorted(axes, key=str) and None not in own:
        return tensor.permute([own.index(axis) for axis in axes])
    if own[-2:] == axes[-2:][::-1]:
        tensor = tensor.mT
    return tensor.reshape(*shape[:-1], -1) if tensor.numel() else tensor.reshape(shape)


def _permutation(arg: Tensor, out: Tensor) -> list[int] | None:
    if arg.ndim != out.ndim:
        return None
    left, order = list(range(arg.ndim)), []
    for axis, (size, stride) in enumerate(zip(out.shape, out.stride(), strict=True)):
        likely = sorted(left, key=lambda i: i != axis)
        fits = (i for i in likely if arg.shape[i] == size and (size == 1 or arg.stride(i) == stride))
        if (found := next(fits, None)) is None:
            return None
        left.remove(found)
        order.append(found)
    return order


def _shared(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


# linear maps and the axis they map; convolutions do so where their kernel holds one position
MAPS = {F.linear: -1, F.conv1d: 1, F.conv2d: 1, torch.conv1d: 1, torch.conv2d: 1}


def _keeps_places(weight: Tensor, func: Callable) -> bool:
    return func is F.linear or all(n == 1 for n in weight.shape[2:])
