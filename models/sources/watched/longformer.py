"""Longformer and LED of Hugging Face: a window, and global tokens with projections of their own (Beltagy et al. 2020,
§3.1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from headwise.interp.attention.apart import WithOwn
from headwise.interp.attention.banded import Masked
from headwise.interp.attention.watch import Given, Watched
from headwise.interp.masks import Dense, Global, Marked, Mask, Window, within
from headwise.models.sources.watched.layouts import joined, real_length, split


class Sliding:
    """Knows ``LongformerSelfAttention`` and ``LEDEncoderSelfAttention``, which are the same."""

    keeps = ()

    def applies(self, module: nn.Module) -> bool:
        return True

    def __call__(self, module: nn.Module, given: Given) -> Watched | str:
        x, masked = given.arguments["hidden_states"], given.arguments["is_index_masked"]  # (B, T, C), (B, T)
        whole, heads = x.shape[1], module.num_heads
        length = real_length(~masked)  # the model adds padding to fill its last window
        x, real, central = (t[:, :length] for t in (x, ~masked, given.arguments["is_index_global_attn"]))
        q, k, v = (split(part(x), heads) for part in (module.query, module.key, module.value))
        scale, reach = q.shape[-1] ** -0.5, module.one_sided_attn_window_size
        by = Masked(scale, within(_shared(Window(reach, reach), central), real, queries=True))
        if bool(central.any()):
            by = _with_own(module, x, by, real, central)
        output = split(given.output[0][:, :length], heads)

        def back(z: Tensor) -> tuple:
            return F.pad(joined(z), (0, 0, 0, whole - length)), *given.output[1:]

        return Watched(q, k, v, by, output, back)


def _shared(window: Mask, central: Tensor) -> Mask:
    """The window and the global tokens (B, T), which need not be the same in all samples."""
    if not bool(central.any()):
        return window
    if bool((central == central[:1]).all()):
        return window | Global(tuple(central[0].nonzero().flatten().tolist()))
    return window | Marked(central) | Marked(central, "query")


def _with_own(module: nn.Module, x: Tensor, by: Masked, real: Tensor, central: Tensor) -> WithOwn:
    """The same, with the rows of global tokens (B, T), which see all that is real."""
    most = int(central.sum(1).max())
    order = central.int().argsort(dim=1, descending=True, stable=True)[:, :most]  # (B, G), global tokens first
    there = central.gather(1, order)
    places = order.masked_fill(~there, -1)
    among = x.gather(1, order[..., None].expand(-1, -1, x.shape[-1]))
    q = split(module.query_global(among), module.num_heads)
    k, v = (split(part(x), module.num_heads) for part in (module.key_global, module.value_global))
    allowed = Dense((there[..., None] & real[:, None])[:, None])  # (B, 1, G, K)
    return WithOwn(by, Masked(by.scale, allowed), places, q, k, v)


WATCHER = Sliding()
