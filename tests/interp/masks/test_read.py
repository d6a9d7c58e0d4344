"""Masks from files and from pasted text, and what is said of those that are none."""

import io

import numpy as np
import pytest
import torch

from headwise.interp.errors import InputError
from headwise.interp.masks import Causal
from headwise.interp.masks.read import LARGEST, parse_mask, read_mask


def test_mask_files_are_read_without_running_them():
    square = Causal().dense(5)
    npy, pt = io.BytesIO(), io.BytesIO()
    np.save(npy, square.numpy())
    torch.save(square, pt)
    assert torch.equal(read_mask("m.npy", npy.getvalue()), square)
    assert torch.equal(read_mask("m.pt", pt.getvalue()), square)
    assert torch.equal(parse_mask("tensor([[True, False],\n [True, True]])"), Causal().dense(2))
    hostile = io.BytesIO()
    np.save(hostile, np.array([print], dtype=object), allow_pickle=True)
    for name, data in (
        ("m.npy", hostile.getvalue()),
        ("m.npy", b"junk"),
        ("m.pt", b"junk"),
        ("m.csv", b"\xff\xfe"),
        ("m.csv", b""),
    ):
        with pytest.raises(InputError):
            read_mask(name, data)


def saved(thing) -> bytes:
    file = io.BytesIO()
    torch.save(thing, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("text", "dtype", "rows"),
    [
        ("1 0\n1 1", torch.float32, [[1, 0], [1, 1]]),
        ("True, False\nt; f", torch.bool, [[True, False], [True, False]]),
        ("■⬚\n\n■■", torch.bool, [[True, False], [True, True]]),
        ("True 0\nFalse 1", torch.float32, [[1, 0], [0, 1]]),  # one number makes all of them numbers
        ("[[0, -inf],\n [0, -1e4]]", torch.float32, [[0, -np.inf], [0, -1e4]]),
        ("-inf inf", torch.float32, [[-np.inf, np.inf]]),
    ],
)
def test_pasted_text(text, dtype, rows):
    mask = parse_mask(text)
    assert mask.dtype == dtype and mask.tolist() == rows
    assert torch.equal(read_mask("m.csv", text.encode()), mask)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("", b"", "The mask is empty"),
        ("m.csv", b"[ ]", "There is no mask here"),
        ("m.csv", b"1 0 1\n1 1", r"different lengths \(2, 3\)"),
        ("m.csv", b"1 0\n1 one", "'one' is no number"),
        ("m.pt", saved({"mask": 1}), "holds a dict, not a tensor"),
        ("m.pt", saved(torch.ones(1, 1, 1, 2, 2)), "this one is 1 × 1 × 1 × 2 × 2"),
        ("m.pth", saved(torch.ones(1, LARGEST + 1)), "this one is 1 × 4097"),
    ],
)
def test_what_is_no_mask_is_named(name, data, says):
    with pytest.raises(InputError, match=says):
        read_mask(name, data)


def test_the_largest_mask_is_read():
    assert read_mask("m.pth", saved(torch.ones(1, LARGEST))).shape == (1, LARGEST)
