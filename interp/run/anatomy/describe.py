"""From what a run shows to an anatomy: places instead of values, each claim proven, what is not proven refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

from headwise.interp.attention.call import AttentionCall
from headwise.interp.run.anatomy.back import ADD, SIDES
from headwise.interp.run.anatomy.doubts import breaks, doubts
from headwise.interp.run.anatomy.graph import Value, between
from headwise.interp.run.anatomy.heads import heads_of
from headwise.interp.run.anatomy.model import Anatomy, Branch, Link, Readout, Stream
from headwise.interp.run.anatomy.norms import SUMS
from headwise.interp.run.anatomy.proof import BROKEN, HEADS, TOTAL, added_up, allowed, heads_error, prove, repeats
from headwise.interp.run.anatomy.reading import Reading
from headwise.interp.run.anatomy.readout import readout_of
from headwise.interp.run.anatomy.rotary import rotaries
from headwise.interp.run.anatomy.streams import Chain, Graph, Write, chains, layout, width
from headwise.interp.subject import Subject

SUMMANDS = 4  # of an embedding, at most

NO_ATTENTION = "No attention and nothing like it ran, so there is no telling which additions are a residual stream."
NO_STREAM = "No chain of residual additions carries an attention."
LOST = "What {} computes enters no residual addition."
LOST_SUM = (
    "What {} computes enters no residual addition; the first sum after it, {}, adds two values of which neither was "
    "read from the other."
)
DOUBT = "The stream that ends in {}: {}."
BROKEN_CHAIN = "The chain of residual additions is not whole: {}."
NOT_A_SUM = "its writes do not add up to it (relative error {:.0e})"
NOT_EXACT = "an addition in it cannot be run again with the same result"
READOUT = "The logits cannot be read from the stream: {}."
HEADS_MIXED = "{}: its heads cannot be told apart: {}."
NOT_AFFINE = "its attention enters the stream through something that is not linear (relative error {:.0e})"
NOT_LOGITS = "norm and linear map do not give the logits (relative error {:.0e})"


def described(subject: Subject, graph: Graph, calls: tuple[AttentionCall, ...]) -> Anatomy:
    """The anatomy of a module that ran once, proven on that run. What cannot be proven is refused, part by part."""
    found, lost = chains(graph)
    refused = tuple(_lost(graph, core) for core in lost)
    if not found:
        return Anatomy(refused=(NO_STREAM if graph.cores else NO_ATTENTION, *refused))
    return anatomy_of(subject, graph, calls, found, refused)


def anatomy_of(
    subject: Subject, graph: Graph, calls: tuple[AttentionCall, ...], found: list[Chain], refused: tuple[str, ...]
) -> Anatomy:
    """The chains that were ``found``, checked: those that are believed, and the reasons against the others."""
    refused = list(refused)
    broken = breaks(graph, found)
    if broken:
        return Anatomy(refused=(*(BROKEN_CHAIN.format(b) for b in broken), *refused))
    kept = []
    for chain in found:
        why = doubts(graph, chain, found)
        refused += [DOUBT.format(_where(chain.end), w) for w in why]
        kept += [] if why else [chain]
    readout, why = readout_of(graph, found[0]) if kept[:1] == found[:1] else (None, "")
    refused += [READOUT.format(why)] if why else []
    streams = _named([_stream(graph, chain) for chain in kept], calls)
    anatomy = Anatomy(tuple(streams), readout, refused=tuple(refused), rotary=rotaries(graph))
    return _proven(Reading(subject, anatomy, graph.tape, graph.batch, calls))


# -- places -----------------------------------------------------------------------------------------------------------
def _stream(graph: Graph, chain: Chain) -> Stream:
    links = tuple(_links(graph, chain.line, chain.writes))
    origin = tuple(_links(graph, chain.origin, chain.early))
    sums = [link for link in links if link.kind == ADD]
    spots = (chain.embedding.spot, *(link.source for link in sums), chain.end.spot)
    spots = tuple(graph.tape[spot].maker.spot for spot in spots)  # where it can be changed, not a cast beside it
    laid = layout(graph, chain)
    numbers = {link.made: i for i, link in enumerate(sums)}
    writes = []
    for write in chain.writes:
        parts, why = heads_of(graph, write)
        keys = tuple((c.name, c.occurrence) for core in write.cores if (c := graph.cores[core]) is not None)
        path, place, after = write.value.maker.place.path, write.add.place, write.after
        writes.append(
            Branch(write.block, write.kind, path, place, write.side, after.place, numbers[after.spot], write.sign,
                   keys, parts, why, laid)
        )  # fmt: skip
    places = tuple(place for place, _ in spots[1:])
    begun = tuple(_summands(chain.origin[0], graph))
    return Stream("", spots[0][0], tuple(writes), chain.blocks, places, chain.style,
                  width(graph, chain), links, origin, begun, laid, spots)  # fmt: skip


def _links(graph: Graph, line: list[Value], writes: list[Write]):
    for source, made in pairwise(line):
        step = graph.steps.back[made]
        region = tuple(v.spot for v in between(source, made)) if step.norm is not None else ()
        added = tuple((w.add.place, w.side, w.sign) for w in writes if w.after is made)
        yield Link(step.kind, made.spot, source.spot, step.norm, region, added)


def _summands(value: Value, graph: Graph):
    """The places of what an embedding is the sum of, such as the token's and the segment's."""
    if value.operation not in SUMS or value.operation.startswith("sub") or value in graph.norms:
        return
    pair = [(k, value.operands[k]) for k in value.operands if k in SIDES]
    if len(pair) != 2 or value.kwargs.get("alpha", 1) != 1:
        return
    for side, operand in pair:
        inner = list(_summands(operand, graph))
        yield from inner or [(value.place, side)]


def _named(streams: list[Stream], calls: tuple[AttentionCall, ...]) -> list[Stream]:
    """After the stack of their self-attentions, numbered where several are of one stack."""
    stacks = {(c.name, c.occurrence): c.stack for c in calls}
    names, seen = [], Counter()
    for stream in streams:
        kinds = ("attention", "mixed", "cross", "mixer")
        keys = [key for kind in kinds for w in stream.writes if w.kind == kind for key in w.calls]
        name = next((stacks[key] for key in keys if key in stacks), "stream")
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return [replace(stream, name=name) for stream, name in zip(streams, names, strict=True)]


def _where(value: Value) -> str:
    return value.place.path or "the module itself"


def _lost(graph: Graph, core: Value) -> str:
    call = graph.cores[core]
    name = call.name if call is not None else core.place.path
    meeting = _first_sum(graph, core)
    name = name or "the module itself"
    return LOST.format(name) if meeting is None else LOST_SUM.format(name, meeting)


def _first_sum(graph: Graph, core: Value) -> Value | None:
    """The first sum of two live values after an attention."""
    for value in graph.values[core.index + 1 :]:
        unordered = value.operation in SUMS and value not in graph.steps.back
        if unordered and value.before & core.bit and len([u for u in value.operands.values() if u.live]) == 2:
            return value
    return None


# -- proof ------------------------------------------------------------------------------------------------------------
def _proven(reading: Reading) -> Anatomy:
    """The anatomy of a reading with the proof of all that is left in it."""
    anatomy, refused = reading.anatomy, list(reading.anatomy.refused)
    first, streams, heads = anatomy.streams[:1], [], None
    for stream in anatomy.streams:
        why = _sum_fails(reading, stream)
        if why:
            refused.append(DOUBT.format(stream.writes[-1].path or "the module itself", why))
            continue
        writes = []
        for write in stream.writes:
            write, why, error = _checked(reading, write)
            writes.append(write)
            heads = max((e for e in (heads, error) if e is not None), default=None)
            refused += [HEADS_MIXED.format(write.path or "the module itself", why)] if why else []
        streams.append(replace(stream, writes=tuple(writes)))
    same = bool(streams and first and streams[0].spots == first[0].spots)
    readout = anatomy.readout if same else None
    anatomy = replace(anatomy, streams=tuple(streams), readout=readout, refused=tuple(refused))
    if not streams:
        return replace(anatomy, rotary={})
    proof = prove(replace(reading, anatomy=anatomy), heads=heads)
    limit = allowed(reading.tape[streams[0].spots[-1]].out.dtype, HEADS)
    if proof.logits is not None and max(proof.logits, proof.attribution) > limit:
        why = NOT_LOGITS.format(max(proof.logits, proof.attribution))
        anatomy = replace(anatomy, readout=Readout("nonlinear", why, links=readout.links))
        proof = replace(proof, logits=None, attribution=None)
    return replace(anatomy, proof=proof)


def _sum_fails(reading: Reading, stream: Stream) -> str:
    tape = reading.tape
    sums = [link.made for link in stream.links if link.kind == ADD]
    if not all(repeats(tape, spot) for spot in sums):
        return NOT_EXACT
    try:
        error, _ = added_up(tape, stream)
    except BROKEN as problem:
        return str(problem)
    limit = allowed(tape[stream.spots[-1]].out.dtype, TOTAL, len(sums))
    return "" if error <= limit else NOT_A_SUM.format(error)  # so that NaN fails


def _checked(reading: Reading, write: Branch) -> tuple[Branch, str, float | None]:
    """(the branch with its heads, or without them; why without; the error of its heads). A write that is not affine in
    its attention is "mixed"."""
    if not write.calls:
        return write, "", None
    why, mixed, worst = write.why_no_heads, False, 0.0
    for heads in write.parts:
        dtype = reading.tape[heads.z].out.dtype
        try:
            error = heads_error(reading.tape, heads)
        except BROKEN as problem:
            why = str(problem)
            break
        if not error <= allowed(dtype, HEADS):
            why, mixed = NOT_AFFINE.format(error), True
            break
        worst = max(worst, error)
    if not why:
        return write, "", worst
    kind = "mixed" if mixed else write.kind
    return replace(write, kind=kind, parts=(), why_no_heads=why), why, None
