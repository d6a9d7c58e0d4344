"""A cause is said where an experiment shows it: with one thing put right the leak is gone, the model still works."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headwise import check
from headwise.interp.check.findings.operations import KIND_OF, KINDS
from headwise.interp.check.rows import Places
from headwise.interp.masks import Bidirectional, Blocks, Causal
from headwise.interp.zoo.case import WIDTH, Attention, Plain, Series

FAST = {"modes": "base", "dtypes": (), "budget": 60.0}
UNKNOWN = "the leak enters here; we did not find why"


class Over(nn.Module):
    """x (B, T, C) → what ``mix`` makes of it."""

    def __init__(self, mix):
        super().__init__()
        self.mix, self.norm = mix, nn.LayerNorm(WIDTH)

    def forward(self, x):
        return self.mix(self.norm(x))


def shares(x):
    weights = x[..., :1].softmax(1)
    return (weights * x).cumsum(1)


def spectrum(x):
    return torch.fft.irfft(torch.fft.rfft(x, dim=1).abs() + 0j, n=x.shape[1], dim=1)


def mirrored(x):
    return F.avg_pool1d(F.pad(x.transpose(1, 2), (2, 0), mode="reflect"), 3, 1).transpose(1, 2)


MIXED = {  # what is done → (the kind of operation that is named, a word of the cause)
    "mean": (lambda x: x - x.mean(1, keepdim=True), "mean over positions"),
    "mean and deviation": (
        lambda x: (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True),
        "mean and std over positions",
    ),
    "largest": (lambda x: x / x.abs().amax(1, keepdim=True), "amax over positions"),
    "softmax": (shares, "a softmax over positions: its normaliser"),
    "mirrored": (mirrored, "reflect padding"),
    "turned": (lambda x: x - x.roll(-1, 1), "roll moves later positions to earlier ones"),
    "spectrum": (spectrum, "a Fourier transform over positions"),
    "pooled": (lambda x: F.avg_pool1d(x.transpose(1, 2), 3, 1, 1).transpose(1, 2), "pooling reaches"),
    "sorted": (lambda x: x * x[..., 0].argsort(1).argsort(1)[..., None], "argsort looks at every position"),
    "product": (lambda x: (x @ x.transpose(1, 2) / 9) @ x, "a product along positions"),
}


@pytest.mark.parametrize("name", MIXED)
def test_the_operation_that_carries_a_leak_is_named(name):
    mix, words = MIXED[name]
    torch.manual_seed(0)
    report = check(Series(Over(torch.tanh), Over(mix)).eval(), Causal(), **FAST)
    finding = report.findings[0]
    assert finding.module == "layers.1", str(report)
    assert words in finding.cause and finding.sure == "certain", str(report)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_recurrence_is_named_where_it_reads_backwards_and_a_norm_over_features_never(kind):
    class Both(nn.Module):
        """A recurrence, a norm over features, and an attention without its mask: one module does wrong."""

        def __init__(self, both_ways):
            super().__init__()
            self.rnn = kind(WIDTH, WIDTH // (1 + both_ways), batch_first=True, bidirectional=both_ways)
            self.norm, self.attention = nn.LayerNorm(WIDTH), Open() if not both_ways else Attention()

        def forward(self, x):
            return self.attention(self.norm(self.rnn(x)[0]))

    class Open(Attention):
        def allowed(self, length, real):
            return torch.ones(length, length, dtype=torch.bool)

    torch.manual_seed(0)
    backwards = check(Series(Both(True)).eval(), Causal(), **FAST).findings[0]
    assert backwards.module == "layers.0.rnn" and backwards.cause.startswith("a bidirectional recurrence")
    forwards = check(Series(Both(False)).eval(), Causal(), **FAST).findings[0]
    assert forwards.module == "layers.0.attention" and forwards.cause == "no causal mask reaches this attention"


def test_what_follows_from_one_cause_is_one_finding():
    torch.manual_seed(0)
    norms = [nn.Sequential(Turned(), nn.GroupNorm(1, WIDTH), Turned()) for _ in range(3)]
    report = check(Series(*norms).eval(), Causal(), **FAST)
    assert len(report.findings) == 1, str(report)
    finding = report.findings[0]
    assert finding.module == "layers.0.1" and finding.also == ("layers.1.1", "layers.2.1"), str(report)
    assert finding.cause.startswith("group_norm over positions") and finding.sure == "certain"


class Turned(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


def test_two_causes_of_different_kinds_are_not_taken_for_one():
    torch.manual_seed(0)
    report = check(Series(Over(MIXED["mean"][0]), Over(MIXED["turned"][0])).eval(), Causal(), **FAST)
    assert report.findings[0].module == "layers.0" and not report.ok
    assert report.findings[0].sure in ("certain", "")
    assert report.findings[0].sure or report.findings[0].cause == UNKNOWN


class Windowed(nn.Module):
    """Attention within windows of four, folded into the batch; padded to whole windows before."""

    def __init__(self, apart: bool):
        super().__init__()
        self.apart, self.attend = apart, nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x):
        b, t, _c = x.shape
        y = F.pad(x, (0, 0, 1, -(t + 1) % 4)).unflatten(1, (-1, 4)).flatten(0, 1)
        hidden = torch.ones(4, 4, dtype=torch.bool).triu(1) if self.apart else None
        y = self.attend(y, y, y, attn_mask=hidden, need_weights=False)[0]
        return y.unflatten(0, (b, -1)).flatten(1, 2)[:, 1 : t + 1]


def test_attention_in_windows_is_named_and_proven_by_masking_it():
    torch.manual_seed(0)
    finding = check(Series(Windowed(False)).eval(), Causal(), **FAST).findings[0]
    assert (finding.module, finding.inside) == ("layers.0.attend", "attention")
    assert "attention in windows of 4" in finding.sentence and finding.sure == "certain", str(finding)
    assert check(Series(Windowed(True)).eval(), Causal(), **FAST).ok


class Memory(nn.Module):
    """Three learned tokens in front of the sequence, through attention that is masked or not, and off again."""

    def __init__(self, masked):
        super().__init__()
        self.tokens, self.norm = nn.Parameter(torch.randn(3, WIDTH)), nn.LayerNorm(WIDTH)
        self.masked, self.attend = masked, nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x):
        x = self.norm(torch.cat([self.tokens.expand(len(x), -1, -1), x], 1))
        hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1) if self.masked else None
        return self.attend(x, x, x, attn_mask=hidden, need_weights=False)[0][:, 3:]


def test_a_leak_behind_memory_tokens_is_placed_in_its_attention():
    torch.manual_seed(0)
    finding = check(Series(Memory(True), Memory(False)).eval(), Causal(), **FAST).findings[0]
    assert (finding.module, finding.inside, finding.sure) == ("layers.1.attend", "attention", "certain"), str(finding)
    assert check(Series(Memory(True), Memory(True)).eval(), Causal(), **FAST).ok


class Last(nn.Module):
    """One answer a sequence, read at the last token, as ``how`` finds it; or a mean."""

    def __init__(self, how):
        super().__init__()
        self.embed, self.body, self.head = nn.Embedding(40, WIDTH), Attention(), nn.Linear(WIDTH, 5)
        self.how = how

    def forward(self, ids, attention_mask=None):
        real = torch.ones_like(ids) if attention_mask is None else attention_mask
        x = self.body(self.embed(ids), real.bool())
        if self.how == "mean":
            return self.head(x.mean(1))
        if self.how == "end":
            return self.head(x[:, -1])
        place = real.sum(1) - 1 if self.how == "count" else (torch.arange(ids.shape[1]) * real).argmax(1)
        return self.head(x[torch.arange(len(x)), place])


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("count", "the last token is looked up at the number of real tokens"),
        ("end", "the last position of the row is taken"),
        ("mean", "mean over"),
    ],
)
def test_an_answer_that_reads_the_padding_says_where_it_was_read(how, words):
    torch.manual_seed(0)
    finding = check(Last(how).eval(), Causal(), **FAST).findings[0]
    assert words in finding.cause and finding.sure == "certain", str(finding)
    assert finding.module in ("", None) and "answer" in finding.sentence, str(finding)
    assert check(Last("mask").eval(), Causal(), **FAST).ok


def test_a_promise_that_is_not_causal_is_not_called_the_future():
    class Free(Attention):
        def allowed(self, length, real):
            return torch.ones(length, length, dtype=torch.bool)

    torch.manual_seed(0)
    finding = check(Plain(Free, Free).eval(), Blocks((0,) * 5 + (1,) * 6), length=11, **FAST).findings[0]
    assert "future" not in finding.sentence + finding.cause, str(finding)


def test_modules_keep_their_case():
    torch.manual_seed(0)
    finding = check(Series(Over(MIXED["mean"][0])).eval(), Causal(), **FAST).findings[0]
    assert finding.sentence.startswith("layers.0 mixes positions"), str(finding)
    assert check(Series(Over(torch.tanh)).eval(), Bidirectional(), **FAST).ok


# -- rows -----------------------------------------------------------------------------------------------------------
def test_rows_of_a_strided_tensor_stand_where_its_outputs_do():
    places = Places(2, 24, outputs=torch.arange(5, 24, 6))
    axes, at = places.axes(torch.zeros(2, 7, 8))
    assert axes == [2] and at.tolist() == [2, 5, 8, 11, 14, 17, 20, 23]
    assert places.axes(torch.zeros(2, 7, 9)) is None
    mask = torch.zeros(2, 24, dtype=torch.bool)
    mask[1, 8] = True
    assert places.where(torch.zeros(2, 7, 8), mask).nonzero().tolist() == [[1, 0, 2]]


def test_rows_of_a_grid_and_of_a_time_first_tensor():
    grid = Places(2, 12, grid=(3, 4))
    changed = torch.zeros(2, 3, 4, 5)
    changed[1, 2, 1] = 1
    assert grid.changed([torch.zeros(2, 3, 4, 5)], [changed], 1).nonzero().flatten().tolist() == [9]
    first = Places(2, 12)
    mask = torch.zeros(2, 12, dtype=torch.bool)
    mask[0, 11] = True
    assert first.where(torch.zeros(12, 2, 5), mask).nonzero().tolist() == [[11, 0, 0]]


def test_an_operation_is_of_one_kind():
    assert sum(len(names.split()) for names, _, _ in KINDS.values()) == len(KIND_OF)
