"""What is done to one attention computation while it runs: its tensors pass by here, and what is written into them is
what the model goes on with.

Letters: B batch, H query heads, Hk key/value heads, Q queries, K keys, D head width, Dv width of the values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from headwise.interp.attention.scores import SENTINEL, Scores, carried, single
from headwise.interp.errors import InputError
from headwise.interp.masks import Causal
from headwise.interp.run.tap.places import Seam

Act = Callable[[Tensor], None]  # writes into the tensor it is given


@dataclass(eq=False)
class CallChanges:
    """What is done at one call, in the order given.

    ``acts`` write into a copy of a tensor: "query" (B, H, Q, D), "key" (B, Hk, K, D), "value" (B, Hk, K, Dv), "scores"
    and "pattern" (B, H, Q, K), "output" (B, H, Q, Dv) before the output projection. ``masks`` write into what may be
    attended to, bool (B, H, Q, K); each comes with its name.
    """

    acts: dict[str, list[Act]] = field(default_factory=dict)
    masks: list[tuple[str, Act]] = field(default_factory=list)

    def changed(self, part: str, t: Tensor) -> Tensor:
        """The tensor itself where nothing is done to it."""
        if part not in self.acts:
            return t
        t = t.clone()
        for act in self.acts[part]:
            act(t)
        return t

    @property
    def reaches_weights(self) -> bool:
        """Whether scores or weights must be there as tensors."""
        return "scores" in self.acts or "pattern" in self.acts

    def told(self, mask: Tensor | None, causal: bool, shape: tuple[int, ...], device) -> tuple[Tensor | None, bool]:
        """The two mask arguments of an attention of ``shape`` (B, H, Q, K) after ``masks``: a key that was opened gets
        no bias, one that was closed −∞, and biases stay elsewhere."""
        if not self.masks:
            return mask, causal
        if causal:
            mask = Causal().rows(0, shape[2], shape[3], device=device)
        elif mask is None:
            mask = torch.ones(shape, dtype=torch.bool, device=device)
        mask = mask.expand(shape)
        before = mask if mask.dtype == torch.bool else mask > SENTINEL
        after = self._allowed(before)
        if mask.dtype == torch.bool:
            return after, False
        return mask.masked_fill(after & ~before, 0).masked_fill(before & ~after, -torch.inf), False

    def weights(
        self,
        scores: Tensor,
        weights: Tensor,
        sink: Tensor | None = None,
        *,
        mixed: bool = False,
        linear: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """(scores, weights), both (B, H, Q, K), after all that is done to them. ``sink`` (B, H, Q, 1) is the weight
        that went to no key; it keeps its score. ``mixed`` says that heads were mixed after the softmax, ``linear`` that
        there is none: weights are the scores.

        What a mask hid stays hidden. A row whose scores are as they were keeps its weights bit for bit. Raises
        InputError where a mask would open what the scores no longer tell, and where no row of weights is a softmax.
        """
        if self.masks or "scores" in self.acts:
            if mixed:
                raise InputError(
                    f"{self._name} cannot change single keys here: the model mixes its heads after the softmax, so no "
                    "row of weights sums to one. Change the pattern or the head's output instead."
                )
            new = self.changed("scores", self._masked(scores))
            new = torch.where(scores <= SENTINEL, scores, new) if new is not scores else new
            weights = as_they_are(new) if linear else _softmax_where_new(new, scores, weights, sink)
            scores = new
        return scores, self.changed("pattern", weights)

    def attended(self, form: Scores, v: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Attention computed step by step from ``form``, so that scores and weights can be changed → (scores, weights,
        output), or None when they were only looked at: then the model's own operation stands."""
        scores = form.scores(0, form.shape[2], slice(None))
        if scores.requires_grad and not form.linear:
            plain = rows_softmax(scores)  # which a gradient passes
        else:
            plain = form.weights(0, form.shape[2], slice(None))
        new, weights = self.weights(scores, plain, linear=form.linear)
        if not weights.requires_grad and torch.equal(weights, plain):
            return None
        return new, weights, carried(form, weights.to(v.dtype), v)

    @property
    def _name(self) -> str:
        return self.masks[0][0] if self.masks else "An edit of scores"

    def _allowed(self, before: Tensor) -> Tensor:
        after = before.clone(memory_format=torch.contiguous_format)
        for _, act in self.masks:
            act(after)
        return after

    def _masked(self, scores: Tensor) -> Tensor:
        if not self.masks:
            return scores
        before = scores > SENTINEL
        after = self._allowed(before)
        if bool((after & ~before).any()):
            raise InputError(
                f"{self._name} cannot open keys here: the model's own mask has already overwritten their scores. Use a "
                "mask that only forbids more."
            )
        return scores.masked_fill(before & ~after, -torch.inf)


@dataclass(frozen=True, eq=False)
class Changes:
    """What is done to a run: at attention calls, by (module path, occurrence); beside them, at places."""

    calls: Mapping[tuple[str, int], CallChanges] = field(default_factory=dict)
    seam: Seam | None = None


def rows_softmax(scores: Tensor) -> Tensor:
    """Softmax over keys in which a row of −inf gives zeros instead of NaN, also in its gradient."""
    empty = (scores == -torch.inf).all(-1, keepdim=True)
    return scores.masked_fill(empty, 0).softmax(-1).masked_fill(empty, 0)


def as_they_are(scores: Tensor) -> Tensor:
    """Weights of an attention without a softmax: its scores, and zero where a key is hidden."""
    return scores.masked_fill(scores == -torch.inf, 0)


def _softmax_where_new(new: Tensor, old: Tensor, weights: Tensor, sink: Tensor | None) -> Tensor:
    """Weights of the rows whose scores are new. A sink's score is read off its weight and the largest other's."""
    fresh = single(new)
    if sink is not None:
        top, key = single(weights).max(-1, keepdim=True)
        beside = single(old).gather(-1, key) - top.clamp_min(torch.finfo(top.dtype).tiny).log() + single(sink).log()
        fresh = torch.cat([fresh, beside], -1)
    fresh = rows_softmax(fresh)[..., : new.shape[-1]].to(weights.dtype)
    if new.requires_grad:
        return fresh
    return torch.where((new == old).all(-1, keepdim=True), weights, fresh)
