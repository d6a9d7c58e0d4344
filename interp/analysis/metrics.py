"""Head metrics: numbers that say what a head does, streamed in bands of rows so that no head's n×n is ever kept.

A metric sees each band of weights once, ``update(weights, rows)``, and answers with one number a head,
``result()``. A sweep computes every band once and shows it to all metrics. Averages run over real queries only
(padding left out) and over the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import pandas as pd
import torch
from torch import Tensor

from headwise.interp.attention.axes import Score
from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.sampling import Sample
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
    whole: bool = False  # whether it is known that no query is padding
    obeyed: bool = False  # whether it is known that no weight lies beyond what is allowed
    sizes: Tensor | None = None  # (S,) of the strata from which the rows were drawn; None: these are all there are
    draws: int = 1  # from each
    _memo: dict = field(default_factory=dict, repr=False)

    def entropy(self, weights: Tensor) -> Tensor:
        """−Σ a·log₂ a of each row, (B, H, R): several metrics ask for it."""
        if "entropy" not in self._memo:
            logs = weights.clamp_min(torch.finfo(weights.dtype).tiny).log_()
            self._memo["entropy"] = -logs.mul_(weights).sum(-1) / math.log(2)
        return self._memo["entropy"]

    @property
    def share(self) -> Tensor | float:
        """How many rows each row stands for."""
        return 1.0 if self.sizes is None else (self.sizes.double() / self.draws).repeat_interleave(self.draws)

    def variance(self, value: Tensor) -> Tensor | float:
        """Of the sum over all rows as it is estimated from these, (B, H, R) → (B, H)."""
        if self.sizes is None:
            return 0.0
        left = self.sizes * (self.sizes - self.draws).clamp_min(0) / self.draws  # (S,)
        return (left * value.unflatten(2, (-1, self.draws)).var(3)).sum(2)


class Metric:
    """A mean over real queries of one number a row, then over the samples that have one. Subclasses say the number, and
    which rows have one."""

    name = ""

    def __init__(self):
        self.total: Tensor | float = 0.0  # (B, H)
        self.count: Tensor | float = 0.0  # (B, 1)
        self.variance: Tensor | float = 0.0  # of the total, (B, H)

    def rows(self, weights: Tensor, rows: Band) -> Tensor:
        """(B, H, R, K) → (B, H, R)."""
        raise NotImplementedError(f"{type(self).__name__} must define rows(weights, rows)")

    def counts(self, rows: Band) -> Tensor:
        """Which queries have this number → bool, broadcasts to (B, 1, R)."""
        return torch.ones_like(rows.real)

    def update(self, weights: Tensor, rows: Band) -> None:
        valid = rows.real & self.counts(rows)  # (B, 1, R)
        value = torch.where(valid, self.rows(weights, rows).double(), 0.0)
        self.total = self.total + (value * rows.share).sum(2)
        self.count = self.count + (valid * rows.share).expand(len(value), -1, -1).sum(2, dtype=torch.float64)
        self.variance = self.variance + rows.variance(value)

    def result(self) -> Tensor:
        """One number a head → (H,) float64; NaN where no row had one."""
        return _over_samples(self.total / self.count)

    def error(self) -> Tensor:
        """The standard error of ``result``, (H,); 0 where every row was seen."""
        own = self.variance / self.count.square() + torch.zeros_like(self.total)  # (B, H)
        return own.nansum(0).sqrt() / own.isfinite().sum(0)


class Entropy(Metric):
    """−Σ a·log₂ a in bits: 0 looks at one key, log₂ K looks at all alike (Clark et al. 2019, §4.3)."""

    name = "entropy"

    def rows(self, weights, rows):
        return rows.entropy(weights)


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
        return torch.einsum("bhrk,rk->bhr", weights, (rows.query - rows.key).abs().to(weights.dtype))


class ForbiddenMass(Metric):
    """Weight a row puts on keys its promise forbids. 0 when the mask works; anything else is a leak."""

    name = "forbidden"

    def rows(self, weights, rows):
        if rows.obeyed:
            return weights.new_zeros(weights.shape[:3])
        return (weights * ~rows.allowed).sum(-1)


class Information(Metric):
    """Mutual information of query and key positions in bits, H(mean a) − mean H(a) (Cover & Thomas 2006, §2.4): what
    knowing the query tells about where the head looks. 0 looks at the same keys from everywhere, as a sink does; an
    alignment of n positions has log₂ n. NaN of a sample of queries, which cannot tell."""

    name = "information"

    def __init__(self):
        super().__init__()
        self.marginal: Tensor | float = 0.0  # Σ a over queries, (B, H, K)

    def rows(self, weights, rows):
        return rows.entropy(weights)

    def update(self, weights, rows):
        super().update(weights, rows)
        if rows.sizes is not None:  # of a sample of queries the mean is no guide: an alignment has as many bits as rows
            self.marginal = torch.nan
            return
        real = weights if rows.whole else weights.masked_fill(~rows.real[..., None], 0.0)  # padding may be NaN
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


Measured = tuple[AttentionCall, dict[str, Tensor], dict[str, Tensor]]  # a call, results and their errors by name


def measure(
    cap: Capture,
    metrics: Sequence[Callable[[], Metric]],
    expect: Mask | None = None,
    progress: Callable[[float], None] = lambda _: None,
    *,
    own: Callable[[AttentionCall], Sequence[Metric]] = lambda call: (),
    sample: Callable[[AttentionCall], Sample | None] = lambda call: None,
) -> Iterator[Measured]:
    """Each call with the results of all metrics and their standard errors, by name; ``own`` makes more metrics for each
    call, and ``sample`` says which of its queries are looked at: None for all of them. One recomputation of the weights
    serves them all."""
    for index, call in enumerate(cap.calls):
        promise = expect or call.claim.mask or Bidirectional()  # where nobody says, nothing is forbidden
        measures = [*(make() for make in metrics), *own(call)]
        drawn, done = sample(call), 0
        for query, weights in _read(call, drawn):
            rows = _band(call, promise, query)
            if drawn is not None:
                sizes = drawn.sizes[done // drawn.draws :][: len(query) // drawn.draws]
                rows = replace(rows, sizes=sizes.to(query.device), draws=drawn.draws)
            done += len(query)
            shares = _shares(weights) if call.linear else weights
            for metric in measures:
                metric.update(shares, rows)
            total = call.queries if drawn is None else len(drawn.rows)
            progress((index + done / total) / len(cap.calls))
        yield call, {m.name: m.result() for m in measures}, {m.name: m.error() for m in measures}


def _read(call: AttentionCall, drawn: Sample | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Positions (R,) and weights (B, H, R, K)."""
    if drawn is not None:
        yield from call.drawn(drawn.rows, drawn.draws)
        return
    for start, stop, weights in call.bands():
        yield torch.arange(start, stop, device=call.device), weights


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


def table(measured: Iterable[Measured]) -> pd.DataFrame:
    """One row a head of what ``measure`` yields: stack, layer, head, then one column a metric."""
    return framed((call, results) for call, results, _ in measured)


def tables(measured: Iterable[Measured]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """That table, and another with the standard errors."""
    every = list(measured)
    return table(every), framed((call, errors) for call, _, errors in every)


def framed(results: Iterable[tuple[AttentionCall, dict[str, Tensor]]]) -> pd.DataFrame:
    """Numbers by name, one a head of a call → a row a head: stack, layer, head, then the numbers."""
    frames = []
    for call, numbers in results:
        place = {"stack": call.stack, "layer": call.layer, "head": range(call.heads)}
        frames.append(pd.DataFrame({**place, **{name: number.tolist() for name, number in numbers.items()}}))
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


def _band(call: AttentionCall, promise: Mask, query: Tensor) -> Band:
    device = query.device
    real_query, real_key = _real(call)
    key = torch.arange(call.keys, device=device)[None, :]
    batch = torch.arange(call.batch, device=device)[:, None, None, None]
    allowed = promise(batch, torch.zeros((), dtype=torch.long, device=device), query[:, None], key)
    allowed = allowed.expand(call.batch, 1, len(query), call.keys) & real_key[:, None, None, :]
    first = real_key.int().argmax(1)[:, None, None]
    obeyed = call.obeys(promise) and bool(real_key.all())
    real = real_query[:, None, query]
    return Band(query[:, None], key, real, allowed, first, whole=bool(real.all()), obeyed=obeyed)


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
