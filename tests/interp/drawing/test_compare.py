"""Two models on the same tokens: what is subtracted, and what is refused."""

import pytest
import torch

from headwise import capture
from headwise.interp.drawing.compare import difference, expect_same_tokens
from headwise.interp.drawing.matrix import FORBIDDEN, head_view
from headwise.interp.errors import InputError
from headwise.models import load

TEXT = "The people of the United States."


def test_a_difference_is_the_other_minus_this_and_leaks_nothing():
    cap = capture(load("tiny-decoder"), TEXT)
    one, other = (head_view(cap, cap.calls[0], head, size=4) for head in (0, 7))
    one.forbidden[:] = FORBIDDEN
    assert one.leaks.any()
    change = difference(one, other)
    assert torch.equal(change.matrix, other.matrix - one.matrix) and change.matrix.min() < 0 < change.matrix.max()
    assert (change.factor, change.queries, change.signed) == (one.factor, one.queries, True)
    assert not change.leaks.any()
    longer = capture(load("tiny-decoder"), TEXT * 2)
    with pytest.raises(ValueError, match=r"it has \d+ × \d+ positions, not \d+ × \d+\."):
        difference(one, head_view(longer, longer.calls[0], 0))


def test_only_the_same_tokens_are_compared():
    encoder, decoder, twin = load("tiny-encoder"), load("tiny-decoder"), load("tiny-attention-only")
    expect_same_tokens(decoder, twin, decoder.encode("The people."))
    with pytest.raises(InputError, match="tiny-encoder reads other tokens than tiny-decoder"):
        expect_same_tokens(decoder, encoder, decoder.encode("The people."))
