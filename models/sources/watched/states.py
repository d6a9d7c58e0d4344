"""What the watchers of linear attention and of states share."""

from __future__ import annotations

import torch
from torch import Tensor

from headwise.interp.attention.report import Mechanism

STATE = (
    "it goes on from a state in which earlier tokens are summed up, and what each of them was is no longer there: "
    "capture the whole text in one run"
)
OTHER = "its projections are not those of the library as it was published (quantised or adapted), so it is not read"


def goes_on(q: Tensor, k: Tensor, v: Tensor, by: Mechanism, output: Tensor) -> bool:
    """Whether the first query of a causal attention saw more than the first key: the tokens of an earlier run."""
    q, k, v, output = (t[:, :, :1].detach() for t in (q, k, v, output))
    rounding = 100 * torch.finfo(output.dtype).eps * output.abs().max()
    return float((by.output(q, k, v) - output).abs().max()) > max(1e-3 * float(output.abs().max()), float(rounding))


def ungated(product: Tensor, gate: Tensor, by: Mechanism, qkv: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """What was multiplied with ``gate`` to give ``product``, (B, H, Q, Dv) all. Where a gate is shut the product tells
    nothing of it, and it tells nothing to the model: there it is what the weights say."""
    shut = gate == 0
    if not bool(shut.any()):
        return product / gate
    return (product / gate.masked_fill(shut, 1)).where(~shut, by.output(*qkv).to(product.dtype))
