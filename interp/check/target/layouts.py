"""Where batch and time stand in what a model returns, told by sizes that equal nothing else."""

from __future__ import annotations

from torch import Tensor

WORDS = {"flat": "(B·T, …)", "time first": "(T, B, …)", "single": "(T, …)"}


def layout_of(shape: tuple[int, ...], b: int, t: int) -> str:
    """ "plain" (B, T, …), "time first", "axis n", "flat", "single" or "pooled". ``t`` is −1 where input has no time."""
    if t < 0:
        return "plain" if len(shape) >= 3 and shape[0] == b else "pooled"
    if len(shape) >= 2 and shape[0] == b and shape[1] == t:
        return "plain"
    if len(shape) >= 2 and shape[0] == t and shape[1] == b:
        return "time first"
    if len(shape) >= 3 and shape[0] == b and t in shape[2:]:
        return f"axis {shape.index(t, 2)}"
    if shape and shape[0] == b * t:
        return "flat"
    if b == 1 and shape and shape[0] == t:
        return "single"
    return "plain" if len(shape) >= 3 and shape[0] == b else "pooled"


def laid_out(out: Tensor, layout: str, batch: int) -> Tensor:
    """→ (B, T, F); F gathers the rest. A pooled output (B, F) becomes (B, 1, F)."""
    if layout == "flat":
        out = out.reshape(batch, -1, *out.shape[1:])
    elif layout == "time first":
        out = out.transpose(0, 1)
    elif layout == "single":
        out = out[None]
    elif layout.startswith("axis"):
        out = out.movedim(int(layout[5:]), 1)
    elif layout == "pooled":
        out = out.reshape(out.shape[0] if out.ndim else 1, 1, -1)
    return out.flatten(2) if out.ndim > 2 else out[..., None]
