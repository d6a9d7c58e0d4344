"""``Tap``: torch itself calls it for every operation of this thread inside ``with``, under whatever name the model
imported the operation, and for no other thread.

Module hooks only say *where* an operation happened. While the mode is on, torch also refuses the fused eval path of
nn.TransformerEncoder, which calls no Python attention.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from headwise.interp.attention.report import attend
from headwise.interp.run.tap import byhand, flex, mha, products, reported, sdpa
from headwise.interp.run.tap.places import named
from headwise.interp.run.tap.recorder import Recorder


class Tap(TorchFunctionMode):
    """The mode: hands attention's operations to their handlers and everything else straight to torch."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder
        self.softmaxes: WeakIdKeyDictionary = WeakIdKeyDictionary()  # tensor → what it carries of a softmax
        self.products: WeakIdKeyDictionary = WeakIdKeyDictionary()  # tensor → the product it may be the scores of
        self.mha_heads: int | None = None  # set while inside nn.MultiheadAttention
        self.mha_kind = "self"

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if (seam := self.recorder.seam) is not None and seam.concerns(func, kwargs):
            return seam.through(self.operation, func, self.recorder.visit, args, kwargs)
        return self.operation(func, args, kwargs)

    def operation(self, func, args: tuple, kwargs: dict):
        """One operation, seen where it is attention's."""
        if (watch := self.recorder.watched) is not None:
            out = func(*args, **kwargs)
            watch.keep(named(func), args, kwargs, out)
            return out
        handler = HANDLERS.get(func)
        if handler is None and isinstance(func, HigherOrderOperator) and func.name() == "flex_attention":
            handler = flex.attention
        if handler is not None:
            return handler(self, func, *args, **kwargs)
        out = func(*args, **kwargs)
        if self.softmaxes.data and isinstance(out, Tensor | tuple | list):
            byhand.carry_on(self, func, [*args, *kwargs.values()], out)
        if self.products.data or func in FUSED:
            products.follow(self, func, args, kwargs, out)
        return out

    def place(self) -> tuple[str, str]:
        """(module path, "self" | "cross") of a call that is made now."""
        return self.recorder.where, self.mha_kind if self.mha_heads else self.recorder.kind

    def four(self, t: Tensor) -> Tensor:
        """Any attention layout → (B, H, rows, columns)."""
        if t.ndim == 4:
            return t
        if t.ndim == 2:
            return t[None, None]
        if t.ndim == 3:
            batch = self.recorder.batch
            heads = self.mha_heads or (t.shape[0] // batch if t.shape[0] % batch == 0 else 1)
            return t.reshape(t.shape[0] // heads, heads, *t.shape[1:])
        return t.reshape(-1, *t.shape[-3:])


FUSED = {torch.baddbmm, Tensor.baddbmm}
HANDLERS = {
    F.scaled_dot_product_attention: sdpa.attention,
    F.multi_head_attention_forward: mha.attention,
    attend: reported.attention,
    **dict.fromkeys((F.softmax, torch.softmax, Tensor.softmax, torch.special.softmax), byhand.softmax),
    **dict.fromkeys((F.dropout, torch.dropout), byhand.dropout),
    **dict.fromkeys(
        (torch.matmul, torch.bmm, torch.mm, Tensor.matmul, Tensor.bmm, Tensor.mm, Tensor.__matmul__), byhand.product
    ),
    torch.einsum: byhand.einsum,
}
