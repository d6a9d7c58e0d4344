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
        ("1 0\n1 1", torch.int64, [[1, 0], [1, 1]]),
        ("1. 0\n1 1", torch.float32, [[1, 0], [1, 1]]),
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


CAUSAL = [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("[[1,0,0],[1,1,0],[1,1,1]]", torch.int64),
        ("array([[1,0,0],[1,1,0],[1,1,1]])", torch.int64),
        ("mask = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1]], dtype=bool)", torch.bool),
        ("tensor([[1,0,0],[1,1,0],[1,1,1]], device='cuda:0', grad_fn=<AddBackward0>)", torch.int64),
        ("torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1]]).bool().cuda()", torch.bool),
        ("[[true, false, false], [true, true, false], [true, true, true]]", torch.bool),
        ("[[■⬚⬚], [■■⬚], [■■■]]", torch.bool),
        ("[1, 0, 0], [1, 1, 0], [1, 1, 1]", torch.int64),
        ("[1, 0, 0]\n[1, 1, 0]\n[1, 1, 1]", torch.int64),
        ("((1, 0, 0), (1, 1, 0), (1, 1, 1))", torch.int64),
        (repr(Causal().dense(3)), torch.bool),
        (repr(Causal().dense(3).float()), torch.float32),
        (repr(Causal().dense(3).numpy()), torch.bool),
        (str(Causal().dense(3).int().numpy()), torch.int64),
    ],
)
def test_lists_follow_their_brackets(text, dtype):
    mask = parse_mask(text)
    assert mask.dtype == dtype and mask.tolist() == CAUSAL


@pytest.mark.parametrize("printed", [repr, str])
@pytest.mark.parametrize("shape", [(3, 70), (2, 3, 40), (2, 1, 3, 3), (1, 1, 1, 90)])
def test_what_numpy_and_torch_print_is_read_back(shape, printed):
    """Long rows are broken into lines, several axes into blocks."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5
    hidden = torch.zeros(shape).masked_fill(mask, -torch.inf)
    for wanted in (mask, mask.long(), hidden, hidden.clamp_min(-1e9)):
        for text in (printed(wanted), printed(wanted.numpy())):
            found = parse_mask(text)
            assert found.dtype == wanted.dtype and torch.equal(found, wanted)


@pytest.mark.parametrize(
    "minus", ["float('-inf')", '-float("inf")', "-np.inf", "-torch.inf", "-math.inf", "−inf", "-inf"]
)
def test_every_way_to_write_minus_infinity(minus):
    assert parse_mask(f"torch.tensor([[0, {minus}], [0, 0]])").tolist() == [[0, -np.inf], [0, 0]]


@pytest.mark.parametrize("cut", [repr(torch.zeros(99, 99)), repr(np.zeros((99, 99))), "1 0 … 0\n1 1 … 0"])
def test_an_ellipsis_is_refused_in_one_sentence(cut):
    with pytest.raises(InputError, match=r"^This mask was cut short by an ellipsis: print it whole, .*file\.$"):
        parse_mask(cut)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("", b"", "The mask is empty"),
        ("m.csv", b"[ ]", "There is no mask here"),
        ("m.csv", b"1 0 1\n1 1", r"different lengths \(2, 3\)"),
        ("m.csv", b"1 0\n1 one", "'one' is no number"),
        ("m.csv", b"[[1, 0], [1]]", r"rows have different lengths \(1, 2\)"),
        ("m.csv", b"[[[1, 0], [1, 1]], [[1, 0]]]", r"lists have different lengths \(1, 2\)"),
        ("m.csv", b"[[1, 0], [1, 1]", "no partner"),
        ("m.csv", b"[[1, 0] and [1, 1]]", "no partner"),
        ("m.csv", b"~tensor([[1, 0], [1, 1]])", "'~tensor\\(' stands before the first bracket"),
        ("m.csv", b"[[1, 0], [1, 1]] & causal", "'& causal' stands after the last bracket"),
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
