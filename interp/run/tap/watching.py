"""Modules that a watcher knows: while one runs its operations are its own business; when it is done, it is one call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.watch import Given, Kept, Watched, Watcher
from headwise.interp.run.tap.changes import CallChanges
from headwise.interp.run.tap.reported import changed, untrue

UNREAD = (
    "its weights could not be read off what went in and out ({error}): another version of its library than the one "
    "that Headwise knows may lay {kind} out in another way"
)


@dataclass(eq=False)
class Watch:
    """One run of a watched module."""

    watcher: Watcher
    kept: dict[str, list[Kept]] = field(default_factory=dict)

    def keep(self, name: str, args: tuple, kwargs: Mapping[str, Any], out: Any) -> None:
        if name in self.watcher.keeps:
            self.kept.setdefault(name, []).append(Kept(args, kwargs, out))

    def told(
        self, module: nn.Module, args: tuple, kwargs: dict, output: Any, here: CallChanges | None
    ) -> tuple[Watched | str, Any, Any]:
        """(what the watcher says, how its scores are known, the module's output as it is changed)."""
        given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
        given = {**{k: v for k, v in given.items() if k != "kwargs"}, **given.get("kwargs", {})}
        try:
            said = self.watcher(module, Given(given, output, self.kept))
        except (
            Exception
        ) as error:  # another version of a library: the run itself is fine, and what was seen of it stays
            said = UNREAD.format(kind=type(module).__name__, error=f"{type(error).__name__}: {error}")
        if isinstance(said, str):
            return said, None, output
        if why := untrue(said.by.form(said.q.detach(), said.k.detach()), said.v.detach(), said.output.detach()):
            return why, None, output
        if here is None:
            return said, said.by.form(said.q.detach(), said.k.detach()), output
        form, _, out = changed(here, said.q, said.k, said.v, said.by)
        return said, form, said.back(out)


def watcher_of(module: nn.Module, watchers: Mapping[str, Watcher]) -> Watcher | None:
    """Who knows this module, by its class or one it is made from, where it needs watching."""
    if not watchers:
        return None
    for kind in type(module).__mro__:
        found = watchers.get(f"{kind.__module__}.{kind.__qualname__}")
        if found is not None:
            return found if found.applies(module) else None
    return None


def call_of(said: Watched, form, name: str, kind: str) -> AttentionCall:
    return AttentionCall(name, said.kind or kind, form, said.v.detach())
