"""Each metric by hand on three tokens, and against a brute-force loop over every row."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from headwise.interp.analysis.metrics import (  # fmt: skip
    STANDARD,
    Distance,
    DuplicateToken,
    Entropy,
    ForbiddenMass,
    Induction,
    Information,
    NextInVoice,
    NextPeriod,
    NormalisedEntropy,
    Period,
    ToFirst,
    ToPrevious,
    ToSelf,
    induction,
    periodic,
    repeated_random,
    sweep,
)
from headwise.interp.errors import InputError
from headwise.interp.masks import Bidirectional, Causal
from headwise.interp.run.capture import capture
from headwise.interp.subject import Inputs, Subject, tensors_only

B, H, T, D = 2, 3, 11, 4


class Given(nn.Module):
    """Attention whose weights are the ones it is given, as scores log(weights)."""

    def forward(self, weights, attention_mask=None):
        return weights.log().softmax(-1) @ torch.eye(weights.shape[-1])


def captured(weights, family="decoder", **inputs):
    module = Given()
    return capture(Subject(module, tensors_only(module), "given", family), {"weights": weights, **inputs})


def random_causal(batch=B, heads=H, length=T):
    return torch.randn(batch, heads, length, length).masked_fill(~Causal().dense(length), -math.inf).softmax(-1)


# Three tokens. Rows: (1, 0, 0), (1/2, 1/2, 0), (1/4, 1/4, 1/2).
BY_HAND = torch.tensor([[[[1, 0, 0], [0.5, 0.5, 0], [0.25, 0.25, 0.5]]]])
EXPECTED = {
    "entropy": (0 + 1 + 1.5) / 3,
    "entropy_normalised": (1 / math.log2(2) + 1.5 / math.log2(3)) / 2,  # the first row can see one key only
    "self": (1 + 0.5 + 0.5) / 3,
    "previous": (0.5 + 0.25) / 2,
    "first": (0.5 + 0.25) / 2,
    "distance": (0 + 0.5 + (0.25 * 2 + 0.25)) / 3,
    "information": -sum(p * math.log2(p) for p in (7 / 12, 3 / 12, 2 / 12)) - 2.5 / 3,  # the mean row is 7, 3, 2 / 12
    "forbidden": 0.0,
}


def test_by_hand():
    table = sweep(captured(BY_HAND))
    assert list(table.columns) == ["stack", "layer", "head", *EXPECTED]
    for name, value in EXPECTED.items():
        assert table[name][0] == pytest.approx(value, abs=1e-6), name


def test_forbidden_mass_by_hand():
    """The same rows under the promise that nothing but the first key is seen: what else is seen leaks."""
    leak = torch.tensor([[[[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.1, 0.4, 0.5]]]])
    assert sweep(captured(leak), [ForbiddenMass])["forbidden"][0] == pytest.approx((0.1 + 0.3 + 0) / 3)
    assert sweep(captured(leak), [ForbiddenMass], expect=Bidirectional())["forbidden"][0] == 0
    assert sweep(captured(leak, "encoder"), [ForbiddenMass])["forbidden"][0] == 0


def test_a_query_beyond_the_keys_has_no_weight_on_itself():
    """Three queries of two keys: the last has no key of its number, and the one before it is the second."""
    weights = torch.tensor([[[[0.75, 0.25], [0.5, 0.5], [0.125, 0.875]]]])
    table = sweep(captured(weights, "encoder"), [ToSelf, ToPrevious, Distance])
    assert table["self"][0] == pytest.approx((0.75 + 0.5 + 0) / 3)
    assert table["previous"][0] == pytest.approx((0.5 + 0.875) / 2)
    assert table["distance"][0] == pytest.approx((0.25 + 0.5 + (0.125 * 2 + 0.875)) / 3)


def brute_force(weights, real, allowed):
    """All metrics in plain Python, row by row and sample by sample → {name: one number a head}."""
    alone = [_brute_force(weights[b : b + 1], real[b : b + 1], allowed[b : b + 1]) for b in range(len(weights))]
    return {
        name: [sum(numbers) / len(alone) for numbers in zip(*(m[name] for m in alone), strict=True)]
        for name in EXPECTED
    }


def _brute_force(weights, real, allowed):
    rows = {name: [[] for _ in range(weights.shape[1])] for name in EXPECTED}
    for b in range(weights.shape[0]):
        first = real[b].tolist().index(True)
        for h in range(weights.shape[1]):
            for q in range(weights.shape[2]):
                if not real[b, q]:
                    continue
                row = weights[b, h, q].double().tolist()
                bits = -sum(a * math.log2(a) for a in row if a > 0)
                may = int(allowed[b, q].sum())
                rows["entropy"][h].append(bits)
                if may > 1:
                    rows["entropy_normalised"][h].append(bits / math.log2(may))
                rows["self"][h].append(row[q])
                if q > first:
                    rows["previous"][h].append(row[q - 1])
                    rows["first"][h].append(row[first])
                rows["distance"][h].append(sum(a * abs(q - k) for k, a in enumerate(row)))
                rows["forbidden"][h].append(sum(a for k, a in enumerate(row) if not allowed[b, q, k]))
    means = {name: [sum(r) / len(r) for r in heads] for name, heads in rows.items() if name != "information"}
    means["information"] = []
    for h, bits in enumerate(means["entropy"]):
        mean = torch.stack([weights[b, h, q] for b, q in real.nonzero().tolist()]).double().mean(0)
        means["information"].append(-sum(a * math.log2(a) for a in mean.tolist() if a > 0) - bits)
    return means


@pytest.mark.parametrize("family", ["decoder", "encoder"])
@pytest.mark.parametrize("padding", [None, "right", "left"])
def test_against_brute_force(family, padding):
    weights = torch.randn(B, H, T, T).softmax(-1)
    real = torch.ones(B, T, dtype=torch.bool)
    if padding:
        real[1, slice(8, None) if padding == "right" else slice(0, 3)] = False
    allowed = (Causal() if family == "decoder" else Bidirectional()).dense(T)[None] & real[:, None]
    table = sweep(captured(weights, family, attention_mask=real.long()))
    for name, heads in brute_force(weights, real, allowed).items():
        assert table[name].tolist() == pytest.approx(heads, abs=1e-6), name
    assert table["head"].tolist() == list(range(H))


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_is_the_mean_of_its_samples_alone(side):
    """Weights as a model with relative positions gives them: padding hidden, real positions as if it were not there."""
    lengths = (4, T)
    samples = [random_causal(batch=1, length=n) for n in lengths]
    weights, real = torch.zeros(2, H, T, T), torch.zeros(2, T, dtype=torch.bool)
    for b, (n, alone) in enumerate(zip(lengths, samples, strict=True)):
        start = T - n if side == "left" else 0
        weights[b, :, start : start + n, start : start + n] = alone[0]
        real[b, start : start + n] = True
    together = sweep(captured(weights, attention_mask=real.long()))
    apart = [sweep(captured(alone)) for alone in samples]
    for name in EXPECTED:
        mean = (apart[0][name] + apart[1][name]) / 2
        assert together[name].tolist() == pytest.approx(mean.tolist(), abs=1e-6), name


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_bands_of_any_size_give_the_same(rows, monkeypatch):
    cap = captured(random_causal())
    whole = sweep(cap)
    monkeypatch.setattr("headwise.interp.attention.call.BAND_BYTES", 4 * B * H * T * rows)
    assert len(list(cap.calls[0].bands())) == math.ceil(T / rows)
    banded = sweep(cap)
    for name in EXPECTED:
        assert banded[name].tolist() == pytest.approx(whole[name].tolist(), abs=1e-9)


@pytest.mark.parametrize("start", [0, 1])
def test_perfect_induction_and_perfect_duplicates(start):
    """r r with a period of 4: in the second copy, t looks at t − 3, the token after its first copy, or at t − 4."""
    period = 4
    length = start + 2 * period
    weights = torch.eye(length).repeat(1, 2, 1, 1)
    for query in range(start + period, length):
        weights[0, :, query] = 0
        weights[0, 0, query, query - period + 1] = 1
        weights[0, 1, query, query - period] = 1
    table = sweep(captured(weights), [lambda: Induction(start, period), lambda: DuplicateToken(start, period)])
    assert table["induction"].tolist() == [1, 0]
    assert table["duplicate"].tolist() == [0, 1]


def test_an_alignment_tells_all_and_a_sink_nothing():
    alignment, sink = torch.eye(8), torch.zeros(8, 8)
    sink[:, 0] = 1
    table = sweep(captured(torch.stack([alignment, sink])[None], "encoder"), [Information])
    assert table["information"].tolist() == pytest.approx([3, 0])


def test_induction_counts_the_second_copy_only():
    weights = random_causal(1, 1, 9)
    table = sweep(captured(weights), [lambda: Induction(1, 4)])
    assert table["induction"][0] == pytest.approx(sum(float(weights[0, 0, t, t - 3]) for t in range(5, 9)) / 4)


def test_repeated_random_is_said_twice():
    subject = Subject(Given(), None, "given", "decoder", vocab_size=50, bos=7)
    inputs, start = repeated_random(subject, length=6, batch=3)
    ids = inputs.kwargs["input_ids"]
    assert (tuple(ids.shape), start) == ((3, 13), 1)
    assert (ids[:, 0] == 7).all()
    assert torch.equal(ids[:, 1:7], ids[:, 7:])
    assert repeated_random(subject)[0].kwargs["input_ids"].shape == (4, 1 + 2 * 64)
    long = repeated_random(subject, length=400)[0].kwargs["input_ids"]
    assert sorted(long[:, 1:].unique().tolist()) == [n for n in range(50) if n != 7]
    assert torch.equal(ids[1], repeated_random(subject, length=6, batch=1, seed=1)[0].kwargs["input_ids"][0])
    assert torch.equal(ids, repeated_random(subject, length=6, batch=3)[0].kwargs["input_ids"])
    assert not torch.equal(ids, repeated_random(subject, length=6, batch=3, seed=1)[0].kwargs["input_ids"])
    with pytest.raises(InputError, match="decoders"):
        induction(Subject(Given(), None, "given", "encoder", vocab_size=50))


def test_every_call_and_head_has_a_row():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(12, H, 16, batch_first=True), 2).eval()
    seen = []
    cap = capture(Subject(encoder, tensors_only(encoder), "e", "encoder"), {"src": torch.randn(B, T, 12)})
    table = sweep(cap, progress=seen.append)
    assert table[["layer", "head"]].values.tolist() == [[layer, head] for layer in range(2) for head in range(H)]
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_progress_can_stop_a_sweep():
    def stop(fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(captured(random_causal()), progress=stop)


def test_padding_of_the_target_is_told_from_padding_of_the_source():
    """Source and target of the same length: each side's own mask counts."""
    source, target = torch.tensor([[1, 1, 1, 0, 0]]), torch.tensor([[1, 1, 1, 1, 0]])
    model = nn.Transformer(12, H, 1, 1, 16, batch_first=True).eval()
    x = torch.randn(1, 5, 12)
    masks = {
        "src_key_padding_mask": source == 0,
        "tgt_key_padding_mask": target == 0,
        "memory_key_padding_mask": source == 0,
    }
    cap = capture(Subject(model, tensors_only(model), "t", "encoder-decoder"), Inputs({"src": x, "tgt": x, **masks}))
    real = {
        (c.stack, side): mask[0].long().tolist()
        for c in cap.calls
        for side, mask in (("query", c.real_queries), ("key", c.real_keys))
    }
    assert real == {
        ("encoder", "query"): source[0].tolist(), ("encoder", "key"): source[0].tolist(),
        ("decoder", "query"): target[0].tolist(), ("decoder", "key"): target[0].tolist(),
        ("cross", "query"): target[0].tolist(), ("cross", "key"): source[0].tolist(),
    }  # fmt: skip


def test_standard_metrics_say_where_they_come_from():
    assert list(STANDARD) == [
        Entropy,
        NormalisedEntropy,
        ToSelf,
        ToPrevious,
        ToFirst,
        Distance,
        Information,
        ForbiddenMass,
    ]
    assert all(metric.__doc__ for metric in STANDARD)


def periods(weights, ahead=0, metric=Period, period=3):
    return sweep(captured(weights), [partial(metric, period, ahead)])[metric.name].tolist()


def test_periods_by_hand():
    """Seven queries and a period of three. A head that looks one and two periods back, one at where what comes next
    stood, one at what lies two ahead; each row counts from where a period lies behind it."""
    length = 7
    weights = torch.full((1, 3, length, length), 1e-12)
    for q in range(length):
        for head, ahead in enumerate((0, 1, 2)):
            keys = [k for k in range(q + ahead - 3, -1, -3) if k <= q] or [q]
            for k in keys:
                weights[0, head, q, k] = 1 / len(keys)
    assert periods(weights) == pytest.approx([1, 0, 0], abs=1e-6)
    assert periods(weights, 1, NextPeriod) == pytest.approx([0, 1, 0], abs=1e-6)
    assert periods(weights, 2, NextInVoice) == pytest.approx([0, 0, 1], abs=1e-6)


def test_by_chance_a_period_has_its_share():
    """A head that weighs the keys of whole periods alike gives 1 / period: rows 3, 5, 7 … of a period of two."""
    uniform = torch.ones(1, 1, 9, 9).tril()
    by_row = [torch.arange(row % 2, row, 2).numel() / (row + 1) for row in range(2, 9)]
    assert periods(uniform, period=2) == pytest.approx([sum(by_row) / len(by_row)])


def test_only_series_and_scores_have_a_period():
    assert periodic(captured(torch.ones(1, 1, 3, 3).tril())) == ()
