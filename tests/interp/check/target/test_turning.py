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


def test_a_padding_mask_tells_samples_from_positions():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.layer = nn.Embedding(WORDS, WIDTH), nn.TransformerEncoderLayer(WIDTH, 4, 32, 0.0)

        def forward(self, src, src_key_padding_mask=None):
            return self.layer(self.embed(src), src_key_padding_mask=src_key_padding_mask)

    report = check(Encoder().eval(), Bidirectional())
    assert report.ok and report.reading == "src (T, B) → (T, B, C)", str(report)
    assert next(p for p in report.probed if p.id == "padding").applied


def test_a_finding_beside_an_axis_that_holds_names_the_layout():
    class Alignment(Rows):
        def forward(self, x):
            y = super().forward(x)
            return y + y.mean(1, keepdim=True)

    report = check(built(Alignment, False), Causal(), inputs=drawn(3, 4, 11, below=WORDS))
    assert not report.ok and any("say layout='(B, C, T)'" in note for note in report.notes), str(report)
    assert check(built(Alignment, False), Causal(), inputs=drawn(3, 4, 11, below=WORDS), layout="(B, R, T)").ok


def test_of_several_inputs_the_one_that_stands_beside_is_not_the_sequence():
    class Forecaster(nn.Module):
        def __init__(self, both_ways):
            super().__init__()
            self.read, self.write = nn.GRU(3, 8, batch_first=True), nn.GRU(2, 8, batch_first=True)
            self.both_ways = both_ways

        def forward(self, context, future):
            y = self.write(future, self.read(context)[1])[0]
            return y + y.flip(1) if self.both_ways else y

    given = {"context": drawn(3, 12, 3), "future": drawn(3, 7, 2)}
    assert check(built(Forecaster, False), Causal(), inputs=given).reading == "future (B, T, C) → (B, T, C)"
    assert check(built(Forecaster, True), Causal(), inputs=given).findings


def test_complex_spectra_are_numbers():
    class Masking(nn.Module):
        def __init__(self, both_ways):
            super().__init__()
            self.rnn = nn.GRU(10, 5, batch_first=True, bidirectional=both_ways)

        def forward(self, spectrum):
            mask = self.rnn(torch.view_as_real(spectrum).flatten(2))[0]
            return mask.unflatten(-1, (-1, 5)).sum(2) * spectrum

    spectrum = torch.complex(drawn(3, 9, 5), drawn(3, 9, 5, seed=6))
    assert check(built(Masking, False), Causal(), inputs=spectrum).ok
    report = check(built(Masking, True), Causal(), inputs=spectrum)
    assert report.classes == ("outside-attention",) and report.findings[0].module == "rnn", str(report)


def test_torchs_own_takes_time_first_also_without_a_mask():
    report = check(nn.TransformerEncoderLayer(WIDTH, 4, 32, 0.0).eval(), Bidirectional())
    assert report.ok and "(T, B, C)" in report.reading, str(report)


def test_a_grid_of_which_any_axis_may_be_time_is_refused():
    with pytest.raises(CheckError, match="which of its axes is time cannot be told: say layout="):
        check(built(Spectrogram, False), Causal())
    assert check(built(Spectrogram, False), Causal(), layout="(B, C, F, T) -> (B, C, F, T)").ok
