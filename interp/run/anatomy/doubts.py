"""Reasons not to believe a chain that adds up: adding up is no proof that all parts are there."""

from __future__ import annotations

from headwise.interp.run.anatomy.back import ADD
from headwise.interp.run.anatomy.graph import Value
from headwise.interp.run.anatomy.norms import MATRICES
from headwise.interp.run.anatomy.streams import Chain, Graph

GOES_ON = "a stream ends in {} and goes on in {} by operations that are no residual addition"
STARTS_LATE = "a stream starts in {} from an attention that is on no stream"
STILL_ADDS = "after the last block, {} still adds a write to the stream"
WHOLE = "{} adds the stream to itself once more, as in x + block(x), so that no write is told from what it is added to"
NOTHING = "no attention and nothing like it writes to it"
NESTED = "{} holds a chain of attentions of its own, so that it is no single write"
SEVERAL = "an operation with several results makes it"


def breaks(graph: Graph, found: list[Chain]) -> list[str]:
    """Where a chain was lost half-way. No stream may begin where another of the same shape ended, and nothing between
    the last one's end and the result may add a write."""
    said = []
    covered = {core for chain in found for write in chain.writes for core in write.cores} | {
        v for c in found for v in c.line
    }
    for chain in found:
        start = chain.origin[0]
        if any(core.bit & (start.before | start.bit) for core in graph.cores if core not in covered):
            said.append(STARTS_LATE.format(_where(start)))
        for other in found:
            if other is not chain and _goes_on(graph, other, chain):
                said.append(GOES_ON.format(_where(other.end), _where(chain.origin[0])))
    last, result = found[0].end, graph.result
    for value in graph.values if result is not None else ():
        step = graph.steps.back.get(value)
        if (
            step is None
            or step.kind != ADD
            or not value.before & last.bit
            or not value.bit & (result.before | result.bit)
        ):
            continue
        if _maps(step.source, step.write):
            said.append(STILL_ADDS.format(_where(value)))
    return said


def _goes_on(graph: Graph, first: Chain, second: Chain) -> bool:
    """Does ``second`` begin from a state of ``first`` that is shaped as its own, without an attention in between?"""
    start, shapes = second.origin[0], {value.shape for value in (*second.origin, second.embedding)}
    own = {core for write in first.writes for core in write.cores} | set(first.line)
    between = [core for core in graph.cores if core.bit & (start.before | start.bit) and core not in own]
    return any(
        state.shape in shapes
        and (start.before | start.bit) & state.bit
        and not any(c.before & state.bit for c in between)
        for state in first.line
    )


def doubts(graph: Graph, chain: Chain, found: list[Chain]) -> list[str]:
    """Why one chain is not believed."""
    said, states = [], set(chain.line)
    sequence = len(chain.end.shape) == 3 and any(w.kind == "mixer" for w in chain.writes)
    if not any(w.cores for w in chain.writes) and not sequence:
        said.append(NOTHING)
    others = {core for c in found if c is not chain for w in c.writes for core in w.cores}
    others |= {value for c in found for value in c.line}  # modules that add their write themselves
    for write in chain.writes:
        if states & set(graph.steps.spine(write.value)):
            said.append(WHOLE.format(_where(write.after)))
        elif write.read is not None:
            here = [v for v in graph.cores if v.bit & (write.value.before | write.value.bit)
                    and not v.bit & write.read.before]  # fmt: skip
            if any(v not in write.cores and v not in others for v in here):
                said.append(NESTED.format(_where(write.value)))
    if any(value.item for value in chain.line):
        said.append(SEVERAL)
    return list(dict.fromkeys(said))


def _maps(source: Value, write: Value) -> bool:
    todo, seen = [write], set()
    while todo:
        value = todo.pop()
        if value in seen or not value.before & source.bit:
            continue
        seen.add(value)
        if value.operation in MATRICES:
            return True
        todo += value.up
    return False


def _where(value: Value) -> str:
    return value.place.path or "the module itself"
