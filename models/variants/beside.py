"""One attention call put through another mechanism: the same queries, keys and values, and what comes of them.

What a trained model would do with that mechanism is another question: it would have other queries and keys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from headwise.interp.attention.banded import edges
from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.report import Mechanism
from headwise.interp.errors import InputError
from headwise.interp.masks import Causal, Mask, Window

BAND = 256  # rows that are compared at a time


@dataclass(frozen=True, eq=False)
class Beside:
    """A call as it was, and the same queries, keys and values under another mechanism. The figures are those of one
    head of the first sample."""

    exact: AttentionCall
    call: AttentionCall
    head: int

    @property
    def mask(self) -> Mask:
        """Who sees whom in this mechanism."""
        return self.call.mask

    @cached_property
    def error(self) -> float:
        """‖o − o'‖ / ‖o‖ of the head's output o (Q, Dv) under full attention and o' under the mechanism."""
        far = whole = 0.0
        for wanted, made in self._outputs():
            far += float((made - wanted).square().sum())
            whole += float(wanted.square().sum())
        return math.sqrt(far / whole) if whole else 0.0

    @property
    def own_pairs(self) -> float:
        """How many pairs of query and key the head itself looks at."""
        return self._pairs[2]

    @cached_property
    def held(self) -> float:
        """The share of the head's own weight that lies on keys which the mechanism sees, 0 … 1."""
        return self._pairs[0]

    @cached_property
    def seen(self) -> float:
        """The pairs of query and key that the mechanism looks at, as a share of those the head did."""
        return self._pairs[1]

    def _outputs(self):
        group = self.exact.heads // self.exact.v.shape[1]
        v = self.exact.v[0, self.head // group].float()  # (K, Dv)
        for rows in _bands(self.exact.queries):
            yield self.exact.weights(self.head, rows)[0] @ v, self.call.weights(self.head, rows)[0] @ v

    @cached_property
    def _pairs(self) -> tuple[float, float, float]:
        held = met = pairs = 0.0
        for rows in _bands(self.exact.queries):
            kept = self._allowed(self.mask, rows)
            own = self._allowed(self.exact.mask, rows)
            held += float((self.exact.weights(self.head, rows)[0] * kept).sum())
            met += float((kept & own).sum())
            pairs += float(own.sum())
        return held / max(1, self.exact.queries), met / max(1.0, pairs), pairs

    def _allowed(self, mask: Mask, rows: tuple[int, int]) -> Tensor:
        keys = torch.arange(self.exact.keys, device=self.exact.device)
        found = edges(mask, (1, *self.exact.shape[1:]), rows, slice(self.head, self.head + 1), keys)
        return found.expand(1, 1, rows[1] - rows[0], self.exact.keys)[0, 0]


def beside(call: AttentionCall, head: int, by: Mechanism) -> Beside:
    """The call's queries, keys and values, put through ``by``, beside the call itself, or beside what ``by`` says is
    ``exact`` where it does not take the keys. Raises InputError where the queries and keys were not
    seen, or where queries and keys are not the same positions."""
    if call.query_width is None or call.v is None:
        raise InputError(
            f"{call.name or 'This attention'} only showed its scores, not the queries and keys that made them, so they "
            "cannot be put through another mechanism. Choose a layer or a model that shows them."
        )
    if call.queries != call.keys:
        raise InputError("Other mechanisms attend within one sequence. Choose self-attention without a cache.")
    exact = call.under(by.exact()) if hasattr(by, "exact") else call
    return Beside(exact, call.under(by), head)


def looks_back(call: AttentionCall) -> bool:
    """Whether no query of the call sees a later key."""
    return bool((~(call.mask & ~Causal()).dense(min(call.queries, 64), min(call.keys, 64))).all())


def reached(mask: Mask, length: int, layers: int, heads: int) -> Tensor:
    """How many tokens each output may depend on after 1 … ``layers`` layers of attention, all ``heads`` together →
    (layers, length)."""
    step = edges(mask | Window(0, 0), (1, heads, length, length), (0, length), slice(None), torch.arange(length))
    step = step.expand(1, heads, length, length).any(1)[0].float()
    seen, found = torch.eye(length), []
    for _ in range(layers):
        seen = ((step @ seen) > 0).float()
        found.append(seen.sum(1))
    return torch.stack(found).long()


def _bands(queries: int):
    for start in range(0, queries, BAND):
        yield start, min(start + BAND, queries)
