"""XLNet as it comes along: left to right, and masked tokens last, told from both sides."""

import pytest
import torch

from headwise import capture, load, masks
from headwise.interp.analysis.answers import answers

TEXT = "The people of the [MASK] States of America"


@pytest.fixture(scope="module")
def subject():
    return load("tiny-xlnet")


def test_without_a_mask_it_goes_left_to_right(subject):
    inputs = subject.encode("The people of the United States")
    assert "order" not in inputs.kwargs
    cap = capture(subject, inputs)
    assert not cap.unseen and cap.stacks == ("content", "query")
    assert [call.mask for call in cap.calls[:2]] == [masks.Causal(), masks.Causal(-1)]


def test_a_mask_comes_last_and_takes_its_space(subject):
    inputs = subject.encode(TEXT)
    axis, order = inputs.axes["input"], inputs.kwargs["order"].tolist()
    at = axis.labels.index(" [MASK]") if " [MASK]" in axis.labels else axis.labels.index("[MASK]")
    assert axis.labels[at - 1] == " the" and order == [n for n in range(len(axis.labels)) if n != at] + [at]
    cap = capture(subject, inputs)
    assert cap.calls[0].mask == masks.Order(tuple(order))


def test_it_is_told_from_both_sides_and_from_nothing_of_its_own(subject):
    inputs = subject.encode(TEXT)
    ids, order = inputs.kwargs["input_ids"], inputs.kwargs["order"]
    at = int(order[-1])
    plain = subject.module(ids, order=order)[0, at]
    for place in (0, at - 1, at + 1, ids.shape[1] - 1):
        other = ids.clone()
        other[0, place] = 1000
        assert (subject.module(other, order=order)[0, at] - plain).abs().max() > 1e-4
    other = ids.clone()
    other[0, at] = 1000
    assert torch.allclose(subject.module(other, order=order)[0, at], plain, atol=1e-5)


def test_the_masked_token_is_answered(subject):
    cap = capture(subject, TEXT)
    (answer,) = answers(cap)
    assert answer.question == "Masked token" and answer.position == int(cap.inputs.kwargs["order"][-1])
    assert answer.rows[0][0] == " United"
