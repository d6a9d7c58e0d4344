"""Averages: the mean over heads, over layers or over both, as a matrix. Those in the grid are made in the browser, of
the heads that are there.

A mean hides what single heads do – two heads that look in opposite ways average to one that looks both ways – so
whatever is drawn of one says that it is a mean, and of how many.
"""

from __future__ import annotations

from typing import Any

from headwise.interp.drawing.matrix import Look, Matrix, head_view, looked_at
from headwise.interp.run.capture import Capture


def mean_view(
    cap: Capture, stack: str, layer: int | None = None, head: int | None = None, quantity: str = "weights", **look: Any
) -> Matrix:
    """Look at the mean of heads of a stack as at one: over its layers where no ``layer`` is given, over the heads of a
    layer where no ``head`` is. A cell is forbidden where it is to all of them, and the title says that it is a mean.

    Raises ValueError where layers do not have the same positions, and otherwise as ``head_view``.
    """
    calls = cap.stack(stack) if layer is None else (cap.find(layer, stack),)
    if len(shapes := {(call.batch, *call.shape[2:]) for call in calls}) > 1:
        found = " and ".join(f"{queries} × {keys}" for _, queries, keys in sorted(shapes))
        raise ValueError(f"The layers of the {stack} have {found} positions, which have no mean. Choose a layer.")
    members = [(call, one) for call in calls for one in (range(call.heads) if head is None else (head,))]
    if len(members) == 1:
        return head_view(cap, *members[0], quantity, **look)
    heads = f"mean of {len(members)} heads" if head is None else f"head {head} · mean of {len(calls)} layers"
    title = f"layer {layer} · {heads}" if layer is not None else heads
    return looked_at(cap, members, quantity, Look(**look), title)
