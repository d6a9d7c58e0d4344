"""Masks read from what is written: the algebra comes back, and nothing else is taken for a mask or run."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.interp.errors import InputError
from headwise.interp.masks import (
    Bidirectional,
    Causal,
    Chunks,
    Global,
    Packed,
    Padding,
    Prefix,
    Strided,
    Window,
    Windows2d,
)
from headwise.interp.masks.spoken import spoken_mask

small = st.integers(0, 9)
LEAVES = st.one_of(
    st.builds(Causal, small),
    st.builds(Window, small, small),
    st.builds(Prefix, small),
    st.just(Bidirectional()),
    st.builds(Strided, st.integers(1, 5)),
    st.builds(Chunks, st.integers(1, 5), st.none() | small),
    st.builds(lambda shift: Windows2d(2, 3, shift, grid=(3, 4)), st.integers(0, 1) | st.just((1, 2))),
    st.builds(Global, st.lists(small, min_size=1, max_size=3).map(tuple)),
    st.builds(Packed, st.lists(small, min_size=12, max_size=12).map(tuple)),
    st.builds(Padding, st.tuples(small)),
)
MASKS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        inner.map(lambda m: ~m),
    ),
    max_leaves=5,
)


@settings(deadline=None)
@given(MASKS)
def test_what_a_mask_says_of_itself_is_read_back(mask):
    assert torch.equal(spoken_mask(repr(mask)).dense(12, 12), mask.dense(12, 12))


def test_precedence_is_pythons():
    square = (spoken_mask("Global((0,)) | Causal() & Window(1, 0)") & Causal()).dense(4, 4)
    drawn = "\n".join("".join("■" if cell else "⬚" for cell in row) for row in square.tolist())
    assert drawn == "■⬚⬚⬚\n■■⬚⬚\n■■■⬚\n■⬚■■"  # the key to the left, and the first token for everybody


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "There is no mask here"),
        ("Causal() &", "is no mask"),
        ("Causal", "write Causal()"),
        ("Windows(1, 0)", "one of Causal, Window"),
        ("Window(1)", "Window(left, right)"),
        ("Window('a', 0)", "is no position"),
        ("Strided(0)", "s ≥ 1"),
        ("Chunks(0)", "a size of 1 or more"),
        ("Windows2d(2, 2, 5)", "a shift smaller than the window"),
        ("Causal() + Causal()", "& (and), | (or) and ~ (not) only"),
        ("__import__('os').system('true')", "is no mask"),
        ("Causal().allowed", "is no mask"),
        ("Window(10**9, 0)", "is no position"),
        ("Window(99999999, 0)", "is no position"),
        ("~" * 100 + "Causal()", "deep"),
        ("Causal() | " * 80 + "Causal()", "at most 600 characters"),
        ("(" * 300, "is no mask"),
    ],
)
def test_everything_else_is_one_sentence(text, said):
    with pytest.raises(InputError) as error:
        spoken_mask(text)
    assert said in str(error.value) and "\n" not in str(error.value)
