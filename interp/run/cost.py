"""What a capture will cost, said before it runs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.sampling import EXACT, SAMPLED
from headwise.interp.run.capture import capture
from headwise.interp.subject import Inputs, Subject

PROBE = 8  # tokens of the probe
SURVEY_OPERATIONS = 800  # of a matrix product, in the time of a weight's exp, logarithm, sums and pooling
MOST = 16  # probes that are remembered with a subject
TARGET = ("decoder_", "tgt")  # how arguments of the target begin; the others are of the source, or the only sequence


_PROBES: WeakKeyDictionary[Subject, dict[tuple, tuple[AttentionCall, ...]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Cost:
    """An estimate: tokens in, attention calls and heads, bytes kept of q, k and v, seconds for the run and for
    looking at all heads once.

    ``tokens`` of an encoder-decoder are those of the source and of the target together, since both are read. Frames
    of a recording are no tokens: beside a target they are not counted. Where there are no tokens at all it is the
    longest sequence that attention saw, such as the patches of a picture.
    """

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
    small, grown = _cut(inputs)
    calls = [(c, grown.get(c.queries, c.queries), grown.get(c.keys, c.keys)) for c in _probed(subject, small)]
    products = sum(c.batch * c.heads * queries * keys * _width(c) for c, queries, keys in calls)
    blocks = [queries for c, queries, _ in calls if c.kind == "self"]  # the positions that each block works on
    tokens = sum(_sequences(inputs).values()) or max((max(lengths) for _, *lengths in calls), default=1)
    positions = inputs.batch * (sum(blocks) / len(blocks) if blocks else tokens)
    looked = sum(
        c.batch * c.heads * keys * (_width(c) + SURVEY_OPERATIONS / 2) * (queries if queries <= EXACT else SAMPLED)
        for c, queries, keys in calls
    )
    rate = _rate(str(subject.device))
    return Cost(
        tokens,
        len(calls),
        sum(c.heads for c, *_ in calls),
        int(sum(call.grown(queries, keys) for call, queries, keys in calls)),
        (2 * subject.parameters * positions + 4 * products) / rate,
        2 * looked / rate,
    )


def _probed(subject: Subject, small: Inputs) -> tuple[AttentionCall, ...]:
    """The calls of a run of the first few tokens, made once for inputs of the same shapes."""
    shapes = tuple((name, getattr(value, "shape", repr(value))) for name, value in small.kwargs.items())
    known = _PROBES.setdefault(subject, {})
    if small.args or shapes not in known:
        if len(known) >= MOST:
            known.clear()
        known[shapes] = capture(subject, small).calls
    return known[shapes]


def _cut(inputs: Inputs) -> tuple[Inputs, dict[int, int]]:
    """The first tokens of the input, and what a length that was cut stands for.

    Source and target are cut to different lengths, so that a length in a call tells which of the two it is. What
    cannot be cut stays whole and counts as it is: a picture, a recording. Where something else hangs on the tokens,
    such as a mask (T, T), an order (T,) or a picture among them, nothing is cut.
    """
    lengths = _sequences(inputs)
    stop = {"source": PROBE, "target": PROBE - 1 if lengths.get("source") != PROBE - 1 else PROBE - 2}
    kwargs = {}
    for name, value in inputs.kwargs.items():
        side = _side(name)
        if isinstance(value, Tensor) and side in lengths and (value.ndim >= 2 or lengths[side] in value.shape):
            if value.shape != (inputs.batch, lengths[side]):
                return inputs, {}
            value = value[:, : stop[side]]
        kwargs[name] = value
    return Inputs(kwargs, args=inputs.args), {min(stop[side], length): length for side, length in lengths.items()}


def _sequences(inputs: Inputs) -> dict[str, int]:
    """How many tokens the "source" and the "target" have, where they have tokens: whole numbers (B, T) that are no
    mask."""
    lengths = {}
    for name, value in inputs.kwargs.items():
        whole = isinstance(value, Tensor) and not value.is_floating_point() and value.dtype != torch.bool
        if whole and value.ndim == 2 and "mask" not in name:
            lengths[_side(name)] = value.shape[1]
    return lengths


def _side(argument: str) -> str:
    return "target" if argument.startswith(TARGET) else "source"


def _width(call: AttentionCall) -> int:
    """D, or a usual one where attention was written by hand and only its weights were seen."""
    return call.width or 64


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
