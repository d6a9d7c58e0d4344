"""Padding on one side, each sample more than the one before; shared by the probes that pad."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from headwise.interp.check.bench import Bench
from headwise.interp.check.target import Batch
from headwise.interp.masks import Padding


@dataclass(frozen=True)
class Side:
    name: str  # "right" | "left"
    lengths: tuple[int, ...]
    mask: Tensor  # (B, T), 1 = real
    positions: Tensor  # (B, T), counted from the first real token
    promise: Padding


@dataclass(frozen=True, eq=False)
class Padded:
    """A batch padded on one side, as the model is given it."""

    made: Side
    x: Batch
    mask: Tensor | None  # None where the model tells padding by pad_id
    extra: dict[str, Tensor]  # position ids
    base: Tensor  # the output in the base mode
    where: Tensor  # bool (B, T'): outputs at real positions


def side(name: str, size: tuple[int, int], device) -> Side:
    """A batch of ``size`` (B, T): every sample is padded, each more than the one before."""
    batch, length = size
    lengths = tuple(max(2, length - 1 - b * max(1, length // (batch + 1))) for b in range(batch))
    if batch == 1:
        lengths = (max(2, length - length // 3),)
    index = torch.arange(length)
    starts = tuple(0 if name == "right" else length - n for n in lengths)
    mask = torch.stack([(index >= s) & (index < s + n) for s, n in zip(starts, lengths, strict=True)]).long()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return Side(name, lengths, mask=mask.to(device), positions=positions.to(device), promise=Padding(lengths, starts))


def position_ids(bench: Bench, made: Side) -> dict[str, Tensor]:
    """The argument that says where the real tokens stand, if the model takes one."""
    return {bench.target.position_name: made.positions} if bench.target.position_name else {}
