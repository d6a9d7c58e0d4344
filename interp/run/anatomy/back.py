"""One step back along a stream: what a value was before something was added to it, or it was scaled, viewed, normed.

In ``a + b`` the stream is a and the write b when b was computed from a, or from something a is itself a sum with. So
``x + attention + mlp`` and ``(attention + mlp) + x`` both come out right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from headwise.interp.run.anatomy.graph import Value
from headwise.interp.run.anatomy.norms import SCALES, SUMS, Norm
from headwise.interp.run.tap.places import Side

ADD, NORM, VIEW, SCALE, SHIFT = "add", "norm", "view", "scale", "shift"
SIDES = (0, 1, "input", "other")
VIEWS = {  # all linear in the tensor
    "view", "reshape", "transpose", "permute", "contiguous", "to", "float", "half", "double", "bfloat16", "type",
    "type_as", "dropout", "clone", "flatten", "unsqueeze", "squeeze", "expand", "view_as", "reshape_as", "swapaxes",
    "swapdims", "movedim", "moveaxis", "unflatten", "T", "mT", "__getitem__", "select", "narrow", "index_select",
    "roll", "pad", "split", "chunk", "unbind", "tensor_split", "split_with_sizes", "masked_fill", "masked_fill_",
    "take_along_dim", "gather", "detach", "dropout_", "expand_as", "flip", "dropout2d", "dropout1d", "alpha_dropout",
    "feature_dropout", "cpu", "cuda", "mean", "sum", "real",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Back:
    """What a value was before its last operation."""

    kind: str
    source: Value
    write: Value | None = None  # of a sum: what was added
    side: Side = None  # which operand that is
    cores: tuple[Value, ...] = ()  # the attentions the write comes from directly
    norm: Norm | None = None


class Steps:
    """For each value its step back, in the order in which values were made."""

    def __init__(self, values: list[Value], cores: Mapping[Value, object], norms: Mapping[Value, tuple[Value, Norm]]):
        self.cores, self.norms = cores, norms
        self.back: dict[Value, Back] = {}
        self.tree: dict[Value, int] = {}  # all that a value is a sum of, as a bit set
        self.depth: dict[Value, tuple[int, int]] = {}  # attentions and sums on the way back
        for value in values:
            self.tree[value], self.depth[value] = value.bit, (0, 0)
            step = self._step(value)
            if step is None:
                continue
            self.back[value] = step
            depth = self.depth[step.source]
            if step.kind == ADD:
                depth = depth[0] + len(step.cores), depth[1] + 1
            if step.kind not in (ADD, NORM):
                self.tree[value] |= self.tree[step.source]
            self.depth[value] = depth

    def spine(self, value: Value) -> list[Value]:
        """``value`` and what the stream was before it, back to where it starts."""
        line = [value]
        while (step := self.back.get(line[-1])) is not None:
            line.append(step.source)
        return line

    def attentions(self, write: Value, stop: int) -> tuple[Value, ...]:
        """The attentions a write comes from directly, not through the values of ``stop`` or another attention."""
        found, seen, todo = [], set(), [write]
        while todo:
            value = todo.pop()
            if value.index in seen or stop & value.bit:
                continue
            seen.add(value.index)
            if value in self.cores:
                found.append(value)
            else:
                todo += value.up
        return tuple(sorted(found, key=lambda v: v.index))

    def _step(self, value: Value) -> Back | None:
        if value in self.norms:
            source, norm = self.norms[value]
            return Back(NORM, source, norm=norm)
        if value.operation in SUMS:
            return self._sum(value)
        live = {k: u for k, u in value.operands.items() if u.live}
        if value.operation in SCALES and len(live) == 1:
            ((side, source),) = live.items()
            return None if value.operation.startswith("div") and side != 0 else Back(SCALE, source)
        if value.operation in VIEWS and live:
            side, source = next(iter(live.items()))
            foreign = side not in (0, "input", "self") and not isinstance(value.args[0] if value.args else 0, Tensor)
            mixes = value.operation in ("mean", "sum") and value.shape[-1:] != source.shape[-1:]
            return None if foreign or mixes or not source.out.is_floating_point() else Back(VIEW, source)
        return None

    def _sum(self, value: Value) -> Back | None:
        given = [(k, u) for k, u in value.operands.items() if k in SIDES]
        pair = [(k, u) for k, u in given if u.live]
        both = [(k, u) for k, u in given if u.shape == value.shape]
        if len(pair) == 1 and len(both) == 2 and any(not u.live and self.tree[u] & pair[0][1].before for _, u in both):
            pair = both  # a stream that starts from a learned constant, such as object queries or a class token
        subtracts = value.operation.startswith("sub")
        if len(pair) == 1:
            side, source = pair[0]
            return Back(SHIFT, source) if source.shape == value.shape and not (subtracts and side != 0) else None
        if len(pair) != 2 or pair[0][1] is pair[1][1]:
            return None
        (_, a), (_, b) = pair
        self.tree[value] |= self.tree[a] | self.tree[b]
        if subtracts and b.shape[-1] == 1 and b.before & a.bit:
            return None  # a − mean(a)
        forward, backward = bool(b.before & self.tree[a]), bool(a.before & self.tree[b])
        if forward == backward:
            if self.depth[a] == self.depth[b] or self.depth[a][0] == self.depth[b][0] == 0:
                return None
            forward = self.depth[a] > self.depth[b]
        (at, source), (side, write) = pair if forward else pair[::-1]
        if source.shape != value.shape or (subtracts and at != 0):
            return None
        return Back(ADD, source, write, side, self.attentions(write, self.tree[source]))
