"""The residual streams in a run: chains of additions with the most attentions on their writes.

A write's attention is the nearest one backwards, not through the stream. Once a chain is found its attentions are done
with, and the next stream is the chain with most of those that are left: the encoder beside the decoder, the stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from headwise.interp.attention.call import AttentionCall
from headwise.interp.run.anatomy.back import ADD, NORM, SCALE, SHIFT, SIDES, VIEW, Steps
from headwise.interp.run.anatomy.graph import Tape, Unrepeatable, Value, again, between
from headwise.interp.run.anatomy.model import Layout, layout_of
from headwise.interp.run.anatomy.norms import SUMS, Norm
from headwise.interp.run.tap.places import Side, Visit

NUDGE = 1e-2  # of the spread, that one position is moved by


@dataclass(eq=False)
class Graph:
    """One whole run, and what is known of its values. ``cores``: where positions meet: outputs of attention calls, and
    of attention-like modules in which none was seen (None)."""

    tape: Tape
    cores: Mapping[Value, AttentionCall | None]
    norms: Mapping[Value, tuple[Value, Norm]]
    steps: Steps
    result: Value | None
    batch: int
    readers: dict[Value, list[Value]] = field(default_factory=dict)

    @property
    def values(self) -> list[Value]:
        return self.tape.values

    def visits(self, value: Value) -> tuple[Visit, ...]:
        """The running modules around an operation, the outermost first."""
        visit = self.tape.visits.get((value.place.path, value.place.visit), Visit())
        return (*visit.outer, visit)


@dataclass(eq=False)
class Write:
    """What one addition puts into the stream: the operand ``side`` of ``add``."""

    value: Value
    add: Value
    side: Side
    sign: float
    after: Value  # the stream once it is in
    cores: tuple[Value, ...]
    read: Value | None = None  # the stream it was computed from
    block: int | None = None
    kind: str = ""


@dataclass(eq=False)
class Chain:
    """One stream: its values in order, from the embedding to the end, and what is added between them."""

    origin: list[Value]  # from the first summand to the embedding
    line: list[Value]
    writes: list[Write]
    early: list[Write] = field(default_factory=list)  # before block 0: they are in the embedding
    blocks: tuple[str, ...] = ()
    style: str = ""

    @property
    def embedding(self) -> Value:
        return self.line[0]

    @property
    def end(self) -> Value:
        return self.line[-1]


def chains(graph: Graph) -> tuple[list[Chain], list[Value]]:
    """The streams, the one that the result is read from first, and the cores that are on none."""
    steps, left, found = graph.steps, set(graph.cores), []
    sums = [v for v in graph.values if (step := steps.back.get(v)) is not None and step.kind == ADD]
    candidates = {v: _covered(steps, v) for v in sums if steps.depth[v][0]}
    while left:
        keys = {v: (len(mine), steps.depth[v][1], v.index) for v, covered in candidates.items()
                if (mine := covered & left)}  # fmt: skip
        if not keys:
            break
        best = max(keys, key=keys.__getitem__)
        found.append(_chain(graph, best))
        left -= candidates[best] | _own(graph, best)
    if not candidates and (best := _deepest(graph, sums)) is not None:
        found.append(_chain(graph, best))
        left -= _own(graph, best)
    if graph.result is not None:
        reach = graph.result.before | graph.result.bit
        found.sort(key=lambda c: c.end.index if reach & c.end.bit else -1, reverse=True)
    return found, sorted(left, key=lambda v: v.index)


def _own(graph: Graph, last: Value) -> set[Value]:
    """Attention-like modules that add their write to the stream themselves."""
    return {v for v in graph.steps.spine(last) if v in graph.cores and graph.cores[v] is None}


def _deepest(graph: Graph, sums: list[Value]) -> Value | None:
    """Where no attention is on a write: the end of the longest chain on the way to the result."""
    reach = 0 if graph.result is None else graph.result.before | graph.result.bit
    chained = [v for v in sums if v.bit & reach and graph.steps.depth[v][1] > 1]
    return max(chained, key=lambda v: (graph.steps.depth[v][1], v.index), default=None)


def _covered(steps: Steps, value: Value) -> set[Value]:
    return {core for v in steps.spine(value) if v in steps.back for core in steps.back[v].cores}


def _chain(graph: Graph, last: Value) -> Chain:
    back, line = graph.steps.back, graph.steps.spine(last)[::-1]
    writes = []
    for source, made in pairwise(line):
        step = back[made]
        if step.kind == ADD:
            sign = (-1.0 if made.operation.startswith("sub") else 1.0) * made.kwargs.get("alpha", 1)
            writes += _leaves(graph, Write(step.write, made, step.side, sign, made, ()), graph.steps.tree[source])
    blocks = _blocks(graph, writes)
    first = next((i for i, v in enumerate(line) if any(w.after is v and w.block is not None for w in writes)), 1) - 1
    early = [w for w in writes if w.after in line[: first + 1]]
    line, origin, writes = line[first:], line[: first + 1], [w for w in writes if w not in early]
    chain = Chain(origin, line, writes, early, blocks)
    for write in writes:
        write.read = next((v for v in graph.steps.spine(write.after)[1:] if v.bit & write.value.before), None)
    chain.style = _style(graph, chain)
    if chain.style.startswith("post-LN"):
        _past_the_norm(graph, chain)
    for write in writes:
        write.kind = _kind(graph, write, chain)
    return chain


def _leaves(graph: Graph, write: Write, stop: int) -> list[Write]:
    """A sum of parallel writes → its parts, where different attentions feed them."""
    value = write.value
    write.cores = graph.steps.attentions(value, stop)
    value = value.maker
    if value.operation not in SUMS or value.operation.startswith("sub") or value in graph.steps.back:
        return [write]
    pair = [(k, u) for k, u in value.operands.items() if u.live and k in SIDES]
    if len(pair) != 2 or any(u.shape != value.shape for _, u in pair) or value.kwargs.get("alpha", 1) != 1:
        return [write]
    first, second = (graph.steps.attentions(u, stop) for _, u in pair)
    if first == second:
        return [write]
    return [x for k, u in pair for x in _leaves(graph, Write(u, value, k, write.sign, write.after, ()), stop)]


# -- blocks -----------------------------------------------------------------------------------------------------------
def _blocks(graph: Graph, writes: list[Write]) -> tuple[str, ...]:
    """Number the writes by block: the members of a list of modules just below what holds all writes, each with its
    visit, so that shared layers count as often as they run; else one block a self-attention."""
    paths = [graph.visits(w.add) for w in writes]
    level = 0
    while all(len(p) > level for p in paths) and len({(p[level].path, p[level].number) for p in paths}) == 1:
        level += 1
    base = paths[0][level - 1].path if level else ""
    keys = [_member(p[level], base) if len(p) > level else None for p in paths]
    order = list(dict.fromkeys(k for k in keys if k is not None))
    if len(order) > 1 and all(k is not None for k, w in zip(keys, writes, strict=True) if w.cores):
        for write, key in zip(writes, keys, strict=True):
            write.block = None if key is None else order.index(key)
        return tuple(name for name, _ in order)
    own = [w for w in writes if any(_is_self(graph, core) for core in w.cores)] or [w for w in writes if w.cores]
    opens = list(dict.fromkeys(w.after for w in own))  # writes that are added together are of one block
    for write in writes:
        block = sum(after.index <= write.after.index for after in opens) - 1
        write.block = block if block >= 0 else None
    paths = {w.after: w.value.maker.place.path for w in own}
    return tuple(base if len(opens) == 1 else paths[after] for after in opens)


def _member(visit: Visit, base: str) -> tuple[str, int] | None:
    """The numbered module under ``base`` that a visit is of or lies in, and which visit of it."""
    parts = visit.path.split(".")
    for n in range(len(base.split(".")) if base else 0, len(parts)):
        if parts[n].isdigit():
            return ".".join(parts[: n + 1]), visit.number
    return None


def _is_self(graph: Graph, core: Value) -> bool:
    call = graph.cores[core]
    return call is not None and call.kind == "self"


# -- what a write is --------------------------------------------------------------------------------------------------
def _kind(graph: Graph, write: Write, chain: Chain) -> str:
    kinds = {"unseen" if (call := graph.cores[core]) is None else call.kind for core in write.cores}
    if kinds:
        return "cross" if "cross" in kinds else "attention" if "self" in kinds else "mixer"
    return "other" if write.read is None else _pointwise(graph, write, layout(graph, chain))


def _pointwise(graph: Graph, write: Write, laid: Layout) -> str:
    """An MLP reads each position alone: when one is moved, no other moves."""
    read, made = write.read, write.value
    if read.shape != made.shape or made.out.ndim < 2:
        return "other"
    wide = laid.wide(read.tensor.detach().clone(), graph.batch)
    if wide.shape[1] < 2:
        return "other"
    at = wide.shape[0] // 2, wide.shape[1] // 2
    generator = torch.Generator(wide.device).manual_seed(0)
    noise = torch.randn(wide.shape[-1], generator=generator, device=wide.device, dtype=torch.float32).to(wide.dtype)
    moved = wide.clone()
    moved[at] += NUDGE * wide[at].float().std().clamp_min(1e-3).to(wide.dtype) * noise
    new = {read: laid.met(moved, read.shape)}
    try:
        with torch.no_grad():
            for value in between(read, made):
                new[value] = again(value, new)
    except (Unrepeatable, RuntimeError, TypeError, ValueError, IndexError):
        return "other"
    gap = laid.wide((new[made] - made.tensor).detach().abs().float(), graph.batch).amax(-1)
    here = float(gap[at])
    gap[at] = 0
    tiny = 1e-5 * max(here, 0.0) + 4 * torch.finfo(made.out.dtype).eps * float(made.tensor.abs().max()) * 1e-2
    return "other" if here == 0 else "mlp" if float(gap.max()) <= tiny else "mixer"


def layout(graph: Graph, chain: Chain) -> Layout:
    """How the stream lays out batch, positions and channels."""
    return layout_of(chain.end.shape, graph.batch, width(graph, chain))


def width(graph: Graph, chain: Chain) -> int:
    """Channels of the stream, as the norms that read it say; else the last axis."""
    states = set(chain.line)
    for source, norm in graph.norms.values():
        if source in states:
            return norm.weight.numel()
    shape = chain.end.shape
    convolved = any(v.operation == "conv2d" for w in chain.writes for v in (w.value, *w.value.up))
    return shape[1] if len(shape) == 4 and convolved else shape[-1]


def _style(graph: Graph, chain: Chain) -> str:
    back = graph.steps.back
    between_writes = any(back[v].kind == NORM for v in chain.line[1:])
    after = any(_ends_in_norm(graph, w.value) for w in chain.writes if w.cores)
    pairs = zip(chain.writes, chain.writes[1:], strict=False)
    parallel = any(a.block == b.block and a.read is not None and a.read is b.read and a is not b
                   and not b.value.before & a.after.bit for a, b in pairs)  # fmt: skip
    style = "post-LN" if between_writes else "pre+post-norm" if after else "pre-LN"
    return style + ", parallel" * parallel


def _ends_in_norm(graph: Graph, value: Value) -> bool:
    while (step := graph.steps.back.get(value)) is not None and step.kind in (NORM, SCALE, VIEW, SHIFT):
        if step.kind == NORM:
            return True
        value = step.source
    return False


def _past_the_norm(graph: Graph, chain: Chain) -> None:
    """The last addition of a post-LN stream has its norm, as those before it."""
    after = (v for v, (source, _) in graph.norms.items() if source is chain.end)
    if (made := next(after, None)) is not None and made.shape == chain.end.shape:
        chain.line.append(made)
