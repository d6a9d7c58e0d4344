"""Which axis is time is asked of the model, where nobody says; and where it cannot tell, it is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headwise import check
from headwise.interp.check.errors import CheckError
from headwise.interp.masks import Bidirectional, Causal
from tests.interp.check.fields.field import WIDTH, WORDS, causal, drawn


class Behind(nn.Module):
    """(B, C, T) → (B, C, T), a recurrence behind a transpose."""

    def __init__(self, leaks: bool):
        super().__init__()
        self.leaks = leaks
        self.rnn = nn.LSTM(6, 6, batch_first=True)

    def forward(self, x):
        y = self.rnn(x.transpose(1, 2))[0].transpose(1, 2)
        return y - y.mean(2, keepdim=True) if self.leaks else y


class Spectrogram(nn.Module):
    """(B, 1, F, T) → (B, 1, F, T): both ways over frequencies, back over frames."""

    def __init__(self, leaks: bool):
        super().__init__()
        self.conv, self.padding = nn.Conv2d(1, 1, 3), (1, 1) if leaks else (2, 0)

    def forward(self, x):
        return self.conv(F.pad(x, (*self.padding, 1, 1)))


class Rows(nn.Module):
    """ids (B, R, T) → (B, R, T, V): rows that never meet, each causal."""

    def __init__(self, leaks: bool):
        super().__init__()
        self.leaks = leaks
        self.embed, self.attend = nn.Embedding(WORDS, WIDTH), nn.MultiheadAttention(WIDTH, 4, batch_first=True)

    def forward(self, x):
        y = self.embed(x).flatten(0, 1)
        mask = None if self.leaks else ~causal(x.shape[2])
        return (y + self.attend(y, y, y, attn_mask=mask, need_weights=False)[0]).view(*x.shape, -1)


class First(nn.Module):
    """ids (T, B) → (T, B, C): torch's encoder layer as it is made."""

    def __init__(self, leaks: bool):
        super().__init__()
        self.leaks = leaks
        self.embed, self.layer = nn.Embedding(WORDS, WIDTH), nn.TransformerEncoderLayer(WIDTH, 4, 32, 0.0)

    def forward(self, ids):
        return self.layer(self.embed(ids), None if self.leaks else ~causal(len(ids)))


def built(make, leaks):
    torch.manual_seed(0)
    return make(leaks).eval()


@pytest.mark.parametrize(
    ("make", "options", "read"),
    [
        (Behind, {"inputs": drawn(3, 6, 17)}, "(B, C, T)"),
        (Behind, {}, "(B, C, T)"),
        (Spectrogram, {"inputs": drawn(3, 1, 9, 14)}, "(B, C, D, T)"),
        (Rows, {"inputs": drawn(3, 4, 11, below=WORDS)}, "(B, C, T)"),
        (First, {}, "(T, B)"),
        (First, {"inputs": drawn(13, 3, below=WORDS)}, "(T, B)"),
    ],
)
def test_time_is_found_by_runs(make, options, read):
    report = check(built(make, False), Causal(), **options)
    assert report.ok and f" {read} → " in report.reading, str(report)
    report = check(built(make, True), Causal(), **options)
    assert report.findings and not report.errors, str(report)


def test_a_forgotten_batch_first_is_a_bug_and_no_layout():
    """A recurrence over the batch, and attention over a batch that no mask divides, look like time first."""

    class Forgot(nn.Module):
        def __init__(self, mixer):
            super().__init__()
            self.enter, self.mixer = nn.Linear(6, WIDTH), mixer

        def forward(self, x):
            x = self.enter(x)
            return self.mixer(x)[0] if isinstance(self.mixer, nn.GRU) else self.mixer(x, x, x)[0]

    for mixer, promise in ((nn.GRU(WIDTH, WIDTH), Causal()), (nn.MultiheadAttention(WIDTH, 4), Bidirectional())):
        report = check(Forgot(mixer).eval(), promise)
        assert report.classes == ("layout",), str(report)


def test_torchs_own_takes_time_first_also_without_a_mask():
    report = check(nn.TransformerEncoderLayer(WIDTH, 4, 32, 0.0).eval(), Bidirectional())
    assert report.ok and "(T, B, C)" in report.reading, str(report)


def test_a_grid_of_which_any_axis_may_be_time_is_refused():
    with pytest.raises(CheckError, match="which of its axes is time cannot be told: say layout="):
        check(built(Spectrogram, False), Causal())
    assert check(built(Spectrogram, False), Causal(), layout="(B, C, F, T) -> (B, C, F, T)").ok
