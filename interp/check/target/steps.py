"""Ways to decode a model step by step that are worth trying, the likeliest first."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headwise.interp.check.errors import Refused, handed, theirs
from headwise.interp.check.target.arguments import arguments
from headwise.interp.check.target.given import STILL
from headwise.interp.check.target.masking import HIDE_MASKS, KEEP_MASKS, LENGTH_ARGUMENTS, MASKS
from headwise.interp.check.target.resetting import may_be_called, resetting
from headwise.interp.check.target.streams import Batch
from headwise.interp.run.outputs import leaves

if TYPE_CHECKING:
    from headwise.interp.check.target.target import Target

Step = Callable[[Batch, Any], tuple[Any, Any]]
STATE = re.compile(
    r"past(?!_(cov|time|obs|val|feat|tar))|cache|state|(^|_)(h|hx|hc|h_?0|kv|hidden|mems?|carry|prev\w*)(_|$)",
    re.IGNORECASE,
)
FLAG = re.compile(r"(use|return|with)_?(kv_?)?(cache|state|past|hidden)s?|decod(e|ing)|incremental|streaming|stateful")
START = re.compile(r"(start|pos|position|past|cache|cur)?_?(pos|offset|start|len|length)|at")  # a number
PLACES = re.compile(r"pos(ition)?(_?ids?|s)|(input|cache)_pos(ition)?s?")  # one for each position
SINGLE = re.compile(
    r"(forward|decode|inference|stream(ing)?|incremental|recurrent|generate)_?(step|one|token|recurrent|incremental)|"
    r"step(_forward)?|recurrent_forward|stream"
)  # methods
BEGIN = re.compile(r"(init(ial)?|default|zero|empty|get_initial|make|new|allocate)_?\w*(state|cache|hidden|carry)s?")


@dataclass(frozen=True)
class Stepping:
    """One way to decode: ``step(chunk, state) → (raw output, state)``; the state is None before a sequence."""

    name: str
    step: Step
    call: str = "step(model, x, cache)"  # as code, for those who want to run it themselves
    reset: Callable[[], None] | None = None  # begins a new sequence, where the model keeps its state to itself
    keeps: bool = False  # it does
    single: bool = False  # it takes one position at a time
    masked: bool = False  # ``step(chunk, state, mask, **more)`` takes a padding mask, too
    named: bool = True  # it is called a cache, by its caller or by its names


def worth_trying(target: Target, x: Batch) -> Iterator[Stepping]:
    """Likeliest first: an argument for what it returned; a cache of its own behind forward; a method for one step."""
    beside = _beside(target)
    for extra in beside:
        yield from _by_argument(target, x, extra)
    reset = resetting(target)
    for extra in beside if reset is not None else beside[1:]:
        call = f"output = model(x{_code(extra, x)})"
        yield Stepping("its own cache", partial(_kept, target, extra), call, reset, keeps=True, named=reset is not None)
    yield from _by_method(target, reset)


Extra = Callable[[Batch], dict]


def _beside(target: Target) -> list[Extra]:
    """Arguments that a step may want beside the sequence: none, flags such as use_cache, where it starts, both."""
    fed = target.feed.names
    free = {n: p for n, p in target.parameters.items() if n not in fed or n in target.feed.fixed(1)}
    free = {n: p for n, p in free.items() if n != target.feed.stream}
    flags = [n for n, p in free.items() if FLAG.fullmatch(n) and (p.default is None or isinstance(p.default, bool))]
    places = [n for n, p in free.items() if PLACES.fullmatch(n) and not isinstance(p.default, int)]
    starts = [n for n, p in free.items() if START.fullmatch(n) and n not in places and not isinstance(p.default, bool)]

    def made(chunk: Batch, with_flags: bool, with_places: bool) -> dict:
        given: dict[str, Any] = dict.fromkeys(flags, True) if with_flags else {}
        end = chunk.start + chunk.length
        if with_places:
            index = torch.arange(chunk.start, end, device=chunk.device)
            given |= dict.fromkeys(starts, chunk.start)
            given |= {n: index[None] if n == target.position_name else index for n in places}
        squares = target.feed.square_arguments()
        return given | {n: square[..., chunk.start : end, :end] for n, square in squares}

    options = [(f, p) for f in (False, True)[: 1 + bool(flags)] for p in (False, True)[: 1 + bool(starts or places)]]
    return [partial(made, with_flags=f, with_places=p) for f, p in options]


def _by_argument(target: Target, x: Batch, extra: Extra) -> Iterator[Stepping]:
    """An optional argument that takes what the model returned beside its output."""
    part = x.cut(0, max(1, x.length // 2))
    try:
        raw = target.raw(part, **extra(part))
    except Refused:
        return
    out = target.picked(raw)
    names = [n for n, p in target.parameters.items() if p.default is not p.empty and _may_be_a_state(target, n, p)]
    names.sort(key=lambda n: not STATE.search(n))
    for name in names:
        for key in _left(raw, out, name):
            step = partial(_given, target, extra, name, itemgetter(key))
            call = f"output = model(x{_code(extra, part)}, {name}=cache); cache = output[{_key(key)}]"
            yield Stepping(f"{name}=", step, call, named=bool(STATE.search(name)), masked=True)


def _may_be_a_state(target: Target, name: str, parameter) -> bool:
    masks = (*MASKS, *KEEP_MASKS, *HIDE_MASKS, *LENGTH_ARGUMENTS, target.padding.name, target.weight_flag)
    fed = name in target.feed.names
    return not (fed or name in masks or "mask" in name or STILL.search(name) or isinstance(parameter.default, bool))


def _left(raw: Any, out: Tensor, name: str) -> Iterator[str | int | slice]:
    """Keys of what a model returned that may be its state."""
    if isinstance(raw, Mapping):
        yield from [name] if raw.get(name) is not None else [k for k, v in raw.items() if _holds(v, out)]
    elif isinstance(raw, tuple | list):
        rest = [i for i, v in enumerate(raw) if _holds(v, out)]
        yield from rest
        if len(rest) > 1 and rest == list(range(rest[0], len(raw))):
            yield slice(rest[0], None)


def _key(key: str | int | slice) -> str:
    return f"{key.start}:" if isinstance(key, slice) else repr(key)


def _code(extra: Extra, chunk: Batch) -> str:
    """The arguments beside the sequence, as code."""
    given = {n: v if isinstance(v, bool) else "…" for n, v in extra(chunk).items()}
    return "".join(f", {n}={v}" for n, v in given.items())


def _holds(value: Any, out: Tensor) -> bool:
    """Is it something other than the output, and more than a number?"""
    if value is None or isinstance(value, bool | int | float | str):
        return False
    parts = list(leaves(value))
    tensors = [t for t in parts if isinstance(t, Tensor)]
    if any(t is out for t in tensors):
        return False
    return any(t.ndim for t in tensors) or (
        not tensors and len(parts) == 1 and parts[0] is value
    )  # a cache may be an object of its own


def _given(target: Target, extra: Extra, name: str, pick: Callable, chunk: Batch, state, mask=None, **more):
    held = {} if state is None else {name: state}
    raw = target.raw(chunk, mask, **extra(chunk) | more, **held)
    with theirs():
        return raw, handed(pick, raw)


def _kept(target: Target, extra: Extra, chunk: Batch, state: Any) -> tuple[Any, None]:
    return target.raw(chunk, **extra(chunk)), None


def _by_method(target: Target, reset: Callable[[], None] | None) -> Iterator[Stepping]:
    """A method of the model for one step: it takes the streams, and its state where it does not keep it."""
    if not may_be_called(target.module):
        return
    streams = len(target.feed.streams)
    for name in _methods(target.module, SINGLE):
        method = getattr(target.module, name)
        taken = list(arguments(method).values())
        wanted = [p for p in taken if p.default is p.empty]
        if not streams <= len(taken) or len(wanted) > streams + 1:
            continue
        keeps = len(taken) == streams
        for squeezed in (False, True):
            for begin in [None] if keeps else [None, *_methods(target.module, BEGIN)]:
                step = partial(_by, target, name, squeezed, None if keeps else begin, keeps)
                call = f"output{'' if keeps else ', cache'} = model.{name}(x{'' if keeps else ', cache'})"
                yield Stepping(f"{name}()", step, call, reset if keeps else None, keeps=keeps, single=True)


def _methods(module, pattern: re.Pattern) -> list[str]:
    names = [n for n in dir(type(module)) if pattern.fullmatch(n) and not hasattr(torch.nn.Module, n)]
    return [n for n in names if callable(getattr(module, n, None))]


def _by(target: Target, name: str, squeezed: bool, begin: str | None, keeps: bool, chunk: Batch, state: Any):
    """One call of method ``name``; ``squeezed``: it takes a position without its axis of time."""
    parts = target.feed.arguments(chunk)
    if squeezed:
        parts = [p.squeeze(s.layout.timed[0]) for p, s in zip(parts, target.feed.streams, strict=True)]
    target.deadline()
    with theirs():
        if state is None and begin is not None:
            state = handed(getattr(target.module, begin), chunk.size)
        made = handed(getattr(target.module, name), *parts, *([] if keeps else [state]))
    if not keeps and isinstance(made, tuple | list) and len(made) > 1:
        raw, state = made[0], made[1] if len(made) == 2 else made[1:]
    else:
        raw, state = made, None
    if squeezed and isinstance(raw, Tensor) and target.layout is not None and target.layout.timed:
        raw = raw.unsqueeze(target.layout.timed[0])
    return raw, state
