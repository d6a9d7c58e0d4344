"""B: a padded sample against itself without padding: how much padding there is must not matter."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from headwise.interp.check.bench import Bench
from headwise.interp.check.errors import Refused
from headwise.interp.check.findings import found
from headwise.interp.check.gaps import gap
from headwise.interp.check.locate import ROUTES, watch
from headwise.interp.check.probes.sides import Padded
from headwise.interp.check.report import Finding
from headwise.interp.check.target import Batch, Target
from headwise.interp.masks import Prefix

POSITION = re.compile(r"pos|wpe|rope|rotary", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Lone:
    """Sample ``b`` without its padding."""

    b: int
    start: int  # where it stands in the padded row
    x: Batch  # (1, n, …)
    mask: Tensor | None
    extra: dict[str, Tensor]


@dataclass(frozen=True)
class Apart:
    """The first module whose output at real positions differs between the padded and the lone run."""

    module: str | None = None
    layer: int | None = None
    inside: str = ""
    routing: bool = False


def alone(bench: Bench, padded: Padded):
    """Yields the first sample that differs; returns True when one did."""
    target, made, base = bench.target, padded.made, padded.base
    for b in range(bench.batch):
        n, start = made.lengths[b], made.promise.starts[b]
        if n == bench.length:
            continue
        lone = _lone(bench, padded, b)
        try:
            with target.alone(b, bench.batch):
                by_itself = bench.run(lone.x, lone.mask, **lone.extra)
        except Refused:
            continue  # too short for the model
        among = base[b : b + 1, start : start + n] if base.shape[1] == bench.length else base[b : b + 1]
        if among.shape != by_itself.shape:
            continue
        worst, gaps = bench.across(by_itself, among)
        if not worst:
            continue
        if made.name == "right" or counts_from_real(bench):
            yield _counted(bench, padded, lone, gaps[0])
            return True
        if not bench.expect.has(Prefix) and (agree := _agreeing(bench, padded)):
            yield found("left-borders", **agree, **_place(bench, padded, lone, worst))
            return True
        if not any(f.probe == "B" for f in bench.advice):
            bench.advice.append(found("left-advice", **_place(bench, padded, lone, worst)))
        return False
    return False


def counts_from_real(bench: Bench) -> bool:
    """Must positions be counted from the first real token: does it take them, is it padded on the left in use?"""
    target = bench.target
    return target.position_name is not None or bench.options.padding == "left" or _padded_left(target)


def _padded_left(target: Target) -> bool:
    """Does its configuration, or the tokenizer that it came with, say so?"""
    reader = getattr(target.feed.subject, "encode", None)
    said = (getattr(one, "padding_side", None) for one in (target.config, getattr(reader, "tokenizer", None)))
    return "left" in said


def _lone(bench: Bench, padded: Padded, b: int) -> Lone:
    target, made = bench.target, padded.made
    n, start, device = made.lengths[b], made.promise.starts[b], padded.x.device
    return Lone(
        b,
        start,
        x=padded.x[b : b + 1].cut(start, n),
        mask=torch.ones(1, n, dtype=torch.long, device=device) if target.padding.name else None,
        extra={target.position_name: torch.arange(n, device=device)[None]} if target.position_name else {},
    )


def _agreeing(bench: Bench, padded: Padded) -> dict:
    """Amounts of padding on the left under which half of the last sample answers alike, in words; nothing where there
    are none. Of a table of positions counted over the row no two amounts answer alike; borders of chunks come again.
    """
    target, b, n = bench.target, bench.batch - 1, bench.length // 2
    most = bench.length - n
    if most > bench.affordable(0.05):
        return {}
    answers: list[Tensor] = []
    for amount in range(most + 1):
        x = padded.x[b : b + 1].cut(most - amount, n + amount)
        mask = None if padded.mask is None else (torch.arange(n + amount, device=x.device) >= amount).long()[None]
        try:
            with target.alone(b, bench.batch):
                out = bench.run(x, mask)
        except Refused:
            return {}
        answers.append(out[:, -n:] if out.shape[1] == n + amount else out)
    return _alike([[i == j or not bench.across(a, c)[0] for i, a in enumerate(answers)] for j, c in enumerate(answers)])


def _alike(same: list[list[bool]]) -> dict:
    """Of amounts 0, 1, … that answer alike."""
    amounts = range(len(same))
    for period in amounts[1:-1]:
        if all(same[i][i + period] for i in amounts[:-period]):
            return {"agree": f"amounts of padding that differ by {period} answer alike", "period": period}
    pairs = [(i, j) for i in amounts for j in range(i) if same[i][j]]
    agree = f"{pairs[0][1]} and {pairs[0][0]} of padding answer alike" if pairs else ""
    return {"agree": agree, "period": None} if pairs else {}


def _counted(bench: Bench, padded: Padded, lone: Lone, gaps: Tensor) -> Finding:
    worst, apart = float(gaps.max()), _first_apart(bench, padded, lone)
    place = _place(bench, padded, lone, worst, apart)
    if padded.made.name == "left":
        return found("left-positions", **place)
    whole = bool((gaps > worst / 100).float().mean() > 0.5)
    return found("padding-counts", cls=_class(apart), whole="nearly all" if whole else "", **place)


def _place(bench: Bench, padded: Padded, lone: Lone, effect: float, apart: Apart | None = None) -> dict:
    apart = apart or _first_apart(bench, padded, lone)
    n = padded.made.lengths[lone.b]
    return {
        "probe": "B",
        "module": apart.module,
        "layer": apart.layer,
        "inside": apart.inside,
        "effect": effect,
        "smallest": {"batch": 1, "length": n, "padding": bench.length - n},
    }


def _class(apart: Apart) -> str:
    """Of the finding, by what kind of module counts the padding; "" for padding itself."""
    if apart.routing:
        return "routing"
    if apart.module and POSITION.search(apart.module.rpartition(".")[2]):
        return "position-ids"
    return "outside-attention" if apart.inside == "outside attention" and apart.module is not None else ""


def _first_apart(bench: Bench, padded: Padded, lone: Lone) -> Apart:
    target, n = bench.target, padded.made.lengths[lone.b]
    try:
        _, one, _ = watch(target, padded.x, padded.mask, **padded.extra)
        with target.alone(lone.b, bench.batch):
            _, two, _ = watch(target, lone.x, lone.mask, length=n, **lone.extra)
    except Refused:
        return Apart()
    calls = {(c.name, c.occurrence): c.layer for c in one.finished("self")[0]}
    for a, c in zip(one.visits_made, two.visits_made, strict=False):
        if a.name != c.name:
            return Apart(a.name, inside="outside attention", routing=True)
        if _differ(bench, lone, a.outputs, c.outputs) and not _differ(bench, lone, a.inputs, c.inputs):
            inner = [calls.get((k.name, k.occurrence)) for k in one.calls[slice(*a.calls)]]
            return Apart(
                a.name,
                layer=next((v for v in inner if v is not None), None),
                inside="attention" if inner else "outside attention",
                routing=any(w in a.name.lower() for w in ROUTES),
            )
    return Apart()


def _differ(bench: Bench, lone: Lone, among: list[Tensor], alone: list[Tensor]) -> bool:
    """Do tensors of the padded run differ from those of the lone one at the sample's real positions?"""
    for p, q in zip(among, alone, strict=False):
        if _comparable(bench, p, q, lone.x.length):
            part = p[min(lone.b, len(p) - 1)][None, lone.start : lone.start + lone.x.length]
            if float(gap(q[:1], part).max()) > 1e-4:
                return True
    return False


def _comparable(bench: Bench, p: Tensor, q: Tensor, n: int) -> bool:
    """Outputs (B | 1, T, …) of the padded run and (1, n, …) of the lone one."""
    if p.ndim != q.ndim or p.ndim < 3 or not p.is_floating_point():
        return False
    return p.shape[0] in (bench.batch, 1) and p.shape[1] == bench.length and q.shape[1] == n
