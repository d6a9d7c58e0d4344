"""Head metrics: numbers that say what a head does, streamed in bands of rows so that no head's n×n is ever kept.

A metric sees each band of weights once, ``update(weights, rows)``, and answers with one number a head,
``result()``. A sweep computes every band once and shows it to all metrics. Averages run over real queries only
(padding left out) and over the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
from torch import Tensor

from headwise.interp.attention.axes import Score
from headwise.interp.attention.call import AttentionCall
from headwise.interp.errors import InputError
from headwise.interp.masks import Bidirectional, Mask
from headwise.interp.run.capture import Capture, capture
from headwise.interp.subject import Inputs, Subject


@dataclass(frozen=True)
class Band:
    """Where a band of weights (B, H, R, K) stands: its positions, and which of them are real."""

    query: Tensor  # (R, 1) positions
    key: Tensor  # (1, K)
    real: Tensor  # (B, 1, R) bool, queries that are not padding
    allowed: Tensor  # (B, 1, R, K) bool, edges the promise allows
    first: Tensor  # (B, 1, 1) the first key that is not padding


class Metric:
    """A mean over real queries of one number a row, then over the samples that have one. Subclasses say the number, and
    which rows have one."""

    name = ""

    def __init__(self):
        self.total: Tensor | float = 0.0  # (B, H)
        self.count: Tensor | float = 0.0  # (B, 1)

    def rows(self, weights: Tensor, rows: Band) -> Tensor:
        """(B, H, R, K) → (B, H, R)."""
        raise NotImplementedError(f"{type(self).__name__} must define rows(weights, rows)")

    def counts(self, rows: Band) -> Tensor:
        """Which queries have this number → bool, broadcasts to (B, 1, R)."""
        return torch.ones_like(rows.real)

    def update(self, weights: Tensor, rows: Band) -> None:
        valid = rows.real & self.counts(rows)  # (B, 1, R)
        value = self.rows(weights, rows).double()
        self.total = self.total + torch.where(valid, value, 0.0).sum(2)
        self.count = self.count + valid.expand(len(value), -1, -1).sum(2).double()

    def result(self) -> Tensor:
        """One number a head → (H,) float64; NaN where no row had one."""
        return _over_samples(self.total / self.count)


class Entropy(Metric):
    """−Σ a·log₂ a in bits: 0 looks at one key, log₂ K looks at all alike (Clark et al. 2019, §4.3)."""

    name = "entropy"

    def rows(self, weights, rows):
        return -torch.xlogy(weights, weights).sum(-1) / math.log(2)


class NormalisedEntropy(Entropy):
    """Entropy over the most it could be, log₂ of the keys the row may see: 0 … 1 whatever the length. Rows with one
    key have none."""

    name = "entropy_normalised"

    def rows(self, weights, rows):
        return super().rows(weights, rows) / rows.allowed.sum(-1).clamp_min(2).log2()

    def counts(self, rows):
        return rows.allowed.sum(-1) > 1


class ToSelf(Metric):
    """Weight a query gives to its own position (Clark et al. 2019, §3.1)."""

    name = "self"

    def rows(self, weights, rows):
        return _at(weights, rows.query)


class ToPrevious(Metric):
    """Weight given to the position before (Clark et al. 2019, §3.1): near 1 is a previous-token head (Elhage et al.
    2021)."""

    name = "previous"

    def rows(self, weights, rows):
        return _at(weights, rows.query - 1)

    def counts(self, rows):
        return rows.query[:, 0] > rows.first


class ToFirst(Metric):
    """Weight given to the first real position by the others, the attention sink (Xiao et al. 2023, §3.1)."""

    name = "first"

    def rows(self, weights, rows):
        return weights.gather(-1, rows.first[..., None].expand(*weights.shape[:3], 1))[..., 0]

    def counts(self, rows):
        return rows.query[:, 0] > rows.first


class Distance(Metric):
    """Mean distance Σ a·|q − k| in tokens (Vig & Belinkov 2019, §4.3)."""

    name = "distance"

    def rows(self, weights, rows):
        return (weights * (rows.query - rows.key).abs()).sum(-1)


class ForbiddenMass(Metric):
    """Weight a row puts on keys its promise forbids. 0 when the mask works; anything else is a leak."""

    name = "forbidden"

    def rows(self, weights, rows):
        return (weights * ~rows.allowed).sum(-1)


class Information(Metric):
    """Mutual information of query and key positions in bits, H(mean a) − mean H(a) (Cover & Thomas 2006, §2.4): what
    knowing the query tells about where the head looks. 0 looks at the same keys from everywhere, as a sink does; an
    alignment of n positions has log₂ n."""

    name = "information"

    def __init__(self):
        super().__init__()
        self.marginal: Tensor | float = 0.0  # Σ a over queries, (B, H, K)

    def rows(self, weights, rows):
        return Entropy.rows(self, weights, rows)

    def update(self, weights, rows):
        super().update(weights, rows)
        real = weights.masked_fill(~rows.real[..., None], 0.0)  # padding may be NaN
        self.marginal = self.marginal + real.sum(2, dtype=torch.float64)

    def result(self):
        mean = self.marginal / self.count[..., None]  # (B, H, K)
        entropy = -torch.xlogy(mean, mean).sum(-1) / math.log(2)  # (B, H)
        return _over_samples(entropy - self.total / self.count)


class Induction(Metric):
    """Weight on the token after the earlier copy of this one, on a block of random tokens said twice (Olsson et al.
    2022, "induction score").

    With the second copy at ``start + period``, the query at position t looks at key t − (period − 1).
    """

    name = "induction"

    def __init__(self, start: int, period: int):
        super().__init__()
        self.start, self.period = start, period

    def rows(self, weights, rows):
        return _at(weights, rows.query - self.period + 1)

    def counts(self, rows):
        return (rows.query[:, 0] >= self.start + self.period)[None, None]


class DuplicateToken(Induction):
    """Weight on the earlier copy of the same token, on the same repeated block (Wang et al. 2022, §3.3)."""

    name = "duplicate"

    def rows(self, weights, rows):
        return _at(weights, rows.query - self.period)


class Period(Metric):
    """Weight on the same place in earlier cycles: keys one, two, three … periods before this position. In a monthly
    series the same month of earlier years, in a score the same place in earlier bars. A head that weighs all keys alike
    gives 1 / period."""

    name = "period"

    def __init__(self, period: int, ahead: int = 0):
        super().__init__()
        self.period, self.ahead = period, ahead

    def rows(self, weights, rows):
        back = rows.query + self.ahead - rows.key  # (R, K)
        return torch.where((back > 0) & (back % self.period == 0), weights, 0.0).sum(-1)

    def counts(self, rows):
        return (rows.query[:, 0] + self.ahead >= self.period)[None, None]


class NextPeriod(Period):
    """Weight on where what comes next stood in earlier cycles: in December, the Januaries before. What the induction
    score is on random tokens said twice, on a series or a score that repeats itself. A head that weighs all keys alike
    gives 1 / period."""

    name = "next_period"


class NextInVoice(Period):
    """Weight on where the next note of the query's own voice stood in earlier bars of a score, whose voices take turns.
    A head that weighs all keys alike gives 1 / period."""

    name = "next_in_voice"


def periodic(cap: Capture) -> tuple[Callable[[], Metric], ...]:
    """The metrics of heads that follow a period, where the positions of a capture lie on a series or a score."""
    track = next((axis.track for axis in cap.axes.values() if axis.track is not None), None)
    if track is None:
        return ()
    found = (partial(Period, track.period), partial(NextPeriod, track.period, 1))
    return (*found, partial(NextInVoice, track.period, len(track.voices))) if isinstance(track, Score) else found


STANDARD: tuple[Callable[[], Metric], ...] = (
    Entropy,
    NormalisedEntropy,
    ToSelf,
    ToPrevious,
    ToFirst,
    Distance,
    Information,
    ForbiddenMass,
)


def measure(
    cap: Capture,
    metrics: Sequence[Callable[[], Metric]],
    expect: Mask | None = None,
    progress: Callable[[float], None] = lambda _: None,
    *,
    own: Callable[[AttentionCall], Sequence[Metric]] = lambda call: (),
) -> Iterator[tuple[AttentionCall, dict[str, Tensor]]]:
    """Each call with the results of all metrics, by name; ``own`` makes more for each call. One recomputation of
    the weights serves them all."""
    for index, call in enumerate(cap.calls):
        promise = expect or call.claim.mask or Bidirectional()  # where nobody says, nothing is forbidden
        measures = [*(make() for make in metrics), *own(call)]
        real_query, real_key = _real(call)
        for start, stop, weights in call.bands():
            rows = _band(call, promise, real_query, real_key, start, stop)
            shares = _shares(weights) if call.linear else weights
            for metric in measures:
                metric.update(shares, rows)
            progress((index + stop / call.queries) / len(cap.calls))
        yield call, {metric.name: metric.result() for metric in measures}


def sweep(
    cap: Capture,
    metrics: Sequence[Callable[[], Metric]] = STANDARD,
    *,
    expect: Mask | None = None,
    progress: Callable[[float], None] = lambda fraction: None,
) -> pd.DataFrame:
    """All metrics of all heads → a table with columns stack, layer, head, then one column a metric.

    ``expect`` is what the heads promise, for forbidden mass and normalised entropy: by default what the model's own
    configuration or the user says of each, nothing forbidden where nobody says, padding keys forbidden.
    ``progress`` is called with the fraction done; raise from it to stop. Definitions and sources stand in each
    metric's docstring.
    """
    return table(measure(cap, metrics, expect, progress))


def table(measured: Iterable[tuple[AttentionCall, dict[str, Tensor]]]) -> pd.DataFrame:
    """One row a head of what ``measure`` yields: stack, layer, head, then one column a metric."""
    frames = []
    for call, results in measured:
        place = {"stack": call.stack, "layer": call.layer, "head": range(call.heads)}
        frames.append(pd.DataFrame({**place, **{name: result.tolist() for name, result in results.items()}}))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["stack", "layer", "head"])


def repeated_random(subject: Subject, length: int = 64, batch: int = 4, seed: int = 0) -> tuple[Inputs, int]:
    """[bos] r r with r random tokens other than bos → (input of (batch, 1 + 2·length) ids, position where the first
    copy starts). Row i is drawn with the seed ``seed + i``.

    The text on which induction is plain to see: nothing but copying predicts the second half.
    """
    if subject.vocab_size is None or subject.family != "decoder":
        raise InputError(
            f"Induction is measured on decoders with a vocabulary; {subject.name} is a {subject.family} model."
        )
    if subject.reads != "text":
        raise InputError(f"Induction is measured on random tokens of a text; {subject.name} reads a {subject.reads}.")
    generators = [torch.Generator().manual_seed(seed + row) for row in range(batch)]
    others = subject.vocab_size - (subject.bos is not None)
    block = torch.stack([torch.randint(others, (length,), generator=generator) for generator in generators])
    bos = torch.full((batch, 0 if subject.bos is None else 1), subject.bos or 0)
    block = block + (block >= bos) if subject.bos is not None else block
    ids = torch.cat([bos, block, block], 1).to(subject.device)
    return Inputs({"input_ids": ids}), bos.shape[1]


def induction(subject: Subject, length: int = 64, batch: int = 4, seed: int = 0) -> pd.DataFrame:
    """Induction and duplicate-token score of every head on repeated random tokens → table (stack, layer, head,
    induction, duplicate).

    Raises InputError for subjects that are no decoders.
    """
    inputs, start = repeated_random(subject, length, batch, seed)
    return sweep(capture(subject, inputs), [partial(Induction, start, length), partial(DuplicateToken, start, length)])


def _band(call: AttentionCall, promise: Mask, real_query: Tensor, real_key: Tensor, start: int, stop: int) -> Band:
    device = real_query.device
    query = torch.arange(start, stop, device=device)[:, None]
    key = torch.arange(call.keys, device=device)[None, :]
    batch = torch.arange(call.batch, device=device)[:, None, None, None]
    allowed = promise(batch, torch.zeros((), dtype=torch.long, device=device), query, key)
    allowed = allowed.expand(call.batch, 1, stop - start, call.keys) & real_key[:, None, None, :]
    first = real_key.int().argmax(1)[:, None, None]
    return Band(query, key, real_query[:, None, start:stop], allowed, first)


def _real(call: AttentionCall) -> tuple[Tensor, Tensor]:
    """Real queries (B, Q) and real keys (B, K)."""
    sides = []
    for real, length in ((call.real_queries, call.queries), (call.real_keys, call.keys)):
        if real is None or real.shape[0] != call.batch:
            real = torch.ones(call.batch, length, dtype=torch.bool)
        sides.append(real.to(call.device))
    return sides[0], sides[1]


def _shares(weights: Tensor) -> Tensor:
    """Weights that no softmax made, which may be negative, as shares of each row's sum of sizes: what a head weighs
    against is looked at too."""
    sizes = weights.abs()
    return sizes / sizes.sum(-1, keepdim=True).clamp_min(torch.finfo(sizes.dtype).tiny)


def _over_samples(values: Tensor) -> Tensor:
    """(B, H) → (H,): each sample counts alike, those without a number not at all."""
    return values.nanmean(0)


def _at(weights: Tensor, key: Tensor) -> Tensor:
    """Each row's weight at its own key position (R, 1); 0 where that position does not exist → (B, H, R)."""
    keys = weights.shape[-1]
    index = key.clamp(0, keys - 1).expand(*weights.shape[:2], -1, 1)
    return weights.gather(-1, index)[..., 0] * ((key >= 0) & (key < keys))[:, 0]


DEFINITIONS = {
    metric.name: metric.__doc__.split("\n\n")[0]
    for metric in (*STANDARD, Period, NextPeriod, NextInVoice, Induction, DuplicateToken)
}
