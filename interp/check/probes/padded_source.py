"""B for encoder-decoders: the decoder must not see padding of the source, nor how much there is."""

from __future__ import annotations

import torch
from torch import Tensor

from headwise.interp.attention.call import AttentionCall
from headwise.interp.check.bench import Bench
from headwise.interp.check.findings import found
from headwise.interp.check.gaps import gap
from headwise.interp.check.probes.sides import Side, side
from headwise.interp.check.report import Finding


def source(bench: Bench):
    target, b = bench.target, bench.batch - 1
    ids = target.feed.source[: bench.batch]
    length = ids.shape[1]
    made = side("right", (bench.batch, length), ids.device)
    other = torch.where(made.mask.bool(), ids, target.feed.other_ids(ids, seed=31))
    with target.beside(_given(ids, made.mask)):
        base, calls = bench.run(bench.x), bench.watched_calls()
    with target.beside(_given(other, made.mask)):
        effect = float(gap(base, bench.run(bench.x)).max())
    if effect > bench.rounding:
        yield _seen(made, length, next((c for c in calls if _sees_padding(c, made, length)), None), effect)
        return "content under the source's padding"
    n = made.lengths[b]
    with target.beside(lambda batch: {"input_ids": ids[b : b + 1, :n], "attention_mask": made.mask[b : b + 1, :n]}):
        worst, _ = bench.across(bench.run(bench.x[b : b + 1]), base[b : b + 1])
    if worst:
        yield found("source-length", probe="B", effect=worst, smallest={"source length": n, "padding": length - n})
    return "content under the source's padding, and a source alone"


def _given(ids: Tensor, mask: Tensor):
    return lambda batch: {"input_ids": ids[:batch], "attention_mask": mask[:batch]}


def _sees_padding(call: AttentionCall, made: Side, length: int) -> bool:
    """Does a real query of the last sample put weight on the source's padding?"""
    if call.keys != length:
        return False
    n = made.lengths[-1]
    weights = call.band(0, call.queries)[len(made.lengths) - 1][..., n:]  # (H, Q, padding)
    return bool((weights[..., : n if call.queries == length else None, :] > 0).any())


def _seen(made: Side, length: int, call: AttentionCall | None, effect: float) -> Finding:
    return found(
        "source-padding",
        probe="B",
        module=call.name if call else None,
        layer=call.layer if call else None,
        inside="attention" if call else "",
        effect=effect,
        smallest={"batch": 1, "source length": length, "padding": length - made.lengths[-1]},
    )
