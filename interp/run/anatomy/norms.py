"""Normalisations, told by what they compute: a formula that fits the numbers, whatever the operations are called.

A few operations that one value enters and one of its shape leaves are a norm when weight · (x − mean?) / √(spread +
eps) + bias fits all rows: layer norm (Ba et al. 2016, eq. 4) or RMS norm (Zhang and Sennrich 2019, eq. 4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from headwise.interp.run.anatomy.graph import OPAQUE, Value

EPSILONS = (1e-5, 1e-6, 1e-12, 1e-8, 0.0)
FIT = 2e-5  # relative error of a fit that is believed, in float32
ROWS = 256  # that are fitted
LONGEST = 14  # operations of a norm written by hand

FUSED = {"layer_norm", "rms_norm", "native_layer_norm", OPAQUE, "apply"}
SUMS = {"add", "add_", "sub", "sub_", "__add__", "__radd__", "__iadd__", "__sub__"}
SCALES = {"mul", "mul_", "div", "div_", "__mul__", "__rmul__", "true_divide", "divide", "multiply", "__truediv__"}
CASTS = {"to", "float", "pow"}
MATRICES = {
    "linear", "addmm", "matmul", "mm", "bmm", "einsum", "__matmul__", "conv1d", "conv2d", "tensordot", "baddbmm"
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Norm:
    """weight · (x − mean?) · scale + bias, over the last axis. Held still, ``scale`` is that of another x."""

    kind: str  # "layer" | "rms"
    eps: float
    weight: Tensor  # (C,)
    bias: Tensor  # (C,)
    error: float = 0.0  # of the fit, relative to the largest value

    def scale(self, x: Tensor) -> Tensor:
        """1 / √(spread + eps) → (…, 1), in float32 at least."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        x = x - x.mean(-1, keepdim=True) if self.kind == "layer" else x
        return torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)

    def linear(self, x: Tensor, scale: Tensor) -> Tensor:
        """Without the bias, the scale held still: linear in x."""
        x = x - x.mean(-1, keepdim=True) if self.kind == "layer" else x
        return x * scale.to(x.dtype) * self.weight.to(x.dtype)

    def __call__(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        made = self.linear(wide, self.scale(x) if scale is None else scale) + self.bias.to(wide.dtype)
        return made.to(x.dtype)


def norms_in(values: list[Value]) -> dict[Value, tuple[Value, Norm]]:
    """What came out of a norm → (what went in, the norm)."""
    found = {}
    for value in values:
        if not value.live or value.call is not None or not value.out.is_floating_point() or value.out.ndim < 2:
            continue
        source, region = _candidate(value)
        if source is None or source.shape != value.shape or source is value:
            continue
        norm = _fit(source, value, region)
        if norm is not None:
            found[value] = source, norm
    return _longest(found, values)


def _candidate(value: Value) -> tuple[Value | None, list[Value]]:
    if value.operation in FUSED and value.up:
        return value.operands.get(0, value.up[0]), [value]
    if value.operation not in SUMS | SCALES:
        return None, []
    source, region = _entry(value)
    if source is not None and source.operation.startswith("sub") and {0, 1} == set(source.operands):
        whole, mean = source.operands[0], source.operands[1]
        if whole.shape == source.shape and mean.shape[-1:] == (1,) and mean.before & whole.bit:
            return whole, [*region, source]  # x − mean(x) first: a layer norm by hand
    return source, region


def _entry(value: Value) -> tuple[Value | None, list[Value]]:
    """The one value that all of the last few operations before ``value`` start from, not counting what carries no
    content."""
    opened, region = {value.index: value}, []
    while len(region) < LONGEST and opened:
        last = opened.pop(max(opened))
        region.append(last)
        if last.operation in MATRICES | {"embedding", "input", "softmax"} or last.call is not None:
            return None, region
        opened |= {u.index: u for u in last.up if u.live}
        if len(opened) == 1 and len(region) > 1:
            (source,) = opened.values()
            inside = source.operation in CASTS and source.place[:2] == value.place[:2]
            if source.shape == value.shape and not inside and any(v.shape[-1:] == (1,) for v in region):
                return source, region
    return None, region


def _fit(source: Value, made: Value, region: list[Value]) -> Norm | None:
    width = source.shape[-1]
    if width < 2 or source.out.numel() // width < 3:
        return None
    x, y = (v.tensor.detach().reshape(-1, width)[:ROWS].double() for v in (source, made))
    if not torch.isfinite(x).all() or not torch.isfinite(y).all() or not y.any():
        return None
    numbers = [a for v in region for a in (*v.args, *v.kwargs.values()) if isinstance(a, float) and 0 <= a < 1e-2]
    limit = max(FIT, 4 * torch.finfo(made.out.dtype).eps)
    best: Norm | None = None
    for kind in ("rms", "layer"):
        if best is not None and best.error < limit / 10:
            break
        for eps in dict.fromkeys([*numbers, *EPSILONS, torch.finfo(source.out.dtype).eps]):
            fitted = _least_squares(kind, eps, x, y)
            if best is None or fitted.error < best.error * 0.5:
                best = fitted
            if fitted.error > 0.3 or fitted.error < limit / 10:
                break  # not even roughly, or well enough
    if best is None or best.error >= limit:
        return None
    return min([best, *_with_weights(best, region, x, y)], key=lambda norm: norm.error * (1 if norm is best else 0.1))


def _unscaled(kind: str, eps: float, x: Tensor) -> Tensor:
    x = x - x.mean(-1, keepdim=True) if kind == "layer" else x
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


def _least_squares(kind: str, eps: float, x: Tensor, y: Tensor) -> Norm:
    """Weight, and a bias where one helps, a channel each: rows (N, C) of x and y."""
    z = _unscaled(kind, eps, x)
    plain = (z * y).sum(0) / z.pow(2).sum(0).clamp_min(1e-30)
    zero = torch.zeros_like(plain)
    first = Norm(kind, eps, plain, zero, _error(z * plain, y))
    if first.error < FIT / 10 or len(x) < 4:
        return first
    centred = z - z.mean(0)
    slope = (centred * (y - y.mean(0))).sum(0) / centred.pow(2).sum(0).clamp_min(1e-30)
    bias = y.mean(0) - slope * z.mean(0)
    second = Norm(kind, eps, slope, bias, _error(z * slope + bias, y))
    return second if second.error < first.error * 0.5 else first


def _with_weights(norm: Norm, region: list[Value], x: Tensor, y: Tensor) -> Iterator[Norm]:
    """The same norm with parameters that its operations read, which are exact where a fit is not."""
    z = _unscaled(norm.kind, norm.eps, x)
    width = x.shape[-1]
    given = [a for v in region for a in (*v.args, *v.kwargs.values()) if isinstance(a, Tensor) and a.numel() == width]
    learned = [a.detach().reshape(-1).double() for a in given if id(a) not in {id(v.out) for v in region}]
    zero, one = torch.zeros_like(norm.weight), torch.ones_like(norm.weight)
    weights = [one, *learned, *(1 + w for w in learned)]
    for weight in weights:
        for bias in (zero, *learned):
            yield Norm(norm.kind, norm.eps, weight, bias, _error(z * weight + bias, y))


def _error(made: Tensor, wanted: Tensor) -> float:
    return float((made - wanted).abs().max() / wanted.abs().max().clamp_min(1e-30))


def _longest(found: dict[Value, tuple[Value, Norm]], values: list[Value]) -> dict[Value, tuple[Value, Norm]]:
    """A norm before its weight is a norm too, and one that is scaled afterwards. The longest is kept that nobody reads
    from the middle of: what is read elsewhere is a value of its own."""
    readers: dict[Value, list[Value]] = {value: [] for value in found}
    for value in values:
        for up in value.up:
            if up in readers:
                readers[up].append(value)
    kept = dict(found)
    for value, (source, _) in found.items():
        if value not in kept:
            continue
        longer = [v for v, (w, _) in kept.items() if w is source and v.before & value.bit]
        if not longer:
            continue
        last = max(longer, key=lambda v: v.index)
        if all(reader.bit & (last.before | last.bit) for reader in readers[value]):
            del kept[value]
        else:
            for other in longer:
                del kept[other]
    return kept
