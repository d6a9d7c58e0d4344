"""A run as values: what each operation made, of what, and where. Operations can be run again on other values.

A tensor is an object that may be overwritten; a value is what it held. Whatever is about to be overwritten is copied
first, and the result of the overwriting is a new value.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from headwise.interp.run.tap.places import Observer, Place, Side, Visit, writes_into

Spot = tuple[Place, int]  # a value's place, and which of the operation's results it is

# another tensor lends its shape or type, and nothing of what it holds
SHAPE_OF_OTHER = {"expand_as", "view_as", "reshape_as", "type_as"}
ASKS = {
    "shape", "dtype", "device", "size", "dim", "ndim", "stride", "requires_grad", "is_floating_point", "numel",
    "data_ptr", "element_size", "layout", "is_sparse", "is_quantized", "grad_fn", "_version", "is_contiguous",
    "__len__", "__bool__", "item", "tolist", "untyped_storage", "storage_offset", "names", "is_leaf", "itemsize",
}  # fmt: skip
OPAQUE, OVERWRITTEN, INPUT = "opaque", "overwritten", "input"


class Unrepeatable(Exception):
    """An operation that cannot be run again on other values; the message names it."""


@dataclass(eq=False)
class Value:
    """One result of one operation."""

    index: int
    place: Place
    item: int  # which of the operation's results
    out: Tensor
    function: Callable | None = None
    args: tuple = ()
    kwargs: dict = field(default_factory=dict)
    operands: dict[Side, Value] = field(default_factory=dict)  # the arguments that hold content
    reads: dict[int, Value] = field(default_factory=dict)  # id of any tensor among the arguments → its value
    up: tuple[Value, ...] = ()  # all that it was made from
    copy: Tensor | None = None  # made before ``out`` was overwritten
    live: bool = False  # carries content: a floating input, or what parameters made of tokens
    data: bool = False  # depends on the input at all, as a mask made from tokens does
    call: tuple[str, int] | None = None  # the attention call that this is the output of
    before: int = 0  # all values it depends on, as a bit set
    same: Value | None = None  # the value before in the same tensor, where an operation gave back what it was given

    @property
    def bit(self) -> int:
        return 1 << self.index

    @property
    def spot(self) -> Spot:
        return self.place, self.item

    @property
    def operation(self) -> str:
        return self.place.operation

    @property
    def tensor(self) -> Tensor:
        return self.out if self.copy is None else self.copy

    @property
    def maker(self) -> Value:
        """The value as the operation left it that did something: dropout gives back what it was given."""
        value = self
        while value.same is not None and value.same.copy is value.copy:
            value = value.same
        return value

    @property
    def shape(self) -> torch.Size:
        return self.out.shape

    def __repr__(self) -> str:
        return f"{self.operation} {tuple(self.out.shape)} in {self.place.path or 'the module itself'}"


class Everything(Container):
    """All places, or all names but some."""

    def __init__(self, but: Container = ()):
        self.but = but

    def __contains__(self, item) -> bool:
        return item not in self.but


class Tape(Observer):
    """Keeps the values of the operations it is told of, and what each was made of.

    With ``whole`` it is told of all: then values know all that they depend on. ``ends`` are places of which only the
    result is kept.
    """

    def __init__(self, *, whole: bool = False, ends: Container[Place] = frozenset()):
        self.whole, self.ends = whole, ends
        self._inputs: Mapping[str, Any] = {}
        self.began()

    def given(self, inputs: Mapping[str, Any]) -> None:
        """The tensors of the input of the run to come."""
        self._inputs = inputs

    def began(self) -> None:
        self.values: list[Value] = []
        self.at: dict[Spot, Value] = {}
        self.visits: dict[tuple[str, int], Visit] = {}
        self.done: list[tuple[Visit, nn.Module, Value | None]] = []  # modules as they ended, and what they made
        self._now: dict[int, Value] = {}  # id of a tensor → what it holds now
        self._sharing: dict[int, list[Tensor]] = {}  # storage → the tensors on it
        self._call: tuple[str, int] | None = None
        for name, value in self._inputs.items():
            for item, tensor in enumerate(tensors(value)):
                made = self._add(Place(str(name), 0, INPUT, 0), tensor, item=item)
                made.live, made.data = tensor.is_floating_point(), True

    def value_of(self, tensor: Any) -> Value | None:
        """What a tensor holds now."""
        return self._now.get(id(tensor))

    def __getitem__(self, spot: Spot) -> Value:
        return self.at[spot]

    # -- told by the seam -----------------------------------------------------------------------------------------
    def attended(self, call, at=None) -> None:
        made = None if at is None else self._now.get(id(at))
        if made is None:
            self._call = call.name, call.occurrence
        else:
            made.call = call.name, call.occurrence

    def overwritten(self, tensor, place):
        if place is not None and id(tensor) not in self._now and not isinstance(tensor, nn.Parameter):
            self._leaf(tensor)
        for alias in {id(t): t for t in [*self._aliases(tensor), tensor]}.values():
            held = self._now.get(id(alias))
            copy = alias.clone() if held is not None and held.copy is None else None
            while held is not None and copy is not None:
                held.copy, held = copy, held.same
            if place is None:
                self._now.pop(id(alias), None)

    def observe(self, place, function, args, kwargs, out):
        given = list(tensors((args, kwargs)))
        content = given
        if place.operation in SHAPE_OF_OTHER:
            content = given[:1]
        elif place.operation.endswith("_like") or place.operation.startswith("new_"):
            content = []
        if not self.whole and place not in self.ends:
            for tensor in given:
                if id(tensor) not in self._now and not isinstance(tensor, nn.Parameter):
                    self._leaf(tensor)
        reads = {id(t): v for t in given if (v := self._now.get(id(t))) is not None}
        up = tuple(dict.fromkeys(reads[id(t)] for t in content if id(t) in reads))
        common = {"function": function, "args": args, "kwargs": kwargs, "reads": reads, "up": up}
        sides = [*enumerate(args), *kwargs.items()]
        common["operands"] = {
            k: v for k, a in sides if isinstance(a, Tensor) and (v := reads.get(id(a))) is not None and v in up
        }
        if place in self.ends:
            common = {"up": ()}
        learned = any(isinstance(t, nn.Parameter) or isinstance(t._base, nn.Parameter) for t in content)
        target = kwargs.get("out", args[0] if args else None) if writes_into(place.operation, kwargs) else None
        call, self._call = (None if place.operation == "multi_head_attention_forward" else self._call), None
        made = []
        if isinstance(target, Tensor):
            made = [self._add(place, target, **common)]
            self._refresh(target, made[0])
        items = [t for t in tensors(out) if t is not target]
        for item, tensor in enumerate(items):
            inner = place.operation == "multi_head_attention_forward" and id(tensor) in self._now
            if not inner:
                made.append(self._add(place, tensor, item=item, **common, same=reads.get(id(tensor))))
        for value in made:
            value.call, call = call, None
            value.data = any(u.data for u in up)
            value.live = any(u.live for u in up) or (value.data and learned)

    def left(self, visit, module, given, out):
        call, self._call = self._call, None  # of an operation it was taken up already: it is the module that is told
        if not self.whole:
            return
        up = tuple(dict.fromkeys(v for t in tensors(given) if (v := self._now.get(id(t))) is not None))
        for item, tensor in enumerate(tensors(out)):
            if up and id(tensor) not in self._now and not isinstance(tensor, nn.Parameter):
                made = self._add(visit.place(OPAQUE), tensor, item=item, up=up)
                made.live, made.data = any(u.live for u in up), any(u.data for u in up)
        first = next((self._now.get(id(t)) for t in tensors(out)), None)
        if call is not None and first is not None:
            first.call = call
        self.visits[visit.path, visit.number] = visit
        self.done.append((visit, module, first))

    # -- values ---------------------------------------------------------------------------------------------------
    def _add(self, place: Place, tensor: Tensor, item: int = 0, **more) -> Value:
        value = Value(len(self.values), place, item, tensor, **more)
        if self.whole:
            for u in value.up:
                value.before |= u.before | u.bit
        self.values.append(value)
        if place.nth >= 0:
            self.at[place, item] = value
        self._now[id(tensor)] = value
        if (storage := _storage(tensor)) is not None:
            self._sharing.setdefault(storage, []).append(tensor)
        return value

    def _leaf(self, tensor: Tensor) -> None:
        self._add(Place("", 0, INPUT, -1), tensor)

    def _aliases(self, tensor: Tensor) -> list[Tensor]:
        storage = _storage(tensor)
        return [] if storage is None else self._sharing.get(storage, [])

    def _refresh(self, target: Tensor, value: Value) -> None:
        """Other tensors that look at what was overwritten."""
        for alias in {id(t): t for t in self._aliases(target)}.values():
            held = self._now.get(id(alias))
            if alias is target or held is None:
                continue
            same = (alias.shape, alias.stride(), alias.storage_offset())
            if same == (target.shape, target.stride(), target.storage_offset()):
                self._now[id(alias)] = value
            elif self.whole:
                place = Place(value.place.path, value.place.visit, OVERWRITTEN, len(self.values))
                made = self._add(place, alias, up=(held, value))
                made.live, made.data = held.live or value.live, held.data or value.data
            else:
                del self._now[id(alias)]


def tensors(given: Any) -> Iterator[Tensor]:
    """All tensors in nested arguments."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, list | tuple):
        for part in given:
            yield from tensors(part)
    elif isinstance(given, Mapping) or (hasattr(given, "values") and hasattr(given, "items")):
        for part in given.values():
            yield from tensors(part)


def _storage(tensor: Tensor) -> int | None:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse, or without data
        return None


# -- running again ----------------------------------------------------------------------------------------------------
def again(value: Value, new: Mapping[Value, Tensor]) -> Tensor:
    """The operation of ``value`` once more, with ``new`` tensors in the place of some values. Weights are constants.

    Raises Unrepeatable for what is no operation of torch's.
    """
    if value.function is None:
        raise Unrepeatable(f"{value} cannot be run again")

    def put(given: Any) -> Any:
        if isinstance(given, Tensor):
            read = value.reads.get(id(given))
            return given.detach() if read is None else new[read] if read in new else read.tensor.detach()
        if isinstance(given, list | tuple) and not isinstance(given, torch.Size):
            parts = [put(part) for part in given]
            return type(given)(*parts) if hasattr(given, "_fields") else type(given)(parts)
        return given

    args, kwargs = tuple(map(put, value.args)), {k: put(a) for k, a in value.kwargs.items()}
    if value.operation == "__setitem__":
        out = args[0].clone()
        out[args[1]] = args[2]
        return out
    if writes_into(value.operation, value.kwargs):
        kwargs.pop("out", None)
        args = (args[0].clone(), *args[1:])
    out = value.function(*args, **kwargs)
    return out if isinstance(out, Tensor) else list(tensors(out))[value.item]


def between(start: Value, stop: Value, shorter: Mapping[Value, Value] | None = None) -> list[Value]:
    """The values that must be made again to bring a changed ``start`` to ``stop``, in order. ``shorter`` lets some,
    such as norms, stand for several operations: value → what it was made of."""
    seen, todo = {}, [stop]
    shorter = shorter or {}
    while todo:
        value = todo.pop()
        if value.index in seen or value is start or not value.before & start.bit:
            continue
        seen[value.index] = value
        source = shorter.get(value)
        todo += [source] if source is not None and (source.before | source.bit) & start.bit else value.up
    return [seen[index] for index in sorted(seen)]
