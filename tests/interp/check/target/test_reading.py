"""Layouts, streams and strides are found by running, and said in the report."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headwise import check
from headwise.interp.check.errors import CheckError
from headwise.interp.masks import Bidirectional, Causal
from headwise.interp.zoo.case import Language, Plain


class Codec(nn.Module):
    """(B, 1, T) → (B, 6, T/2), each output after two inputs; the same left padding, of zeros."""

    def __init__(self, ahead=0):
        super().__init__()
        self.ahead = ahead
        self.first, self.down = nn.Conv1d(1, 8, 5), nn.Conv1d(8, 6, 4, 2)

    def forward(self, wave):
        x = self.first(F.pad(wave, (4 - self.ahead, self.ahead)))
        return self.down(F.pad(x.tanh(), (2, 0)))


class Two(nn.Module):
    """skill (B, T) and answer (B, T) → (B, T, 9); ``whole``: the answers' mean over all time is added."""

    def __init__(self, whole=False):
        super().__init__()
        self.whole = whole
        self.skill, self.answer, self.out = nn.Embedding(9, 8), nn.Embedding(2, 8), nn.Linear(8, 9)

    def forward(self, skill, answer):
        told = self.answer(answer)
        x = self.skill(skill).cumsum(1) + told
        return self.out(x + told.mean(1, keepdim=True) if self.whole else x)


class Last(Plain):
    """Ids (B, T) → what the last position says, (B, V)."""

    def forward(self, ids):
        return super().forward(ids)[:, -1]


GIVEN = {
    "skill": torch.randint(0, 9, (3, 13), generator=torch.Generator().manual_seed(0)),
    "answer": torch.randint(0, 2, (3, 13), generator=torch.Generator().manual_seed(1)),
}


def made(kind, *options):
    torch.manual_seed(0)
    return kind(*options).eval()


def test_a_strided_output_before_its_features_is_read_without_a_hint():
    report = check(made(Codec), Causal())
    assert report.ok and report.reading == "wave (B, C, T) → (B, C, T)", str(report)
    assert any("stand at input 2·j + 1" in note for note in report.notes)
    late = check(made(Codec, 1), Causal())
    assert late.classes == ("outside-attention",) and late.findings[0].module in ("", "first"), str(late)


def test_every_stream_is_changed_and_the_one_that_leaks_is_found():
    assert check(made(Two), Causal(), inputs=GIVEN).ok
    report = check(made(Two, True), Causal(), inputs=GIVEN)
    assert report.classes == ("outside-attention",), str(report)
    assert check(made(Two, True), Causal(), inputs=GIVEN, known_ahead="answer").ok  # it may be seen ahead
    assert report.reading == "skill (B, T), answer (B, T) → (B, T, C)"


def test_of_one_answer_a_sequence_the_states_inside_are_watched():
    report = check(made(Last), Causal())
    assert report.ok and "watched at head" in report.reading, str(report)
    assert next(p for p in report.probed if p.id == "content").applied


def test_one_answer_without_states_inside_is_not_said_to_be_tested():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 2))

        def forward(self, x):
            return x.sum(1) @ self.weight

    x = torch.randn(3, 7, 4)
    report = check(Sum().eval(), Causal(), inputs=x)
    assert report.verdict == "not tested" and not report.ok and not report.findings, str(report)
    assert check(Sum().eval(), Bidirectional(), inputs=x).verdict == "clean"  # nothing is promised


def test_a_layout_may_be_told():
    class TimeFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(4, 6)

        def forward(self, x):
            return self.rnn(x)[0]

    x = torch.randn(13, 3, 4)
    report = check(made(TimeFirst), Causal(), inputs=x, layout="(T,B,C)->(T,B,V)")
    assert report.ok and report.reading == "x (T, B, C) → (T, B, V)", str(report)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"layout": "(B,T,C)->(B,T,V)"}, "layout=.* has 3 axes, but ids has shape"),
        ({"known_ahead": "future", "inputs": GIVEN["skill"]}, "known_ahead= names 'future'"),
        ({"padding_mask": "which"}, "padding_mask= names 'which'"),
    ],
)
def test_hints_that_do_not_fit_are_refused_in_one_sentence(options, sentence):
    given = {"inputs": GIVEN["skill"], **options} if "padding_mask" not in options else options
    with pytest.raises(CheckError, match=sentence):
        check(made(Language), Causal(), **given)


def test_rounding_is_confirmed_in_float64():
    """A convolution by FFT mixes all positions within rounding, and none beyond it."""

    class Long(nn.Module):
        def __init__(self, ahead):
            super().__init__()
            self.ahead, self.kernel = ahead, nn.Parameter(torch.randn(5, 4096).cumsum(1))

        def forward(self, x):
            n = x.shape[1]
            kernel = torch.fft.rfft(self.kernel[:, :n], 2 * n)
            y = torch.fft.irfft(torch.fft.rfft(x.transpose(1, 2), 2 * n) * kernel, 2 * n)
            return y[..., self.ahead : n + self.ahead].transpose(1, 2)

    x = torch.randn(2, 211, 5)
    report = check(made(Long, 0), Causal(), inputs=x)
    assert report.ok and report.tolerated > 0, str(report)
    assert check(made(Long, 1), Causal(), inputs=x).classes == ("outside-attention",)


def test_weights_that_are_no_numbers_are_named():
    model = made(Language)
    with torch.no_grad():
        model.head.weight[0, 0] = torch.nan
    finding = check(model, Causal()).findings[0]
    assert finding.sentence.startswith("The weight head.weight has NaN") and finding.module == "head", str(finding)


@pytest.mark.parametrize("shape", [(0, 7), (3, 0)])
def test_inputs_that_hold_nothing_are_refused_in_one_sentence(shape):
    with pytest.raises(CheckError, match=r"holds nothing, its shape is"):
        check(made(Language), Causal(), inputs=torch.zeros(shape, dtype=torch.long))


def test_ids_of_one_value_are_changed_to_others_that_the_table_knows():
    report = check(made(Language), Causal(), inputs=torch.zeros(3, 9, dtype=torch.long))
    assert report.ok and next(p for p in report.probed if p.id == "content").applied, str(report)
