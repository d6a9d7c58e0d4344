"""How long mechanisms take on this machine, beside full attention."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.interp.attention.report import Mechanism

LENGTHS = (256, 512, 1024, 2048, 4096)
ASYMPTOTE = 3  # of the longest lengths, by which a slope is fitted


@dataclass(frozen=True, eq=False)
class Timed:
    """``table``: mechanism, tokens, seconds of one layer's attention."""

    table: pd.DataFrame

    @property
    def slopes(self) -> dict[str, float]:
        """The exponent of time in the length, for each mechanism, fitted to the longest lengths."""
        found = {}
        for name, rows in self.table.groupby("mechanism", sort=False):
            last = rows.nlargest(ASYMPTOTE, "tokens")
            found[name] = float(np.polyfit(np.log(last["tokens"]), np.log(last["seconds"]), 1)[0])
        return found


class Full:
    """Full causal attention by torch's own operation, which keeps no n × n matrix either."""

    def output(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


@torch.no_grad()
def timed(
    mechanisms: Mapping[str, Mechanism],
    *,
    heads: int,
    width: int,
    lengths: tuple[int, ...] = LENGTHS,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Timed:
    """Seconds of one layer of ``heads`` heads of ``width`` on random queries, keys and values; the better of two runs,
    after one that lays plans."""
    rows, work = [], [(name, by, n) for n in lengths for name, by in {"full": Full(), **mechanisms}.items()]
    total = sum(n for _, _, n in work)
    done = 0
    for name, by, n in work:
        progress(done / total)
        q, k, v = torch.randn(3, 1, heads, n, width, generator=torch.Generator().manual_seed(n)).unbind(0)
        by.output(q, k, v)
        rows.append({"mechanism": name, "tokens": n, "seconds": min(_once(by, q, k, v) for _ in range(2))})
        done += n
    progress(1.0)
    return Timed(pd.DataFrame(rows))


def _once(by: Mechanism, q: Tensor, k: Tensor, v: Tensor) -> float:
    began = time.perf_counter()
    by.output(q, k, v)
    return time.perf_counter() - began
