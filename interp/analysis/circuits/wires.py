"""A model as parts that write into residual streams and read from them, and runs in which each reader is told by which
writers it may be reached.

In such a run every reader has a stream of its own: what all parts put into it in another run (the base), changed by
what the writers it is wired to do differently in this one. Readers of one place are copies along the batch, and an
attention takes each head's queries, keys and values from the copy that read for it. So one run of the model is enough
for a whole circuit, and everything in it is computed by the model's own operations (edge patching: Conmy et al. 2023,
"Towards Automated Circuit Discovery", §3; path patching: Goldowsky-Dill et al. 2023, §2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor

from headwise.interp.analysis.ablation import measuring
from headwise.interp.analysis.targets import Target
from headwise.interp.attention.call import AttentionCall
from headwise.interp.errors import InputError
from headwise.interp.run.acting import Plan
from headwise.interp.run.anatomy import Branch, Stream
from headwise.interp.run.anatomy.graph import Spot
from headwise.interp.run.anatomy.norms import Norm
from headwise.interp.run.capture import Capture
from headwise.interp.run.edits import SiteEdit
from headwise.interp.run.outputs import primary
from headwise.interp.run.running import observe, run
from headwise.interp.run.sites import HeadOutput, Key, Query, Value
from headwise.interp.run.streaming import Point, PointChange, state_point, stream_of
from headwise.interp.run.sweeping import repeated

POSITIONS = 40_000  # of all copies of one run, at most,
BATCH = 4_096  # and where several wirings are run at once
SITES = {"q": Query, "k": Key, "v": Value, "": HeadOutput}
NORMED = "The stream of {} has a {} between two parts, so what one part hands to another cannot be told apart."
TOO_LONG = "A graph of this input needs {:,} positions in one run, of at most {:,}. Give a shorter input."


@dataclass(frozen=True)
class Node:
    """A part of a model: "embedding", "head", "logits", or a write as a whole, such as "mlp". ``block`` counts in its
    stream; heads are named after their layer as in captures. ``side`` stands before its name where there are several
    streams."""

    kind: str
    stream: str
    block: int | None = None
    stack: str = ""
    layer: int | None = None
    head: int | None = None
    side: str = ""

    def __str__(self) -> str:
        if self.kind == "head":
            return f"{'cross ' if self.stack == 'cross' else self.side}head {self.layer}·{self.head}"
        word = {"mlp": "MLP", "logits": "answer"}.get(self.kind, self.kind)
        return f"{self.side}{word}" if self.block is None else f"{self.side}{word} {self.block}"


@dataclass(frozen=True)
class Reader:
    """Who reads a stream: an attention's query "q" of one head, its key "k" or value "v" of one key/value head, all of
    one head "" where these are not seen apart; a write as a whole, or the logits. ``nodes`` it reads for."""

    nodes: tuple[Node, ...]
    into: str
    stream: str
    state: int  # of that stream, as in Stream.states
    branch: Branch | None = None
    number: int = 0  # of the head or key/value head
    call: AttentionCall | None = None


@dataclass(frozen=True, eq=False)
class Writer:
    """Who writes: a node, what it added in the run that is looked at, and in the base, (T, C)."""

    node: Node
    branch: Branch | None
    clean: Tensor
    base: Tensor

    @property
    def after(self) -> int:
        """The state it is added to; −1 of an embedding."""
        return -1 if self.branch is None else self.branch.state


@dataclass(frozen=True, eq=False)
class Stretch:
    """A piece of a stream between norms: the states at which something is added in it, from ``first`` to before
    ``stop``, and what the base adds up to at each and at its end, counted from the piece's beginning."""

    first: int
    stop: int
    states: dict[int, Tensor]
    end: Tensor
    norm: Norm | None  # that ends it


@dataclass(frozen=True, eq=False)
class Wires:
    """All readers and writers of a model on one input, and which may be wired to which."""

    cap: Capture
    target: Target
    readers: tuple[Reader, ...]
    writers: tuple[Writer, ...]
    stretches: dict[str, tuple[Stretch, ...]] = field(repr=False)

    @cached_property
    def possible(self) -> Tensor:
        """Bool (readers, writers): whether the one comes after the other, in the same stream."""
        return torch.tensor(
            [[r.stream == w.node.stream and w.after < r.state for w in self.writers] for r in self.readers]
        )

    def run(self, wired: Tensor, *, grad: bool = False) -> Tensor:
        """The target's value where ``wired`` (readers, writers), or (readers, writers, T) for positions apart, says by
        how much each writer reaches each reader, 0 or 1. With ``grad`` it may be differentiated by ``wired``."""
        return _Run(self, (wired if wired.ndim == 3 else wired[:, :, None])[None], grad).values()[0]

    def runs(self, wired: Tensor) -> Tensor:
        """The values of several wirings (N, readers, writers) that differ in few edges → (N,)."""
        found = []
        while len(found) < len(wired):
            first = _Run(self, wired[len(found) :, :, :, None], False)
            count = max(1, BATCH // (first.copies * self.length))
            found += _Run(self, wired[len(found) : len(found) + count, :, :, None], False).values().tolist()
        return torch.tensor(found)

    @property
    def length(self) -> int:
        """T, of the longest stream."""
        return max(len(writer.clean) for writer in self.writers)


def wires(cap: Capture, base: Capture | None, target: Target) -> Wires:
    """The parts of a capture's model, wired for ``run``. ``base`` is another run of as many positions, or None: then
    each part says at each position what it says on average over them.

    Raises InputError where the stream is not proven, has several samples, or is more than sums and norms.
    """
    stream_of(cap, None, "A graph")
    if cap.inputs.batch != 1:
        raise InputError(f"A graph is of one sample; this input has {cap.inputs.batch}.")
    readers, writers = [], []
    for stream in cap.anatomy.streams[::-1]:  # the encoder first
        writers.append(_embedding(cap, base, stream))
        for branch in stream.writes:
            made = _writers(cap, base, stream, branch)
            writers += made
            readers += _readers(cap, stream, branch, [writer.node for writer in made])
    last = cap.anatomy.stream()
    logits = Node("logits", last.name)
    readers.append(Reader((logits,), "", last.name, len(last.states) - 1))
    stretches = {
        s.name: _stretches(cap, s, [w for w in writers if w.node.stream == s.name]) for s in cap.anatomy.streams
    }
    return Wires(cap, target, tuple(readers), tuple(writers), stretches)


# -- parts ------------------------------------------------------------------------------------------------------------
def _embedding(cap: Capture, base: Capture | None, stream: Stream) -> Writer:
    return Writer(
        Node("embedding", stream.name, side=_side(cap, stream)), None,
        *_both(cap, base, lambda one: one.stream.embedding(stream.name)),
    )  # fmt: skip


def _side(cap: Capture, stream: Stream) -> str:
    """What of several streams those are called that are not the answer's."""
    return "" if stream is cap.anatomy.stream() else f"{stream.name} "


def _writers(cap: Capture, base: Capture | None, stream: Stream, branch: Branch) -> list[Writer]:
    """The heads of a write, or it as a whole."""
    calls = {(call.name, call.occurrence): call for call in cap.calls}
    if len(branch.parts) != 1 or branch.calls[0] not in calls:
        node = Node(branch.kind, stream.name, branch.block, side=_side(cap, stream))
        return [Writer(node, branch, *_both(cap, base, lambda one: one.stream.write(branch)))]
    call = calls[branch.calls[0]]
    return [
        Writer(
            Node("head", stream.name, branch.block, call.stack, call.layer, head, _side(cap, stream)), branch,
            *_both(cap, base, lambda one, head=head: one.stream.head(branch, head)),
        )
        for head in range(call.heads)
    ]  # fmt: skip


def _both(cap: Capture, base: Capture | None, of: Callable[[Capture], Tensor]) -> tuple[Tensor, Tensor]:
    clean = of(cap)[0].detach()
    other = clean.mean(0, keepdim=True).expand_as(clean) if base is None else of(base)[0].detach()
    if other.shape != clean.shape:
        raise InputError(
            f"The two inputs have {len(clean)} and {len(other)} positions. Give a corrupted input that is cut into as "
            "many tokens, or take the mean over positions instead."
        )
    return clean, other


def _readers(cap: Capture, stream: Stream, branch: Branch, nodes: list[Node]) -> list[Reader]:
    state = branch.state
    if "parallel" in stream.style:
        state = min(other.state for other in stream.writes if other.block == branch.block)
    if nodes[0].kind != "head":
        return [Reader(tuple(nodes), "", stream.name, state, branch)]
    call = next(c for c in cap.calls if (c.name, c.occurrence) == branch.calls[0])
    if not call.shows_queries or call.v is None:
        return [Reader((node,), "", stream.name, state, branch, head, call) for head, node in enumerate(nodes)]
    found = [Reader((node,), "q", stream.name, state, branch, head, call) for head, node in enumerate(nodes)]
    if (looked_at := _looked_at(cap, stream, call, state)) is None:
        return found  # what it looks at is the same in all runs
    name, state = looked_at
    shared = len(nodes) // call.kv_heads
    return found + [
        Reader(tuple(nodes[number * shared : (number + 1) * shared]), into, name, state, branch, number, call)
        for into in "kv"
        for number in range(call.kv_heads)
    ]


def _looked_at(cap: Capture, stream: Stream, call: AttentionCall, state: int) -> tuple[str, int] | None:
    """The stream, and the state of it, from which an attention has its keys and values; None where there is none."""
    others = [s for s in cap.anatomy.streams if s is not stream]
    if call.kind == "cross":
        return (others[0].name, len(others[0].states) - 1) if len(others) == 1 else None
    for other in others:  # as in XLNet, whose query stream reads what the content is
        for branch in other.writes:
            twins = [c for c in cap.calls if (c.name, c.occurrence) in branch.calls and c.name == call.name]
            if any(c.v is not None and torch.equal(c.v, call.v) for c in twins):
                return other.name, branch.state
    return stream.name, state


def _stretches(cap: Capture, stream: Stream, writers: list[Writer]) -> tuple[Stretch, ...]:
    """The base's own sums, in pieces between norms."""
    tape = cap.stream.tape
    numbers = {spot: number for number, spot in enumerate(stream.spots[1:])}
    found, states, begun, first, added = [], {}, torch.zeros(()), -1, 0

    def at(spot: Spot) -> Tensor:
        whole = stream.layout.wide(tape[spot].tensor, 1)[0].detach()
        return whole - begun - sum(w.clean - w.base for w in writers if first <= w.after < added)

    if stream.spots[0] in numbers:
        states[numbers[stream.spots[0]]] = at(stream.spots[0])
    for link in stream.links:
        if link.kind not in ("add", "norm", "view"):
            raise InputError(NORMED.format(cap.subject.name, link.kind))
        added += link.kind == "add"
        if link.kind == "norm":
            found.append(Stretch(first, added, states, at(link.source), link.norm))
            begun, first, states = stream.layout.wide(tape[link.made].tensor, 1)[0].detach(), added, {}
        if link.made in numbers:
            states[numbers[link.made]] = at(link.made)
    return (*found, Stretch(first, added, states, at(stream.spots[-1]), None))


# -- a run ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, repr=False)
class _At(SiteEdit):
    """Does something to a site of all copies."""

    act: Callable[[Tensor], None]

    def write(self, x, counted=None, given=None):
        self.act(x)


class _Run:
    """One run of copies, which fills in what writers said as it goes. ``wired`` (V, readers, writers, T or 1) are
    several wirings, each with as many copies."""

    def __init__(self, wires: Wires, wired: Tensor, grad: bool):
        self.wires, self.wired, self.grad, self.count = wires, wired, grad, len(wired)
        self.said: dict[int, Tensor] = {n: w.clean[None] for n, w in enumerate(wires.writers) if w.branch is None}
        there = (wired != 0).any(3).any(0)
        reached, self.sends = there.any(1).tolist(), there.any(0).tolist()
        self.rows: dict[int, int] = {}  # reader → its copy; the first copy reads the base
        self.groups: dict[tuple[str, int], list[int]] = {}
        self.readers: dict[int, list[int]] = {}  # id of a branch → its readers
        self.writers: dict[int, list[int]] = {}
        for number, reader in enumerate(wires.readers):
            group = self.groups.setdefault((reader.stream, reader.state), [])
            self.readers.setdefault(id(reader.branch), []).append(number)
            self.rows[number] = 0
            if reached[number]:
                group.append(number)
                self.rows[number] = len(group)
        for number, writer in enumerate(wires.writers):
            self.writers.setdefault(id(writer.branch), []).append(number)
        live = [sum(map(self._live, group)) for group in self.writers.values()]
        self.copies = 1 + max(*map(len, self.groups.values()), *live)

    def values(self) -> Tensor:
        """The target's number of each wiring, read from the copy of the logits → (V,)."""
        wires, cap = self.wires, self.wires.cap
        positions = self.count * self.copies * wires.length
        if positions > POSITIONS:
            raise InputError(TOO_LONG.format(positions, POSITIONS))
        plan = Plan(cap)
        for stream, state in self.groups:
            self._at(plan, state_point(cap.anatomy.stream(stream), state), partial(self._read, stream, state))
        for numbers in self.writers.values():
            if any(map(self._live, numbers)):
                self._listen(plan, numbers)
        inputs = repeated(cap.inputs, self.count * self.copies)
        if not self.grad:
            result, _, _ = observe(cap.subject, inputs, changes=plan.changes(), keep_calls=False)
            made = measuring(wires.target)(result)
        else:
            output, _ = run(cap.subject, inputs, changes=plan.changes(), keep_calls=False, grad=True)
            made = wires.target.measured(primary(output, inputs.kwargs).float())
        return self._apart(made)[:, self.rows[len(wires.readers) - 1]]

    def _live(self, writer: int) -> bool:
        """Whether it says something else than in the base, and somebody hears it."""
        found = self.wires.writers[writer]
        if found.branch is None or not self.sends[writer]:
            return False
        own = self.readers[id(found.branch)]
        return any(self.rows[number] for number in own if found.node in self.wires.readers[number].nodes)

    @staticmethod
    def _at(plan: Plan, point: Point, act: Callable[[Tensor], None]) -> None:
        plan.points.setdefault(point, PointChange(point)).acts.append(act)

    def _listen(self, plan: Plan, numbers: list[int]) -> None:
        """Put what readers read together, and keep what writers say."""
        branch = self.wires.writers[numbers[0]].branch
        readers = self.readers[id(branch)]
        place = Point(branch.place, branch.side, 0, branch.layout, branch.sign)
        call = self.wires.readers[readers[0]].call
        if call is None:
            self._at(plan, place, partial(self._says, {numbers[0]: self.rows[readers[0]]}, None))
            return
        rows: dict[str, list[int]] = {}
        for number in readers:
            rows.setdefault(self.wires.readers[number].into, []).append(self.rows[number])
        live = [number for number in numbers if self._live(number)]
        heads = [self.wires.writers[number].node.head for number in live]
        acts = [(into, partial(self._gather, chosen)) for into, chosen in rows.items()]
        for into, act in (*acts, ("", partial(self._single, heads))):
            plan.add([_At(SITES[into](call.layer, None, call.stack), act)])
        self._at(plan, place, partial(self._says, {n: row for row, n in enumerate(live)}, len(live)))

    # -- while it runs; tensors hold the copies of all wirings, (V · copies, …) ---------------------------------------
    def _apart(self, t: Tensor) -> Tensor:
        return t.unflatten(0, (self.count, self.copies))

    def _gather(self, rows: list[int], t: Tensor) -> None:
        """(…, H, T, D): each head as in its own copy, in all of them."""
        heads = self._apart(t)[:, rows, range(len(rows))]  # (V, H, T, D)
        t.copy_(heads[:, None].expand(-1, self.copies, -1, -1, -1).flatten(0, 1))

    def _single(self, heads: list[int], t: Tensor) -> None:
        """(…, H, T, D): each of some heads alone in a copy of its own, and none in the others."""
        kept = torch.zeros(self.copies, t.shape[1], dtype=t.dtype, device=t.device)
        kept[range(len(heads)), heads] = 1
        t.mul_(kept.repeat(self.count, 1)[:, :, None, None])

    def _says(self, rows: dict[int, int], rest: int | None, x: Tensor) -> None:
        """Keep what writers wrote, each in its copy; ``rest`` is the copy of what is none of theirs, such as a bias."""
        copies = self._apart(x)
        for number, row in rows.items():
            self.said[number] = copies[:, row] if rest is None else copies[:, row] - copies[:, rest]

    def _read(self, stream: str, state: int, x: Tensor) -> None:
        """Give each reader its own stream, in its copy; the others read the base."""
        group = self.groups[stream, state]
        wired = torch.cat([torch.zeros_like(self.wired[:, :1]), self.wired[:, group]], 1)[..., : x.shape[1]]
        new = x.new_zeros(())
        for stretch in self.wires.stretches[stream]:
            heard = [
                number
                for number, writer in enumerate(self.wires.writers)
                if writer.node.stream == stream and stretch.first <= writer.after < min(stretch.stop, state)
                if number in self.said and self.sends[number]
            ]
            new = new + stretch.states.get(state, stretch.end)
            if heard:
                deltas = [(self.said[n] - self.wires.writers[n].base).expand(self.count, -1, -1) for n in heard]
                deltas = torch.stack(deltas, 1)  # (V, writers, T, C)
                new = new + torch.einsum("vrwt,vwtc->vrtc", wired[:, :, heard].to(deltas), deltas)
            if state in stretch.states:
                break
            new = stretch.norm(new)
        copies = self._apart(x)
        copies[:, : wired.shape[1]] = new
        copies[:, wired.shape[1] :] = new[:, :1].detach() if new.ndim == 4 else new
