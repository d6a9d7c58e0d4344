"""Direct contributions: what each part of the stream says of the answer by itself, with the norms held still.

Then all that lies between a part and the logits is linear. One pass backwards over it gives for each part the direction
that counts, and the contribution is the part's product with it (Elhage et al. 2021; direct logit attribution: Wang et
al. 2023, §3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headwise.interp.attention.call import AttentionCall
from headwise.interp.run.anatomy import still
from headwise.interp.run.anatomy.graph import Value
from headwise.interp.run.anatomy.model import Branch, CallKey, Layout

if TYPE_CHECKING:
    from headwise.interp.run.anatomy.reading import Reading

EMBEDDING, CONSTANT = "embedding", "constant"
BESIDE = "other"  # what enters by an attention's write and is not of its heads, as the convolution in ConvBERT


@dataclass(frozen=True, eq=False)
class Part:
    """What one part contributes. ``at`` (B, T): by the position it stands at in the stream; of a constant () or (B, T).

    ``kind``: "embedding", "constant", or that of the branch: "attention", "cross", "mlp", "mixer", "other". With a
    ``head``, it is that head of ``call``; ``by_key`` then tells from which positions it was fetched.
    """

    kind: str
    name: str  # module path
    at: Tensor
    block: int | None = None
    call: CallKey | None = None
    head: int | None = None
    branch: Branch | None = None
    _keys: Callable[[], Tensor | None] | None = None

    @property
    def value(self) -> float:
        """Its whole contribution."""
        return float(self.at.sum())

    def by_key(self) -> Tensor | None:
        """(B, Q, K): what was fetched by each query from each key, a · v through everything that follows. None where
        the values were not seen."""
        return self._keys() if self._keys is not None else None

    def __repr__(self) -> str:
        who = f"head {self.head} of {self.name}" if self.head is not None else self.name
        return f"Part({self.kind}, {who}, {self.value:+.4g})"


@dataclass(frozen=True, eq=False)
class Parts:
    """The contributions to ``value``. They add up to it but for the ``remainder``."""

    value: float
    parts: tuple[Part, ...]

    @property
    def remainder(self) -> float:
        """What the parts leave unexplained: rounding, or a functional that is not linear."""
        return self.value - sum(part.value for part in self.parts)

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


@dataclass(frozen=True, eq=False)
class _Leaf:
    """One part of the frozen chain, shaped as met, and what is known of it."""

    tensor: Tensor
    kind: str
    name: str
    branch: Branch | None = None
    positions: bool = True  # laid out as the stream, rather than a constant


def direct(reading: Reading, functional: Callable[[Tensor], Tensor]) -> Parts:
    """The parts of ``functional`` of the logits before a soft cap, of a readout that is direct."""
    logits = reading.logits.detach().requires_grad_()
    with torch.enable_grad():
        value = functional(logits)
        (wanted,) = torch.autograd.grad(value, logits)
        leaves, end = _chain(reading)
        total = (end * wanted.to(end.dtype)).sum()
        gradients = torch.autograd.grad(total, [leaf.tensor for leaf in leaves], allow_unused=True)
    parts: list[Part] = []
    for leaf, gradient in zip(leaves, gradients, strict=True):
        if gradient is not None:
            parts += _parts(reading, leaf, gradient.detach())
    return Parts(float(value.detach()), tuple(parts))


def _chain(reading: Reading) -> tuple[list[_Leaf], Tensor]:
    """The stream again as a sum of leaves, through all norms held still, up to the logits."""
    tape, stream = reading.tape, reading.anatomy.stream()
    leaves: list[_Leaf] = []

    def leaf(value: Tensor, kind: str, name: str, branch: Branch | None = None, positions: bool = True) -> Tensor:
        tensor = value.detach().double().requires_grad_()
        leaves.append(_Leaf(tensor, kind, name, branch, positions))
        return tensor

    branches: dict = {}
    for branch in stream.writes:
        branches.setdefault(branch.after, []).append(branch)
    first = stream.origin[0].source if stream.origin else stream.spots[0]
    begun = [tape[place, 0].operands[side] for place, side in stream.summands] or [tape[first]]
    state = sum(leaf(value.tensor, EMBEDDING, _name(value)) for value in begun)
    early = len(stream.origin)
    for number, link in enumerate((*stream.origin, *stream.links, *reading.uncapped)):
        state = still.linear(tape, link, state)
        if link.kind == "add":
            shape, given = tape[link.made].shape, branches.get(link.made[0], ()) if number >= early else ()
            for branch in given:
                added = tape[branch.place, 0].operands[branch.side].tensor
                state = state + branch.sign * leaf(added.expand(shape), branch.kind, branch.path, branch)
            for place, side, sign in link.writes if not given else ():
                value = tape[place, 0].operands[side]
                state = state + sign * leaf(value.tensor.expand(shape), EMBEDDING, _name(value))
        elif (added := still.constant(tape, link)) is not None:
            kind = EMBEDDING if number < early and link.kind == "shift" else CONSTANT
            value = tape[link.made]
            state = state + leaf(added, kind, _name(value), positions=added.shape == tape[first].shape)
    return leaves, state


def _name(value: Value) -> str:
    return value.maker.place.path or value.maker.place.operation


def _parts(reading: Reading, leaf: _Leaf, gradient: Tensor) -> Iterator[Part]:
    branch = leaf.branch
    layout = reading.anatomy.stream().layout
    if branch is not None and branch.heads:
        yield from _heads(reading, branch, gradient, layout)
        return
    product = gradient * leaf.tensor.detach()
    at = layout.wide(product, reading.batch).sum(-1) if leaf.positions else product.sum()
    yield Part(leaf.kind, leaf.name, at, branch.block if branch is not None else None, branch=branch)


def _heads(reading: Reading, branch: Branch, gradient: Tensor, layout: Layout) -> Iterator[Part]:
    """A write by its heads, each by its queries, and its constant: what is added when all heads are zero."""
    tape, parts = reading.tape, branch.parts
    outputs = tuple(tape[heads.z].tensor.detach().requires_grad_() for heads in parts)
    with torch.enable_grad():
        made = still.bring(tape, parts, outputs)
        backwards = torch.autograd.grad((made.double() * gradient).sum(), outputs)
    for heads, z, back in zip(parts, outputs, backwards, strict=True):
        by_query = heads.four(back.double() * z.detach().double(), reading.batch).sum(-1)  # (B, H, Q)
        call = next((c for c in reading.calls if (c.name, c.occurrence) == heads.call), None)
        wanted = heads.four(back, reading.batch)
        for head in range(heads.count):
            keys = _Keys(call, wanted[:, head], head)
            yield Part(branch.kind, heads.call[0], by_query[:, head], branch.block, heads.call, head, branch, keys)
    with torch.no_grad():
        rest = layout.wide(
            still.bring(tape, parts, tuple(torch.zeros_like(z) for z in outputs)).double(), reading.batch
        )
    still_normed = any(heads.norms for heads in parts)  # a bias times a scale that differs by position
    kind = CONSTANT if still_normed or bool((rest == rest[:1, :1]).all()) else BESIDE
    at = (rest * layout.wide(gradient, reading.batch)).sum(-1)
    yield Part(kind, branch.path, at, branch.block, branch=branch)


@dataclass(frozen=True, eq=False)
class _Keys:
    """One head's contributions by query and key, when somebody looks."""

    call: AttentionCall | None
    backwards: Tensor  # (B, Q, D): what counts of z
    head: int

    def __call__(self) -> Tensor | None:
        call = self.call
        if call is None or call.v is None or call.v.shape[-1] != self.backwards.shape[-1]:
            return None
        v = call.v[:, self.head // (call.heads // call.kv_heads)].double()  # (B, K, D)
        backwards = self.backwards[:, : call.queries].double()  # the module may have padded its queries
        along = backwards @ v.mT  # (B, Q, K)
        if call.apart is not None:
            own = call.apart[1][:, self.head].double()
            along = torch.where(call.apart[0][..., None], backwards @ own.mT, along)
        return call.weights(self.head).double() * along
