"""Where a head looks, in words: each key that a query may see is of one kind, so that shares of weight add up to one.

    shares(cap)   # stack, layer, head, itself, before, after, first, special, same, near, far

What two heads of different layers, lengths and models have in common is not their weights but where these go.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

from headwise.interp.analysis.metrics import Metric, NormalisedEntropy, framed, measure
from headwise.interp.attention.axes import Axis
from headwise.interp.attention.call import AttentionCall
from headwise.interp.run.capture import Capture

NEAR = 4  # tokens
KINDS = {  # in the order in which a key is asked: the first that holds is its kind
    "itself": "its own position",
    "before": "the position before",
    "after": "the position after",
    "first": "the first position",
    "special": "other special tokens",
    "same": "another place of the same token",
    "beside": "patches beside its own",
    "near": f"up to {NEAR} positions away",
    "far": "farther away",
}


class Whereabouts(Metric):
    """The share of weight that a head gives to each kind of key, over queries that have a choice."""

    name = "whereabouts"

    def __init__(self, call: AttentionCall):
        super().__init__()
        self.names, self.kinds = kinds_of(call)

    def update(self, weights, rows):
        valid = rows.real & (rows.allowed.sum(-1) > 1)  # (B, 1, R)
        kinds = self.kinds.to(weights.device)[rows.query[:, 0]]  # (R, K)
        given = torch.stack([torch.where(kinds == k, weights, 0).sum(-1) for k in range(len(self.names))], -1).double()
        self.total = self.total + torch.where(valid[..., None], given, 0.0).sum(2)  # (B, H, kinds)
        self.count = self.count + valid.expand(len(given), -1, -1).sum(2)[..., None].double()

    def error(self) -> Tensor:
        return torch.empty(0)

    def result(self) -> Tensor:
        """(H, kinds): of each head what adds up to 1, or to less where weight goes to no key."""
        return (self.total / self.count).nanmean(0).nan_to_num(0.0)


def shares(cap: Capture, progress: Callable[[float], None] = lambda fraction: None) -> pd.DataFrame:
    """Where each head of a capture looks → a row a head: stack, layer, head, the share of its weight on each kind of
    key that its sequence has (a key of ``KINDS``), and ``entropy``, 0 … 1, how widely it is spread."""
    frames = []
    names: dict[str, None] = {}
    for call, found, _ in measure(cap, [NormalisedEntropy], progress=progress, own=lambda call: [Whereabouts(call)]):
        kinds, _ = kinds_of(call)
        names |= dict.fromkeys(kinds)
        columns = dict(zip(kinds, found[Whereabouts.name].T, strict=True)) | {"entropy": found["entropy_normalised"]}
        frames.append((call, columns))
    order = [name for name in KINDS if name in names]
    rows = (
        (call, {name: columns.get(name, torch.zeros(call.heads)) for name in (*order, "entropy")})
        for call, columns in frames
    )
    return framed(rows)


def kinds_of(call: AttentionCall) -> tuple[tuple[str, ...], Tensor]:
    """The kinds of keys there are, and the kind of each cell → names, (Q, K) int64 numbers of them."""
    query, key = torch.arange(call.queries)[:, None], torch.arange(call.keys)[None, :]
    axis = call.key_axis
    cells = {"first": (key == 0).expand(call.queries, -1)}
    if axis.special is not None:
        cells["special"] = torch.tensor(axis.special)[None, : call.keys].expand(call.queries, -1)
    if call.kind == "self" and call.queries == call.keys:
        cells["itself"] = query == key
        if axis.grid is not None:
            cells["beside"] = _beside(axis)
        else:
            cells |= {"before": key == query - 1, "after": key == query + 1, "near": (key - query).abs() <= NEAR}
            if axis.sound is None:
                labels = list(axis.labels)
                ids = torch.tensor([labels.index(label) for label in labels])
                cells["same"] = ids[:, None] == ids
    names = (*(name for name in KINDS if name in cells), "far")
    kinds = torch.full((call.queries, call.keys), len(names) - 1)
    for number in reversed(range(len(names) - 1)):
        kinds[cells[names[number]]] = number
    seen = torch.zeros(len(names), dtype=torch.bool)
    seen[kinds.unique()] = True
    kept = [number for number in range(len(names)) if seen[number]]
    return tuple(names[number] for number in kept), torch.cumsum(seen, 0)[kinds] - 1


def _beside(axis: Axis) -> Tensor:
    """Whether two patches touch, bool (T, T); what comes before the patches touches nothing."""
    rows, columns = axis.grid
    spot = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    touch = (spot[:, None] - spot).abs().amax(-1) <= 1
    cells = torch.zeros(len(axis), len(axis), dtype=torch.bool)
    cells[-len(spot) :, -len(spot) :] = touch
    return cells
