"""Orders of prediction: what a person names, what is refused, and what a text costs in one."""

import pytest
import torch
import torch.nn.functional as F

from headwise import capture, load
from headwise.interp.errors import InputError
from headwise.models.variants.orders import ORDERS, in_order, own_order, surprises


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("length", [1, 2, 7])
def test_each_position_comes_once(name, length):
    assert sorted(ORDERS[name](length, 3)) == list(range(length))


def test_what_is_named_comes_first():
    assert own_order("4,1", 5) == [4, 1, 0, 2, 3]
    assert own_order("", 3) == [0, 1, 2]


@pytest.mark.parametrize("spoken", ["5", "-1", "two", "1 1"])
def test_what_is_no_order_is_one_sentence(spoken):
    with pytest.raises(InputError, match="order"):
        own_order(spoken, 5)


def test_what_comes_first_is_told_from_nothing_and_the_text_costs_its_cross_entropy():
    subject = load("tiny-xlnet")
    inputs, other = (subject.encode(text) for text in ("The people of the United", "The law of the House here"))
    z = [4, 3, 2, 1, 0]
    cap = capture(subject, in_order(inputs, [*z, *range(5, len(inputs.axes["input"]))]))
    beside = capture(subject, in_order(other, [*z, *range(5, len(other.axes["input"]))]))
    assert torch.equal(cap.logits[0, 4], beside.logits[0, 4])  # told first, whatever the text
    ids = cap.inputs.kwargs["input_ids"][0]
    assert surprises(cap.logits[0], ids).mean() == pytest.approx(float(F.cross_entropy(cap.logits[0], ids)), abs=1e-5)
