"""Attention rollout and attention flow (Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers").

Both take the weights of all layers for a graph in which each position reads from those of the layer below and, by the
residual stream, from itself: (A + I) with rows brought to 1, A the mean over heads.

Letters: T positions, L layers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from headwise.interp.analysis.attribution.maps import averaged, read_rows, scattered, sequence_of
from headwise.interp.analysis.attribution.model import Found, Job

UNIT = 10**8  # the flow of 1 in whole numbers, which scipy counts in


def rollout(job: Job) -> Found:
    """How much of each position arrives where the answer is read, when everything is passed on by the weights (§3,
    "attention rollout")."""
    stack = job.cap.stacks[0]
    joint = rolled(averaged(job.cap, stack))
    return Found(_placed(job, read_rows(job, stack) @ joint))


def flow(job: Job) -> Found:
    """The most that can flow from where the answer is read to each position, weights being capacities (§3, "attention
    flow"); brought to a sum of 1."""
    stack = job.cap.stacks[0]
    found = flows([with_residual(a) for a in averaged(job.cap, stack)], read_rows(job, stack), job)
    return Found(_placed(job, found / found.sum()))


def with_residual(weights: Tensor) -> Tensor:
    """(A + I) with rows that sum to 1, (T, T)."""
    whole = weights + torch.eye(len(weights), device=weights.device)
    return whole / whole.sum(-1, keepdim=True)


def rolled(layers: list[Tensor]) -> Tensor:
    """The product of all layers (T, T), the last one on the left; residual stream and rows as in ``with_residual``.

    >>> A = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    >>> rolled([A, A])  # [[1, 0], [¼, ¾]] twice
    tensor([[1.0000, 0.0000],
            [0.4375, 0.5625]])
    """
    joint = torch.eye(len(layers[0]), device=layers[0].device)
    for weights in layers:
        joint = with_residual(weights) @ joint
    return joint


def flows(layers: list[Tensor], rows: Tensor, job: Job | None = None) -> Tensor:
    """The maximum flow from the last layer's positions ``rows`` (T,) to each position below the first → (T,). Layers
    (T, T) are capacities. Of several rows each may let out 1, and their flow is shared among them."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    length, count = len(rows), len(layers)
    sources = np.flatnonzero(rows.cpu().numpy())
    start = (count + 1) * length  # one more node, before all rows
    begins, ends, room = [np.full(len(sources), start)], [count * length + sources], [np.full(len(sources), UNIT)]
    for number, weights in enumerate(layers):  # from layer number + 1 down to number
        query, key = np.indices((length, length)).reshape(2, -1)
        begins.append((number + 1) * length + query)
        ends.append(number * length + key)
        room.append((weights.double().cpu().numpy() * UNIT).round().reshape(-1))
    begins, ends = np.concatenate(begins), np.concatenate(ends)
    room = np.concatenate(room).astype(np.int32)
    used = room > 0
    graph = csr_array((room[used], (begins[used], ends[used])), shape=(start + 1, start + 1))
    found = np.zeros(length)
    for position in range(length):
        if job is not None:
            job.check()
            job.progress(position / length)
        found[position] = maximum_flow(graph, start, position, method="dinic").flow_value
    return torch.tensor(found / UNIT / len(sources), dtype=torch.float32)


def _placed(job: Job, scores: Tensor) -> Tensor:
    """Scores (T,) of the stack's positions → (U,)."""
    sequence = sequence_of(job.features, job.cap.stack()[0])
    return scattered(job.features, {sequence.name: scores.cpu()})
