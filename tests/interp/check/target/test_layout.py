"""Layouts: what a notation says, one order and back, and an output read from shapes alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.interp.check.errors import CheckError
from headwise.interp.check.target.layout import Layout, Shapes, grid, plain, read, said, time_first

B, T, C, V = 3, 7, 5, 11


def test_one_order_moves_samples_and_time_to_the_front():
    x = torch.arange(B * T * C).reshape(B, T, C)
    assert torch.equal(time_first(3).one_order(x.transpose(0, 1), B), x)
    assert torch.equal(Layout(("B", "C", "T")).one_order(x.transpose(1, 2), B), x)
    assert torch.equal(Layout(("(B T)", "C")).one_order(x.flatten(0, 1), B), x)
    assert torch.equal(Layout(("T", "C")).one_order(x[0], 1), x[:1])  # no samples: one
    assert torch.equal(Layout(("B", "C")).one_order(x[:, 0], B), x[:, :1])  # no positions: one answer a sample


def test_a_grid_is_a_row_of_patches_in_raster_order():
    x = torch.arange(B * 4 * 6 * C).reshape(B, 4, 6, C)
    row = grid(4).one_order(x, B)
    assert row.shape == (B, 24, C) and torch.equal(row[:, 7], x[:, 1, 1])
    assert torch.equal(grid(4, 2).one_order(x.movedim(-1, 1), B), row)


@settings(max_examples=60, deadline=None)
@given(st.permutations("BTCD"), st.integers(0, 99))
def test_there_and_back(axes, seed):
    layout = Layout(tuple(axes))
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(layout.its_own(layout.one_order(x, x.shape[layout.samples])), x)


def test_a_grid_there_and_back():
    x = torch.randn(2, 4, 6, 5)
    assert torch.equal(grid(4).its_own(grid(4).one_order(x, 2), (4, 6)), x)


@pytest.mark.parametrize(
    ("text", "inputs", "output"),
    [
        ("(B,T,C)->(B,T,V)", ["(B, T, C)"], "(B, T, V)"),
        ("(T B C) -> (T B V)", ["(T, B, C)"], "(T, B, V)"),
        ("(B,C,T)", ["(B, C, T)"], "None"),
        ("(B, 1, T) -> (B, C, T/2)", ["(B, 1, T)"], "(B, C, T)"),
        ("(B,T) -> ((B T), V)", ["(B, T)"], "((B T), V)"),
        ("skill: (B,T), answer: (B,T) -> (B,T,V)", ["(B, T)", "(B, T)"], "(B, T, V)"),
        ("(B,T) -> (B,V)", ["(B, T)"], "(B, V)"),
    ],
)
def test_what_a_notation_says(text, inputs, output):
    found = said(text)
    assert [str(layout) for _, layout in found.inputs] == inputs and str(found.output) == output


def test_without_a_time_the_shared_letters_are_positions():
    for text in ("(B,H,W,C) -> (B,H,W,C)", "(B,H,W,C) -> (B,H,W,V)", "(B,H,W,C) -> (B,V,H,W)"):
        assert said(text).inputs[0][1].positions == said(text).output.positions == ("H", "W"), text
    assert said("(B,R,L)->(B,R,L,V)").output.positions == ("R", "L")


def test_names_choose_an_input_and_the_rest_go_in_order():
    found = said("answer: (T,B), (B,T) -> (B,T,V)")
    assert str(found.of("answer", 1)) == "(T, B)" and str(found.of("skill", 0)) == "(B, T)"


@pytest.mark.parametrize("text", ["", "B,T", "(B,T)->", "(B,T)->(B,T),(B,T)", "(B,T) V", "()->(B)", "(B,T,T)->(B,T)"])
def test_what_is_no_layout_is_refused_in_one_sentence(text):
    with pytest.raises(CheckError, match=r"layout=.* (not understood|twice|no axis of positions)"):
        said(text)


@pytest.mark.parametrize(
    ("shape", "shorter", "smaller", "wanted"),
    [
        ((B, T, V), (B, 5, V), (2, T, V), "(B, T, C)"),
        ((T, B, V), (5, B, V), (T, 2, V), "(T, B, C)"),
        ((B, V, T), (B, V, 5), (2, V, T), "(B, C, T)"),
        ((B * T, V), (B * 5, V), (2 * T, V), "((B T), C)"),
        ((B, 6, 4), (B, 6, 3), (2, 6, 4), "(B, C, T)"),  # strided, features before time
        ((B, V), (B, V), (2, V), "(B, C)"),  # one answer a sample
        ((B, T, T), (B, 5, 5), (2, T, T), "(B, T, C)"),  # as many features as positions
        ((T, V), (5, V), None, "(T, C)"),
    ],
)
def test_an_output_is_read_from_two_lengths_and_two_batch_sizes(shape, shorter, smaller, wanted):
    batch = 1 if shape == (T, V) else B
    assert str(read(Shapes(shape, batch, T, shorter, smaller), plain(2))) == wanted


def test_where_no_other_size_runs_sizes_alone_decide():
    assert str(read(Shapes((B, V, T), B, T), plain(2))) == "(B, C, T)"
    assert str(read(Shapes((T, B, V), B, T), plain(2))) == "(T, B, C)"
    assert str(read(Shapes((B, V), B, T), plain(2))) == "(B, C)"
    assert str(read(Shapes((B, 4, 6, V), B, 24), grid(4), (4, 6))) == "(B, H, W, C)"
    assert str(read(Shapes((B, 24, V), B, 24), grid(4), (4, 6))) == "(B, T, C)"
