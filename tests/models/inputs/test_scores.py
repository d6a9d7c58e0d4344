"""Scores as the music model reads them: notes and tokens, bars, bad input, what is written on."""

import pytest

from headwise import load
from headwise.interp.errors import InputError
from headwise.interp.run.generate import extend
from headwise.models.inputs.scores import GAP, REST, START, interleaved, notes_of, parsed, spell, token_of

SCORE = """# by hand
S: A4 . | B4 C5 -  .
A: E4 . | E4 .  F4 .
T: C4 . | B3 A3 A3 .
B: A3 . | G3 .  D3 .
"""


def spaced(labels) -> tuple[str, ...]:
    """With spaces as one types them."""
    return tuple(label.replace(GAP, " ") for label in labels)


@pytest.fixture(scope="module")
def subject():
    return load("tiny-music")


def test_tokens_by_hand():
    """A4 is 69 as a MIDI number, C4 is 60; voices take turns."""
    grid, places, bars = parsed(SCORE)
    assert grid.shape == (6, 4) and bars == (0, 2)
    assert grid[0].tolist() == [token_of(69, False), token_of(64, False), token_of(60, False), token_of(57, False)]
    assert grid[1].tolist() == [token_of(69, True), token_of(64, True), token_of(60, True), token_of(57, True)]
    assert grid[4:, 0].tolist() == [REST, REST]
    assert [SCORE[start:end] for start, end in places[3]] == ["C5", ".", "A3", "."]
    assert interleaved(grid)[:3].tolist() == [START, token_of(69, False), token_of(64, False)]


def test_notes_sound_from_their_beginning_to_their_end():
    grid, _, _ = parsed(SCORE)
    notes = notes_of(interleaved(grid))
    soprano = [tuple(note[:3]) for note in notes.tolist() if note[3] == 0]
    assert soprano == [(1, 9, 69), (9, 13, 71), (13, 17, 72)]  # two eighths of 4 voices, one, one, then silence
    bass = [tuple(note[:3]) for note in notes.tolist() if note[3] == 3]
    assert bass == [(1, 9, 57), (9, 17, 55), (17, 25, 50)]


def test_positions_are_notes_in_their_voices(subject):
    axis = subject.encode(SCORE).axes["input"]
    assert spaced(axis.labels[:6]) == ("start", "S A4", "A E4", "T C4", "B A3", "S (A4)")
    assert axis.special[:2] == (True, False) and len(axis) == 25
    assert axis.track.marks == ((9, "1"),)  # after an upbeat of two eighths
    assert axis.track.period == 4 * 8  # with one whole bar nobody knows how long they are


def test_bars_are_as_long_as_most(subject):
    voice = "C4 . . . . . | D4 . . . . . | E4 . . . . ."
    axis = subject.encode("\n".join(f"{name}: {voice}" for name in "SATB")).axes["input"]
    assert axis.track.period == 4 * 6 and axis.track.marks == ((1, "1"), (25, "2"), (49, "3"))


def test_flats_and_sharps_are_the_same_keys():
    one = parsed("S: B♭4\nA: Eb4\nT: C#4\nB: F♯3")[0]
    assert one.tolist() == [[token_of(70, False), token_of(63, False), token_of(61, False), token_of(54, False)]]
    assert spell(one[0]) == "B♭4E♭4C♯4F♯3" and spell([START, REST, token_of(60, True)]) == "start–(C4)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("S: A4\nA: A4\nT: A4", "a line for each of four voices.*B is missing"),
        ("S: A4 .\nA: A4\nT: A4\nB: A4", "equally long; these have S 2, A 1, T 1, B 1 eighths"),
        ("S: H4\nA: A4\nT: A4\nB: A4", "An eighth is a note.*'H4' in S"),
        ("S: A4\nA: A4\nT: A4\nB: A0", "knows A1 … C6; got A0 in B"),
        ("S:\nA:\nT:\nB:", "The score is empty"),
        ("The people of the United States", "a line for each of four voices.*S is missing"),
    ],
)
def test_what_is_no_score_is_said_in_one_sentence(subject, text, said):
    with pytest.raises(InputError, match=said):
        subject.encode(text)


def test_what_is_written_takes_its_turn_and_its_bar(subject):
    inputs = subject.encode(SCORE)
    more = [token_of(72, False), token_of(65, True), token_of(57, True), token_of(50, True)]
    grown = extend(subject, inputs, more)
    axis = grown.axes["input"]
    assert spaced(axis.labels[25:]) == ("S C5", "A (F4)", "T (A3)", "B (D3)") and axis.track.written == 25
    assert [note for note in axis.track.notes.tolist() if note[1] > 25] == [
        [17, 29, 65, 1], [17, 29, 57, 2], [17, 29, 50, 3], [25, 29, 72, 0],
    ]  # fmt: skip
    step = inputs
    for token in more:
        step = extend(subject, step, [token])
    assert step.axes["input"].labels == axis.labels
    assert step.axes["input"].track.notes.tolist() == axis.track.notes.tolist()
