"""How many bytes something keeps alive, and how many there are, so that what is kept can be bounded."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

from headwise.interp.subject import Subject

LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))  # of a container
SHARED = (type, ModuleType, nn.Module, Subject)  # lives on whoever else holds it


def weight(thing: Any) -> int:
    """Bytes of ``thing`` and of all that can be reached from it: tensors and arrays by their storage, each once, other
    objects as Python counts them. Models, classes and modules are others' and weigh nothing, unless ``thing`` is a
    subject itself.

        >>> weight(np.zeros(1000)) - weight(np.zeros(0))
        8000
    """
    if isinstance(thing, Subject):
        return sum(_storage(t)[1] for t in (*thing.module.parameters(), *thing.module.buffers()))
    seen: set[int] = set()
    total, waiting = 0, [thing]
    while waiting:
        part = waiting.pop()
        if id(part) in seen or isinstance(part, SHARED):
            continue
        seen.add(id(part))
        total += sys.getsizeof(part)
        if isinstance(part, Tensor):
            address, size = _storage(part)
            total += 0 if address in seen else size
            seen.add(address)
        elif isinstance(part, FunctionType):
            waiting.extend(part.__closure__ or ())  # not its globals
        elif isinstance(part, np.ndarray):
            waiting.extend(() if part.base is None else (part.base,))
        else:
            waiting.extend(gc.get_referents(part))
    return total


def _storage(tensor: Tensor) -> tuple[int, int]:
    """Address and bytes of a tensor's memory; nothing where it has none to speak of."""
    try:
        storage = tensor.untyped_storage()
        return storage.data_ptr(), storage.nbytes()
    except (NotImplementedError, RuntimeError):
        return 0, 0


def memory() -> int:
    """Bytes that this process may have: the machine's, or less in a container; 4 GiB where nobody says."""
    limits = []
    for file in LIMITS:
        with suppress(OSError, ValueError):
            limits.append(int(file.read_text("ascii")))
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(limits, default=4 * 2**30)
