"""Long texts: which queries are looked at, where looking at all of them would cost more than the run.

The queries are cut into strata of neighbours, and as many rows are drawn from each, all keys of each row: a thumbnail
has a row for each stratum, and a mean over the rows knows its own error from how the draws of a stratum differ (Cochran
1977, "Sampling Techniques", §5.3–5.6).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

EXACT = 1024  # queries up to which every one is looked at
STRATA = 48  # as many as a thumbnail has rows
DRAWS = 8  # of each
SAMPLED = STRATA * DRAWS  # queries that are then looked at, at most


@dataclass(frozen=True, eq=False)
class Sample:
    """Queries drawn from strata: ``rows`` (S · draws,) positions, stratum by stratum, and how many queries each of the
    strata has, ``sizes`` (S,)."""

    rows: Tensor
    sizes: Tensor
    draws: int


@lru_cache(maxsize=16)
def drawn(queries: int, strata: int = STRATA, draws: int = DRAWS, seed: int = 0) -> Sample:
    """The sample of so many queries, the same every time. Strata are of ⌈queries / strata⌉ neighbours, the last of what
    is left; one with fewer than ``draws`` gives its rows several times.

    >>> drawn(10, strata=3, draws=2).sizes.tolist()
    [4, 4, 2]
    """
    generator, width, rows = torch.Generator().manual_seed(seed), -(-queries // strata), []
    starts = range(0, queries, width)
    sizes = [min(start + width, queries) - start for start in starts]
    for start, size in zip(starts, sizes, strict=True):
        order = torch.randperm(size, generator=generator)
        rows.append(start + order.repeat(-(-draws // size))[:draws].sort().values)
    return Sample(torch.cat(rows), torch.tensor(sizes), draws)
