"""Places of a run: the one operation among all that is meant again in another run of the same model.

A place is told by the module that is running, which visit of it this is, the operation's name, and the how-manieth of
that name it is in that visit. So it holds on inputs of other lengths, and where layers are shared or looped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Side = int | str | None  # which argument, by number or by name; None is the result
Change = Callable[[Tensor], Tensor | None]  # what becomes of a tensor on its way through; None leaves it

IN_PLACE = {"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__"}


class Place(NamedTuple):
    """One operation of a run."""

    path: str  # of the innermost module of the model that is running
    visit: int  # how often that module had been entered before
    operation: str
    nth: int  # how many of that name came before it in that visit


@dataclass(eq=False)
class Visit:
    """One run of one module of the model, in which operations are counted by name. What runs in modules that are not
    the model's own is counted where they were called."""

    path: str = ""
    number: int = 0
    outer: tuple[Visit, ...] = ()  # the visits around it, the outermost first
    counts: Counter = field(default_factory=Counter)

    def place(self, operation: str) -> Place:
        """Of the operation that runs now, which is counted by this."""
        nth = self.counts[operation]
        self.counts[operation] += 1
        return Place(self.path, self.number, operation, nth)


@lru_cache(maxsize=4096)
def named(function: Callable) -> str:
    """What an operation is called; of a property, its name."""
    name = getattr(function, "__name__", str(function))
    return function.__self__.__name__ if name == "__get__" else name


def writes_into(name: str, kwargs: dict) -> bool:
    """Whether the operation overwrites a tensor it was given."""
    return _in_place(name) or isinstance(kwargs.get("out"), Tensor)


@lru_cache(maxsize=4096)
def _in_place(name: str) -> bool:
    return name in IN_PLACE or (name.endswith("_") and not name.endswith("__"))


class Observer:
    """Who watches a run: told what happens at the places of ``Seam.observed``, and where the run is. Does nothing."""

    def began(self) -> None:
        """A run begins; what was seen of one before it, which had to be broken off, counts no more."""

    def overwritten(self, tensor: Tensor, place: Place | None) -> None:
        """``tensor`` is about to be overwritten, by the operation at a ``place`` that is observed, or by another."""

    def observe(self, place: Place, function: Callable, args: tuple, kwargs: dict, out: Any) -> None:
        """An operation ran; of one that overwrites an argument, that argument is its result already."""

    def attended(self, call: Any, at: Tensor | None = None) -> None:
        """The operation that runs now is this attention call, or the one was that made ``at``."""

    def left(self, visit: Visit, module: nn.Module, given: tuple, out: Any) -> None:
        """A module is done that was ``given`` these arguments; ``visit`` is that of the innermost of the model."""


@dataclass(eq=False)
class Seam:
    """What is read and changed at some places of one run; everything else passes.

    ``operands`` change an argument before the operation, ``results`` what it made, in the order in which they were
    given. ``observers`` are told of each operation at a place of ``observed`` once it ran, with its arguments and its
    result as they are after the changes.
    """

    operands: dict[Place, list[tuple[Side, Change]]] = field(default_factory=dict)
    results: dict[Place, list[Change]] = field(default_factory=dict)
    observed: Container[Place] = frozenset()
    observers: tuple[Observer, ...] = ()
    operations: Container[str] = ()  # names of the operations that are counted; those of the places when not given
    reached: set[Place] = field(default_factory=set)  # the places that came

    def __post_init__(self):
        if not self.operations:
            self.operations = {place.operation for place in (*self.operands, *self.results, *self.observed)}

    def concerns(self, function: Callable, kwargs: dict) -> bool:
        """Whether anything could happen at this operation. Most of a run is none of a seam's business: it is asked
        thousands of times."""
        name = named(function)
        return name in self.operations or _in_place(name) or "out" in kwargs

    def change(self, place: Place, side: Side, change: Change) -> None:
        """Add a change to the argument ``side`` of the operation at ``place``, or to its result."""
        if side is None:
            self.results.setdefault(place, []).append(change)
        else:
            self.operands.setdefault(place, []).append((side, change))
        self.operations.add(place.operation)

    def watched(self, observed: Collection[Place], observer: Observer) -> Seam:
        """The same changes, with one more observer, for which these places are observed too."""
        observed = frozenset((*self.observed, *observed))
        operands, results = ({k: [*v] for k, v in changes.items()} for changes in (self.operands, self.results))
        return Seam(operands, results, observed, (*self.observers, observer), reached=self.reached)

    def through(self, run: Callable[..., Any], function: Callable, visit: Visit, args: tuple, kwargs: dict) -> Any:
        """The operation, as ``run(function, args, kwargs)`` does it, with what happens at its place."""
        name = named(function)
        place = visit.place(name) if name in self.operations else None
        seen, writes = place is not None and place in self.observed, writes_into(name, kwargs)
        if place in self.operands:
            args, kwargs = self._changed(self.operands[place], args, kwargs, writes)
            self.reached.add(place)
        if writes and self.observers and isinstance(target := kwargs.get("out", args[0] if args else None), Tensor):
            with torch._C.DisableTorchFunction():
                for observer in self.observers:
                    observer.overwritten(target, place if seen else None)
        out = run(function, args, kwargs)
        if not seen and place not in self.results:
            return out
        self.reached.add(place)
        with torch._C.DisableTorchFunction():  # what a change computes is no part of the run
            for change in self.results.get(place, ()):
                new = change(out)
                if new is not None and new is not out:
                    out = out.copy_(new) if writes else new
            for observer in self.observers if seen else ():
                observer.observe(place, function, args, kwargs, out)
        return out

    @staticmethod
    def _changed(changes: Iterable[tuple[Side, Change]], args: tuple, kwargs: dict, writes: bool) -> tuple[tuple, dict]:
        args, kwargs = list(args), dict(kwargs)
        with torch._C.DisableTorchFunction():
            for side, change in changes:
                holder = args if isinstance(side, int) else kwargs
                old = holder[side]
                new = change(old)
                if new is None or new is old:
                    continue
                if writes and side == 0:
                    old.copy_(new)  # the caller goes on with the tensor it gave
                else:
                    holder[side] = new
        return tuple(args), kwargs
