"""Ways to decode a model step by step that are worth trying, the likeliest first."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from headwise.interp.check.errors import Refused, handed, theirs
from headwise.interp.check.target.arguments import arguments
from headwise.interp.check.target.given import BESIDE, STILL
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
START = re.compile(
    r"(start|pos|position|past|cache|cur)_?(pos|offset|idx|index|len|length)|start|offset|at"
)  # a number
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
    keeps: bool = False  # it does, until it is reset
    single: bool = False  # it takes one position at a time
    masked: bool = False  # ``step(chunk, state, mask, **more)`` takes a padding mask, too
    named: bool = True  # it is called a cache, by its caller or by its names


def worth_trying(target: Target, x: Batch) -> Iterator[Stepping]:
    """Likeliest first: an argument for what it returned; a cache of its own behind forward; a method for one step."""
    beside = _beside(target)
    for extra in beside:
        yield from _by_argument(target, x, extra)
    reset = resetting(target)
    for extra in beside:
        placed = bool(extra.starts or extra.places or target.feed.lines)  # it begins anew where position 0 is said
        if placed or reset is not None or extra.flags:
            step, call = partial(_kept, target, extra), f"output = model(x{extra.code})"
            named = placed or reset is not None
            yield Stepping("its own cache", step, call, reset, keeps=not placed, named=named)
    yield from _by_method(target, reset)


# -- arguments beside the sequence ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Extra:
    """What a step is given beside the sequence."""

    target: Target
    flags: tuple[str, ...] = ()  # such as use_cache, set
    starts: tuple[str, ...] = ()  # numbers: where it starts
    places: tuple[str, ...] = ()  # a position for each token

    def __call__(self, chunk: Batch) -> dict[str, Any]:
        end = chunk.start + chunk.length
        index = torch.arange(chunk.start, end, device=chunk.device)
        given: dict[str, Any] = dict.fromkeys(self.flags, True) | dict.fromkeys(self.starts, chunk.start)
        given |= {n: index[None] if n == self.target.position_name else index for n in self.places}
        squares = self.target.feed.square_arguments()
        return given | {n: square[..., chunk.start : end, :end] for n, square in squares}

    @property
    def code(self) -> str:
        said = dict.fromkeys(self.flags, "True") | dict.fromkeys(self.starts, "start")
        said |= dict.fromkeys((*self.places, *self.target.feed.lines), "positions")
        return "".join(f", {name}={value}" for name, value in said.items())


def _beside(target: Target) -> list[Extra]:
    """None, flags such as use_cache, where it starts, both."""
    free = {n: p.default for n, p in target.parameters.items() if n != target.feed.stream and _is_free(target, n)}
    flags = tuple(n for n, v in free.items() if FLAG.fullmatch(n) and (v is None or isinstance(v, bool)))
    places = tuple(n for n, v in free.items() if PLACES.fullmatch(n) and not isinstance(v, int))
    starts = tuple(n for n, v in free.items() if START.fullmatch(n) and n not in places and not isinstance(v, bool))
    placed = [((), ()), (starts, places)] if starts or places else [((), ())]
    return [Extra(target, f, *p) for f in dict.fromkeys(((), flags)) for p in placed]


def _is_free(target: Target, name: str) -> bool:
    """Does it stand still, or is it not given at all?"""
    return name not in target.feed.names or name in target.feed.fixed(1)


# -- an argument ------------------------------------------------------------------------------------------------------
def _by_argument(target: Target, x: Batch, extra: Extra) -> Iterator[Stepping]:
    """One that takes what the model returned beside its output, or a dict that the model fills."""
    names = [n for n, p in target.parameters.items() if _may_be_a_state(target, n, p)]
    names.sort(key=lambda n: not STATE.search(n))
    try:
        raw = target.raw(x, **extra(x)) if names else None
    except Refused:
        return
    for name in names:
        named = bool(STATE.search(name)) and not BESIDE.search(name) and name != "hidden_states"
        for key in _left(raw, target.picked(raw), name):
            step = partial(_given, target, extra, name, itemgetter(key))
            call = f"output = model(x{extra.code}, {name}=cache); cache = output[{_key(key)}]"
            yield Stepping(f"{name}=", step, call, named=named, masked=True)
        if named or name.startswith("in"):  # inference_params, incremental_state
            call = f"output = model(x{extra.code}, {name}=cache)"
            yield Stepping(f"{name}={{}}", partial(_filled, target, extra, name), call, named=False, masked=True)


def _may_be_a_state(target: Target, name: str, parameter) -> bool:
    masks = (*MASKS, *KEEP_MASKS, *HIDE_MASKS, *LENGTH_ARGUMENTS, target.padding.name, target.weight_flag)
    if name == target.feed.stream or name in masks or "mask" in name or STILL.search(name):
        return False
    if name in target.feed.names:
        return name in target.feed.fixed(1)
    return parameter.default is not parameter.empty and not isinstance(parameter.default, bool)


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


def _holds(value: Any, out: Tensor) -> bool:
    """Is it something other than the output, and more than a number?"""
    if value is None or isinstance(value, bool | int | float | str):
        return False
    parts = list(leaves(value))
    tensors = [t for t in parts if isinstance(t, Tensor)]
    if any(t is out for t in tensors):
        return False
    of_its_own = not tensors and len(parts) == 1 and parts[0] is value  # an object of the model's
    return of_its_own or any(t.ndim for t in tensors)


def _given(target: Target, extra: Extra, name: str, pick: Callable, chunk: Batch, state, mask=None, **more):
    held = {} if state is None else {name: state}
    raw = target.raw(chunk, mask, **extra(chunk) | more, **held)
    with theirs():
        return raw, handed(pick, raw)


def _filled(target: Target, extra: Extra, name: str, chunk: Batch, state, mask=None, **more):
    held = {} if state is None else state
    return target.raw(chunk, mask, **extra(chunk) | more, **{name: held}), held


def _kept(target: Target, extra: Extra, chunk: Batch, state: Any) -> tuple[Any, None]:
    return target.raw(chunk, **extra(chunk)), None


# -- a method ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Method:
    """One that takes a step."""

    target: Target
    name: str
    states: int  # how many it takes; 0: it keeps its own
    squeezed: bool  # it takes a position without its axis of time
    begin: str | None  # the method that makes the first state

    def __call__(self, chunk: Batch, state: Any) -> tuple[Any, Any]:
        target = self.target
        parts = target.feed.arguments(chunk)
        if self.squeezed:
            parts = [p.squeeze(s.layout.timed[0]) for p, s in zip(parts, target.feed.streams, strict=True)]
        target.deadline()
        with theirs():
            if state is None and self.begin is not None:
                state = self._first(chunk)
            held = () if not self.states else (state,) if self.states == 1 else state or (None,) * self.states
            made = handed(getattr(target.module, self.name), *parts, *held)
        raw, left = made, None
        if self.states and isinstance(made, tuple | list) and len(made) > 1:
            raw, left = made[0], made[1] if len(made) == 2 else tuple(made[1:])
        if self.squeezed and isinstance(raw, Tensor) and target.layout is not None and target.layout.timed:
            raw = raw.unsqueeze(target.layout.timed[0])
        return raw, left

    def _first(self, chunk: Batch) -> Any:
        method = getattr(self.target.module, self.begin)
        wanted = [p for p in arguments(method).values() if p.default is p.empty]
        return handed(method, *(chunk.size, 64)[: len(wanted)])  # samples, and room for as many positions


def _by_method(target: Target, reset: Callable[[], None] | None) -> Iterator[Stepping]:
    """A method of the model for one step: it takes the streams, and its state where it does not keep it."""
    if not may_be_called(target.module):
        return
    streams = len(target.feed.streams)
    for name in _methods(target.module, SINGLE):
        taken = list(arguments(getattr(target.module, name)).values())
        states = max(len([p for p in taken if p.default is p.empty]), min(len(taken), streams + 1)) - streams
        if len(taken) < streams:
            continue
        for squeezed in (False, True):
            for begin in [None, *_methods(target.module, BEGIN)] if states else [None]:
                step = Method(target, name, states=states, squeezed=squeezed, begin=begin)
                call = f"output{', cache' if states else ''} = model.{name}(x{', cache' if states else ''})"
                keeps = not states
                yield Stepping(f"{name}()", step, call, reset if keeps else None, keeps=keeps, single=True)


def _methods(module: nn.Module, pattern: re.Pattern) -> list[str]:
    names = [n for n in dir(type(module)) if pattern.fullmatch(n) and not hasattr(nn.Module, n)]
    return [n for n in names if callable(getattr(module, n, None))]
