"""``LocalAttention`` of the package local-attention: windows that see those beside them, rotary positions within.

Positions there turn by their place among the windows a query sees; only differences count, so the place in the whole
text does as well. A query whose keys are all padding is taken as seeing nothing: the module weighs them all alike.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.interp.attention.banded import Bias, Masked
from headwise.interp.attention.watch import Given, Watched
from headwise.interp.masks import Causal, Marked, Mask, Segments, Window
from headwise.models.architectures.blocks import rotate
from headwise.models.sources.watched.layouts import laid_out

ITSELF = -5e4  # the score of a token with itself where queries are keys


class Windows:
    """Knows ``LocalAttention``."""

    keeps = ()

    def applies(self, module: nn.Module) -> bool:
        return True

    def __call__(self, module: nn.Module, given: Given) -> Watched | str:
        if module.use_xpos:
            return "its keys are scaled anew in each window (xPos), so that no key is one vector to all queries"
        a, shape = given.arguments, given.output.shape
        real, added = a.get("mask", a.get("input_mask")), a.get("attn_bias")
        heads = a["q"].shape[0] // len(real) if real is not None else 1 if added is None else len(added)
        q, k, v = (t if t.ndim == 4 else t.unflatten(0, (-1, heads)) for t in (a["q"], a["k"], a["v"]))
        length, size = q.shape[2], module.window_size
        if missing := -length % size if not module.causal and real is None else 0:
            k, v = (F.pad(t, (0, 0, 0, missing)) for t in (k, v))  # zeros that are not masked and have some weight
        if module.shared_qk:
            k = F.normalize(k, dim=-1)
        if module.rel_pos is not None:
            place = torch.arange(k.shape[2], device=q.device)[None]
            q, k = rotate(q, place[:, :length] + module.look_forward * size), rotate(k, place)
        mask, seen = _mask(module), torch.ones(1, length, dtype=torch.bool, device=q.device)
        if real is not None:
            mask, seen = mask & Marked(real), _seeing(module, real)
        scale = q.shape[-1] ** -0.5 if module.scale is None else module.scale
        by = Masked(scale, mask, _bias(module, added, k))
        output = given.output.reshape(*q.shape[:3], -1).masked_fill(~seen[:, None, :, None], 0)

        def back(z: Tensor) -> Tensor:
            return torch.where(seen[:, None, :, None], z, given.output.reshape(z.shape)).reshape(shape)

        return Watched(q, k, v, by, output, back)


def _mask(module: nn.Module) -> Mask:
    """What a query sees: its window and those beside it, no farther than windows are wide where that is said."""
    left, right = module.look_backward * module.window_size, module.look_forward * module.window_size
    mask = Segments(module.window_size, left, right)
    if module.exact_windowsize:
        mask = mask & Window(left, right)
    return Causal() & mask if module.causal else mask


def _seeing(module: nn.Module, real: Tensor) -> Tensor:
    """Queries (B, T) that see a real key. What one sees is an interval, so real keys before its ends are counted."""
    place, size = torch.arange(real.shape[1], device=real.device), module.window_size
    left, right, window = module.look_backward * size, module.look_forward * size, place // size * size
    first, last = window - left, window + size - 1 + right
    if module.exact_windowsize:
        first, last = torch.maximum(first, place - left), torch.minimum(last, place + right)
    if module.causal:
        last = torch.minimum(last, place)
    before = F.pad(real.long().cumsum(1), (1, 0))  # (B, T + 1)
    return before[:, last.clamp(max=len(place) - 1) + 1] > before[:, first.clamp(min=0)]


def _bias(module: nn.Module, added: Tensor | None, k: Tensor) -> Bias | None:
    """``added`` (H, w, m) by window; of shared queries and keys, what keeps a token from itself."""
    if added is None and not module.shared_qk:
        return None

    def bias(start: int, stop: int, heads: slice) -> Tensor:
        keys, device = k.shape[2], k.device
        row, key = torch.arange(start, stop, device=device), torch.arange(keys, device=device)
        whole = torch.zeros(1, 1, len(row), keys, device=device)
        if added is not None:
            before = module.look_backward * module.window_size
            whole = laid_out(added[None, None], (start, stop), before, keys)[:, heads]
        return whole.masked_fill(row[:, None] == key, ITSELF) if module.shared_qk else whole

    return bias


WATCHER = Windows()
