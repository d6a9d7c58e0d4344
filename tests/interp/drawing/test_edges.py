"""Masks and travels as matrices, against what is plain to see."""

import torch

from headwise import capture
from headwise.interp.analysis.travel import Travel
from headwise.interp.drawing.edges import edges, mask_given, reached, travelled
from headwise.interp.masks import Causal, Window
from headwise.models import load


def test_an_edge_that_was_not_expected_is_a_leak():
    observed = torch.tensor([[True, True], [True, False]])
    expected = torch.tensor([[True, False], [True, True]])
    matrix = edges(observed, expected, "output × input")
    assert matrix.values.tolist() == [[1, 1], [1, 0]] and matrix.forbidden.tolist() == [[0, 1], [0, 0]]
    assert matrix.leaks.tolist() == [[False, True], [False, False]]
    assert (matrix.caption, matrix.quantity.name, matrix.keys) == ("output × input", "seen", ("0", "1"))


def test_a_mask_reaches_further_over_layers():
    """A window of two keys to the left reaches two layers' worth, four; what is not reached is hatched."""
    one, two = reached(Causal() & Window(2, 0), 8), reached(Causal() & Window(2, 0), 8, layers=2)
    assert one.values[7].tolist() == [0, 0, 0, 0, 0, 1, 1, 1] and two.values[7].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert torch.equal(one.forbidden.float(), 1 - one.values) and not two.leaks.any()
    assert (one.title, one.quantity.name) == ("mask", "allowed")
    assert (two.title, two.quantity.name) == ("reach after 2 layers", "reached")


def test_the_mask_that_was_given_names_its_positions():
    cap = capture(load("tiny-encoder-decoder"), ("knight", "nˈIt"))
    cross, own = mask_given(cap, cap.find(1, "cross")), mask_given(cap, cap.find(1, "decoder"), most=3)
    assert (cross.rows.name, cross.columns.name) == ("target queries", "source keys")
    assert cross.keys == (*"knight", "</s>") and cross.values.shape == (5, 7) and bool(cross.values.all())
    assert own.values.tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]] and own.shape == (3, 3)
    assert torch.equal(own.forbidden.float(), 1 - own.values)


def test_how_far_a_change_travelled_is_drawn_against_where_it_may():
    moved = torch.tensor([[0, 0, 2.0, 0], [0, 0, 1.0, 0.5], [0, 1e-9, 1.0, 0.5]])
    past = torch.tensor([[True, True, False, False]] * 3)
    drawn = travelled(Travel(2, moved, past), "abcd")
    assert drawn.forbidden.tolist() == [[1, 1, 0, 0]] * 3 and torch.equal(drawn.values, moved)
    assert drawn.rows.labels == ("embedding", "after block 0", "after block 1")
    assert (drawn.columns.name, drawn.title) == ("tokens", "token 2 changed")
    assert travelled(Travel(2, moved, past), "abcd", most=3).columns.labels == ("a", "b", "c")
