"""A mask tensor → bool (B | 1, H | 1, Q, K), True = may attend: its values, its axes and its polarity.

Each step takes the list of problems and adds what it meets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from headwise.interp.check.lint.problems import Problem, problem
from headwise.interp.check.told import FAR
from headwise.interp.masks import Dense, Mask, recognise

CONVENTIONS = {
    "sdpa": "bool: True = may attend; float: added to the scores",
    "mha": "bool: True = blocked; float: added to the scores",
    "additive": "float: added to the scores",
    "hf": "1 = real token, 0 = padding, (B, K)",
}


@dataclass(frozen=True)
class Use:
    """Where a mask will be given; None where that is not known."""

    convention: str | None = None
    expect: Mask | None = None
    batch: int | None = None
    heads: int | None = None
    dtype: torch.dtype | None = None  # attention runs in it


# -- values -----------------------------------------------------------------------------------------------------------
def kept(mask: Tensor, use: Use, problems: list[Problem]) -> Tensor:
    """What may attend if the polarity is right, same shape."""
    if mask.dtype == torch.bool:
        return ~mask if use.convention == "mha" else mask
    values = torch.unique(mask.double()).tolist()
    if any(v != v for v in values):
        problems.append(problem("nan"))
        mask = mask.nan_to_num(nan=float("-inf"), neginf=float("-inf"))
        values = torch.unique(mask.double()).tolist()
    if set(values) <= {0.0, 1.0} and len(values) <= 2:
        return _binary(mask, use, values, problems)
    if values == [0.0, 255.0] or (not mask.is_floating_point() and min(values) >= 0):
        problems.append(problem("counts", dtype=mask.dtype, largest=max(values)))
        return mask != 0
    _judge_sentinels(mask, use, values, problems)
    hidden = [v for v in values if v < -1]
    if max(values) > 0 and not hidden:
        problems.append(problem("hides-nothing", lowest=min(values)))
    return mask > (FAR if any(v <= FAR for v in hidden) else -1)


def _binary(mask: Tensor, use: Use, values: list[float], problems: list[Problem]) -> Tensor:
    """Zeros and ones that are no bools."""
    per_key = (mask.ndim == 2 and mask.shape[0] != mask.shape[1]) or (mask.ndim == 4 and mask.shape[2] == 1)
    floats, convention = mask.is_floating_point(), use.convention
    if not floats and (convention == "hf" or (convention is None and per_key)):
        return mask == 1
    if floats and len(values) == 2 and convention != "hf":
        problems.append(problem("zeros-and-ones"))
    elif convention in ("sdpa", "additive"):
        problems.append(problem("integers", dtype=mask.dtype))
    return mask == 1 if len(values) == 2 or values == [1.0] or not floats else mask == 0


def _judge_sentinels(mask: Tensor, use: Use, values: list[float], problems: list[Problem]) -> None:
    """The numbers that hide: too weak, too low for a dtype, or overflowed."""
    hidden = [v for v in values if v < -1]
    finite = [v for v in hidden if v != float("-inf")]
    if not finite:
        return
    if max(finite) > FAR and len(values) <= 3:
        problems.append(problem("weak", value=max(finite)))
    target = use.dtype or (mask.dtype if mask.dtype.is_floating_point else torch.float32)
    for half in dict.fromkeys((target, torch.float16)):
        lowest = torch.finfo(half).min
        if min(finite) < lowest and (half == target or min(finite) > torch.finfo(torch.float32).min / 2):
            short = str(half).removeprefix("torch.")
            problems.append(problem("does-not-fit", value=min(finite), dtype=short, lowest=lowest))
            break
    if float("-inf") in hidden and min(finite) < -1e30:
        problems.append(problem("overflowed"))


# -- axes -------------------------------------------------------------------------------------------------------------
def four_axes(keep: Tensor, mask: Tensor, use: Use, problems: list[Problem]) -> Tensor:
    """→ (B | 1, H | 1, Q, K)."""
    if keep.ndim == 2:
        return _two_axes(keep, mask, use)
    if keep.ndim == 3:
        return _three_axes(keep, use, problems)
    if keep.shape[-1] == 1 and keep.shape[-2] > 1:
        problems.append(problem("masks-queries", shape=tuple(mask.shape)))
        return keep.expand(-1, -1, -1, keep.shape[-2])
    if keep.shape[-2] == 1:
        return keep.expand(-1, -1, keep.shape[-1], -1)
    if use.heads is not None and keep.shape[1] not in (1, use.heads):
        problems.append(problem("heads", found=keep.shape[1], wanted=use.heads))
    if use.batch is not None and keep.shape[0] not in (1, use.batch):
        problems.append(problem("batch", found=keep.shape[0], wanted=use.batch))
    return keep


def _two_axes(keep: Tensor, mask: Tensor, use: Use) -> Tensor:
    """(Q, K), or (B, K)."""
    rows, columns = keep.shape
    integers = mask.dtype != torch.bool and not mask.is_floating_point()
    per_key = use.convention == "hf" or (use.batch is not None and rows == use.batch != columns)
    per_key |= integers and rows != columns and use.convention is None
    return keep[:, None, None, :].expand(-1, 1, columns, -1) if per_key else keep[None, None]


def _three_axes(keep: Tensor, use: Use, problems: list[Problem]) -> Tensor:
    """(B, Q, K), (H, Q, K), (B·H, Q, K) or (B, 1, K)."""
    n, rows, columns = keep.shape
    batch, heads = use.batch, use.heads
    if heads is not None and batch is not None and n == batch * heads:  # nn.MultiheadAttention's (B·H, Q, K)
        return keep.reshape(batch, heads, rows, columns)
    if rows == 1:
        return keep[:, None].expand(-1, 1, columns, -1)
    if (heads is not None and n == heads != batch) or n == 1:
        return keep[None]
    if batch is not None and n == batch and rows != columns and use.convention in ("sdpa", "mha", None):
        problems.append(problem("from-embeddings", shape=tuple(keep.shape)))
    elif use.convention in ("sdpa", "additive", None):
        problems.append(problem("falls-on-heads", shape=tuple(keep.shape)))
    return keep[:, None]


# -- polarity ---------------------------------------------------------------------------------------------------------
def polarity(four: Tensor, mask: Tensor, use: Use, problems: list[Problem]) -> tuple[str, Tensor]:
    """(convention read, allowed). Judged by what the other polarity would say."""
    convention, expect = use.convention, use.expect
    if mask.is_floating_point() and not set(torch.unique(mask).tolist()) <= {0.0, 1.0}:
        return "additive" if convention is None else convention, four
    per_key = mask.ndim == 2 and four.shape[0] == mask.shape[0] and four.shape[0] != four.shape[2]
    if per_key:
        return convention or "hf", four
    square = four[0, 0]
    flipped = _plausible(~square) and not _plausible(square)
    if expect is not None:
        wanted = expect.dense(*square.shape)
        flipped = torch.equal(square, ~wanted) and not torch.equal(square, wanted)
    if not flipped:
        return convention or "sdpa", four
    if convention is None and expect is None and mask.dtype == torch.bool:
        return "mha", ~four
    read = CONVENTIONS[convention or "sdpa"].split(";")[0]
    problems.append(problem("inverted", convention=read, found=recognise(square), negated=recognise(~square)))
    return convention or "sdpa", four


def _plausible(square: Tensor) -> bool:
    """A pattern someone may have meant: named, and every query sees itself."""
    quadratic = square.shape[0] == square.shape[1]
    if quadratic and len(square) > 1 and not bool(square.tril(-1).any()) and bool(square.triu(1).any()):
        return False  # nobody sees the past
    own = bool(square.diagonal().all()) if quadratic else bool(square.any(1).all())
    return own and (not isinstance(recognise(square), Dense) or bool((~square).any()))
