"""Orders of prediction as masks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headwise.interp.masks import Causal, Order
from headwise.interp.masks.code import code, formula
from headwise.interp.masks.spoken import spoken_mask

orders = st.integers(1, 12).flatmap(lambda n: st.permutations(range(n))).map(tuple)


@given(order=orders, own=st.booleans())
def test_a_query_sees_who_was_predicted_before_it(order, own):
    square = Order(order, own).dense()
    for step, query in enumerate(order):
        seen = set(order[:step]) | ({query} if own else set())
        assert set(square[query].nonzero().flatten().tolist()) == seen


@given(order=orders, own=st.booleans())
def test_it_is_said_and_written_as_it_is(order, own):
    mask, n = Order(order, own), len(order)
    assert spoken_mask(repr(mask)) == mask
    scope = {"torch": torch, "q": torch.arange(n)[:, None], "k": torch.arange(n)[None]}
    assert torch.equal(eval(formula(mask), scope), mask.dense())
    assert "argsort" in code(mask, "SDPA", n)


def test_left_to_right_is_causal():
    assert torch.equal(Order(range(7)).dense(), Causal().dense(7))
    assert torch.equal(Order(range(7), own=False).dense(), Causal(-1).dense(7, 7))


def test_what_is_no_order_is_said():
    with pytest.raises(ValueError, match=r"each position 0 … n − 1 once, got \(0, 0\)"):
        Order((0, 0))
    with pytest.raises(IndexError, match="3 positions were given, position 3 asked"):
        Order((0, 2, 1)).dense(4, 4)
