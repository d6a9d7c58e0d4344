"""How much memory a run takes at most, beside the model and the input."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TypeVar

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Made = TypeVar("Made")


def peak_of(work: Callable[[], Made]) -> tuple[Made, int]:
    """What ``work`` returns, and the bytes of tensors it made that were alive at once, at most. What an operation
    takes inside is not seen."""
    with Peak() as peak:
        return work(), peak.bytes


class Peak(TorchDispatchMode):
    """Counts the storages that this thread's operations make while they are alive."""

    supports_higher_order_operators = True

    def __init__(self):
        super().__init__()
        self.bytes = 0
        self.alive = 0
        self.holders: dict[int, int] = {}  # address of a storage → how many tensors hold it

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {_address(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for made in tree_leaves(out):
            address = _address(made) if isinstance(made, Tensor) else 0
            if address and (address in self.holders or address not in given):
                self._hold(made, address)
        return out

    def _hold(self, made: Tensor, address: int) -> None:
        size = made.untyped_storage().nbytes()
        if address not in self.holders:
            self.alive += size
            self.bytes = max(self.bytes, self.alive)
        self.holders[address] = self.holders.get(address, 0) + 1
        weakref.finalize(made, self._release, address, size)

    def _release(self, address: int, size: int) -> None:
        self.holders[address] -= 1
        if not self.holders[address]:
            del self.holders[address]
            self.alive -= size


def _address(t: Tensor) -> int:
    """0 where a tensor has no memory of its own to speak of."""
    try:
        return t.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return 0
