"""Which part of an attention write is whose: everything between the attention's output z and the write, run again.

A head is what remains when the others' z are zero, with norms and gates held still. No column or weight layout is
asked, so that grouped convolutions, sub-norms, layer scales and post-norms are covered alike. Whether the parts add up
is for the proof to say.
"""

from __future__ import annotations

from torch import Tensor

from headwise.interp.attention.call import AttentionCall
from headwise.interp.run.anatomy.graph import Value, between
from headwise.interp.run.anatomy.model import Heads
from headwise.interp.run.anatomy.norms import MATRICES
from headwise.interp.run.anatomy.streams import Graph, Write

NO_MATRIX = "no linear map takes the attention's output on its way into the stream"
NO_AXIS = "the axis of the heads cannot be told in the attention's output"
NO_AXIS_OF_BATCH = "its batch is not the input's, as in windows"
UNSEEN = "no attention call was seen in it"


def heads_of(graph: Graph, write: Write) -> tuple[tuple[Heads, ...], str]:
    """One a call, or () and why not."""
    if not write.cores:
        return (), ""
    found = []
    for core in write.cores:
        call = graph.cores[core]
        if call is None:
            return (), UNSEEN
        one = _heads(graph, write, core, call)
        if isinstance(one, str):
            return (), one
        found.append(one)
    return tuple(found), ""


def _heads(graph: Graph, write: Write, z: Value, call: AttentionCall) -> Heads | str:
    shorter = {made: source for made, (source, _) in graph.norms.items()}
    region = between(z, write.value, shorter)
    if not any(value.operation in MATRICES for value in region):
        return NO_MATRIX
    axis = _axis(z.out, call)
    if axis is False:
        return NO_AXIS
    norms = {v.spot: (graph.norms[v][0].spot, graph.norms[v][1]) for v in region if v in graph.norms}
    return Heads((call.name, call.occurrence), z.spot, axis, call.heads, tuple(v.spot for v in region), norms)


def _axis(z: Tensor, call: AttentionCall) -> int | bool | None:
    """The axis of the heads in z; None: inside the first, after the batch; −1: inside the last; False: it cannot be
    told."""
    batch, heads = call.batch, call.heads
    if z.ndim == 3 and call.width is not None and (z.shape[0], z.shape[-1]) == (batch, heads * call.width):
        return -1  # what a watched module returns
    if z.ndim == 4 and tuple(z.shape[:2]) == (batch, heads):
        return 1
    if z.ndim == 4 and tuple(z.shape[:2]) == (heads, batch):
        return 0
    if z.ndim == 3 and z.shape[0] == batch * heads:
        return None
    if z.ndim == 4 and list(z.shape[:3]).count(heads) == 1:
        return list(z.shape[:3]).index(heads)
    return 1 if heads == 1 and z.ndim == 4 else None if heads == 1 and z.shape[0] == batch else False
