"""Rotary positions (Su et al. 2021), told by numbers: queries whose pairs of dimensions keep their length but turn."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from headwise.interp.run.anatomy.graph import Value
from headwise.interp.run.anatomy.model import CallKey, Rotary
from headwise.interp.run.anatomy.norms import MATRICES, SCALES
from headwise.interp.run.anatomy.streams import Graph

BACK, AFTER = 24, 6  # how many values before the scores are looked at for the one before, and the one after
TURN = 1e-4  # relative error of a length that is kept, in float32


def rotaries(graph: Graph) -> dict[CallKey, Rotary]:
    """For each self-attention whose queries and keys are both turned: how."""
    found = {}
    for core, call in graph.cores.items():
        if call is None or call.kind != "self" or (pair := meeting(core)) is None:
            continue
        query, key = (_turn(value, core) for value in pair)
        if query is not None and key is not None and query[0] == key[0]:
            found[call.name, call.occurrence] = query[0]
    return found


def unturned(core: Value) -> dict[Value, Value]:
    """The queries and keys of an attention as they were turned → as they were before; nothing where only one is."""
    turns = [_turn(value, core) for value in meeting(core) or ()]
    return {made: given for _, given, made in turns} if None not in turns else {}


def meeting(core: Value) -> tuple[Value, Value] | None:
    """Queries and keys as they meet in the scores of an attention."""
    if core.operation in ("scaled_dot_product_attention", "attend"):
        given = [core.operands.get(side, core.operands.get(name)) for side, name in enumerate(("query", "key"))]
        return tuple(given) if None not in given else None
    for value in _before(core, BACK):
        if value.operation in MATRICES and value.operation != "linear":
            live = [u for u in value.operands.values() if u.live]
            live = live or [u for u in value.up if u.live]
            if len(live) == 2:
                return live[0], live[1]
    return None


def _before(value: Value, limit: int) -> Iterator[Value]:
    """The nearest values before one, the latest first."""
    opened, count = {u.index: u for u in value.up if u.live}, 0
    while opened and count < limit:
        last = opened.pop(max(opened))
        yield last
        count += 1
        opened |= {u.index: u for u in last.up if u.live}


def _turn(value: Value, core: Value) -> tuple[Rotary, Value, Value] | None:
    """How ``value`` was turned, from what into what, if a value before it of the same shape has the same lengths in
    pairs."""
    chain = [value, *_before(value, BACK)]
    chain = [v for v in chain if v.place.path == core.place.path or v.place.path.startswith(core.place.path)]
    for made in chain[:AFTER]:
        if made.operation in SCALES and len(made.up) == 1:
            continue
        befores = [v for v in chain if v.index < made.index and v.shape == made.shape and v.bit & made.before]
        turns = [(pairing(given.tensor.detach(), made.tensor.detach()), given) for given in befores]
        turns = [(turned, given) for turned, given in turns if turned is not None]
        if turns:
            return turns[0][0], turns[-1][1], made  # half of the turn has the lengths too: the first of them is before
    return None


def pairing(given: Tensor, made: Tensor) -> Rotary | None:
    """How (…, D) was turned into another (…, D): which dimensions changed, and in which pairs lengths were kept.

    >>> x = torch.tensor([[3.0, 0.0, 5.0], [1.0, 2.0, 6.0], [0.5, 1.0, 7.0]])
    >>> pairing(x, x[:, [1, 0, 2]] * torch.tensor([-1.0, 1.0, 1.0]))
    Rotary(pairing='half', dims=2, start=0)
    """
    if not given.is_floating_point() or given.ndim < 2 or given.shape[-1] < 2:
        return None
    x, y = (t.reshape(-1, t.shape[-1]).double() for t in (given, made))
    scale = x.abs().max().clamp_min(1e-30)
    limit = max(TURN, 8 * torch.finfo(made.dtype).eps)
    changed = ((x - y).abs().amax(0) > limit * scale).nonzero().flatten().tolist()
    if not changed or (float(torch.linalg.vector_norm(x)) == 0):
        return None
    start, stop = changed[0], changed[-1] + 1
    for dims in (stop - start, _even(stop - start), x.shape[-1] - start):  # the fewest: what stands still is no pair
        if dims % 2 or start + dims > x.shape[-1]:
            continue
        for name in ("half", "adjacent"):
            rotary = Rotary(name, dims, start)
            a, b = map(list, zip(*rotary.pairs(), strict=True))
            before, after = (torch.hypot(t[:, a], t[:, b]) for t in (x, y))
            if float((before - after).abs().max()) <= limit * float(before.max()):
                return rotary
    return None


def _even(count: int) -> int:
    return count + count % 2
