"""What a capture will cost, said before it runs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from interp.capture import capture
from interp.subject import Inputs, Subject

PROBE = 8  # tokens of the probe
SURVEY_OPERATIONS = 60  # a weight's exp, sum, logarithm and pooling, in multiply-adds


@dataclass(frozen=True)
class Cost:
    """An estimate: tokens in, attention calls and heads, bytes of q, k and v kept, seconds for the run and for
    looking at all heads once."""

    tokens: int
    calls: int
    heads: int
    bytes: int
    run_seconds: float
    survey_seconds: float

    @property
    def seconds(self) -> float:
        return self.run_seconds + self.survey_seconds


def estimate(subject: Subject, inputs: Inputs) -> Cost:
    """Shapes from a capture of the first few tokens, seconds from this machine's speed at matrix products."""
    probe = _probe(subject, inputs)
    tokens = max((len(axis) for axis in inputs.axes.values()), default=_length(inputs))
    growth = tokens / max(1, min(tokens, PROBE))
    rate = _rate(str(subject.device))
    pairs = sum(h * (q * growth) * (k * growth) for h, q, k, _ in probe)
    attention = sum(2 * h * (q * growth) * (k * growth) * d for h, q, k, d in probe)
    run = 2 * subject.parameters * tokens + 2 * attention
    heads = sum(h for h, *_ in probe)
    kept = sum((h + 2 * h) * (q * growth) * d for h, q, _, d in probe) * subject.dtype.itemsize
    return Cost(tokens, len(probe), heads, int(kept), run / rate, (attention + SURVEY_OPERATIONS * pairs) / rate)


def _probe(subject: Subject, inputs: Inputs) -> tuple[tuple[int, int, int, int], ...]:
    """(H, Q, K, D) of each call on the first tokens; of the whole input when it cannot be cut, such as a picture."""
    length = _length(inputs)

    def cut(value):
        sequence = isinstance(value, Tensor) and value.ndim == 2 and not value.is_floating_point()
        return value[:, :PROBE] if sequence else value

    small = Inputs({k: cut(v) for k, v in inputs.kwargs.items()}) if length > PROBE else inputs
    shapes = []
    for call in capture(subject, small).calls:
        width = call.v.shape[-1] if call.v is not None else 64
        shapes.append((call.heads, call.queries, call.keys, width))
    return tuple(shapes)


def _length(inputs: Inputs) -> int:
    return max((v.shape[1] for v in inputs.kwargs.values() if isinstance(v, Tensor) and v.ndim == 2), default=1)


@lru_cache(maxsize=4)
def _rate(device: str) -> float:
    """Multiply-adds a second ×2 of a 512 × 1024 × 1024 product, warm."""
    a, b = torch.ones(512, 1024, device=device), torch.ones(1024, 1024, device=device)
    a @ b
    began = time.perf_counter()
    for _ in range(3):
        a @ b
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return 3 * 2 * 512 * 1024 * 1024 / (time.perf_counter() - began)
