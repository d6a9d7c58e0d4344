"""Series as the forecaster reads them: tokens and back, dates, scale, bad input, what is written on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwise import load
from headwise.interp.errors import InputError
from headwise.interp.run.generate import extend
from headwise.models.inputs.series import GAP, MOST, START, STEP, changes_of, spell, tokens_of


def spaced(labels) -> tuple[str, ...]:
    """With spaces as one types them."""
    return tuple(label.replace(GAP, " ") for label in labels)


@pytest.fixture(scope="module")
def subject():
    return load("tiny-forecaster")


@given(st.lists(st.floats(-1.9, 1.9), min_size=2, max_size=40))
def test_rounding_does_not_add_up(changes):
    """Tokens told again are never further than half a step from the levels they were made of."""
    levels = np.cumsum(changes)
    again = np.rint(levels[0] / STEP) * STEP + np.cumsum(changes_of(tokens_of(levels)))
    assert np.abs(again - levels).max() <= STEP / 2 + 1e-9


def test_tokens_by_hand():
    """From 1.0: up 0.5, down 0.2, up by more than there is a token for."""
    tokens = tokens_of(np.array([1.0, 1.5, 1.3, 9.0]))
    assert tokens.tolist() == [START, MOST + 5, MOST - 2, 2 * MOST]
    assert spell(tokens) == "start+0.5−0.2+4.0" and spell([MOST]) == "±0.0"


def test_months_have_their_names_values_and_years(subject):
    inputs = subject.encode("# Air (ppm)\n1999-11 366.1\n1999-12, 367.3\n2000-01 368.0\n")
    axis = inputs.axes["input"]
    assert spaced(axis.labels) == ("Nov 1999: 366.1", "Dec 1999: 367.3", "Jan 2000: 368")
    assert inputs.kwargs["input_ids"].tolist() == [[START, MOST + 12, MOST + 7]]
    assert [axis.text[start:end] for start, end in axis.offsets] == ["1999-11 366.1", "1999-12, 367.3", "2000-01 368.0"]
    assert (axis.track.unit, axis.track.period, axis.track.marks) == ("ppm", 12, ((2, "2000"),))
    assert not inputs.notes


def test_a_series_of_other_size_is_scaled_and_told(subject):
    """A hundred times as large, it gives the same tokens."""
    values = np.array([1.0, 1.8, 0.9, 2.2, 1.4])
    one = subject.encode("\n".join(f"{v}" for v in values))
    large = subject.encode("\n".join(f"{v}" for v in 100 * values / np.abs(np.diff(values)).mean()))
    scaled = tokens_of(values / np.abs(np.diff(values)).mean())
    assert large.kwargs["input_ids"][0].tolist() == scaled.tolist()
    assert "scaled: the model's 1.0 is 100 of this series" in large.notes and not one.notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1999-01 1.0\nbroken", "A series has a month a line.*'broken' is none"),
        ("1999-01 1.0\n1999-03 2.0", "goes on month by month; '1999-03 2.0'"),
        ("1999-13 1.0\n1999-14 2.0", "A month is one of 1 … 12"),
        ("5", "needs two months at least.*got 1"),
        ("# nothing", "needs two months at least.*got 0"),
        ("1\n1e999", "finite numbers"),
        ("\n".join("1.5" for _ in range(200)), "at most 144"),
        ("When Mary and John went to the store", "needs two months at least"),
    ],
)
def test_what_is_no_series_is_said_in_one_sentence(subject, text, said):
    with pytest.raises(InputError, match=said):
        subject.encode(text)


def test_a_series_that_is_too_long_may_be_cut(subject):
    inputs = subject.encode("\n".join(f"{v % 7}" for v in range(200)), truncate=True)
    assert len(inputs.axes["input"]) == 144 and any("first 144 months" in note for note in inputs.notes)


def test_a_flat_series_is_read(subject):
    assert subject.encode("3\n3\n3").kwargs["input_ids"].tolist() == [[START, MOST, MOST]]


def test_what_is_written_goes_on_in_months_and_values(subject):
    inputs = subject.encode("# Air (ppm)\n1999-11 366.1\n1999-12 367.3\n")
    grown = extend(subject, inputs, [MOST + 4, MOST - 3])
    axis = grown.axes["input"]
    assert spaced(axis.labels[2:]) == ("Jan 2000: 367.7", "Feb 2000: 367.4")
    assert axis.track.written == 2 and axis.track.marks == ((2, "2000"),)
    assert np.allclose(axis.track.values, [366.1, 367.3, 367.7, 367.4])
    assert [axis.text[start:end] for start, end in axis.offsets[2:]] == ["2000-01 367.70", "2000-02 367.40"]
    step = extend(subject, extend(subject, inputs, [MOST + 4]), [MOST - 3]).axes["input"]
    assert step.labels == axis.labels and step.track.written == 2 and np.allclose(step.track.values, axis.track.values)
    again = subject.encode(axis.text)
    assert again.kwargs["input_ids"].tolist() == grown.kwargs["input_ids"].tolist()
