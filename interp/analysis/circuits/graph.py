"""The circuit of one answer: which parts hand what to whom such that the model says it, found, and then run alone.

Edges are proposed by gradients, as in edge attribution patching (Syed et al. 2023, "Attribution Patching Outperforms
Automated Circuit Discovery"), integrated from the base to the run (Sundararajan et al. 2017; Hanna et al. 2024, "Have
Faith in Faithfulness"), and taken away again while the rest still restores enough. What is said of the graph and of
each edge comes from runs, not from gradients.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import Tensor

from headwise.interp.analysis.circuits.wires import Node, Wires, wires
from headwise.interp.analysis.targets import Target, Wanted, target
from headwise.interp.attention.axes import Axis, numbered
from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture
from headwise.interp.run.sweeping import Cancelled

STEPS = 4  # from the base to the run, at which gradients are taken
SIZES = (48, 96, 192, 384, 768, 1536, 3072)  # numbers of edges that are tried, the smallest first
SPARE = 0.25  # of the share, more than is asked for: what taking edges away may cost
DROPPED = 0.15  # of the edges, taken away at once
SEVERAL = 16  # edges that are run without before somebody is told
SAME, SHARE = 0.05, 0.1  # a difference of the answer, in logits and of it, that is nothing to explain
NOTHING = (
    "{} is {:+.2f} in this run and {:+.2f} with {}, so there is hardly anything that a circuit could restore. Compare "
    "with another input, one that the answer differs in."
)
NONE = "No way from the input to {} was found that speaks for it. Ask for another answer or base."
BESIDE = ("the mean over the input", "the corrupted input")
COLUMNS = ("from", "to", "into", "effect", "share", "position", "token")


Look = Callable[[Tensor], tuple[float, Tensor]]  # at a graph → its value, and what each edge gives to it


@dataclass(frozen=True)
class Edge:
    """One part's writing as another reads it. ``into``: "q", "k" or "v" of heads, "" of what reads as a whole;
    key/value heads that several heads share have several ``receivers`` · ``effect``: what the answer loses, in logits,
    when the graph is run without this edge · ``position`` at which most of it passes."""

    sender: Node
    receivers: tuple[Node, ...]
    into: str
    effect: float
    position: int


@dataclass(frozen=True, eq=False)
class Circuit:
    """The graph of one answer. ``clean``, ``base`` and ``value`` are the answer's number in the run, with every edge
    from the base, and with the edges of the graph alone from the run · ``axes`` names the positions of each stream."""

    target: Target
    edges: tuple[Edge, ...]
    clean: float
    base: float
    value: float
    against: str  # what the base is
    possible: int  # edges there could be
    axes: dict[str, Axis] = field(repr=False)
    seconds: float = 0.0

    @property
    def restored(self) -> float:
        """The share of the difference between run and base that the graph alone restores."""
        return (self.value - self.base) / (self.clean - self.base)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """In the order in which they run, the embedding first and the answer last."""
        found = {node for edge in self.edges for node in (edge.sender, *edge.receivers)}
        senders = {edge.sender for edge in self.edges}
        kept = [node for node in found if node in senders or node.kind == "logits"]
        return tuple(sorted(kept, key=_order))

    @property
    def sentence(self) -> str:
        return (
            f"{len(self.edges)} of {self.possible:,} edges, run alone, restore {self.restored:.0%} of the difference: "
            f"{self.target} is {self.clean:+.2f} in the run, {self.base:+.2f} with {self.against}, and "
            f"{self.value:+.2f} with these edges from the one and everything else from the other."
        )

    def table(self) -> pd.DataFrame:
        """An edge a row, the strongest first: from, to, into, effect in logits, share of the difference, and where most
        of it passes."""
        gap = self.clean - self.base
        rows = [
            (
                str(edge.sender), ", ".join(map(str, edge.receivers)), edge.into, edge.effect, edge.effect / gap,
                edge.position, self.axes[edge.sender.stream].labels[edge.position],
            )
            for edge in self.edges
        ]  # fmt: skip
        table = pd.DataFrame(rows, columns=list(COLUMNS))
        table.attrs = {"target": str(self.target), "restored": self.restored, "clean": self.clean, "base": self.base}
        return table


def graph(
    clean: Capture,
    corrupted: Capture | None = None,
    target: Wanted | Target = None,
    against: Wanted = None,
    *,
    restore: float = 0.8,
    progress: Callable[[float], None] = lambda fraction: None,
    cancel: Callable[[], bool] = lambda: False,
) -> Circuit:
    """The smallest graph found whose edges alone, everything else as in ``corrupted``, restore the share ``restore`` of
    what an answer is more in ``clean``; or the one that restores most, where none restores so much.

    ``corrupted`` is a run of as many positions, or None: then what is not in the graph says at each position what it
    says on average over the input. Only what speaks for the answer is drawn: parts that speak against it are left out,
    so that larger graphs may restore more than all.

    Raises InputError where the residual stream is not proven, for inputs of different lengths, and where both runs give
    the same answer; Cancelled when told to stop.
    """
    began = time.monotonic()
    beside = BESIDE[corrupted is not None]
    search = _Search(wires(clean, corrupted, _target(clean, target, against)), beside, progress, cancel)
    wired, effects = search.smallest(restore)
    found, edges = search.wires, search.edges(wired, effects)
    progress(1.0)
    return Circuit(
        found.target, edges, search.clean, search.base, search.value(wired),
        beside,
        int(found.possible.sum()), _axes(clean), time.monotonic() - began,
    )  # fmt: skip


_target = target  # which a parameter of ``graph`` hides


class _Search:
    """From all edges to few, with the runs that this takes."""

    def __init__(self, wires: Wires, against: str, progress: Callable[[float], None], cancel: Callable[[], bool]):
        self.wires, self._progress, self._cancel = wires, progress, cancel
        self.possible, self.fraction = wires.possible.float(), 0.0
        self.clean, self.base = (float(wires.run(wired)) for wired in (self.possible, torch.zeros_like(self.possible)))
        if not abs(self.clean - self.base) > max(SAME, SHARE * max(abs(self.clean), abs(self.base))):
            raise InputError(NOTHING.format(wires.target, self.clean, self.base, against))

    def value(self, wired: Tensor) -> float:
        return float(self.wires.run(wired.float()))

    def restored(self, value: float) -> float:
        return (value - self.base) / (self.clean - self.base)

    def smallest(self, restore: float) -> tuple[Tensor, Tensor]:
        """Edges that restore as much, from which no more were found that can be spared, bool (readers, writers); and
        what share is lost in a run without each of them."""
        kept, value = self._enough(self._scores(), restore)
        if not kept.any():
            raise InputError(NONE.format(self.wires.target))
        goal = min(restore, 0.98 * self.restored(value))
        _, gains = self._gains(kept)
        kept, _ = self._spared(kept, gains, goal, lambda wired: self._gains(wired))
        self._told(0.6)
        kept, effects = self._spared(kept, self._effects(kept)[1], goal, self._effects)
        return kept, effects

    def edges(self, wired: Tensor, effects: Tensor) -> tuple[Edge, ...]:
        """A graph's edges, the strongest first."""
        positions, sending = self._positions(wired), self._sending(wired)
        found = []
        for reader, writer in wired.nonzero().tolist():
            end, sender = self.wires.readers[reader], self.wires.writers[writer].node
            heads = tuple(node for node in end.nodes if node.kind == "logits" or node in sending)
            where = int(positions[reader, writer])
            effect = float(effects[reader, writer]) * (self.clean - self.base)
            found.append(Edge(sender, heads, end.into, effect, where))
        return tuple(sorted(found, key=lambda edge: -abs(edge.effect)))

    def _spared(self, kept: Tensor, gains: Tensor, goal: float, look: Look) -> tuple[Tensor, Tensor]:
        """A graph without the edges that give least, as long as the rest restores enough; ``look`` tells the value of a
        graph and what each edge gives to it."""
        share = DROPPED
        while share > DROPPED / 30:
            self._told(self.fraction)
            count = max(1, int(share * int(kept.sum())))
            fewer = self._without(kept, gains, count)
            if self.restored(self.value(fewer)) >= goal:
                kept, gains = fewer, look(fewer)[1]
            elif count == 1:
                break
            else:
                share /= 3
        return kept, gains

    def _effects(self, wired: Tensor) -> tuple[float, Tensor]:
        """The value of a graph, and what share of the difference is lost in a run without each edge."""
        pairs = wired.nonzero()
        whole, found = self.value(wired), torch.zeros(wired.shape)
        without = wired.float().repeat(len(pairs), 1, 1)
        without[range(len(pairs)), pairs[:, 0], pairs[:, 1]] = 0
        for start in range(0, len(pairs), SEVERAL):
            self._told(self.fraction)
            lost = whole - self.wires.runs(without[start : start + SEVERAL])
            found[tuple(pairs[start : start + SEVERAL].T)] = lost / (self.clean - self.base)
        return whole, found

    # -- inside ---------------------------------------------------------------------------------------------------
    def _told(self, fraction: float) -> None:
        if self._cancel():
            raise Cancelled("The search for the circuit was cancelled.")
        self.fraction = max(self.fraction, fraction) if fraction > self.fraction else 1 - 0.96 * (1 - self.fraction)
        self._progress(self.fraction)

    def _scores(self) -> Tensor:
        """What each edge gives of the difference, by gradients integrated from the base to the run; they add up to it
        but for the steps."""
        total = torch.zeros_like(self.possible)
        for step in range(STEPS):
            self._told(0.3 * step / STEPS)
            wired = (self.possible * (step + 0.5) / STEPS).requires_grad_()
            (gradient,) = torch.autograd.grad(self.wires.run(wired, grad=True), wired)
            total += gradient / STEPS
        return total * self.possible / (self.clean - self.base)

    def _enough(self, scores: Tensor, restore: float) -> tuple[Tensor, float]:
        """The first few edges by score that restore more than enough, or the most of those tried; and its value."""
        order, best = scores.flatten().argsort(descending=True), None
        positive = int((scores > 0).sum())
        for size in dict.fromkeys(min(size, positive) for size in SIZES):
            self._told(0.3)
            wired = torch.zeros(scores.numel(), dtype=torch.bool)
            wired[order[:size]] = True
            wired = self._joined(wired.view_as(scores))
            value = self.value(wired)
            if best is None or self.restored(value) > self.restored(best[1]):
                best = wired, value
            if self.restored(value) >= restore + SPARE:
                break
        return best

    def _gains(self, wired: Tensor) -> tuple[float, Tensor]:
        """The value of a graph, and what each of its edges gives to it by the gradient."""
        given = wired.float().requires_grad_()
        value = self.wires.run(given, grad=True)
        (gradient,) = torch.autograd.grad(value, given)
        return float(value.detach()), gradient * wired / (self.clean - self.base)

    def _positions(self, wired: Tensor) -> Tensor:
        """At which position most of each edge passes, by the gradient."""
        given = wired.float()[:, :, None].repeat(1, 1, self.wires.length).requires_grad_()
        (gradient,) = torch.autograd.grad(self.wires.run(given, grad=True), given)
        return gradient.abs().argmax(-1)

    def _without(self, wired: Tensor, gains: Tensor, count: int) -> Tensor:
        """The graph without the edges that give least."""
        order = torch.where(wired, gains, torch.inf).flatten().argsort()[:count]
        fewer = wired.flatten().clone()
        fewer[order] = False
        return self._joined(fewer.view_as(wired))

    def _joined(self, wired: Tensor) -> Tensor:
        """What lies on a way from the embedding to the answer."""
        wired = wired.clone()
        while True:
            before = int(wired.sum())
            sends = self._sending(wired)
            for number, reader in enumerate(self.wires.readers):
                if not sends.intersection(reader.nodes) and reader.nodes[0].kind != "logits":
                    wired[number] = False
            for number, writer in enumerate(self.wires.writers):
                if writer.branch is not None and not self._hears(wired, writer.node):
                    wired[:, number] = False
            if int(wired.sum()) == before:
                return wired

    def _sending(self, wired: Tensor) -> set[Node]:
        """The nodes that anything in a graph hears."""
        return {self.wires.writers[number].node for number in wired.any(0).nonzero().flatten().tolist()}

    def _hears(self, wired: Tensor, node: Node) -> bool:
        """Whether a node reads anything in a graph."""
        return any(wired[number].any() for number, reader in enumerate(self.wires.readers) if node in reader.nodes)


def _order(node: Node) -> tuple:
    last = node.kind == "logits"
    return last, node.kind != "embedding", not node.stream.startswith("enc"), node.block or 0, node.kind == "mlp", (
        node.stack == "cross"
    ), node.head or 0  # fmt: skip


def _axes(cap: Capture) -> dict[str, Axis]:
    """What the positions of each stream are called."""
    found = {}
    for stream in cap.anatomy.streams:
        length = cap.stream.embedding(stream.name).shape[1]
        fits = [call for call in cap.calls if len(call.query_axis) == length]
        own = [call for call in fits if call.stack == stream.name]
        found[stream.name] = next((call.query_axis for call in own or fits), numbered(length))
    return found
