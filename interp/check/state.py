"""Nothing a check does may stay: a snapshot of a module's whole state, and of every random stream."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from types import FunctionType, MethodType, ModuleType

import numpy as np
import torch
from torch import Tensor, nn

BIG = 64 * 2**20  # parameters above this many bytes are watched by their version counter instead of copied


class Snapshot:
    """The state of a module: parameters, buffers, training flags and plain attributes, also those it keeps between
    calls.

    ``restore()`` puts everything back in place, bit for bit. Objects keep their identity.
    """

    def __init__(self, module: nn.Module):
        small = sum(p.numel() * p.element_size() for p in module.parameters()) <= BIG
        self._seen: set[int] = set()
        self._modules = [(m, self._freeze(m.__dict__, 4, small)) for m in module.modules()]

    def restore(self) -> None:
        with torch.no_grad():
            for _, thaw in self._modules:
                thaw()

    def restore_one(self, module: nn.Module) -> None:
        """The state of this module alone, those inside it aside."""
        with torch.no_grad():
            for held, thaw in self._modules:
                if held is module:
                    thaw()

    def _freeze(self, value, depth: int, copy_parameters: bool) -> Callable[[], object]:
        """A function that gives ``value`` back with its present contents."""
        plain = isinstance(
            value, nn.Module | ModuleType | FunctionType | MethodType | type | str | int | float | torch.device
        )
        if depth == 0 or plain or value is None or id(value) in self._seen:
            return lambda: value
        if isinstance(value, Tensor):
            return self._tensor(value, copy_parameters)
        if isinstance(value, np.ndarray):
            copy = value.copy()
            return lambda: (np.copyto(value, copy), value)[1]
        if isinstance(value, dict):
            self._seen.add(id(value))
            items = [(k, self._freeze(v, depth - 1, copy_parameters)) for k, v in value.items()]
            return lambda: self._refill(value, value.update, {k: thaw() for k, thaw in items})
        if isinstance(value, list | deque | set):
            self._seen.add(id(value))
            parts = [self._freeze(v, depth - 1, copy_parameters) for v in value]
            fill = value.update if isinstance(value, set) else value.extend
            return lambda: self._refill(value, fill, [thaw() for thaw in parts])
        if isinstance(value, tuple):
            for v in value:
                self._freeze(v, depth - 1, copy_parameters)
            return lambda: value
        if hasattr(value, "__dict__"):
            self._seen.add(id(value))
            inner = self._freeze(vars(value), depth - 1, copy_parameters)
            return lambda: (inner(), value)[1]
        return lambda: value

    def _tensor(self, value: Tensor, copy_parameters: bool) -> Callable[[], Tensor]:
        inference = value.is_inference()
        version = None if inference else value._version
        # a large parameter is not copied: forward passes do not write into weights, and the probes that do put them
        # back
        copy = value.detach().clone() if copy_parameters or not isinstance(value, nn.Parameter) else None

        sure = not inference and isinstance(value, nn.Parameter)  # batch norm writes into buffers and counts no version

        def thaw() -> Tensor:
            written = not sure or value._version != version
            if copy is not None and written and not same_bits(value, copy):
                value.detach().copy_(copy)
            return value

        return thaw

    @staticmethod
    def _refill(container, fill, contents):
        container.clear()
        fill(contents)
        return container


def fingerprint(module: nn.Module) -> list:
    """Identity and version of everything a module holds, two levels deep: equal before and after a run that leaves
    no trace.
    """
    return [_mark(m.__dict__, 3) for m in module.modules()]


def marks(module: nn.Module) -> dict[str, object]:
    """The same of one module's own attributes and buffers, by name."""
    own = {n: v for n, v in vars(module).items() if not n.startswith("_")}
    return {n: _mark(v, 2) for n, v in {**own, **module._buffers}.items()}


def _mark(value, depth: int):
    if isinstance(value, Tensor):
        return id(value), 0 if value.is_inference() else value._version
    if isinstance(value, dict | list | tuple | deque) and depth:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [(k, _mark(v, depth - 1)) for k, v in items]
    plain = isinstance(value, nn.Module | type | FunctionType | MethodType | ModuleType)
    if hasattr(value, "__dict__") and depth and not plain:
        return id(value), _mark(vars(value), depth - 1)
    return value if isinstance(value, int | float | str | bool) else id(value)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal shape, dtype and values, NaN equal to NaN."""
    return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | ((a != a) & (b != b))).all())


@contextmanager
def random_streams_kept():
    """Python's, NumPy's and torch's random streams continue afterwards as if nothing had been drawn."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def seeded(seed: int):
    """Random numbers from a seed inside, and the streams as before afterwards."""
    with random_streams_kept():
        seed_everything(seed)
        yield


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    if _accelerated():
        torch.manual_seed(seed)
    else:  # torch.manual_seed formats the stack for each device that is not there, which takes longer than a tiny model
        torch.default_generator.manual_seed(seed)


@cache
def _accelerated() -> bool:
    """Is there any device beside the CPU?"""
    return torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()
