"""The module in which a model raises."""

from __future__ import annotations

from torch import Tensor

from headwise.interp.check.bench import Bench
from headwise.interp.check.errors import Refused
from headwise.interp.check.locate import Watcher
from headwise.interp.check.target import Batch
from headwise.interp.run.tap import listen


class Trail(Watcher):
    """A Watcher that notes the modules as they begin, and those that end without an output, the innermost first."""

    def __init__(self, root, batch: int, length: int):
        super().__init__(root, batch, length)
        self.begun: list[str] = []
        self.broken: list[str] = []

    def enter(self, module):
        super().enter(module)
        if (name := self.names.get(id(module))) is not None:
            self.begun.append(name)

    def leave(self, module, args, kwargs, output):
        if output is None and (name := self.names.get(id(module))) is not None:
            self.broken.append(name)
        super().leave(module, args, kwargs, output)


def where_raised(bench: Bench, x: Batch) -> str | None:
    """The last attention begun before the model raised on ``x``, else the last module."""
    trail = _followed(bench, x)
    return next((v for v in reversed(trail) if "att" in v.lower()), trail[-1] if trail else None)


def _followed(bench: Bench, x: Batch) -> list[str]:
    trail = Trail(bench.target.module, x.size, bench.length)
    try:
        with listen(trail, operations=False):
            bench.run(x)
    except Refused:
        return trail.begun
    return []


def innermost_broken(bench: Bench, x: Batch, mask: Tensor | None) -> str | None:
    """The innermost module that ended without an output."""
    trail = Trail(bench.target.module, bench.batch, bench.length)
    try:
        with listen(trail, operations=False):
            bench.run(x, mask)
    except Refused:
        pass  # as expected
    return trail.broken[0] if trail.broken else None
