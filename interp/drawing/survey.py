"""All heads at a glance: their thumbnails, and what is particular about a layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.interp.analysis.metrics import STANDARD, Thumbnails, measure, table
from headwise.interp.attention.call import AttentionCall, pool_cells
from headwise.interp.drawing.matrix import LEAK, promised, recorded
from headwise.interp.masks import Mask, Window
from headwise.interp.run.capture import Capture

PATCH_CELLS = 48  # of a thumbnail's side


@dataclass(frozen=True)
class Survey:
    """All heads at a glance: the metric table, and per (stack, layer) their thumbnails (H, t, t) float32."""

    table: pd.DataFrame
    thumbnails: dict[tuple[str, int], Tensor]


def survey(cap: Capture, progress: Callable[[float], None] = lambda fraction: None, size: int = 48) -> Survey:
    """Metrics and thumbnails of every head from one recomputation of the weights."""
    thumbnails = {}

    def own(call: AttentionCall) -> Thumbnails:
        part = recorded(cap, call)
        return Thumbnails(size, None if part is None else (part[1], part[3]))

    def collect():
        for call, results in measure(cap, STANDARD, None, progress, own=own):
            thumbnails[call.stack, call.layer] = results.pop(Thumbnails.name)
            yield call, results

    return Survey(table(collect()), thumbnails)


def grid_pictures(cap: Capture, surveyed: Survey, stack: str) -> np.ndarray:
    """The thumbnails of a stack as one array (L, H, t, t) float32 in [0, 1], rows by layer.

    Square roots of the weights, so that faint heads show; NaN where a cell is forbidden and got nothing, and where
    a layer has fewer heads. Where queries and keys are not as many, the shorter side is stretched.
    """
    calls = cap.stack(stack)
    size = max(side for c in calls for side in surveyed.thumbnails[stack, c.layer].shape[1:])
    picture = np.full((len(calls), max(c.heads for c in calls), size, size), np.nan, np.float32)
    for row, call in enumerate(calls):
        small = surveyed.thumbnails[stack, call.layer].sqrt().cpu()  # (H, rows, columns)
        cells = _promised_cells(promised(cap, call), call, small.shape[1:])
        small = torch.where(cells | (small > LEAK**0.5), small, math.nan)
        picture[row, : call.heads] = F.interpolate(small[None], (size, size))[0].numpy()  # nearest
    return picture


def patch_pictures(cap: Capture, stack: str, query: int) -> np.ndarray:
    """The thumbnails of a stack that looks at a picture: what ``query`` gives each patch, laid out as they lie → (L, H,
    t, t) float32 in [0, 1], each head by its own strongest patch; NaN beside a grid that is not square.

    Raises ValueError when the keys are no patches.
    """
    calls = cap.stack(stack)
    grid = calls[0].key_axis.grid
    if grid is None or any(call.key_axis.grid != grid for call in calls):
        raise ValueError(f"The keys of the {stack} are no patches of a picture.")
    rows, columns = grid
    factor = -(-max(grid) // PATCH_CELLS)
    size = -(-max(grid) // factor)
    picture = np.full((len(calls), max(c.heads for c in calls), size, size), np.nan, np.float32)
    for row, call in enumerate(calls):
        weights = call.band(query, query + 1)[0, :, 0]  # (H, K)
        patches = weights[:, -rows * columns :].unflatten(-1, grid)  # (H, rows, columns), after CLS and its like
        patches = patches / patches.amax((1, 2), keepdim=True).clamp_min(1e-12)
        small = torch.stack([pool_cells(head, factor, factor) for head in patches]).cpu().numpy()
        top, left = (size - small.shape[1]) // 2, (size - small.shape[2]) // 2
        picture[row, : call.heads, top : top + small.shape[1], left : left + small.shape[2]] = small
    return picture


def _promised_cells(promise: Mask, call: AttentionCall, cells: tuple[int, int]) -> Tensor:
    """(rows, columns) bool: cells of the thumbnail in which anything is allowed. Only each cell's corners and
    middle are asked, which is exact up to one cell a token and for causal masks, and near enough for a thumbnail.
    """
    allowed = torch.zeros(cells, dtype=torch.bool)
    f_query, f_key = -(-call.queries // cells[0]), -(-call.keys // cells[1])
    zero = torch.zeros((), dtype=torch.long)
    for share_query in (0.0, 0.5, 1.0):
        for share_key in (0.0, 0.5, 1.0):
            query = (torch.arange(cells[0]) * f_query + int(share_query * (f_query - 1))).clamp(max=call.queries - 1)
            key = (torch.arange(cells[1]) * f_key + int(share_key * (f_key - 1))).clamp(max=call.keys - 1)
            allowed |= promise(zero, zero, query[:, None], key[None, :])
    return allowed


def layer_marks(cap: Capture, surveyed: Survey, stack: str) -> dict[int, tuple[str, str]]:
    """What is particular about a layer → {layer: (short mark, sentence)}: grouped queries, windows, leaks."""
    worst = surveyed.table[surveyed.table["stack"] == stack].groupby("layer").forbidden.max()
    marks = {}
    for call in cap.stack(stack):
        short, long = [], []
        if call.kv_heads != call.heads:
            short.append(f"{call.kv_heads} kv")
            long.append(f"grouped-query attention: {call.heads} heads share {call.kv_heads} key/value heads")
        if isinstance(call.pattern, Window):
            width = call.pattern.left + call.pattern.right + 1
            short.append(f"w {width}")
            long.append(f"windowed: a query sees {width} keys, itself included")
        if worst.get(call.layer, 0.0) > LEAK:
            short.append("leak")
            long.append(f"weight on forbidden positions: up to {worst[call.layer]:.1%} of a row on average")
        if short:
            marks[call.layer] = (" · ".join(short), "; ".join(long))
    return marks
