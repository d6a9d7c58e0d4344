"""Ways to run one model that must not matter: training flags, gradient, asked-for weights, implementations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from headwise.interp.check.errors import handed


@dataclass(frozen=True)
class Mode:
    """How a run is made. The base is what inference uses: eval, no_grad."""

    train: bool = False  # dropout is stilled, and batch norms stay in eval but for ``statistics``
    grad: bool = False
    weights: bool = False  # attention weights are asked for
    ones: bool = False  # an attention mask of all ones is given instead of none
    statistics: bool = False  # in training, batch norms take the statistics of this batch
    eager: str | None = None  # another attention implementation

    def __str__(self) -> str:
        parts = ["train" if self.train else "eval", "grad" if self.grad else "no_grad"]
        parts += ["asked for weights"] * self.weights + ["mask of ones"] * self.ones
        parts += ["batch statistics"] * self.statistics
        return ", ".join(parts + ([self.eager] if self.eager else []))


BASE = Mode()


class Still(TorchFunctionMode):
    """Dropout as the identity, also where it is called as a function."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (F.dropout, torch.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout):
            return args[0] if args else kwargs["input"]
        if func is F.scaled_dot_product_attention:
            args = (*args[:4], 0.0, *args[5:]) if len(args) > 4 else args
            kwargs = {**kwargs, "dropout_p": 0.0} if len(args) <= 4 else kwargs
        if func is F.multi_head_attention_forward and len(args) > 10:
            args = (*args[:10], 0.0, *args[11:])
        return handed(func, *args, **kwargs)


class Doubled(TorchFunctionMode):
    """What asks for float32 by name gets float64."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        args = tuple(torch.float64 if a is torch.float32 else a for a in args)
        kwargs = {k: torch.float64 if v is torch.float32 else v for k, v in (kwargs or {}).items()}
        return handed(torch.Tensor.double if func is torch.Tensor.float else func, *args, **kwargs)


def other_modes(target) -> list[Mode]:
    """The modes worth trying beside the base; none where the caller wants the base alone."""
    if target.options.modes == "base":
        return []
    modes = [Mode(grad=True), Mode(train=True, grad=True)]
    modes += [Mode(weights=True)] if target.weight_flag else []
    modes += [Mode(ones=True)] if target.padding.name else []
    implementation = getattr(target.config, "_attn_implementation", None) if target.hugging else None
    if implementation in ("sdpa", "eager") and _can_switch(target.module):
        modes += [Mode(eager="eager" if implementation == "sdpa" else "sdpa")]
    return modes + [replace(m, ones=True) for m in modes if m.train and target.padding.name]


def batch_statistics(target) -> list[Mode]:
    """Training in which batch norms take the statistics of the batch, where there are any. Its answers differ from the
    others' by design; what an output may not see must not enter there either."""
    norms = [m for m in target.module.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
    tracked = any(m.track_running_stats for m in norms)
    return [Mode(train=True, grad=True, statistics=True)] if tracked and target.options.modes != "base" else []


def _can_switch(module: nn.Module) -> bool:
    """Can this Hugging Face model change its attention implementation after it was built?"""
    can = getattr(type(module), "_can_set_attn_implementation", None)
    return can is not None and bool(can()) and getattr(module, "_supports_sdpa", False)
