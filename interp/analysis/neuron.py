"""One attention score taken apart: what each dimension of a head adds to it (Vig 2019, "A Multiscale Visualization of
Attention in the Transformer Model", "Neuron View").

A score before the softmax is Σ_d q_d·k_d·scale, and what the model adds to that: a bias, a mask. The parts are exact
and add up, so nothing of the score is left out; what a dimension stands for they do not say.

>>> from headwise import capture, load
>>> cap = capture(load("tiny-decoder"), "The people of the United States")
>>> found = neuron(cap, layer=1, head=5, query=5, key=2)
>>> len(found.table), abs(found.total + found.bias - found.score) < 1e-5
(32, True)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd
import torch
from torch import Tensor

from headwise.interp.attention.call import AttentionCall
from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture

Part = tuple[int, ...]  # one dimension, or two that rotary positions turn together


@dataclass(frozen=True, eq=False)
class Neuron:
    """The scores of one query of one head, and the one of ``key`` part by part.

    ``q`` (D,) and ``k`` (K, D) as they met, rotary positions turned in · ``parts`` which dimensions each part holds, in
    order · ``added`` (K,) what the model added to the products, −inf where a key is hidden · ``scores`` (K,) and
    ``weights`` (K,) as the call gives them, before and after the softmax · ``allowed`` (K,) bool by its mask. All
    float64.
    """

    call: AttentionCall
    head: int
    query: int
    key: int
    parts: tuple[Part, ...]
    q: Tensor
    k: Tensor
    added: Tensor
    scores: Tensor
    weights: Tensor
    allowed: Tensor

    def at(self, key: int) -> Neuron:
        """The same query, and another of its keys."""
        _inside(key, self.call.keys, f"{self.call.name} has keys")
        return replace(self, key=key)

    @cached_property
    def values(self) -> Tensor:
        """What each part adds to each key's score → (K, parts)."""
        products = self.q * self.k * self.scale  # (K, D)
        return torch.stack([products[:, list(part)].sum(-1) for part in self.parts], -1)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a part: ``dimension`` (and ``partner`` where dimensions are paired), ``q``, ``k``, ``value`` =
        q·k·scale and ``share``, the value over the sum of all |values|.

        Of a pair ``q`` and ``k`` are lengths and ``angle`` the degrees from q to k, so that
        value = q·k·cos(angle)·scale (Su et al. 2021, RoFormer, §3.2).
        """
        values = self.values[self.key]
        total = float(values.abs().sum()) or 1.0
        rows = []
        for part, value in zip(self.parts, values.tolist(), strict=True):
            q, k = self.q[list(part)], self.k[self.key, list(part)]
            row = {"dimension": part[0]}
            if len(part) == 2:
                row |= {"partner": part[1], "q": float(q.norm()), "k": float(k.norm()), "angle": _angle(q, k)}
            else:
                row |= {"q": float(q), "k": float(k)}
            rows.append(row | {"value": value, "share": value / total})
        names = ["dimension", "partner", "q", "k", "angle", "value", "share"]
        table = pd.DataFrame(
            rows, columns=names if self.paired else [n for n in names if n not in ("partner", "angle")]
        )
        return table.astype({"partner": "Int64"}) if self.paired else table

    @property
    def paired(self) -> bool:
        return any(len(part) == 2 for part in self.parts)

    # -- figures of the chosen key --------------------------------------------------------------------------------
    @property
    def scale(self) -> float:
        return self.call.scale

    @property
    def total(self) -> float:
        """Σ of all parts: q·k·scale."""
        return float(self.values[self.key].sum())

    @property
    def bias(self) -> float:
        """What the model added to it: its bias and its mask, or what its score function made of it."""
        return float(self.added[self.key])

    @property
    def told(self) -> bool:
        """Whether the model told what it adds. Otherwise ``bias`` is what its scores have beside the products."""
        return self.call.told

    @property
    def score(self) -> float:
        """As the call gives it, before the softmax."""
        return float(self.scores[self.key])

    @property
    def weight(self) -> float:
        """What the softmax made of the score."""
        return float(self.weights[self.key])

    @property
    def hidden(self) -> bool:
        """Whether the mask hides the key from the query."""
        return not bool(self.allowed[self.key])

    @property
    def rank(self) -> int:
        """1 for the key with the most weight."""
        return int((self.weights > self.weights[self.key]).sum()) + 1

    @property
    def remainder(self) -> float:
        """What is not explained: score − (total + bias). Rounding; 0 where the mask hides the key."""
        return 0.0 if self.hidden else self.score - (self.total + self.bias)


def neuron(
    cap: Capture,
    layer: int,
    head: int,
    query: int,
    key: int | None = None,
    *,
    stack: str | None = None,
    pairs: Sequence[tuple[int, int]] = (),
) -> Neuron:
    """Take the score of one query and key of one head apart, in the first sample. Without ``key`` it is the one with
    the most weight.

    ``pairs`` are dimensions that rotary positions turn together: they are one part each, since a rotation moves a
    pair's product between its two dimensions. Heads that share keys (grouped-query attention) meet their group's.
    Raises InputError for what is not there, and where a call showed its scores only.
    """
    try:
        call = cap.find(layer, stack)
    except IndexError as error:
        raise InputError(str(error)) from error
    _inside(head, call.heads, f"layer {layer} has heads")
    _inside(query, call.queries, f"{call.name} has queries")
    try:
        q, k = call.query_vectors(head)[0, query].double(), call.key_vectors(head)[0].double()  # (D,), (K, D)
    except ValueError as error:
        raise InputError(str(error)) from error
    row = (query, query + 1)
    added, scores, weights = (read(head, row)[0, 0].double() for read in (call.added, call.scores, call.weights))
    key = int(weights.argmax()) if key is None else key
    allowed = call.mask.rows(*row, call.keys, b=0, h=head, device=scores.device)[0]
    parts = _parts(len(q), pairs)
    return Neuron(call, head, query, key, parts, q, k, added, scores, weights, allowed).at(key)


def rotary_pairs(cap: Capture, call: AttentionCall) -> tuple[tuple[int, int], ...]:
    """Dimensions that rotary positions turn together in a call, as the model's anatomy proves them; () where none are
    turned, or nothing was proven."""
    rotary = cap.anatomy.rotary.get((call.name, call.occurrence))
    return () if rotary is None else rotary.pairs()


def looks_most(call: AttentionCall, head: int, key: int) -> int:
    """The query that gives a key the most weight, in the first sample."""
    bands = call.bands(slice(head, head + 1))
    return int(torch.cat([weights[0, 0, :, key] for _, _, weights in bands]).argmax())


def _parts(width: int, pairs: Sequence[tuple[int, int]]) -> tuple[Part, ...]:
    """Every dimension once, alone or with its partner, in the order of the first ones."""
    paired = [dimension for pair in pairs for dimension in pair]
    if any(len(pair) != 2 for pair in pairs) or len(set(paired)) != len(paired):
        raise InputError(f"pairs expects each dimension once, in twos; got {[tuple(pair) for pair in pairs]}.")
    for dimension in paired:
        _inside(dimension, width, "a head of this layer has dimensions")
    alone = [(dimension,) for dimension in range(width) if dimension not in set(paired)]
    return tuple(sorted([*(tuple(pair) for pair in pairs), *alone]))


def _angle(q: Tensor, k: Tensor) -> float:
    """Degrees from q (2,) to k (2,), −180 … 180."""
    cross, dot = q[0] * k[1] - q[1] * k[0], q @ k
    return float(torch.rad2deg(torch.atan2(cross, dot)))


def _inside(index: int, count: int, owner: str) -> None:
    if not 0 <= index < count:
        raise InputError(f"{owner} 0 … {count - 1}; got {index}.")
