"""AttnLRP: relevance that flows backwards through a transformer, each operation by a rule of its own (Achtibat et al.
2024, "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers").

Every rule is a change of the operation's gradient, and relevance is input × that gradient (§3.3, appendix A): what is
linear keeps its own. The rules are laid at torch's operations for this thread, so any model has them. They act on
modules that share the subject's numbers with gradients switched off: what has a gradient here depends on the input.

    softmax               its own gradient: a Taylor expansion with its bias (prop. 3.1)
    a · b, a @ b          of two that depend on the input: half of it to each (the uniform rule, props. 3.2, 3.3)
    x / size of x         all of it to x, nothing to its size (the identity rule, prop. 3.4): norms
    f(x), each number     out / x: all of it to x (the identity rule, eq. 9): activations, also written by hand
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from headwise.interp.analysis.attribution.copies import own_modules
from headwise.interp.analysis.attribution.model import Found, Job
from headwise.interp.errors import InputError
from headwise.interp.run.tap.mha import BODY
from headwise.interp.run.tap.places import named

TINY = 1e-9  # added to what is divided by, beside the largest number of the tensor
SAME = 1e-3  # how far the answer may be from the plain run's, relative to it, by rounding

BENDS = {  # functions of each number alone
    "relu", "relu6", "gelu", "silu", "mish", "tanh", "sigmoid", "softplus", "elu", "selu", "celu", "leaky_relu", "exp",
    "hardswish", "hardsigmoid", "hardtanh", "logsigmoid", "softsign", "erf", "square", "pow", "__pow__", "expit", "abs",
}  # fmt: skip
SIZES = {"rsqrt", "sqrt", "norm", "vector_norm", "std", "var"}  # what norms divide by
TIMES = {"mul", "multiply", "__mul__", "__rmul__"}
OVER = {"div", "divide", "true_divide", "__truediv__"}
PLUS = {"add", "__add__", "__radd__", "sub", "__sub__", "__rsub__", "rsub", "subtract"}
PRODUCTS = {"matmul", "bmm", "mm", "__matmul__", "__rmatmul__", "einsum", "addmm", "baddbmm", "addbmm"}


def attn_lrp(job: Job) -> Found:
    """Relevance of each unit: Σ x · ∂ value / ∂ x over its numbers, the gradient taken by the rules above."""
    subject = replace(job.cap.subject, module=own_modules(job.cap.subject))
    value = replace(job.features, cap=replace(job.cap, subject=subject)).forward(job.target)
    embedded = job.leaves()
    job.check()
    with torch.enable_grad(), Rules():
        found = value(*embedded)
    ruled = float(found.detach())
    if abs(ruled - value.plain) > SAME * max(abs(value.plain), 1.0):
        raise InputError(
            f"{job.cap.subject.name} gives {ruled:.4g} under the rules of AttnLRP and {value.plain:.4g} by "
            "itself, so the rules do not fit it. Use another method."
        )
    job.progress(0.5)
    job.check()
    gradients = torch.autograd.grad(found.sum(), embedded, allow_unused=True)
    parts = [torch.zeros_like(x) if g is None else x * g for x, g in zip(embedded, gradients, strict=True)]
    return Found(job.features.gathered(*parts).detach())


class Rules(TorchFunctionMode):
    """Inside, every operation has its value, and the gradient that its rule gives it."""

    def __init__(self):
        super().__init__()
        self.roots: WeakIdKeyDictionary = WeakIdKeyDictionary()  # tensor → what it is a function of, number by number

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in WHOLE:
            return WHOLE[func](self, func, *args, **kwargs)
        name = named(func)
        if name in PRODUCTS or name in TIMES:
            return self._product(name, func, args, kwargs)
        if name in BENDS:
            return self._bend(func, args, kwargs)
        if name in SIZES:
            return self._still(func(*args, **kwargs))
        if name in OVER and len(args) == 2 and all(map(_depends, args)):
            args = (args[0], args[1].detach())
        out = func(*args, **kwargs)
        if name in OVER or name in PLUS:
            self._carry(args, out)
        return out

    def _product(self, name: str, func: Callable, args: tuple, kwargs: dict):
        """Half of the relevance to either side; all of it to x where both are functions of one x, number by number."""
        dependent = [t for t in _tensors(args) if _depends(t)]
        if name in ("addmm", "baddbmm", "addbmm"):
            dependent = [t for t in _tensors(args[1:]) if _depends(t)]
        if len(dependent) < 2:
            out = func(*args, **kwargs)
            if name in TIMES:
                self._carry(args, out)
            return out
        if name in TIMES and (root := self._common_root(dependent)) is not None:
            out = func(*(_still_of(a) for a in args), **kwargs)
            return self._by_ratio(root, out)
        share, whole = {id(t): _Shared.apply(t, len(dependent)) for t in dependent}, name.startswith("add")
        args = tuple(
            arg if whole and not place else _replaced(arg, share)  # what is added to a product is none of its sides
            for place, arg in enumerate(args)
        )
        return func(*args, **kwargs)

    def _bend(self, func: Callable, args: tuple, kwargs: dict):
        """f(x): all of the relevance to x, or to what x is itself such a function of."""
        given = args[0] if args else kwargs.get("input")
        if not isinstance(given, Tensor) or not given.requires_grad or any(map(_depends, args[1:])):
            return func(*args, **kwargs)
        kwargs = {key: False if key == "inplace" else value for key, value in kwargs.items()}
        out = func(*(_still_of(a) for a in args), **{key: _still_of(value) for key, value in kwargs.items()})
        return self._by_ratio(self._root(given), out)

    def _by_ratio(self, root: Tensor, out: Tensor) -> Tensor:
        """``out`` as a function of ``root`` whose gradient is their ratio."""
        still = root.detach()
        small = TINY * max(float(still.abs().amax()), 1.0)
        ratio = out / torch.where(still.abs() < small, torch.where(still < 0, -small, small), still)
        made = _Ratio.apply(root, out, ratio)
        self.roots[made] = root
        return made

    def _carry(self, args: tuple, out) -> None:
        """A sum with a number, or a product with one, is still a function of each number alone; so is a sum of two
        such functions of one tensor."""
        dependent = [t for t in _tensors(args) if _depends(t)]
        constant = [t for t in _tensors(args) if not _depends(t) and t.numel() > 1]
        if not isinstance(out, Tensor) or constant or not dependent:
            return
        root = self._common_root(dependent)
        if root is not None and root.shape == out.shape:
            self.roots[out] = root

    def _root(self, t: Tensor) -> Tensor:
        return self.roots.get(t, t)

    def _common_root(self, tensors: list[Tensor]) -> Tensor | None:
        roots = [self._root(t) for t in tensors]
        same = all(root is roots[0] and root.shape == t.shape for root, t in zip(roots, tensors, strict=True))
        return roots[0] if same else None

    @staticmethod
    def _still(out):
        return tuple(map(_still_of, out)) if isinstance(out, tuple) else _still_of(out)


# -- operations that are several steps in one --------------------------------------------------------------------------
def _layer_norm(rules, func, input, normalized_shape, weight=None, bias=None, eps=1e-5):
    axes = tuple(range(-len(normalized_shape), 0))
    centred = input - input.mean(axes, keepdim=True)
    size = (centred.detach().square().mean(axes, keepdim=True) + eps).sqrt()
    return _affine(func(input.detach(), normalized_shape, weight, bias, eps), centred / size, weight, bias)


def _rms_norm(rules, func, input, normalized_shape, weight=None, eps=None):
    axes = tuple(range(-len(normalized_shape), 0))
    least = torch.finfo(input.dtype).eps if eps is None else eps
    size = (input.detach().square().mean(axes, keepdim=True) + least).sqrt()
    return _affine(func(input.detach(), normalized_shape, weight, eps), input / size, weight, None)


def _affine(value: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    x = x if bias is None else x + bias
    return _Valued.apply(x, value)


def _normalize(rules, func, input, p=2.0, dim=1, eps=1e-12, out=None):
    size = input.detach().norm(p, dim, keepdim=True).clamp_min(eps)
    return input / size


def _attention(rules, func, query, key, value, *rest, **more):
    """Two products: of weights and values, and within the weights of queries and keys."""
    weighed = _depends(query) or _depends(key)
    value = _Shared.apply(value, 2) if weighed and _depends(value) else value
    outer = 2 if _depends(value) else 1
    inner = 2 if _depends(query) and _depends(key) else 1
    query, key = (_Shared.apply(t, outer * inner) if _depends(t) else t for t in (query, key))
    return func(query, key, value, *rest, **more)


def _heads(rules, func, *args, **kwargs):
    with rules:  # torch switched the rules off for us: they hold inside as well
        return BODY(*args, **kwargs)


WHOLE = {
    F.layer_norm: _layer_norm,
    torch.layer_norm: lambda rules, func, x, shape, weight=None, bias=None, eps=1e-5, *rest: _layer_norm(
        rules, F.layer_norm, x, shape, weight, bias, eps
    ),
    F.rms_norm: _rms_norm,
    torch.rms_norm: _rms_norm,
    F.normalize: _normalize,
    F.scaled_dot_product_attention: _attention,
    F.multi_head_attention_forward: _heads,
}


# -- gradients ---------------------------------------------------------------------------------------------------------
class _Shared(torch.autograd.Function):
    """x, with one share in so many of its gradient."""

    @staticmethod
    def forward(ctx, x, count):
        ctx.count = count
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient / ctx.count, None


class _Ratio(torch.autograd.Function):
    """``out``, with ``ratio`` as its gradient by x."""

    @staticmethod
    def forward(ctx, x, out, ratio):
        ctx.save_for_backward(ratio)
        return out.view_as(out)

    @staticmethod
    def backward(ctx, gradient):
        (ratio,) = ctx.saved_tensors
        return gradient * ratio, None, None


class _Valued(torch.autograd.Function):
    """``value``, with the gradient of x."""

    @staticmethod
    def forward(ctx, x, value):
        return value.view_as(value)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def _depends(value) -> bool:
    """Whether it depends on the input."""
    return isinstance(value, Tensor) and value.requires_grad


def _still_of(value):
    return value.detach() if isinstance(value, Tensor) else value


def _tensors(args) -> list[Tensor]:
    """Those among arguments, also in a list of operands."""
    flat = [t for arg in args for t in (arg if isinstance(arg, list | tuple) else (arg,))]
    return [t for t in flat if isinstance(t, Tensor)]


def _replaced(arg, by: dict[int, Tensor]):
    if isinstance(arg, list | tuple):
        return type(arg)(by.get(id(t), t) for t in arg)
    return by.get(id(arg), arg)
