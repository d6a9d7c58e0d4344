"""All heads at a glance: their thumbnails, and what is particular about a layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.interp.analysis.in_words import telling
from headwise.interp.analysis.metrics import STANDARD, Metric, measure, periodic, tables
from headwise.interp.attention.call import AttentionCall, pool_cells
from headwise.interp.attention.sampling import EXACT, STRATA, Sample, drawn
from headwise.interp.drawing.matrix import LEAK, recorded
from headwise.interp.masks import Window
from headwise.interp.run.capture import Capture

PATCH_CELLS = 48  # of a thumbnail's side


class Thumbnails(Metric):
    """Every head of one sample as a small picture, the maximum of each cell, made in the same pass as the numbers."""

    name = "thumbnail"

    def __init__(self, size: int = STRATA, ends: tuple[int, int] | None = None, batch: int = 0):
        self.size, self.batch = size, batch
        self.ends = ends  # queries and keys from which on nothing is shown
        self.parts: list[Tensor] = []

    def update(self, weights, rows):
        shown = weights[self.batch]
        if self.ends is not None:
            queries, keys = self.ends
            shown = shown[:, : max(0, queries - int(rows.query[0, 0])), :keys]
        shown = _pooled(shown, self.size)  # (H, R, t)
        self.parts.append(shown if rows.sizes is None else shown.unflatten(1, (-1, rows.draws)).amax(2))

    def result(self):
        """→ (H, t, t) float32, t ≤ size."""
        return _pooled(torch.cat(self.parts, 1).transpose(1, 2), self.size).transpose(1, 2)

    def error(self):
        return torch.empty(0)


def _pooled(x: Tensor, size: int) -> Tensor:
    """(H, m, n) → (H, m, ⌈n/f⌉), the maximum of each f = ⌈n/size⌉ neighbours."""
    factor = -(-x.shape[-1] // size)
    if not x.shape[1]:  # no rows, which max_pool1d refuses
        return x[..., ::factor]
    return x if factor == 1 else F.max_pool1d(x, factor, ceil_mode=True)


@dataclass(frozen=True)
class Survey:
    """All heads at a glance: the metric table, of the whole batch, and per (stack, layer) the thumbnails of its sample
    ``batch``, (H, t, t) float32. Where a layer has fewer samples, its last one's.

    ``errors`` are the standard errors of the table's numbers, laid out alike; 0 where every query was looked at.
    ``looked`` says at how many of how many queries; both are the same for short texts.
    """

    table: pd.DataFrame
    thumbnails: dict[tuple[str, int], Tensor]
    batch: int = 0
    errors: pd.DataFrame = field(default_factory=pd.DataFrame)
    looked: tuple[int, int] = (0, 0)

    @property
    def sampled(self) -> str:
        """That not every query was looked at, in words; "" where every one was."""
        some, every = self.looked
        return f"from {some:,} of {every:,} queries, spread over the text" if some < every else ""

    def said(self, stack: str, layer: int, head: int, metric: str) -> str:
        """A number as it is written: with two standard errors beside it where it has any.

        >>> place = {"stack": ["decoder"], "layer": [0], "head": [3]}
        >>> number, error = pd.DataFrame({**place, "self": [0.43]}), pd.DataFrame({**place, "self": [0.012]})
        >>> Survey(number, {}, errors=error, looked=(376, 1300)).said("decoder", 0, 3, "self")
        '0.43 ± 0.024'
        """
        at = (self.table["stack"] == stack) & (self.table["layer"] == layer) & (self.table["head"] == head)
        return f"{self.table.loc[at, metric].item():.3g}{self.beside(stack, layer, head, metric)}"

    def beside(self, stack: str, layer: int, head: int, metric: str) -> str:
        """What stands beside a number: " ± 0.024", two standard errors, or nothing."""
        if not self.sampled or metric not in self.errors:
            return ""
        error = self._places.at[(stack, layer, head), metric]
        return f" ± {2 * error:.2g}" if error > 0 else ""

    @cached_property
    def _places(self) -> pd.DataFrame:
        return self.errors.set_index(["stack", "layer", "head"])


def survey(
    cap: Capture,
    progress: Callable[[float], None] = lambda fraction: None,
    size: int = STRATA,
    *,
    batch: int = 0,
    exact: bool = False,
) -> Survey:
    """Metrics and thumbnails of every head from one recomputation of the weights.

    Of more than ``sampling.EXACT`` queries some are drawn from every cell of a thumbnail, so that looking at all heads
    costs less than the run: numbers come with their errors, and a cell is the largest of what was drawn. With ``exact``
    every query is looked at. Recordings are looked at whole. Raises IndexError for a sample that no layer has.
    """
    if cap.calls and not 0 <= batch < (most := max(call.batch for call in cap.calls)):
        raise IndexError(f"batch expects a sample 0 … {most - 1}; got {batch}.")
    thumbnails, looked = {}, (0, 0)

    def own(call: AttentionCall) -> tuple[Metric, ...]:
        part = recorded(cap, call)
        ends = None if part is None else (part[1], part[3])
        return *telling(cap, call), Thumbnails(size, ends, min(batch, call.batch - 1))

    def sample(call: AttentionCall) -> Sample | None:
        nonlocal looked
        whole = exact or call.queries <= EXACT or recorded(cap, call) is not None
        found = None if whole else drawn(call.queries, size)
        looked = max(looked, (call.queries if found is None else len(found.rows), call.queries), key=lambda one: one[1])
        return found

    def collect():
        for call, *results in measure(cap, (*STANDARD, *periodic(cap)), None, progress, own=own, sample=sample):
            thumbnails[call.stack, call.layer] = results[0][Thumbnails.name]
            yield call, *({name: one for name, one in each.items() if name != Thumbnails.name} for each in results)

    table, errors = tables(collect())
    return Survey(table, thumbnails, batch, errors, looked)


def grid_pictures(cap: Capture, surveyed: Survey, stack: str) -> np.ndarray:
    """The thumbnails of a stack as one array (L, H, t, t) float32 in [0, 1], rows by layer.

    Square roots of the weights, so that faint heads show; NaN where a cell is forbidden and got nothing, and where
    a layer has fewer heads. Where queries and keys are not as many, the shorter side is stretched.
    """
    calls = cap.stack(stack)
    size = max(side for c in calls for side in surveyed.thumbnails[stack, c.layer].shape[1:])
    picture = np.full((len(calls), max(c.heads for c in calls), size, size), np.nan, np.float32)
    for row, call in enumerate(calls):
        small = surveyed.thumbnails[stack, call.layer]  # (H, rows, columns)
        picture[row, : call.heads] = _pictured(cap, call, small, min(surveyed.batch, call.batch - 1), size)
    return picture


def _pictured(cap: Capture, call: AttentionCall, small: Tensor, batch: int, size: int) -> np.ndarray:
    """Thumbnails (H, rows, columns) as a grid shows them, (H, size, size): NaN where nothing is allowed and nothing
    leaked."""
    small = small.sqrt().cpu().float()
    cells = _promised_cells(cap, call, small.shape[1:], batch)
    small = torch.where(cells | (small > LEAK**0.5), small, math.nan)
    return F.interpolate(small[None], (size, size))[0].numpy()  # nearest


def change_pictures(before: Survey, after: Survey, cap: Capture, stack: str) -> np.ndarray:
    """How much each cell's largest weight changed, without its sign, for all heads on one scale → (L, H, t, t) float32
    in [0, 1], as ``grid_pictures`` lays them; a head that did not change is empty."""
    gaps = {
        key: (small - before.thumbnails[key]).abs()
        for key, small in after.thumbnails.items()
        if key[0] == stack and small.shape == before.thumbnails[key].shape
    }
    largest = max((float(gap.max()) for gap in gaps.values()), default=0.0) or 1.0
    scaled = {key: (gap / largest).square() for key, gap in gaps.items()}  # of which the grid takes the square root
    return grid_pictures(cap, replace(after, thumbnails=scaled), stack)


def patch_pictures(cap: Capture, stack: str, query: int, *, batch: int = 0) -> np.ndarray:
    """The thumbnails of a stack that looks at a picture: what ``query`` gives each patch, laid out as they lie → (L, H,
    t, t) float32 in [0, 1], each head by its own strongest patch; NaN beside a grid that is not square.

    Raises ValueError when the keys are no patches, IndexError for a sample that is not there.
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
        weights = call.band(query, query + 1)[batch, :, 0]  # (H, K)
        patches = weights[:, -rows * columns :].unflatten(-1, grid)  # (H, rows, columns), after CLS and its like
        patches = patches / patches.amax((1, 2), keepdim=True).clamp_min(1e-12)
        small = torch.stack([pool_cells(head, factor, factor) for head in patches]).cpu().numpy()
        top, left = (size - small.shape[1]) // 2, (size - small.shape[2]) // 2
        picture[row, : call.heads, top : top + small.shape[1], left : left + small.shape[2]] = small
    return picture


def _promised_cells(cap: Capture, call: AttentionCall, cells: tuple[int, int], batch: int) -> Tensor:
    """(rows, columns) bool: cells of the thumbnail in which anything is allowed. Only each cell's corners and
    middle are asked, which is exact up to one cell a token and for causal masks, and near enough for a thumbnail.
    """
    promise, part = call.promise.mask, recorded(cap, call)
    queries, keys = (call.queries, call.keys) if part is None else (part[1], part[3])
    allowed = torch.zeros(cells, dtype=torch.bool)
    f_query, f_key = -(-queries // cells[0]), -(-keys // cells[1])
    sample, first = torch.tensor(batch), torch.zeros((), dtype=torch.long)
    for share_query in (0.0, 0.5, 1.0):
        for share_key in (0.0, 0.5, 1.0):
            query = (torch.arange(cells[0]) * f_query + int(share_query * (f_query - 1))).clamp(max=queries - 1)
            key = (torch.arange(cells[1]) * f_key + int(share_key * (f_key - 1))).clamp(max=keys - 1)
            allowed |= promise(sample, first, query[:, None], key[None, :])
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
