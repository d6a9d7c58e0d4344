"""How much memory a call needs at its highest, beyond what was there before it.

Counted are the bytes that torch's allocator gives out and takes back, as its profiler records them: the same on every
run. The resident size of the process is not: it depends on what the heap was used for before.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile


@torch.no_grad()
def peak_bytes(call: Callable[[], object]) -> int:
    """Bytes on the CPU at the peak of ``call``."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        kept = call()
    del kept
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate((event.nbytes() for event in events), initial=0))
