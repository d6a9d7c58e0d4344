"""Listening at the operations every transformer must pass: SDPA, nn.MultiheadAttention, softmax.

``Tap`` is a torch function mode: torch itself calls it for every operation of this thread inside ``with``, under
whatever name the model imported the operation, and for no other thread. Module hooks only say *where* an operation
happened. While the mode is on, torch also refuses the fused eval path of nn.TransformerEncoder, which calls no
Python attention.

Attention written by hand is recognised by what is done, not by names: a softmax whose result, whole, is then
multiplied onto values. A softmax inside an attention module that is cut up first (block-sparse, banded, bucketed)
is not dense attention: such a module ends in ``unseen`` with the reason, never in ``calls`` with wrong axes.
"""

from __future__ import annotations

import inspect
import math
import re
import sys
import threading
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from types import FunctionType

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch.nn.modules.module import (
    _global_forward_hooks_with_kwargs,
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from headwise.interp.attention.call import AttentionCall

ATTENTION_LIKE = re.compile(
    r"att(entio)?n(?!.*(output|norm))|reformer.*hash|mixer2?$|^mamba2?$|t(ime)?_?mix", re.IGNORECASE
)
CROSS_NAME = re.compile(r"cross|encoder_att|encdec|multihead_attn|src_att|enc_att", re.IGNORECASE)
CROSS_ARGUMENTS = {"key", "kv", "key_value_states", "encoder_hidden_states", "context", "memory", "cross_states"}
STACK_WORDS = re.compile(r"enc|dec|text|vision|visual|audio|image|speech", re.IGNORECASE)


@dataclass(frozen=True)
class Unseen:
    """An attention-like module that ran, or should have, and gave no call."""

    name: str
    type: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.type}): {self.reason}"


@dataclass
class _Softmax:
    """A softmax that may turn out to be attention once its result meets the values."""

    scores: Tensor
    weights: Tensor  # the result, or what elementwise operations have since made of it
    shape: torch.Size
    dim: int
    used: bool = False


@dataclass
class _Frame:
    """One running module."""

    module: nn.Module
    name: str | None
    calls: list[int] = field(default_factory=list)  # indices into Recorder.calls made directly here
    softmaxes: list[_Softmax] = field(default_factory=list)


class Recorder:
    """What one thread's run has shown so far. Plain data; read it when the run is over."""

    def __init__(
        self, root: nn.Module, batch: int = 1, watch: frozenset[str] = frozenset(), keep_calls: bool = True, edits=None
    ):
        self.names = {id(m): name for name, m in root.named_modules()}
        self.root = root
        self.batch = batch
        self.watch = watch  # module names whose input and output are kept
        self.keep_calls = keep_calls
        self.edits = edits or {}  # (module path, occurrence) → edits made there
        self.calls: list[AttentionCall] = []
        self.frames: list[_Frame] = []
        self.ran: dict[str, nn.Module] = {}  # attention-like modules that ran
        self.refused: dict[str, str] = {}  # module path → why its softmax is no dense attention
        self.kept: dict[str, tuple[tuple, object]] = {}  # watched name → (inputs, output) of its last run
        self.visits: dict[str, int] = {}

    # -- where ----------------------------------------------------------------------------------------------------
    def enter(self, module: nn.Module) -> None:
        name = self.names.get(id(module))
        self.frames.append(_Frame(module, name))
        if name is not None and ATTENTION_LIKE.search(type(module).__name__):
            self.ran[name] = module

    def leave(self, module: nn.Module, args: tuple, kwargs: dict, output) -> None:
        while self.frames:  # a module that swallowed a child's exception leaves the child's frame behind: drop it too
            frame = self.frames.pop()
            if frame.module is module:
                break
        else:
            return
        if frame.name in self.watch:
            self.kept[frame.name] = (args or tuple(kwargs.values()), output)
        lost = [s for s in frame.softmaxes if not s.used]
        if frame.name is not None and ATTENTION_LIKE.search(type(module).__name__):
            if any(len(s.shape) >= 4 for s in lost):
                self.refused[frame.name] = (
                    "its softmax is not over a dense query × key matrix (block-sparse, banded or bucketed)"
                )
        elif self.frames:  # nn.Softmax, or a helper module: the product with the values may come in the parent
            self.frames[-1].softmaxes += lost
        if frame.calls and _attends_elsewhere(module, args, kwargs):
            for index in frame.calls:
                self.calls[index] = replace(self.calls[index], kind="cross")

    @property
    def where(self) -> str:
        """Path of the innermost running module that belongs to the root."""
        return next((f.name for f in reversed(self.frames) if f.name is not None), "")

    def edits_here(self) -> list:
        return self.edits.get((self.where, self.visits.get(self.where, 0)), [])

    def add(self, call: AttentionCall) -> None:
        occurrence = self.visits.get(call.name, 0)
        self.visits[call.name] = occurrence + 1
        if self.keep_calls:
            if self.frames:
                self.frames[-1].calls.append(len(self.calls))
            self.calls.append(replace(call, occurrence=occurrence))

    # -- once the run is over -------------------------------------------------------------------------------------
    def finished(self, default_stack: str) -> tuple[list[AttentionCall], list[Unseen]]:
        """Numbered calls, and the attention-like modules without one (the outermost of each nest)."""
        calls = [c for c in self.calls if not any(_within(c.name, refused) for refused in self.refused)]
        unseen = []
        for name, module in sorted(self.ran.items(), key=lambda item: item[0] == ""):  # the root last: it tells least
            related = [c.name for c in calls] + [u.name for u in unseen]
            if any(_within(other, name) or _within(name, other) for other in related):
                continue
            inner = next((why for path, why in self.refused.items() if _within(path, name)), None)
            reason = inner or "it ran, but no softmax over keys met values (linear, recurrent or fused attention)"
            unseen.append(Unseen(name, type(module).__name__, reason))
        for name, module in self.root.named_modules():
            if isinstance(module, torch.jit.ScriptModule) and not any(_within(c.name, name) for c in calls):
                unseen.append(
                    Unseen(name, type(module).__name__, "TorchScript runs outside Python; capture the original module")
                )
            elif isinstance(module, nn.MultiheadAttention) and name not in self.ran:
                unseen.append(Unseen(name, type(module).__name__, "it did not run for this input"))
        return _number(calls, default_stack), unseen


_recorder: ContextVar[Recorder | None] = ContextVar("headwise_recorder", default=None)
_lock = threading.Lock()
_listeners = 0
_hooks: list = []


def _before(module, args):
    if (recorder := _recorder.get()) is not None:
        recorder.enter(module)


def _after(module, args, kwargs, output=None):  # when forward raised, torch leaves kwargs out
    if (recorder := _recorder.get()) is not None:
        recorder.leave(module, args, kwargs or {}, output)


@contextmanager
def listen(recorder: Recorder, *, operations: bool = True):
    """Record this thread's run of ``recorder.root``. Hooks are torch's global ones, there only while some thread
    listens; other threads pass through them untouched, and the last one out removes them, also after an exception.
    As long as they are there, what torch.compile made runs as it was written: compiled code would hide its
    operations. Without ``operations`` only modules are watched, and torch's fused paths stay as they are."""
    global _listeners
    if _recorder.get() is not None:
        raise RuntimeError("This thread is already capturing a run. Finish that capture before starting another.")
    with _lock:
        if _listeners == 0:
            if "torch._dynamo" in sys.modules:  # else nothing was compiled, and importing the compiler takes a second
                _hooks.append(_Uncompiled())
            _hooks.append(register_module_forward_pre_hook(_before))
            _hooks.append(register_module_forward_hook(_after, with_kwargs=True, always_call=True))
        _listeners += 1
    token = _recorder.set(recorder)
    try:
        with Tap(recorder) if operations else nullcontext():
            yield recorder
    finally:
        _recorder.reset(token)
        with _lock:
            _listeners -= 1
            if _listeners == 0:
                while _hooks:
                    hook = _hooks.pop()
                    hook.remove()
                    _global_forward_hooks_with_kwargs.pop(getattr(hook, "id", None), None)  # remove() forgets it


class _Uncompiled:
    """torch.compile's stance "force_eager" until removed. The stance is one for all threads."""

    def __init__(self):
        self.stance = torch.compiler.set_stance("force_eager")

    def remove(self) -> None:
        self.stance.__exit__(None, None, None)


class Tap(TorchFunctionMode):
    """The mode itself: hands attention's operations to their handlers and everything else straight to torch."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder
        # tensor → the _Softmax it carries on, and whether its last two axes are the softmax's exchanged (None:
        # otherwise moved)
        self.softmaxes: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.mha_heads: int | None = None  # set while inside nn.MultiheadAttention
        self.mha_kind = "self"

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        handler = _HANDLERS.get(func)
        if handler is None and isinstance(func, HigherOrderOperator) and func.name() == "flex_attention":
            handler = Tap.flex
        if handler is not None:
            return handler(self, func, *args, **kwargs)
        out = func(*args, **kwargs)
        if self.softmaxes and isinstance(out, Tensor):
            self._carry_on(args, out)
        return out

    def _carry_on(self, args, out: Tensor) -> None:
        """A tensor of the same size made from a softmax still is those weights: reshaped, cast, scaled, transposed."""
        for arg in args:
            found = self.softmaxes.get(arg) if isinstance(arg, Tensor) else None
            if found is not None and out.numel() == arg.numel():
                (carried, flipped), turned = found, _turned(arg, out)
                self.softmaxes[out] = carried, None if flipped is None or turned is None else flipped != turned
                if arg is carried.weights and out.shape == arg.shape and turned is False and out.is_floating_point():
                    carried.weights = out
                return

    # -- handlers -------------------------------------------------------------------------------------------------
    def sdpa(
        self, func, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    ):
        q, k, v = (self._four(t) for t in (query, key, value))  # (B, H, Q, D), (B, Hk, K, D), (B, Hk, K, Dv)
        m = attn_mask
        if m is not None and m.ndim > 2 and query.ndim != 4:
            m = self._four(m.expand(*query.shape[:-1], key.shape[-2]))
        name, here = self.recorder.where, self.recorder.edits_here()
        if here:
            for edit in here:
                m, is_causal = edit.mask(m, is_causal, q, k)
            m = m.to(q.dtype) if m is not None and m.is_floating_point() else m
            out = func(q, k, v, m, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa).clone()  # (B, H, Q, Dv)
            for edit in here:
                out = edit.output(out)
            out = out.reshape(*query.shape[:-1], value.shape[-1])
        else:
            out = func(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
        kind, seen = (self.mha_kind, "mha") if self.mha_heads else (_kind(name), "sdpa")
        factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        self.recorder.add(AttentionCall(name, kind, seen, q.detach(), k.detach(), v.detach(), factor, m, is_causal))
        return out

    def flex(self, func, query, key, value, score_mod, block_mask, scale, *rest):
        """torch.nn.attention.flex_attention, run uncompiled: (query, key, value, …) → (out, logsumexp, max)."""
        _, score_buffers, mask_buffers = rest  # after the kernel's options, what the two functions closed over
        out, *statistics = func(query, key, value, score_mod, block_mask, scale, *rest)
        modify = _flex_scores(score_mod, score_buffers, block_mask[-1], mask_buffers)
        k, v = (t.detach().expand(query.shape[0], *t.shape[1:]) for t in (key, value))
        name, here = self.recorder.where, self.recorder.edits_here()
        call = AttentionCall(name, _kind(name), "flex", query.detach(), k, v, scale, modify=modify)
        self.recorder.add(call)
        if here:
            weights, scores = call.band(0, call.queries), call._scores(0, call.queries, slice(None))
            for edit in here:
                weights = edit.weights(weights, scores)
            out = (weights @ v.float().repeat_interleave(call.heads // call.kv_heads, 1)).to(out.dtype)
        return out, *statistics

    def mha(self, func, query, key, value, embed_dim, num_heads, *args, **kwargs):
        outer, self.mha_heads, self.mha_kind = (
            (self.mha_heads, self.mha_kind),
            num_heads,
            "self" if _same(query, key) else "cross",
        )
        try:
            with self:  # torch switched the mode off for us: listen inside as well
                return _MHA_BODY(query, key, value, embed_dim, num_heads, *args, **kwargs)
        finally:
            self.mha_heads, self.mha_kind = outer

    def softmax(self, func, input, dim=None, *args, **kwargs):
        out = func(input, dim, *args, **kwargs) if dim is not None else func(input, *args, **kwargs)
        if dim is None or input.ndim < 2 or not input.is_floating_point():
            return out
        seen = _Softmax(input, out, out.shape, dim % out.ndim)
        self.softmaxes[out] = seen, False
        if self.recorder.frames:
            self.recorder.frames[-1].softmaxes.append(seen)
        return out

    def dropout(self, func, input, *args, **kwargs):
        """Attention weights are those before dropout."""
        out = func(input, *args, **kwargs)
        if (found := self.softmaxes.get(input)) is not None:
            self.softmaxes[out] = found
        return out

    def product(self, func, *operands, **kwargs):
        """weights @ values, or valuesᵀ @ weightsᵀ: the axis summed out must be the softmax's own."""
        left, right, *rest = (*operands, *(kwargs.pop(n) for n in ("input", "other", "mat2") if n in kwargs))
        if self._sums_softmax(left, -1) and not _is_parameter(right):
            carried, flipped = self.softmaxes[left]
            left = self._observe(carried, left, flipped, v=right)
        elif self._sums_softmax(right, -2) and not _is_parameter(left):
            carried, flipped = self.softmaxes[right]
            right = self._observe(carried, right.mT, not flipped, v=left.mT).mT
        return func(left, right, *rest, **kwargs)

    def einsum(self, func, equation, *operands, **kwargs):
        operands = list(operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands)
        if isinstance(equation, str) and len(operands) == 2:
            for side, weights in enumerate(operands):
                carried, flipped = self.softmaxes.get(weights, (None, None))
                values = operands[1 - side]
                if flipped is not False or carried.used or weights.shape != carried.shape or _is_parameter(values):
                    continue
                order = _attention_axes(equation, side == 1, weights.ndim, values.ndim)
                if order is not None and order[-1] == carried.dim:
                    seen = self._observe(carried, weights.permute(order), order=order)
                    operands[side] = seen.permute(_inverse(order))
        return func(equation, *operands, **kwargs)

    # -- attention by hand ----------------------------------------------------------------------------------------
    def _sums_softmax(self, t: Tensor, summed: int) -> bool:
        """Are these dense attention weights about to be summed over the axis that their softmax normalised?"""
        carried, flipped = self.softmaxes.get(t, (None, None))
        if carried is None or carried.used or not 2 <= t.ndim <= 4:
            return False
        if len(carried.shape) == 2 and t.ndim == 3:  # (B, K) made (B, 1, K): one query a sample
            pooled = t.shape[0] == carried.shape[0] == self.recorder.batch
            return pooled and carried.dim == 1 and t.shape[summed] == carried.shape[1]
        axis = carried.dim - len(carried.shape)
        return flipped is not None and summed == (-3 - axis if flipped else axis)

    def _observe(
        self,
        carried: _Softmax,
        t: Tensor,
        flipped: bool | None = False,
        v: Tensor | None = None,
        order: tuple[int, ...] | None = None,
    ) -> Tensor:
        """Record weights that arrive as t (…, query, key): the softmax's result flipped and reshaped, or permuted by
        ``order``. Returns t, or what edits make of it.
        """
        carried.used = True
        kept = carried.weights, carried.scores  # before dropout, so not t itself
        if order is not None:
            weights, scores = (x.permute(order) for x in kept)
        else:
            weights, scores = ((x.mT if flipped and x.ndim == t.ndim else x).reshape(t.shape) for x in kept)
        heads_first = order is not None and t.ndim == 4 and t.shape[0] != self.recorder.batch == t.shape[1]
        four_w, four_s = (self._four(x.transpose(0, 1) if heads_first else x) for x in (weights, scores))
        four_v = self._four(v).detach() if v is not None and v.ndim >= 2 else None
        if four_v is not None and (four_v.shape[0] != four_w.shape[0] or four_w.shape[1] % four_v.shape[1]):
            four_v = None
        name, here = self.recorder.where, self.recorder.edits_here()
        kind, seen = (self.mha_kind, "mha") if self.mha_heads else (_kind(name), "softmax")
        self.recorder.add(
            AttentionCall(
                name, kind, seen, None, None, four_v, seen_weights=four_w.detach(), seen_scores=four_s.detach()
            )
        )
        if not here:
            return t
        for edit in here:
            four_w = edit.weights(four_w, four_s)
        edited = four_w.transpose(0, 1) if heads_first else four_w
        return edited.reshape(t.shape).to(t.dtype)

    def _four(self, t: Tensor) -> Tensor:
        """Any attention layout → (B, H, rows, columns)."""
        if t.ndim == 4:
            return t
        if t.ndim == 2:
            return t[None, None]
        if t.ndim == 3:
            heads = self.mha_heads or (
                t.shape[0] // self.recorder.batch if t.shape[0] % self.recorder.batch == 0 else 1
            )
            return t.reshape(t.shape[0] // heads, heads, *t.shape[1:])
        return t.reshape(-1, *t.shape[-3:])


# F.multi_head_attention_forward first asks whether a mode listens, and if so hands itself over to it. This is the same
# function without the question, so that the mode can listen to what happens inside.
_MHA_BODY = FunctionType(
    F.multi_head_attention_forward.__code__,
    {**F.multi_head_attention_forward.__globals__, "has_torch_function": lambda tensors: False},
    argdefs=F.multi_head_attention_forward.__defaults__,
)

_HANDLERS = {
    F.scaled_dot_product_attention: Tap.sdpa,
    F.multi_head_attention_forward: Tap.mha,
    **dict.fromkeys((F.softmax, torch.softmax, Tensor.softmax, torch.special.softmax), Tap.softmax),
    **dict.fromkeys((F.dropout, torch.dropout), Tap.dropout),
    **dict.fromkeys(
        (torch.matmul, torch.bmm, torch.mm, Tensor.matmul, Tensor.bmm, Tensor.mm, Tensor.__matmul__), Tap.product
    ),
    torch.einsum: Tap.einsum,
}


def _flex_scores(score_mod, score_buffers: tuple, mask_mod, mask_buffers: tuple):
    """flex_attention's two functions of one (b, h, q, k) → one function of a block of scores (B, H, R, K)."""
    from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex
    from torch.nn.attention.flex_attention import _vmap_for_bhqkv

    score_all = _vmap_for_bhqkv(score_mod, prefix=(0,), suffix=(None,) * len(score_buffers))
    mask_all = _vmap_for_bhqkv(mask_mod, prefix=(), suffix=(None,) * len(mask_buffers))

    def modify(scores: Tensor, *index: Tensor) -> Tensor:
        with TransformGetItemToIndex():
            return torch.where(mask_all(*index, *mask_buffers), score_all(scores, *index, *score_buffers), -math.inf)

    return modify


def _attention_axes(equation: str, flip: bool, weight_axes: int, value_axes: int) -> tuple[int, ...] | None:
    """Axes of the weights operand as (batch…, query, key), read off an einsum of weights and values, or None.

    The key letter is summed out, the query letter is in weights and result but not in the values, the others are batch.

    >>> _attention_axes("ijbn,jbnd->ibnd", False, 4, 4)
    (2, 3, 0, 1)
    >>> _attention_axes("... i j, ... j d -> ... i d", False, 4, 4)
    (0, 1, 2, 3)
    """
    equation = equation.replace(" ", "")
    if equation.count("->") != 1:
        return None
    inputs, result = equation.split("->")
    weights, values = inputs.split(",")[::-1] if flip else inputs.split(",")
    terms = (weights, weight_axes), (values, value_axes)
    hidden = [axes - len(term) + 3 if "..." in term else 0 for term, axes in terms]
    letters = "0123456789"[: max(0, *hidden)]  # the axes an ellipsis stands for, aligned at the right
    weights, values = (
        term.replace("...", letters[len(letters) - n :]) for (term, _), n in zip(terms, hidden, strict=True)
    )
    result = result.replace("...", letters)
    key = [c for c in weights if c in values and c not in result]
    query = [c for c in weights if c in result and c not in values]
    batch = [c for c in weights if c in result and c in values]
    if len(key) != 1 or len(query) != 1 or len(batch) > 2 or len(weights) != len(batch) + 2:
        return None
    return tuple(weights.index(c) for c in (*batch, *query, *key))


def _inverse(order: tuple[int, ...]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)


def _turned(arg: Tensor, out: Tensor) -> bool | None:
    """Did the operation that made ``out`` exchange the last two axes of ``arg``? None: it did something else to
    them."""
    ours, theirs = (list(zip(t.shape, t.stride(), strict=True))[-2:] for t in (out, arg))
    if out.untyped_storage().data_ptr() != arg.untyped_storage().data_ptr():  # a copy, element by element or reshaped
        return False if out.shape[-2:] == arg.shape[-2:] else None
    return False if ours == theirs else True if ours == theirs[::-1] else None


def _is_parameter(t: Tensor) -> bool:
    """Values are what positions say; a weighted sum of a model's own parameters (a soft embedding) is no attention."""
    return isinstance(t, nn.Parameter) or isinstance(t._base, nn.Parameter)


def _kind(name: str) -> str:
    return "cross" if CROSS_NAME.search(name) else "self"


def _attends_elsewhere(module: nn.Module, args: tuple, kwargs: dict) -> bool:
    """Was the module called with another sequence to take keys from?"""
    try:
        given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return False
    given = {**given, **given.get("kwargs", {})}
    queries = next((v for v in given.values() if isinstance(v, Tensor)), None)
    return any(isinstance(given.get(a), Tensor) and not _same(queries, given[a]) for a in CROSS_ARGUMENTS)


def _same(query: Tensor, key: Tensor) -> bool:
    """One sequence, also when it was computed twice, as in ``attention(norm(x), norm(x), norm(x))``."""
    return query is key or (query.shape == key.shape and torch.equal(query, key))


def _within(inner: str, outer: str) -> bool:
    return inner == outer or outer == "" or inner.startswith(outer + ".")


def _number(calls: list[AttentionCall], default_stack: str) -> list[AttentionCall]:
    """Give each call its stack and its layer: the one number in its path, or, where that does not tell calls of a stack
    apart (shared layers, nested numbers), the order in which they ran."""
    stacks: dict[str, list[AttentionCall]] = {}
    for call in calls:
        parts = call.name.split(".")
        first = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts))
        words = [part for part in parts[:first] if STACK_WORDS.match(part)]
        side = ".".join(w.removesuffix("_model") for w in words) or default_stack
        stacks.setdefault("cross" if call.kind == "cross" else side, []).append(call)
    numbered: dict[int, AttentionCall] = {}
    for stack, members in stacks.items():
        digits = [[int(p) for p in c.name.split(".") if p.isdigit()] for c in members]
        layers = [d[0] for d in digits if len(d) == 1]
        plain = len(layers) == len(members) == len(set(layers))
        for order, call in enumerate(members):
            numbered[id(call)] = replace(call, stack=stack, layer=layers[order] if plain else order)
    return [numbered[id(call)] for call in calls]
