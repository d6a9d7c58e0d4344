"""How a model that keeps its state to itself begins a new sequence: a method that says so by its name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from headwise.interp.check.errors import CheckError, Refused, handed, theirs
from headwise.interp.check.state import BIG
from headwise.interp.check.target.arguments import arguments

if TYPE_CHECKING:
    from headwise.interp.check.target.target import Target

RESET = re.compile(
    r"(reset|clear|empty|flush|restart)(_?(kv|all|inner|internal))?"
    r"(_?(caches?|states?|memory|hidden(_states?)?|history|buffers?|stream(ing)?|context|past|sequence|decoding))?"
)


@dataclass(frozen=True, eq=False)
class Reset:
    """Begins a new sequence: methods of modules, or what the caller gave."""

    owners: tuple[tuple[nn.Module, str], ...] = ()
    told: Callable | None = None
    root: nn.Module | None = None

    def __call__(self) -> None:
        with theirs():
            if self.told is not None:
                handed(self.told, self.root)
            for owner, name in self.owners:
                handed(getattr(owner, name))


def resetting(target: Target) -> Reset | None:
    """As the caller says with ``reset=``; else a method such as ``reset_cache()`` of the model, or of parts of it,
    that leaves the weights alone; None where there is none."""
    module, told = target.module, target.options.reset
    if told is not None:
        if isinstance(told, str) and not callable(getattr(module, told, None)):
            raise CheckError(f"reset= names {told!r}, which is no method of {target.name}: give one, or a function.")
        return Reset(((module, told),)) if isinstance(told, str) else Reset(told=told, root=module)
    if not may_be_called(module):
        return None
    owners = [(module, name) for name in _resets(module)[:1]]
    owners = owners or [(m, name) for m in module.modules() for name in _resets(m)[:1]]
    if not owners:
        return None

    reset = Reset(tuple(owners))
    return reset if _harmless(target, reset) else None


def may_be_called(module: nn.Module) -> bool:
    """Methods found by their names are tried only where a snapshot keeps the weights."""
    return sum(p.numel() * p.element_size() for p in module.parameters()) <= BIG


def _resets(module: nn.Module) -> list[str]:
    names = [n for n in dir(type(module)) if RESET.fullmatch(n) and not hasattr(nn.Module, n)]
    names = [n for n in names if callable(getattr(module, n, None))]
    return [n for n in names if all(p.default is not p.empty for p in arguments(getattr(module, n)).values())]


def _harmless(target: Target, reset: Callable[[], None]) -> bool:
    """Does it run, and leave every weight as it is?"""
    versions = [p._version for p in target.module.parameters()]
    with target.untouched():
        try:
            reset()
        except Refused:
            return False
        return versions == [p._version for p in target.module.parameters()]
