"""The matrices of heads, in any model: what an attention reads from the residual stream, and what it writes into it.

Nothing is known of the model but its anatomy. An identity is pushed through the operations that lie between the stream
and a query, key or value, and between the attention's output and the stream; what comes out is the matrix. The weights
of norms on the way are in it and their scales, which differ from input to input, are one; rotary positions are left
out. Whether a matrix does what the operations do is checked on numbers drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from headwise.interp.attention.call import AttentionCall
from headwise.interp.errors import InputError
from headwise.interp.run.anatomy import Anatomy, Branch, Stream
from headwise.interp.run.anatomy.discover import trace
from headwise.interp.run.anatomy.graph import Unrepeatable, Value, again, between
from headwise.interp.run.anatomy.model import CallKey, Heads
from headwise.interp.run.anatomy.norms import Norm
from headwise.interp.run.anatomy.probe import shortened
from headwise.interp.run.anatomy.rotary import meeting, unturned
from headwise.interp.run.anatomy.streams import Graph
from headwise.interp.run.capture import Capture
from headwise.interp.run.streaming import stream_of

READS = ("q", "k", "v")
BELIEVED = 1e-4  # relative error of a matrix, in float32
FAILED = (Unrepeatable, RuntimeError, TypeError, ValueError, IndexError, KeyError)
NOT_SEEN = "its {} were not seen"
NOT_ALONE = "its {} do not come from the residual stream alone"
NOT_LINEAR = "its {} are no linear map of the residual stream, position by position"

_known: WeakKeyDictionary[Anatomy, tuple[int, Maps]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Route:
    """The operations from one value of a run to another, to be run again on other numbers.

    ``norms`` and ``skips`` stand for several operations: made → what it was made of. Tensors are as met.
    """

    start: Value
    stop: Value
    steps: tuple[Value, ...]
    norms: Mapping[Value, tuple[Value, Norm]]
    skips: Mapping[Value, Value] = field(default_factory=dict)

    def __call__(self, x: Tensor) -> Tensor:
        """As the model does it."""
        return self._follow(x, lambda norm, x: norm(x))

    def affine(self, x: Tensor) -> Tensor:
        """With the scales of all norms one."""
        return self._follow(x, lambda norm, x: norm.linear(x, x.new_ones(())) + norm.bias.to(x))

    def _follow(self, x: Tensor, normed: Callable[[Norm, Tensor], Tensor]) -> Tensor:
        new = {self.start: x}
        for value in self.steps:
            if value in self.skips:
                new[value] = new[self.skips[value]]
            elif value in self.norms and self.norms[value][0] in new:
                source, norm = self.norms[value]
                new[value] = normed(norm, new[source])
            else:
                new[value] = again(value, new)
        return new[self.stop]


@dataclass(frozen=True, eq=False)
class Matrix:
    """A linear map (H, C, D) of rows at a state of a stream, ``state`` counted as in ``Stream.states``; with what it
    adds whatever comes in, (H, D), and the ``norm`` that rows pass first. Shared key/value heads are counted once.
    ``exact``: with the scale of that norm it is what the model does, rotary positions left out."""

    weight: Tensor
    bias: Tensor
    stream: str
    state: int
    norm: Norm | None = None
    exact: bool = True

    def of(self, head: int, heads: int) -> Tensor:
        """(C, D) of a query head among ``heads``."""
        return self.weight[head * len(self.weight) // heads]

    def __call__(self, rows: Tensor, head: int, heads: int) -> Tensor:
        """What a query head reads of rows (N, C) → (N, D)."""
        made = rows @ self.of(head, heads)
        made = made if self.norm is None else made * self.norm.scale(rows)
        return made + self.bias[head * len(self.bias) // heads]


@dataclass(frozen=True, eq=False)
class HeadMaps:
    """The matrices of one attention. ``reads``: W_Q, W_K and W_V by "q", "k", "v" · ``writes``: W_O (H, D, C) ·
    ``missing``: what could not be read, a reason each, by "q", "k", "v", "o"."""

    stack: str
    layer: int
    heads: int
    branch: Branch
    stream: str
    reads: Mapping[str, Matrix]
    writes: Tensor | None
    missing: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Maps:
    """All attentions of a model that write into a proven stream, in the order they ran, and the vectors (V, C) that its
    first stream starts from for each token, None where it starts from something else."""

    attentions: tuple[HeadMaps, ...]
    embedding: Tensor | None

    def find(self, layer: int, stack: str) -> HeadMaps:
        for one in self.attentions:
            if (one.layer, one.stack) == (layer, stack):
                return one
        raise InputError(f"The attention of {stack} layer {layer} writes into no stream that could be proven.")


def maps(cap: Capture) -> Maps:
    """The matrices of a capture's model, found once and kept until its weights change.

    Raises InputError where no residual stream could be proven.
    """
    stream_of(cap, None, "A look at what heads read and write")
    version = sum(p._version for p in cap.subject.module.parameters())
    known = _known.get(cap.anatomy)
    if known is None or known[0] != version:
        known = _known[cap.anatomy] = version, _found(cap)
    return known[1]


def transport(cap: Capture, stream: str, branch: Branch, state: int | None, rows: Tensor) -> Tensor:
    """What rows (…, C) that a branch writes have become at a later ``state`` of its stream, None for its end:
    themselves, but for norms that stand between, whose scales are one."""
    found = cap.anatomy.stream(stream)
    spots = found.spots[1:]
    last, passed = spots[state if state is not None else -1], False
    for link in found.links:
        if passed and link.kind == "norm":
            rows = link.norm.linear(rows, rows.new_ones(()))
        passed = passed or link.made[0] == branch.after
        if link.made == last:
            break
    return rows


# -- finding ----------------------------------------------------------------------------------------------------------
def _found(cap: Capture) -> Maps:
    for inputs in shortened(cap.inputs):
        try:
            with torch.no_grad():
                graph, _ = trace(cap.subject, inputs)
                return _Finder(cap, graph).maps()
        except InputError:
            if inputs is cap.inputs:
                raise
    raise AssertionError("shortened ends with the input itself")


class _Finder:
    """One traced run, in which the anatomy's places are looked up."""

    def __init__(self, cap: Capture, graph: Graph):
        self.cap, self.graph, self.tape = cap, graph, graph.tape
        self.cores = {value.call: (value, call) for value, call in graph.cores.items() if call is not None}

    def maps(self) -> Maps:
        named = {(call.name, call.occurrence): call for call in self.cap.calls}
        found = []
        for stream in self.cap.anatomy.streams[::-1]:  # the encoder runs first
            for branch in stream.writes:
                for number, key in enumerate(branch.calls):
                    if key in named and key in self.cores:
                        heads = branch.parts[number] if branch.heads else None
                        found.append(self._attention(stream, branch, named[key], heads))
        return Maps(tuple(found), self._embedding())

    def _attention(self, stream: Stream, branch: Branch, call: AttentionCall, heads: Heads | None) -> HeadMaps:
        reads, missing = {}, {}
        key = call.name, call.occurrence
        for letter, value in zip(READS, self._given(key), strict=True):
            made = self._read(stream, branch, key, value, letter)
            (missing if isinstance(made, str) else reads)[letter] = made
        writes = self._write(branch, heads) if heads is not None else branch.why_no_heads or "it has no heads"
        if isinstance(writes, str):
            missing["o"], writes = writes, None
        return HeadMaps(call.stack, call.layer, call.heads, branch, stream.name, reads, writes, missing)

    def _given(self, key: CallKey) -> tuple[Value | None, Value | None, Value | None]:
        """Queries, keys and values as they go into an attention."""
        core, _ = self.cores[key]
        query, keys = meeting(core) or (None, None)
        if core.operation == "scaled_dot_product_attention":
            return query, keys, core.operands.get(2, core.operands.get("value"))
        others = [v for v in core.operands.values() if query is None or not v.before & query.bit]
        return query, keys, others[-1] if others else None

    def _read(self, stream: Stream, branch: Branch, key: CallKey, value: Value | None, letter: str) -> Matrix | str:
        word = {"q": "queries", "k": "keys", "v": "values"}[letter]
        if value is None:
            return NOT_SEEN.format(word)
        for name, number in self._sources(stream, branch):
            state = self.tape[self.cap.anatomy.stream(name).spots[number + 1]]
            if (value.before | value.bit) & state.bit:
                return self._matrix(name, number, value, key, letter) or NOT_LINEAR.format(word)
        return NOT_ALONE.format(word)

    def _sources(self, stream: Stream, branch: Branch):
        """Where an attention may read: its own stream, in a parallel block before the block's first write, or the end
        of another."""
        first = min(other.state for other in stream.writes if other.block == branch.block)
        yield from ((stream.name, state) for state in range(branch.state, first - 1, -1))
        for other in self.cap.anatomy.streams:
            if other is not stream:
                yield other.name, len(other.states) - 1

    def _matrix(self, name: str, number: int, value: Value, key: CallKey, letter: str) -> Matrix | None:
        core, call = self.cores[key]
        state = self.tape[self.cap.anatomy.stream(name).spots[number + 1]]
        route = self.route(state, value, unturned(core) if call.kind == "self" else {})
        layout, batch = self.cap.anatomy.stream(name).layout, self.graph.batch
        turned = letter == "k" and core.operation != "scaled_dot_product_attention" and _is_transposed(core, value)

        def through(x: Tensor) -> Tensor:  # (B, T, C) → (B, T, H, D)
            made = route.affine(layout.met(x, state.shape))
            made = made.reshape(batch, -1, *made.shape[-2:]) if made.ndim == 3 else made
            return (made.mT if turned else made).transpose(1, 2)

        found = self._pushed(through, layout.wide(state.tensor, batch))
        if found is None:
            return None
        norms = [route.norms[v] for v in route.steps if v in route.norms and v not in route.skips]
        first = norms[0][1] if norms and norms[0][0] is state else None
        return Matrix(found[0].permute(1, 0, 2).contiguous(), found[1], name, number, first, len(norms) <= bool(first))

    def _write(self, branch: Branch, heads: Heads) -> Tensor | str:
        z, stop = self.tape[heads.z], self.tape[branch.place, 0].operands[branch.side]
        norms = {self.tape[made]: (self.tape[source], norm) for made, (source, norm) in heads.norms.items()}
        route = Route(z, stop, tuple(self.tape[spot] for spot in heads.region), norms)
        batch = self.graph.batch
        four = heads.four(z.tensor, batch)
        count, width = four.shape[1], four.shape[3]

        def through(x: Tensor) -> Tensor:  # (B, T, H · D) → (B, T, 1, C)
            made = x.unflatten(-1, (count, width))  # (B, T, H, D)
            if heads.axis is None or heads.axis == 1:
                made = made.transpose(1, 2)
            elif heads.axis == 0:
                made = made.permute(2, 0, 1, 3)
            made = route.affine(made.reshape(z.shape))
            return branch.sign * branch.layout.wide(made, batch)[:, :, None]

        found = self._pushed(through, four.transpose(1, 2).flatten(2))
        if found is None:
            return "its output is no linear map into the residual stream, position by position"
        return found[0][:, 0].unflatten(0, (count, width))

    def _pushed(self, through: Callable[[Tensor], Tensor], like: Tensor) -> tuple[Tensor, Tensor] | None:
        """An identity through an affine map, laid over the positions of a run → ((C, H, D), what is added (H, D)); None
        where the map is not affine, position by position. ``like`` (B, T, C) lends its shape."""
        batch, length, width = like.shape
        try:
            constant = through(torch.zeros_like(like))
            basis = torch.eye(width, dtype=like.dtype, device=like.device)
            parts = []
            for start in range(0, width, batch * length):
                part = basis[start : start + batch * length]
                given = torch.zeros_like(like).flatten(0, 1)
                given[: len(part)] = part
                parts.append((through(given.view_as(like)) - constant).flatten(0, 1)[: len(part)])
            matrix = torch.cat(parts)
            drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(0)).to(like)
            wanted = through(drawn)
        except FAILED:
            return None
        made = torch.einsum("btc,chd->bthd", drawn, matrix) + constant
        limit = max(BELIEVED, 16 * torch.finfo(like.dtype).eps)
        fits = made.shape == wanted.shape and float((made - wanted).abs().max()) <= limit * float(wanted.abs().max())
        return (matrix.float(), constant[0, 0].float()) if fits else None

    def route(self, start: Value, stop: Value, skips: Mapping[Value, Value] | None = None) -> Route:
        shorter = {made: source for made, (source, _) in self.graph.norms.items()} | dict(skips or {})
        return Route(start, stop, tuple(between(start, stop, shorter)), self.graph.norms, skips or {})

    def _embedding(self) -> Tensor | None:
        """What the first stream starts from for each token, positions left out."""
        stream, size = self.cap.anatomy.stream(), self.cap.subject.vocab_size
        start = self.tape[stream.spots[0]]
        for value in self.tape.values if size else ():
            if value.operation != "embedding" or not (start.before | start.bit) & value.bit:
                continue
            table = next((a for a in (*value.args, *value.kwargs.values()) if _is_table(a)), None)
            if table is None or table.shape[0] < size:
                continue
            route = self.route(value, start)
            like = stream.layout.wide(value.tensor, self.graph.batch)
            found = self._pushed(
                lambda x, value=value, route=route: stream.layout.wide(
                    route.affine(stream.layout.met(x, value.shape)), self.graph.batch
                )[:, :, None],
                like,
            )
            if found is not None:
                return table.detach()[:size].float() @ found[0][:, 0]
        return None


def _is_table(given: object) -> bool:
    return isinstance(given, Tensor) and given.is_floating_point() and given.ndim == 2


def _is_transposed(core: Value, keys: Value) -> bool:
    """Whether keys stand as (…, D, K) in the product with the queries."""
    pair = meeting(core)
    return pair is not None and pair[0].shape[-1] == keys.shape[-2]
