"""What can be done at a site in another run: what if this head were not there, or said what it says on average?

Pass them to ``rerun(cap, [Zero(HeadOutput(3, 1))])``. They hold for that run and that thread alone; weights and modules
of the model are never touched.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headwise.interp.attention.scores import SENTINEL
from headwise.interp.errors import InputError
from headwise.interp.masks import Mask
from headwise.interp.run.sites import (
    HeadOutput,
    Key,
    Pattern,
    Query,
    Residual,
    Scores,
    Site,
    Value,
    Write,
    brief,
)

if TYPE_CHECKING:
    from headwise.interp.run.capture import Capture

__all__ = [
    "Add", "Edit", "ForbidEdge", "HeadOutput", "Isolate", "Key", "Mean", "MeanHead", "Pattern", "Query", "Replace",
    "ReplaceMask", "Resample", "Residual", "Scale", "Scores", "Site", "SiteEdit", "Value", "Write", "Zero", "ZeroHead",
]  # fmt: skip

Positions = int | Iterable[int] | None  # from the end where negative; all of them when None


@dataclass(frozen=True)
class Edit:
    """Base of edits. ``parts`` are the edits of single sites and masks that it stands for."""

    def parts(self) -> tuple[Edit, ...]:
        return (self,)


@dataclass(frozen=True, repr=False)
class SiteEdit(Edit):
    """Base of what gives a site new values, at all or some of its positions."""

    site: Site

    positions = None

    def __post_init__(self):
        if self.positions is not None:
            given = (self.positions,) if isinstance(self.positions, int) else tuple(self.positions)
            object.__setattr__(self, "positions", given)

    def __repr__(self) -> str:
        return brief(self)

    def write(self, x: Tensor, counted: Tensor | None = None, given: Tensor | None = None) -> None:
        """Overwrite the site in a run, x (B, …, T, C). ``counted`` (B, T) tells the positions that are no padding,
        ``given`` is what another run has here. Raises InputError for positions or shapes that do not fit."""
        at = self._index(x)
        old = x[..., at, :]
        new = self.new(old, Here(x, at, counted, given))
        if _broadcast(new, old) != old.shape:
            raise InputError(
                f"{type(self).__name__} has a value of shape {tuple(new.shape)}; {self.site} takes {tuple(old.shape)}."
            )
        x[..., at, :] = new.to(x)

    def new(self, old: Tensor, here: Here) -> Tensor:
        """What the positions become; broadcasts to ``old`` (B, …, positions, C)."""
        raise NotImplementedError

    def _index(self, x: Tensor) -> slice | Tensor:
        if self.positions is None:
            return slice(None)
        length = x.shape[-2]
        for position in self.positions:
            if not -length <= position < length:
                raise InputError(f"{self.site} has positions 0 … {length - 1}; there is no {position}.")
        return torch.tensor([p % length for p in self.positions], dtype=torch.long, device=x.device)


@dataclass(frozen=True, eq=False)
class Here:
    """What an edit may look at beside the values it replaces."""

    whole: Tensor  # (B, …, T, C), all positions of the site
    at: slice | Tensor  # the positions that are replaced
    counted: Tensor | None  # (B, T), true at real positions; all are when None
    given: Tensor | None  # (B, …, T, C) of another run


@dataclass(frozen=True, repr=False)
class Zero(SiteEdit):
    """Nothing there (zero ablation: Michel et al. 2019, "Are Sixteen Heads Really Better than One?", §2.2)."""

    positions: Positions = None

    def new(self, old, here):
        return old.new_zeros(())


@dataclass(frozen=True, repr=False)
class Mean(SiteEdit):
    """Its mean over the real positions of this input (mean ablation: Wang et al. 2023, "Interpretability in the Wild",
    §3.1, there over a data set): what it says on average, without what it says where. Scores are averaged over the rows
    that see the key."""

    positions: Positions = None

    def new(self, old, here):
        counted = torch.ones_like(here.whole, dtype=torch.bool)
        if here.counted is not None:
            counted &= _beside(here.counted, here.whole)
        if isinstance(self.site, Scores):
            counted &= here.whole > SENTINEL
        total = torch.where(counted, here.whole, 0).sum(-2, keepdim=True)
        return total / counted.sum(-2, keepdim=True).clamp_min(1)


@dataclass(frozen=True, repr=False)
class Resample(SiteEdit):
    """What stands there in another run (``source``, a capture of an input as long), or at another real position of the
    same input, drawn at random by ``seed`` for each position (resample ablation: Chan et al. 2022, "Causal
    Scrubbing")."""

    source: Capture | None = None
    seed: int = 0
    positions: Positions = None

    def new(self, old, here):
        if self.source is None:
            return _drawn(here, self.seed)[..., here.at, :]
        if here.given.shape != here.whole.shape:
            raise InputError(
                f"{self.site} is {tuple(here.whole.shape)} here and {tuple(here.given.shape)} in the run to take it "
                "from. Give an input that is cut into as many tokens."
            )
        return here.given[..., here.at, :]


@dataclass(frozen=True, repr=False)
class Scale(SiteEdit):
    """So many times what it is."""

    factor: float
    positions: Positions = None

    def new(self, old, here):
        return old * self.factor


@dataclass(frozen=True, eq=False, repr=False)
class Add(SiteEdit):
    """A vector (C,), or one for each position (T, C), on top of what is there (steering: Turner et al. 2023,
    "Activation Addition")."""

    vector: Tensor
    positions: Positions = None

    def new(self, old, here):
        vector = torch.as_tensor(self.vector).to(old)
        if _broadcast(vector, old) != old.shape:
            raise InputError(f"Add has a vector of shape {tuple(vector.shape)}; {self.site} takes {tuple(old.shape)}.")
        return old + vector


@dataclass(frozen=True, eq=False, repr=False)
class Replace(SiteEdit):
    """This instead: a tensor that broadcasts to the site's (activation patching: Meng et al. 2022, §2.1)."""

    value: Tensor
    positions: Positions = None

    def new(self, old, here):
        return torch.as_tensor(self.value).to(old)


# -- of single edges and masks ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class MaskEdit(Edit):
    """Base of what changes which keys the attention of a layer may see."""

    layer: int

    stack = None

    def mask(self, allowed: Tensor) -> None:
        """Overwrite what may be seen, bool (B, H, Q, K)."""
        raise NotImplementedError


@dataclass(frozen=True)
class ForbidEdge(MaskEdit):
    """Query may not see key, in one head or (None) in all of them; the rest of its row renormalises."""

    query: int
    key: int
    head: int | None = None
    stack: str | None = None

    def mask(self, allowed):
        for name, length in (("query", allowed.shape[-2]), ("key", allowed.shape[-1])):
            if not -length <= getattr(self, name) < length:
                raise InputError(f"Layer {self.layer} has {name} positions 0 … {length - 1}; {self} names another.")
        allowed[:, slice(None) if self.head is None else self.head, self.query, self.key] = False


@dataclass(frozen=True)
class ReplaceMask(MaskEdit):
    """Attention under another mask, in place of the model's own. Additive position biases stay."""

    to: Mask
    stack: str | None = None

    def mask(self, allowed):
        b, h, q, k = (torch.arange(n, device=allowed.device) for n in allowed.shape)
        allowed.copy_(self.to(b[:, None, None, None], h[:, None, None], q[:, None], k))


# -- of whole heads, by their short names ------------------------------------------------------------------------------
@dataclass(frozen=True)
class ZeroHead(Edit):
    """The head adds nothing."""

    layer: int
    head: int
    stack: str | None = None

    def parts(self):
        return (Zero(HeadOutput(self.layer, self.head, self.stack)),)


@dataclass(frozen=True)
class MeanHead(Edit):
    """The head adds its mean over the real positions at every position: what it says on average, without where it
    looks."""

    layer: int
    head: int
    stack: str | None = None

    def parts(self):
        return (Mean(HeadOutput(self.layer, self.head, self.stack)),)


@dataclass(frozen=True)
class Isolate(Edit):
    """Of the layer's heads this one alone is left; the others add nothing."""

    layer: int
    head: int
    stack: str | None = None

    def parts(self):
        return (Keep(HeadOutput(self.layer, None, self.stack), self.head),)


@dataclass(frozen=True, repr=False)
class Keep(SiteEdit):
    """Of all heads of a site (B, H, Q, Dv) one; the others are zero."""

    head: int
    positions: Positions = None

    def new(self, old, here):
        kept = torch.arange(old.shape[1], device=old.device) == self.head
        return torch.where(kept[:, None, None], old, 0)


# -- inside -----------------------------------------------------------------------------------------------------------
def _beside(counted: Tensor, whole: Tensor) -> Tensor:
    """Positions (B, T) laid beside values (B, …, T, C) → (B, 1 …, T, 1)."""
    return counted.view(counted.shape[0], *(1,) * (whole.ndim - 3), counted.shape[1], 1)


def _broadcast(new: Tensor, old: Tensor) -> torch.Size | None:
    try:
        return torch.broadcast_shapes(new.shape, old.shape)
    except RuntimeError:
        return None


def _drawn(here: Here, seed: int) -> Tensor:
    """Each position's value is another real position's, the same for all heads, drawn by the seed."""
    whole = here.whole
    batch, length = whole.shape[0], whole.shape[-2]
    real = torch.ones(batch, length) if here.counted is None else here.counted.expand(batch, length).cpu().float()
    chances = real[:, None, :] * (1 - torch.eye(length))  # (B, T, T)
    alone = chances.sum(-1, keepdim=True) == 0
    chances = torch.where(alone, torch.eye(length), chances)
    generator = torch.Generator().manual_seed(seed)
    found = torch.multinomial(chances.flatten(0, 1), 1, generator=generator).view(batch, length)
    index = _beside(found.to(whole.device), whole).expand(whole.shape)
    return whole.gather(-2, index)
