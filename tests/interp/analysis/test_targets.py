"""What an answer is measured by. Numbers are read off the model's own logits, words off its own tokenizer."""

import pytest
import torch

from headwise import capture, load, wrap
from headwise.interp.analysis.targets import Target, phrase, target
from headwise.interp.errors import InputError

IOI = "When Mary and John went to the store, John gave a drink to"


@pytest.fixture(scope="module")
def smol():
    return capture(load("smollm2-135m"), IOI)


@pytest.fixture(scope="module")
def classified():
    return capture(load("tiny-classifier"), "A warm and funny film")


def test_what_the_model_says_is_the_target_when_nothing_is_wanted(smol):
    found = target(smol)
    assert found.token == int(smol.logits[0, -1].argmax())
    assert (str(found), found.position) == ("·Mary", 13)


@pytest.mark.parametrize("word", ["Mary", " Mary", "·Mary"])
def test_a_word_is_meant_as_it_reads_inside_a_text(smol, word):
    found = target(smol, word, "John")
    assert str(found) == "·Mary − ·John"
    ids = smol.subject.encode("to Mary John").kwargs["input_ids"][0].tolist()
    assert [found.token, found.against] == ids[1:]
    row = smol.logits[0, -1]
    assert found.value(smol) == pytest.approx(float(row[ids[1]] - row[ids[2]]), abs=1e-4)


def test_a_target_reads_batches():
    logits = torch.tensor([[[0.0, 1.0], [2.0, 5.0]], [[7.0, 0.0], [1.0, 3.0]]])
    assert Target(1, 0, 1).measured(logits).tolist() == [3.0, 2.0]
    assert Target(0, None, 0).measured(logits).tolist() == [0.0, 7.0]
    half = Target(0, None, 0, measure="log-probability").measured(torch.zeros(1, 1, 4))
    assert half.item() == pytest.approx(-1.3862944)  # −ln 4


def test_the_tokens_of_a_long_word_add_up_to_its_log_probability(smol):
    run, parts = phrase(smol, "Bartholomew")
    assert len(parts) > 1 and "".join(p.names[0] for p in parts) == " Bartholomew"
    whole = capture(smol.subject, f"{IOI} Bartholomew").logits[0].log_softmax(-1)
    expected = sum(float(whole[13 + step, p.token]) for step, p in enumerate(parts))
    assert sum(p.value(run) for p in parts) == pytest.approx(expected, abs=1e-4)


def test_the_first_token_stands_for_a_long_word(smol):
    assert target(smol, "Bartholomew").token == phrase(smol, "Bartholomew")[1][0].token


def test_a_class_by_its_name(classified):
    found = target(classified, "favourable", "unfavourable")
    one, other = classified.logits[0].tolist()
    assert (found.position, found.value(classified)) == (None, pytest.approx(other - one, abs=1e-5))


def test_a_masked_token_is_where_a_masked_model_answers():
    cap = capture(load("tiny-encoder"), "The capital of France is [MASK] .")
    position = target(cap).position
    assert cap.inputs.kwargs["input_ids"][0, position] == cap.subject.mask_token


@pytest.mark.parametrize(
    ("wanted", "against", "said"),
    [
        ("Mary", "Mary", "are the same"),
        (-1, None, "there is no -1"),
        (49_152, None, "there is no 49152"),
        ("", None, "no token"),
    ],
)
def test_what_is_no_answer_is_refused_in_one_sentence(smol, wanted, against, said):
    with pytest.raises(InputError, match=said):
        target(smol, wanted, against)


def test_a_position_that_is_not_there(smol):
    with pytest.raises(InputError, match="positions 0 … 13; there is no 14"):
        target(smol, "Mary", position=14)


def test_an_unknown_class_is_refused_with_those_there_are(classified):
    with pytest.raises(InputError, match="unfavourable, favourable"):
        target(classified, "splendid")


def test_logits_that_are_not_numbers_are_refused():
    module = torch.nn.Linear(2, 3)
    torch.nn.init.constant_(module.weight, float("nan"))
    cap = capture(wrap(module), torch.ones(1, 4, 2))
    with pytest.raises(InputError, match="NaN"):
        target(cap, 1)
