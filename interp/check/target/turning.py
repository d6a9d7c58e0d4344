"""Does time come first? Torch's own attention takes (T, B, C) unless told otherwise, and runs on (B, T, C) too."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from headwise.interp.check.errors import Refused
from headwise.interp.check.gaps import ACROSS_SHAPES, gap, rounding
from headwise.interp.check.target.layout import plain, time_first
from headwise.interp.check.target.streams import Batch
from headwise.interp.check.target.target import Target


def turned(target: Target, x: Batch) -> bool:
    """Read the main stream as (T, B, …) where runs of it as (B, T, …) say so. Batch first wins ties: attention over an
    unmasked batch is a bug, unless the module is torch's own."""
    stream = target.feed.streams[0]
    if target.hugging or target.feed.told.layout or stream.layout != plain(len(stream.layout.axes)) or x.size < 2:
        return False
    try:
        if not _first(target, x):
            return False
    except Refused:
        return False
    target.feed.laid(time_first(len(stream.layout.axes)))
    target.notes.append(
        f"time comes first: read as {stream.layout}, samples would hear of each other as behind a mask; "
        f"so it was read as {target.feed.streams[0].layout}; say layout= to change that"
    )
    return True


def _first(target: Target, x: Batch) -> bool:
    """Do those taken for samples hear of each other in one direction, as behind a mask, while those taken for positions
    are a row of equals that never meet? A recurrence does so too where batch_first was forgotten: no evidence."""
    seen = Moved(target, x)
    forwards, backwards = seen.by(0, 0)[1:].any(), seen.by(0, -1)[:-1].any()
    recurrent = any(isinstance(m, nn.RNNBase) and not m.batch_first for m in target.module.modules())
    if recurrent or not (forwards or backwards):
        return False
    if seen.by(1, 0)[:, 1:].any() or seen.by(1, -1)[:, :-1].any() or not seen.equals():
        return False
    return bool(forwards != backwards) or _torchs(target.module)


def _torchs(module: nn.Module) -> bool:
    """Is it one of torch's own that takes time first?"""
    inside = [m for m in module.modules() if hasattr(m, "batch_first")]
    return type(module).__module__.startswith("torch.nn.") and not any(m.batch_first for m in inside)


class Moved:
    """Outputs (B, T) that move when what stands at one index of an axis changes."""

    def __init__(self, target: Target, x: Batch):
        self.target, self.x, self.out = target, x, target.run(x)

    def by(self, axis: int, index: int) -> Tensor:
        where = torch.zeros(self.x.size, self.x.length, dtype=torch.bool)
        where.select(axis, index).fill_(True)
        out = self.target.run(self.target.feed.perturb(self.x, where, seed=61))
        if out.shape != self.out.shape or out.shape[:2] != where.shape:
            raise Refused(ValueError("its output has other positions than its input"))
        return gap(self.out, out).cpu() > rounding(out.dtype if out.is_floating_point() else torch.float32)

    def equals(self) -> bool:
        """Do positions in another order give the same in that order? Not asked where something stands beside them."""
        if self.target.feed.fixed(self.x.size):
            return True
        out = self.target.run(self.x.each(lambda t: t.flip(1))).flip(1)
        return float(gap(self.out, out).max()) <= ACROSS_SHAPES.get(self.target.feed.dtype, 2e-4)
