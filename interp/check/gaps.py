"""Comparing two runs: bit-exact at one shape, by a tolerance across shapes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

CLEAR = 1e-2  # a change below this, of the output's scale, is confirmed in float64 before it is a finding
ACROSS_SHAPES = {torch.float64: 1e-9, torch.float32: 2e-4, torch.bfloat16: 0.1, torch.float16: 0.02}


def rounding(dtype: torch.dtype) -> float:
    """Changes at one shape up to this, relative to the output's scale, are taken for rounding, not for a leak."""
    return 8 * torch.finfo(dtype).eps


def gap(a: Tensor, b: Tensor, where: Tensor | None = None) -> Tensor:
    """max over features of |a − b|, relative to the largest |a| → (B, T). 0 where the bits agree, ∞ where only one
    is finite, and everywhere where their shapes differ.

    ``where`` (B, T) names the positions that count; elsewhere the gap is 0 and values do not count for the scale.
    """
    a, b = a.detach(), b.detach()
    if a.shape != b.shape:
        apart = torch.full(a.shape[:2], math.inf, device=a.device)
        return apart if where is None else apart.masked_fill(~where.to(a.device), 0.0)
    if not a.is_floating_point():
        return (a != b).flatten(2).any(-1).float()
    gaps = torch.zeros(a.shape[:2], device=a.device)
    if where is None:
        where = torch.ones_like(gaps, dtype=torch.bool)
    where = where.to(a.device)
    a, b = a.flatten(2)[where], b.flatten(2)[where]  # (N, F): the positions that count
    if not a.numel() or torch.equal(a, b):
        return gaps
    if a.element_size() < 4:
        a, b = a.float(), b.float()
    scale = float(a.abs().nan_to_num(0.0, 0.0).max())
    difference = (a - b).abs_().div_(scale or 1.0)
    odd = ~difference.isfinite()
    if bool(odd.any()):  # ∞ − ∞, NaN: the same is no gap, anything else is an infinite one
        same = (a == b) | (a.isnan() & b.isnan())
        difference = difference.masked_fill(odd & ~same, math.inf).masked_fill(odd & same, 0.0)
    gaps[where] = difference.amax(-1).to(gaps.dtype)
    return gaps
