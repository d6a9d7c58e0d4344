"""J: the gradient of what comes before a cut to the embeddings after it. Blind to hard choices, so P runs too."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from headwise.interp.check.bench import Bench
from headwise.interp.check.errors import DoesNotApply, handed, theirs
from headwise.interp.check.findings import found
from headwise.interp.check.target import Batch, Mode

SMALL = 1e-6  # of the largest gradient: rounding


@dataclass
class Steepest:
    """The largest gradient to an input that an output may not see."""

    size: float = 0.0
    scale: float = 0.0  # the largest gradient of all
    query: int = 0
    changed: int = 0


def gradient(bench: Bench):
    bench.only_promised()
    bench.only_without()
    if not bench.out.is_floating_point():
        raise DoesNotApply("the output has no gradient")
    x = bench.x[:1] if bench.expect.batch is None else bench.x
    entry, out = _entry(bench, x)
    queries = [q for q in bench.queries(0.04) if not bool(bench.reach[0, q].all())]
    worst = _steepest(bench, entry, out, queries)
    if worst.scale and worst.size / worst.scale > SMALL:
        yield found(
            "gradient",
            cls="" if worst.changed > worst.query else "window",
            probe="J",
            effect=worst.size / worst.scale,
            smallest={"query": worst.query, "changed": worst.changed},
            query=worst.query,
            changed=worst.changed,
        )
    return f"{len(queries)} outputs"


def _entry(bench: Bench, x: Batch) -> tuple[Tensor, Tensor]:
    """(the tensor that gradients are taken to, the output): the input itself, or what its embedding made of it."""
    if bench.target.feed.alphabet is None:
        leaf = x.first.detach().clone().requires_grad_()
        out = bench.run(replace(x, parts=(leaf, *x.parts[1:])), mode=Mode(grad=True))
    else:
        leaf, out = _embedded(bench, x)
    if leaf is None or not out.requires_grad:
        raise DoesNotApply("no gradient flows from the output to the inputs")
    return leaf, out


def _embedded(bench: Bench, x: Batch) -> tuple[Tensor | None, Tensor]:
    entry: list[Tensor] = []

    def leaf(module, args, output):
        if not entry and isinstance(output, Tensor) and output.ndim >= 3 and bench.length in output.shape[:2]:
            entry.append(output.detach().requires_grad_())
            return entry[0]
        return None

    hook = _embedding(bench).register_forward_hook(leaf)
    try:
        out = bench.run(x, mode=Mode(grad=True))
    finally:
        hook.remove()
    return (entry[0] if entry else None), out


def _embedding(bench: Bench) -> nn.Module:
    target = bench.target
    tables = [
        m
        for m in target.module.modules()
        if isinstance(m, nn.Embedding) and m.num_embeddings >= len(target.feed.alphabet)
    ]
    if target.hugging:
        tables = [target.module.get_input_embeddings()]
    if target.decodes_a_source or not tables:
        raise DoesNotApply("no embedding of the sequence was found to take the gradient at")
    return tables[0]


def _steepest(bench: Bench, entry: Tensor, out: Tensor, queries: list[int]) -> Steepest:
    g = torch.Generator().manual_seed(5)
    direction = torch.randn(out.shape, generator=g).to(out)
    worst = Steepest()
    for query in queries:
        bench.target.deadline()
        with theirs():  # backward runs the model's operations
            (slope,) = handed(
                torch.autograd.grad,
                (out[0, query] * direction[0, query]).sum(),
                entry,
                retain_graph=True,
                allow_unused=True,
            )
        if slope is None:
            continue
        size = _time_first(bench, slope).abs().flatten(1).amax(-1).cpu()  # (T,)
        worst.scale = max(worst.scale, float(size.max()))
        beyond = size.masked_fill(bench.reach[0, query], 0)
        if float(beyond.max()) > worst.size:
            worst.size, worst.query, worst.changed = float(beyond.max()), query, int(beyond.argmax())
    return worst


def _time_first(bench: Bench, slope: Tensor) -> Tensor:
    """The gradient of sample 0 → (T, F)."""
    if bench.target.feed.alphabet is not None and slope.shape[1] != bench.length:
        slope = slope.transpose(0, 1)
    return slope[0].reshape(slope.shape[1], -1)
