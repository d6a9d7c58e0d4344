"""Listening at the operations every transformer must pass: SDPA, nn.MultiheadAttention, softmax.

``Tap`` is a torch function mode: torch itself calls it for every operation of this thread inside ``with``, under whatever name the
model imported the operation, and for no other thread. Module hooks only say *where* an operation happened. While the mode
is on, torch also refuses the fused eval path of nn.TransformerEncoder, which calls no Python attention.

Attention written by hand is recognised by what is done, not by names: a softmax whose result, whole, is then multiplied onto
values. A softmax inside an attention module that is cut up first (block-sparse, banded, bucketed) is not dense attention: such a
module ends in ``unseen`` with the reason, never in ``calls`` with wrong axes.
"""

from __future__ import annotations

import inspect
import math
import re
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from interp.call import AttentionCall

ATTENTION_LIKE = re.compile(r"att(entio)?n(?!.*(output|norm))|reformer.*hash|mixer2?$|mamba|rwkv", re.IGNORECASE)
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

    def __init__(self, root: nn.Module, batch: int = 1, watch: frozenset[str] = frozenset(), keep_calls: bool = True, edits=None):
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
                self.refused[frame.name] = "its softmax is not over a dense query × key matrix (block-sparse, banded or bucketed)"
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
        for name, module in self.ran.items():
            related = any(_within(c.name, name) or _within(name, c.name) for c in calls)
            if related or any(_within(name, u.name) and name != u.name for u in unseen):
                continue
            inner = next((why for path, why in self.refused.items() if _within(path, name)), None)
            reason = inner or "it ran, but no softmax over keys met values (linear, recurrent, fused or compiled attention)"
            unseen.append(Unseen(name, type(module).__name__, reason))
        for name, module in self.root.named_modules():
            scripted = isinstance(module, torch.jit.ScriptModule) or type(module).__name__ == "OptimizedModule"
            if scripted and not any(_within(c.name, name) for c in calls):
                unseen.append(Unseen(name, type(module).__name__, "compiled code runs outside Python; capture the original module"))
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


def _after(module, args, kwargs, output):
    if (recorder := _recorder.get()) is not None:
        recorder.leave(module, args, kwargs, output)


@contextmanager
def listen(recorder: Recorder):
    """Record this thread's run of ``recorder.root``. Hooks are torch's global ones, there only while some thread listens;
    other threads pass through them untouched, and the last one out removes them, also after an exception."""
    global _listeners
    if _recorder.get() is not None:
        raise RuntimeError("This thread is already capturing a run. Finish that capture before starting another.")
    with _lock:
        if _listeners == 0:
            _hooks[:] = [
                register_module_forward_pre_hook(_before),
                register_module_forward_hook(_after, with_kwargs=True, always_call=True),
            ]
        _listeners += 1
    token = _recorder.set(recorder)
    try:
        with Tap(recorder):
            yield recorder
    finally:
        _recorder.reset(token)
        with _lock:
            _listeners -= 1
            if _listeners == 0:
                while _hooks:
                    _hooks.pop().remove()


class Tap(TorchFunctionMode):
    """The mode itself: hands attention's operations to their handlers and everything else straight to torch."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder
        self.softmaxes: WeakIdKeyDictionary = WeakIdKeyDictionary()  # tensor → the _Softmax it carries on
        self.mha_heads: int | None = None  # set while inside nn.MultiheadAttention
        self.mha_kind = "self"

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        handler = _HANDLERS.get(func)
        if handler is not None:
            return handler(self, func, *args, **kwargs)
        out = func(*args, **kwargs)
        if self.softmaxes and isinstance(out, Tensor):
            self._carry_on(args, out)
        return out

    def _carry_on(self, args, out: Tensor) -> None:
        """A tensor of the same size made from a softmax still is those weights: reshaped, cast, scaled, dropped out."""
        for arg in args:
            carried = self.softmaxes.get(arg) if isinstance(arg, Tensor) else None
            if carried is not None and out.numel() == carried.shape.numel():
                self.softmaxes[out] = carried
                if out.shape == carried.shape and out.is_floating_point():
                    carried.weights = out
                return

    # -- handlers -------------------------------------------------------------------------------------------------
    def sdpa(
        self, func, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    ):
        q, k, v = (self._four(t) for t in (query, key, value))  # (B, H, Q, D), (B, Hk, K, D), (B, Hk, K, Dv)
        m = attn_mask
        if m is not None and m.ndim == query.ndim != 4:
            m = self._four(m.expand(*query.shape[:-2], *m.shape[-2:]))
        here = self.recorder.edits_here()
        for edit in here:
            m, is_causal = edit.mask(m, is_causal, q, k)
        if here and m is not None and m.dtype == torch.float and q.dtype != m.dtype:
            m = m.to(q.dtype)
        if here:
            attn_mask = m
        out = func(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
        name, seen = self.recorder.where, "mha" if self.mha_heads else "sdpa"
        kind = self.mha_kind if self.mha_heads else _kind(name)
        factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        self.recorder.add(AttentionCall(name, kind, seen, q.detach(), k.detach(), v.detach(), factor, m, is_causal))
        if here:
            heads = self._four(out).clone()  # (B, H, Q, Dv)
            for edit in here:
                heads = edit.output(heads)
            out = heads.reshape(out.shape)
        return out

    def mha(self, func, query, key, value, embed_dim, num_heads, *args, **kwargs):
        outer, self.mha_heads, self.mha_kind = (self.mha_heads, self.mha_kind), num_heads, "self" if query is key else "cross"
        try:
            with self:  # torch switched the mode off for us: listen inside as well
                return func(query, key, value, embed_dim, num_heads, *args, **kwargs)
        finally:
            self.mha_heads, self.mha_kind = outer

    def softmax(self, func, input, dim=None, *args, **kwargs):
        out = func(input, dim, *args, **kwargs) if dim is not None else func(input, *args, **kwargs)
        if dim is None or input.ndim < 2 or not input.is_floating_point():
            return out
        seen = _Softmax(input, out, out.shape, dim % out.ndim)
        self.softmaxes[out] = seen
        if self.recorder.frames:
            self.recorder.frames[-1].softmaxes.append(seen)
        return out

    def dropout(self, func, input, *args, **kwargs):
        """Attention weights are those before dropout."""
        out = func(input, *args, **kwargs)
        if (carried := self.softmaxes.get(input)) is not None:
            self.softmaxes[out] = carried
        return out

    def product(self, func, left, right, *args, **kwargs):
        carried = self.softmaxes.get(left)
        if carried is not None and not carried.used and self._is_dense(carried, carried.dim == len(carried.shape) - 1 or left.shape == carried.shape):
            left, right_v = self._meet(carried, left, right)
            return func(left, right_v, *args, **kwargs)
        carried = self.softmaxes.get(right)  # values @ weightsᵀ
        if carried is not None and not carried.used and self._is_dense(carried, carried.dim == len(carried.shape) - 1):
            self._observe(carried, None)
        return func(left, right, *args, **kwargs)


    def einsum(self, func, equation, *operands, **kwargs):
        operands = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
        if isinstance(equation, str) and len(operands) == 2:
            for weights, value, flip in ((operands[0], operands[1], False), (operands[1], operands[0], True)):
                carried = self.softmaxes.get(weights) if isinstance(weights, Tensor) else None
                if carried is not None and not carried.used and weights.shape == carried.shape:
                    order = _attention_axes(equation, flip)
                    if order is not None:
                        self._observe(carried, None, order)
        return func(equation, *operands, **kwargs)

    # -- attention by hand ----------------------------------------------------------------------------------------
    def _is_dense(self, carried: _Softmax, oriented: bool) -> bool:
        return oriented and 2 <= len(carried.shape) <= 4

    def _meet(self, carried: _Softmax, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        v = right if right.ndim >= 2 and right.shape[-2] == carried.shape[-1] else None
        edited = self._observe(carried, v)
        if edited is not None:
            left = edited.reshape(left.shape).to(left.dtype)
        return left, right

    def _observe(self, carried: _Softmax, v: Tensor | None, order: tuple[int, ...] | None = None) -> Tensor | None:
        """Record the weights as (B, H, Q, K); return them changed when an edit asks for it."""
        carried.used = True
        weights, scores = carried.weights, carried.scores
        if order is not None:
            weights, scores = weights.permute(order), scores.permute(order)
            if weights.ndim == 4 and weights.shape[0] != self.recorder.batch == weights.shape[1]:
                weights, scores = weights.transpose(0, 1), scores.transpose(0, 1)
        elif len(carried.shape) == 2 and weights.shape[-1] == 1:
            return None
        four_w, four_s = self._four(weights), self._four(scores)
        four_v = self._four(v) if v is not None else None
        if four_v is not None and (four_v.shape[0] != four_w.shape[0] or four_w.shape[1] % four_v.shape[1]):
            four_v = None
        name = self.recorder.where
        kind = self.mha_kind if self.mha_heads else _kind(name)
        here = self.recorder.edits_here()
        self.recorder.add(
            AttentionCall(
                name, kind, "mha" if self.mha_heads else "softmax", None, None, None if four_v is None else four_v.detach(),
                seen_weights=four_w.detach(), seen_scores=four_s.detach(),
            )
        )  # fmt: skip
        if not here:
            return None
        for edit in here:
            four_w = edit.weights(four_w, four_s)
        return four_w

    def _four(self, t: Tensor) -> Tensor:
        """Any attention layout → (B, H, rows, columns)."""
        if t.ndim == 4:
            return t
        if t.ndim == 2:
            return t[None, None]
        if t.ndim == 3:
            heads = self.mha_heads or (t.shape[0] // self.recorder.batch if t.shape[0] % self.recorder.batch == 0 else 1)
            return t.reshape(t.shape[0] // heads, heads, *t.shape[1:])
        return t.reshape(-1, *t.shape[-3:])


_HANDLERS = {
    F.scaled_dot_product_attention: Tap.sdpa,
    F.multi_head_attention_forward: Tap.mha,
    **dict.fromkeys((F.softmax, torch.softmax, Tensor.softmax, torch.special.softmax), Tap.softmax),
    **dict.fromkeys((F.dropout, torch.dropout), Tap.dropout),
    **dict.fromkeys((torch.matmul, torch.bmm, torch.mm, Tensor.matmul, Tensor.bmm, Tensor.mm, Tensor.__matmul__), Tap.product),
    torch.einsum: Tap.einsum,
}


def _attention_axes(equation: str, flip: bool) -> tuple[int, ...] | None:
    """Axes of the weights operand as (batch…, query, key), read off an einsum of weights and values, or None.

    The key letter is summed out, the query letter is in weights and result but not in the values, the others are batch.

    >>> _attention_axes("bnij,jbnd->ibnd", False)
    (0, 1, 2, 3)
    >>> _attention_axes("ijbn,jbnd->ibnd", False)
    (2, 3, 0, 1)
    """
    equation = equation.replace(" ", "")
    if "->" not in equation or "." in equation:
        return None
    inputs, result = equation.split("->")
    weights, values = inputs.split(",")[::-1] if flip else inputs.split(",")
    key = [c for c in weights if c in values and c not in result]
    query = [c for c in weights if c in result and c not in values]
    batch = [c for c in weights if c in result and c in values]
    if len(key) != 1 or len(query) != 1 or len(batch) > 2 or len(weights) != len(batch) + 2:
        return None
    return tuple(weights.index(c) for c in (*batch, *query, *key))


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
    return any(isinstance(given.get(a), Tensor) and given[a] is not queries for a in CROSS_ARGUMENTS)


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
