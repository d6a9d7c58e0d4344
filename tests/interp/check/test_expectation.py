"""Promises: how they are said, and that one of another size than the input's is refused in one sentence."""

import pytest
import torch

from headwise import check
from headwise.interp.check import CheckError
from headwise.interp.check.expectation import Expectation, parse
from headwise.interp.masks import Blocks, Causal, Chunks, Dense, Packed, Prefix, Segments, Windows2d
from headwise.interp.zoo.case import Attention, Plain


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("chunks:8", Chunks(8)),
        ("chunks:8,2", Chunks(8, left=2)),
        ("Causal() & Chunks(8)", Causal() & Chunks(8)),
        ("Chunks(4, left=None)", Chunks(4, left=None)),
        ("windows2d:7,7", Windows2d(7, 7)),
        ("windows2d:7,5,3", Windows2d(7, 5, 3)),
        ("Windows2d(4, 4, 2, grid=(8, 6))", Windows2d(4, 4, 2, grid=(8, 6))),
        ("Causal() & Segments(4, 2)", Causal() & Segments(4, 2)),
        (f"Blocks({tuple(range(400))})", Blocks(tuple(range(400)))),
    ],
)
def test_words_and_expressions(text, mask):
    assert parse(text) == mask


@pytest.mark.parametrize("text", ["chunks:0", "Windows2d(2, 2, 2)", "Strided(0)"])
def test_numbers_that_make_no_mask_are_told_by_the_mask_itself(text):
    with pytest.raises(CheckError, match=r"is no mask: .* expects "):
        parse(text)


@pytest.mark.parametrize(
    ("mask", "options", "words"),
    [
        (Causal() & Blocks((0, 0, 0, 1, 1)), {"length": 7}, "fixes 5 positions, but the input has 7"),
        (Causal() & Packed((0, 0, 1)), {"inputs": torch.arange(18).view(2, 9)}, "fixes 3 positions, but"),
        (Dense(torch.ones(4, 4).bool().tril()), {"length": 6}, "promise a mask of 6, or give inputs= or length= of 4"),
        (Prefix((1, 2)), {"inputs": torch.randint(2, 30, (3, 9))}, "is of 2 samples, but the input has 3"),
        (Windows2d(2, 2), {"length": 7}, "does not say its grid, and 7 positions are no square"),
        (Windows2d(2, 2, grid=(2, 3)), {"length": 7}, "fixes a grid of .2, 3., but the input has 7"),
    ],
)  # fmt: skip
def test_a_promise_of_another_size_is_refused_in_one_sentence(mask, options, words):
    with pytest.raises(CheckError, match=words) as refused:
        check(Plain().eval(), mask, modes="base", dtypes=(), **options)
    assert "\n" not in str(refused.value)


def test_the_grid_of_windows_is_that_of_the_input():
    promise = Expectation.of(Windows2d(2, 3))
    assert promise.fitted(3, 24, (4, 6)) == Expectation.of(Windows2d(2, 3, grid=(4, 6)))
    assert promise.fitted(3, 36) == Expectation.of(Windows2d(2, 3, grid=(6, 6)))
    assert Expectation.of(Causal()).fitted(3, 24, (4, 6)) == Expectation.of(Causal())


class Chunked(Attention):
    """Chunks of four that see the one before them too, and their own both ways – or one position further."""

    more = 0

    def allowed(self, length, real):
        allowed = Chunks(4, left=1).dense(length, length)
        return allowed | (torch.arange(length) == torch.arange(length)[:, None] // 4 * 4 + 3 + self.more)


class Further(Chunked):
    more = 1


def test_chunks_of_streaming_speech_are_kept_or_not():
    torch.manual_seed(0)
    promise = Chunks(4, left=1)
    assert check(Plain(Chunked, Chunked).eval(), promise, modes="base", dtypes=()).ok
    report = check(Plain(Chunked, Further).eval(), promise, modes="base", dtypes=())
    assert report.findings and report.findings[0].layer == 1, str(report)
    narrow = check(Plain(Chunked, Chunked).eval(), Chunks(4, left=2), modes="base", dtypes=())
    assert narrow.classes == ("window",) and "sees less than promised" in narrow.findings[0].sentence, str(narrow)
