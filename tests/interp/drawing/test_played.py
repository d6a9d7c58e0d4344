"""A score as sound: the pitches that sound, when, and for how long."""

import numpy as np
import pytest

from headwise.interp.attention.axes import Score
from headwise.interp.drawing.played import RATE, played


def score(*notes) -> Score:
    return Score(
        32, "note", "bar", notes=np.array(notes, np.int64).reshape(-1, 4), seconds=0.1, voices=("soprano",) * 4
    )


def loudest(samples: np.ndarray) -> float:
    """The frequency with the most energy, in Hz."""
    energy = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(energy.argmax() * RATE / len(samples))


@pytest.mark.parametrize(("pitch", "frequency"), [(69, 440.0), (60, 261.63), (57, 220.0)])
def test_a_note_has_its_pitch(pitch, frequency):
    """A4 is 440 Hz, middle C 261.63 Hz, in equal temperament."""
    assert loudest(played(score((1, 11, pitch, 0)))) == pytest.approx(frequency, abs=1.5)


def test_notes_follow_each_other():
    samples = played(score((0, 10, 69, 0), (10, 20, 57, 0)))
    assert len(samples) / RATE == pytest.approx(2.0, abs=0.1)
    assert loudest(samples[: int(0.9 * RATE)]) == pytest.approx(440, abs=3)
    assert loudest(samples[int(1.1 * RATE) : int(1.9 * RATE)]) == pytest.approx(220, abs=3)


def test_the_continuation_is_heard_alone():
    whole, rest = score((0, 10, 69, 0), (10, 20, 57, 0)), played(score((0, 10, 69, 0), (10, 20, 57, 0)), first=10)
    assert len(rest) < len(played(whole)) and loudest(rest) == pytest.approx(220, abs=3)
    assert np.abs(rest).max() == pytest.approx(0.8, abs=1e-3) and rest.dtype == np.float32


def test_silence_is_silent():
    assert not played(score()).any()
