"""``check_mask`` on masks written by hand, in each convention."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise import check_mask
from headwise.interp.check import CheckError
from headwise.interp.masks import Causal, Packed, Padding, Prefix, Window

TRIL = torch.ones(6, 6).tril()
INF = float("inf")


def additive(allowed, value=-INF):
    return torch.zeros(allowed.shape).masked_fill(~allowed, value)


@pytest.mark.parametrize(
    ("mask", "options", "cls"),
    [
        (TRIL, {}, "mask-convention"),  # pytorch#21518: zeros and ones are added
        (TRIL.bool(), {"convention": "mha"}, "mask-convention"),  # True blocks there
        (~TRIL.bool(), {"convention": "sdpa"}, "mask-convention"),
        (TRIL.int(), {"convention": "sdpa"}, "mask-convention"),
        (TRIL.bool().T, {"expect": Causal()}, "layout"),
        (torch.ones(6, 6).tril(1).bool(), {}, "future-leak"),
        (torch.ones(6, 6).tril(-1).bool(), {}, "empty-rows"),
        (additive(TRIL.bool(), -100.0), {}, "dtype"),
        (additive(TRIL.bool(), -1e9), {"dtype": torch.float16}, "dtype"),  # flax#982
        (
            additive(TRIL.bool(), torch.finfo(torch.float32).min) * 2
            + additive(TRIL.bool(), torch.finfo(torch.float32).min).roll(1, 0),
            {},
            "dtype",
        ),
        (torch.ones(4, 6, 1).bool()[:, None], {}, "padding"),  # hyunwoongko/transformer#40: (B, 1, Q, 1)
        (torch.ones(3, 6, 6).tril().bool(), {"batch": 3, "heads": 4}, "layout"),  # vit-pytorch#71
        (torch.ones(3, 6, 16).tril().bool(), {"batch": 3}, "layout"),  # flax#1520
        (Window(4, 0).dense(12), {"expect": Window(3, 0)}, "window"),
        (Prefix(5).dense(12), {"expect": Prefix(3)}, "prefix"),
        ((Causal() & Packed((0, 0, 0, 0, 1, 1))).dense(6), {"expect": Causal() & Packed((0, 0, 0, 1, 1, 1))}, "packed"),
        (additive(TRIL.bool()).masked_fill(torch.eye(6).bool(), torch.nan), {}, "empty-rows"),
    ],
)
def test_what_is_wrong_is_named(mask, options, cls):
    report = check_mask(mask, **options)
    assert cls in report.classes, str(report)


@pytest.mark.parametrize(
    ("mask", "options", "words"),
    [
        (TRIL.bool(), {}, "causal"),
        (~TRIL.bool(), {}, "causal"),  # read as nn.MultiheadAttention's
        (~TRIL.bool(), {"convention": "mha"}, "causal"),
        (additive(TRIL.bool()), {}, "causal"),
        (additive(TRIL.bool(), torch.finfo(torch.float32).min), {}, "causal"),
        (Window(7, 0).dense(20), {}, "causal, window 8"),
        (torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]), {}, "padding of rows 1 and 2"),
        (torch.ones(6, 6).bool(), {}, "everything sees everything"),
        (torch.ones(1, 4).tril(3).bool(), {}, "everything sees everything"),
    ],
)
def test_what_is_right_is_green_and_named(mask, options, words):
    report = check_mask(mask, **options)
    assert report.ok, str(report)
    assert report.sentence == words


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 12), st.integers(1, 6), st.sampled_from(["sdpa", "mha", "additive"]))
def test_windows_are_recognised_in_every_convention(length, left, convention):
    allowed = (Causal() & Window(left, 0)).dense(length, length)
    given = {"sdpa": allowed, "mha": ~allowed, "additive": additive(allowed)}[convention]
    report = check_mask(given, convention=convention)
    assert report.ok and torch.equal(report.mask.dense(length, length), allowed), str(report)


def test_causal_with_padding_of_some_rows():
    pattern = Causal() & Window(7, 0) & Padding((20, 13, 20, 9))
    mask = torch.stack([pattern.dense(20, 20, b=b) for b in range(4)])[:, None]
    report = check_mask(mask)
    assert report.sentence == "causal, window 8, plus padding of rows 1 and 3" and report.ok
    assert repr(report.mask) == "Window(7, 0) & Padding((20, 13, 20, 9))"


def test_what_is_no_mask_is_refused():
    for mask, words in (
        (torch.ones(4), "2 to 4 axes"),
        (torch.ones(2, 2, dtype=torch.complex64), "bool, int or float"),
    ):
        with pytest.raises(CheckError, match=words):
            check_mask(mask)
    with pytest.raises(CheckError, match="convention expects"):
        check_mask(TRIL, convention="flash")
