"""Which axis is time? Where nobody says, the model is asked: by runs of fewer positions, and by who hears of whom.

Torch's own attention takes (T, B, C) unless told otherwise, and runs on (B, T, C) too; a recurrence behind a transpose
takes (B, C, T), and spectra and videos have further axes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from headwise.interp.check.errors import CheckError, Refused
from headwise.interp.check.gaps import ACROSS_SHAPES, gap, rounding
from headwise.interp.check.target.layout import Layout, plain, time_first
from headwise.interp.check.target.streams import Batch
from headwise.interp.check.target.target import Target

LATER = "along its second axis it takes no shorter input, or nothing hears of anything else"
OTHERS = "there would be other samples in the output than in the input"
FIRST = "samples would hear of each other as positions do, and positions of nothing"


def turned(target: Target, x: Batch, *, free: bool) -> bool:
    """Read the main stream by another layout than (B, T, …), where runs say so; then what was read is to be read anew.
    Where they leave it open, samples come first and positions next. Raises CheckError of a grid that may not be seen
    as a whole (``free``): only the caller knows which of its axes is time."""
    stream, told = target.feed.streams[0], target.feed.told.layout
    if target.feed.grid and not told and not free:
        raise CheckError(
            f"{target.name} takes a grid, and which of its axes is time cannot be told: say "
            "layout='(B, C, T, F) -> (B, C, T, F)', or '(B, C, H, W) -> (B, C, H, W)' for positions row by row."
        )
    if target.hugging or told:
        return False
    usual, output, together = plain(len(stream.layout.axes)), target.layout, len(target.run(x)) == x.size
    ways = ((_first, FIRST), (_behind, LATER)) if together else ((_together, OTHERS),)
    for other, why in ways if stream.layout == usual else ():
        try:
            layout = other(target, x)
        except Refused:
            layout = None
        target.layout = output  # others were tried
        target.feed.laid(layout or usual)
        if layout is not None:
            target.notes.append(f"the input was read as {layout}, not as {usual}: {why}; say layout= to change that")
            return True
    if not together:
        raise CheckError(
            f"{target.name} gives outputs for other samples than the {x.size} of {stream.layout}: say where samples "
            "and time stand, layout='(T, B, C) -> (T, B, V)'."
        )
    return False


def _together(target: Target, x: Batch) -> Layout | None:
    """The first under which there is an output for each sample."""
    usual = target.feed.streams[0].layout
    for layout in (time_first(len(usual.axes)), *_later(usual)):
        target.feed.laid(layout)
        try:
            y = target.feed.anew(x.size, x.length)
            target.settle(target.raw(y), y)
            if not target.pooled and len(target.run(y)) == y.size:
                return layout
        except Refused:
            continue
    return None


# -- time comes first -----------------------------------------------------------------------------------------------
def _first(target: Target, x: Batch) -> Layout | None:
    """(T, B, …) where those taken for samples hear of each other in one direction, as behind a mask, while those taken
    for positions are a row of equals that never meet. Attention over an unmasked batch is a bug, unless the module is
    torch's own; and a recurrence over the batch is what a forgotten batch_first looks like."""
    recurrent = any(isinstance(m, nn.RNNBase) and not m.batch_first for m in target.module.modules())
    if recurrent or x.size < 2:
        return None
    seen, every = Moved(target, x), slice(None)
    if seen.out.shape[:2] != (x.size, x.length):
        return None
    forwards, backwards = seen.where(slice(0, 1), every)[1:].any(), seen.where(slice(-1, None), every)[:-1].any()
    if not (forwards or backwards):
        return None
    if seen.where(every, slice(0, 1))[:, 1:].any() or seen.where(every, slice(-1, None))[:, :-1].any():
        return None
    masked = bool(forwards != backwards) or _torchs(target.module) or _padding_says(target, x)
    return time_first(len(target.feed.streams[0].layout.axes)) if masked and seen.equals() else None


def _padding_says(target: Target, x: Batch) -> bool:
    """Does it take a padding mask (T, B) of what was read as (B, T), and none (B, T)?"""
    if target.padding.name is None or not target.padding.tells_sides or target.forward is not None:
        return False
    taken = []
    for shape in ((x.size, x.length), (x.length, x.size)):
        mask = target.padding.taken(torch.ones(shape, dtype=torch.long, device=x.device))
        try:
            target.raw(x, **{target.padding.name: mask})
            taken.append(True)
        except Refused:
            taken.append(False)
    return taken == [False, True]


def _torchs(module: nn.Module) -> bool:
    """Is it one of torch's own that takes time first?"""
    inside = [m for m in module.modules() if hasattr(m, "batch_first")]
    return type(module).__module__.startswith("torch.nn.") and not any(m.batch_first for m in inside)


# -- time comes later -----------------------------------------------------------------------------------------------
def _behind(target: Target, x: Batch) -> Layout | None:
    """A later axis, where the model takes no fewer positions along the second, or nothing there hears of anything else;
    of several that are otherwise, the one where least is heard of what follows."""
    if x.first.ndim < 3 or (usual := _heard(target, x)) == 0.0:
        return None
    heard: list[tuple[float, Layout]] = []
    for layout in _later(target.feed.streams[0].layout):
        target.feed.laid(layout)
        try:
            y = target.feed.anew(x.size, x.length)
            target.settle(target.raw(y), y)
            if not target.pooled and (share := _heard(target, y)) is not None:
                heard.append((share, layout))
        except Refused:
            continue
    if not heard:
        return None
    share, layout = min(heard, key=lambda found: found[0])
    if usual is None:
        return layout
    if share == 0.0:
        target.notes.append(f"along another axis nothing hears of what follows; if that is time, say layout='{layout}'")
    return None


def _later(usual: Layout) -> Iterator[Layout]:
    """(B, C, T, …), (B, C, D, T) …"""
    rest = usual.axes[2:]
    for at in range(2, len(usual.axes)):
        yield Layout(("B", *rest[: at - 1], "T", *rest[at - 1 :]))


def _heard(target: Target, x: Batch) -> float | None:
    """The share of outputs that hear of what follows half of the sequence; None where it takes no fewer positions, or
    no output hears of anything but its own."""
    half, every = x.length // 2, slice(None)
    if x.length < 2:
        return None
    try:
        target.raw(x.cut(0, x.length - max(1, x.length // 4)))
    except Refused:
        return None
    seen = Moved(target, x)
    ahead = seen.where(every, slice(half, None))[:, : max(1, half * seen.out.shape[1] // x.length)]
    return float(ahead.float().mean()) if ahead.any() or seen.where(every, slice(0, 1))[:, 1:].any() else None


class Moved:
    """Outputs (B, T') that move when what stands at some samples and positions changes."""

    def __init__(self, target: Target, x: Batch):
        self.target, self.x, self.out = target, x, target.run(x)

    def where(self, samples: slice, positions: slice) -> Tensor:
        changed = torch.zeros(self.x.size, self.x.length, dtype=torch.bool)
        changed[samples, positions] = True
        out = self.target.run(self.target.feed.perturb(self.x, changed, seed=61))
        if out.shape != self.out.shape:
            raise Refused(ValueError("the shape of its output depends on content"))
        return gap(self.out, out).cpu() > rounding(out.dtype if out.is_floating_point() else torch.float32)

    def equals(self) -> bool:
        """Do positions in another order give the same in that order? Not asked where something stands beside them."""
        if self.target.feed.fixed(self.x.size):
            return True
        out = self.target.run(self.x.each(lambda t: t.flip(1))).flip(1)
        return float(gap(self.out, out).max()) <= ACROSS_SHAPES.get(self.target.feed.dtype, 2e-4)
