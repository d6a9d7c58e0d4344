"""From the end of the stream to the result: norm, selection, one linear map, scale, soft cap; or something else."""

from __future__ import annotations

from math import prod

from torch import Tensor

from headwise.interp.run.anatomy.back import NORM, SCALE, SHIFT, VIEW
from headwise.interp.run.anatomy.graph import Value, between
from headwise.interp.run.anatomy.model import Link, Readout, layout_of
from headwise.interp.run.anatomy.norms import MATRICES
from headwise.interp.run.anatomy.streams import Chain, Graph

SELECTS = {
    "__getitem__", "select", "narrow", "index_select", "gather", "mean", "sum", "split", "chunk", "unbind",
    "take_along_dim", "cat", "stack",
}  # fmt: skip
NOT_ALONE = "the result does not come from the end of the stream alone"
NO_MAP = "the result is the stream itself, or its norm: no linear map makes logits of it"
SEVERAL = "more than one {} stands between the stream and the logits"
OTHER = "the logits are made by more than a norm and a linear map: {}"
UNSEEN = "the result was made where no operation could be seen"


def readout_of(graph: Graph, chain: Chain) -> tuple[Readout | None, str]:
    """How the result is read from the end of ``chain``; None and why where it is not read from there alone."""
    value, links = graph.result, []
    if value is None:
        return None, UNSEEN
    while value is not chain.end:
        if not value.before & chain.end.bit:
            return None, NOT_ALONE
        link, value = _link(graph, chain, value)
        if link is None:
            return None, NOT_ALONE
        links.append(link)
    links.reverse()
    kinds = [link.kind for link in links]
    norms = [link.norm for link in links if link.kind == "norm"]
    maps = [link for link in links if link.kind == "linear"]
    why = _why_not(graph, links)
    kind = "none" if not maps and "other" not in kinds else "nonlinear" if why else "direct"
    weight, bias = _matrix(graph.tape[maps[-1].made]) if maps else (None, None)
    scale, cap = _scale_and_cap(graph, links)
    layout = layout_of(graph.result.shape, graph.batch, graph.result.shape[-1])
    norm = norms[-1] if norms else None
    return Readout(kind, why or ("" if maps else NO_MAP), norm, weight, bias, scale, cap, tuple(links), layout), ""


def _scale_and_cap(graph: Graph, links: list[Link]) -> tuple[float | None, float | None]:
    """What the logits are multiplied by, and at what they are capped: cap · tanh(logits / cap)."""
    capped = next((i for i, link in enumerate(links) if link.kind == "cap"), len(links))
    before, after = (
        [_factor(graph.tape[link.made]) for link in part if link.kind == "scale"]
        for part in (links[:capped], links[capped:])
    )
    cap = prod(after) if after and None not in after else None
    scale = prod(before) * (cap or 1.0) if before and None not in before else None
    return None if scale == 1.0 else scale, cap


def _why_not(graph: Graph, links: list[Link]) -> str:
    kinds = [link.kind for link in links]
    if "other" in kinds:
        there = {
            graph.tape[s].place.path or graph.tape[s].operation for k in links if k.kind == "other" for s in k.steps
        }
        return OTHER.format(", ".join(sorted(there)[:3]))
    for kind in ("linear", "norm"):
        if kinds.count(kind) > 1:
            return SEVERAL.format({"linear": "linear map", "norm": "norm"}[kind])
    if "linear" in kinds and "cap" in kinds[: kinds.index("linear")]:
        return OTHER.format("tanh before the linear map")
    return ""


def _link(graph: Graph, chain: Chain, value: Value) -> tuple[Link | None, Value | None]:
    step = graph.steps.back.get(value)
    if step is not None and step.kind in (VIEW, SCALE, SHIFT, NORM):
        selects = step.kind == VIEW and value.operation in SELECTS and value.shape != step.source.shape
        region = tuple(v.spot for v in between(step.source, value)) if step.norm is not None else ()
        return Link("select" if selects else step.kind, value.spot, step.source.spot, step.norm, region), step.source
    source, region = _gate(graph, value, chain.end)
    if source is None:
        return None, None
    spots = tuple(v.spot for v in region)
    if len(region) > 1:
        views = all(v.operation in SELECTS or ((s := graph.steps.back.get(v)) is not None and s.kind == VIEW)
                    for v in region)  # fmt: skip
        return Link("select" if views else "other", value.spot, source.spot, region=spots), source
    others = [u for u in value.operands.values() if u is not source and u.live]
    if value.operation in MATRICES and not others and source in value.operands.values():
        return Link("linear", value.spot, source.spot), source
    return Link("cap" if value.operation == "tanh" else "other", value.spot, source.spot), source


def _gate(graph: Graph, value: Value, end: Value) -> tuple[Value | None, list[Value]]:
    """The last value that everything ``value`` takes from ``end`` passes through, and what lies between."""
    opened, region = {value.index: value}, []
    while opened:
        last = opened.pop(max(opened))
        region.append(last)
        ups = [graph.norms[last][0]] if last in graph.norms else last.up
        opened |= {u.index: u for u in ups if (u.before | u.bit) & end.bit}
        if len(opened) == 1:
            return next(iter(opened.values())), region[::-1]
    return None, []


def _matrix(value: Value) -> tuple[Tensor | None, Tensor | None]:
    """Weight (V, C) and bias (V,) of a linear map, where it says them plainly."""
    if value.operation != "linear":
        return None, None
    weight = value.args[1] if len(value.args) > 1 else value.kwargs["weight"]
    bias = value.args[2] if len(value.args) > 2 else value.kwargs.get("bias")
    return weight.detach(), None if bias is None else bias.detach()


def _factor(value: Value) -> float | None:
    """What a value was multiplied by, where that is a number."""
    numbers = [a for a in (*value.args, *value.kwargs.values()) if isinstance(a, int | float)]
    if len(numbers) != 1:
        return None
    return 1 / numbers[0] if "div" in value.operation else float(numbers[0])
