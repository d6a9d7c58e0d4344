"""Decoding by a plan: how a sequence is cut into steps, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from headwise.interp.check.bench import Bench
from headwise.interp.check.state import seed_everything
from headwise.interp.check.target import BASE, Batch
from headwise.interp.check.target.steps import Step, Stepping


@dataclass(frozen=True)
class Plan:
    """How a sequence is cut into chunks."""

    name: str
    chunks: tuple[int, ...]
    alone: bool = False  # a batch of one

    def at(self, position: int) -> tuple[int, int]:
        """(index of the chunk that holds the position, where that chunk starts)."""
        ends = torch.tensor(self.chunks).cumsum(0).tolist()
        index = next(i for i, end in enumerate(ends) if position < end)
        return index, ends[index] - self.chunks[index]


@dataclass(frozen=True, eq=False)
class Decoded:
    """What steps gave, (B, T, F), and what the full forward gives."""

    out: Tensor
    full: Tensor
    kept: bool  # no cache was handed out


def decode(bench: Bench, way: Stepping, plan: Plan) -> Decoded:
    """From the module's own state, by itself."""
    x, full = given(bench, plan)
    with bench.target.untouched(), bench.target.in_mode(BASE), samples(bench, plan):
        parts, state = steps(bench, way.step, x, plan.chunks)
    out = torch.cat(parts, 1)
    return Decoded(out, full, kept=state is None)


def few(bench: Bench) -> bool:
    """Is there no time for steps of one position all along?"""
    return 2 * len(bench.positions) > bench.affordable(0.2)


def given(bench: Bench, plan: Plan) -> tuple[Batch, Tensor]:
    """(what a plan decodes, the full forward of it)."""
    n = sum(plan.chunks)
    x = bench.x.cut(0, n)
    if not plan.alone:
        return x, bench.out if n == bench.length else bench.run(x)
    with bench.target.alone(0, bench.batch):
        return x[:1], bench.run(x[:1])


def steps(bench: Bench, step: Step, x: Batch, chunks: tuple[int, ...]) -> tuple[list[Tensor], object]:
    """(outputs of each chunk, the state after them). The module keeps what it keeps between steps."""
    target = bench.target
    state, at, parts = None, 0, []
    for n in chunks:
        target.deadline()
        chunk = x.cut(at, n)
        seed_everything(0)
        out, state = step(chunk, state)
        parts.append(target.read(out, chunk))
        at += n
    return parts, state


def samples(bench: Bench, plan: Plan):
    """The fixed arguments of the samples that a plan decodes."""
    fixed = bench.target.feed.fixed
    return bench.target.alone(0, bench.batch) if plan.alone else bench.target.beside(fixed)
