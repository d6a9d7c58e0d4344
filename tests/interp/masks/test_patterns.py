"""The mask algebra against dense tensors. The drawings in docstrings are run by --doctest-modules."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.interp.masks import (  # fmt: skip
    Bidirectional,
    Blocks,
    Buckets,
    Causal,
    Chunks,
    Columns,
    Dense,
    Global,
    Mask,
    Packed,
    Padding,
    PerHead,
    Prefix,
    RandomBlocks,
    Segments,
    SortedChunks,
    Strided,
    Window,
    Windows2d,
    recognise,
)

N, BATCH, HEADS = 9, 2, 3

ids = st.tuples(*[st.integers(0, 3)] * N)
small = st.integers(0, N)
buckets = st.integers(0, 9).map(
    lambda seed: torch.randint(3, (BATCH, HEADS, 2, N), generator=torch.Generator().manual_seed(seed))
)
leaves = st.one_of(
    st.builds(Causal, st.integers(-3, 3)),
    st.builds(Window, small, small),
    st.builds(Prefix, small | st.tuples(small, small), st.integers(0, 3)),
    st.just(Bidirectional()),
    st.builds(Global, st.tuples(small, small)),
    st.builds(Strided, st.integers(1, 5)),
    st.builds(Segments, st.integers(1, 5), small, small),
    st.integers(1, 5).flatmap(lambda s: st.builds(Columns, st.just(s), st.integers(1, s))),
    st.builds(Chunks, st.integers(1, 5), st.none() | st.integers(0, 2)),
    st.integers(0, 1).map(lambda shift: Windows2d(2, 3, shift, grid=(3, 3))),
    st.builds(lambda w, s: PerHead((Window(w, 0), Strided(s), Causal())), small, st.integers(1, 4)),
    st.builds(Blocks, ids),
    st.builds(RandomBlocks, st.integers(0, 99), st.integers(1, 4), st.floats(0, 1)),
    st.builds(Padding, st.tuples(small, small)),
    st.builds(
        lambda lengths, starts: Padding(lengths, starts=starts),
        st.tuples(small, small),
        st.tuples(small, small),
    ),
    st.builds(Buckets, buckets, small),
    st.builds(SortedChunks, buckets, st.integers(1, N), st.integers(0, 2), st.integers(0, 2)),
    st.builds(Packed, ids),
    st.builds(Packed, st.tuples(ids, ids)),
    st.builds(
        lambda seed: Dense(torch.rand(BATCH, HEADS, N, N, generator=torch.Generator().manual_seed(seed)) > 0.5),
        st.integers(0, 9),
    ),
)
masks = st.recursive(
    leaves,
    lambda m: st.one_of(
        st.builds(lambda a, b: a & b, m, m), st.builds(lambda a, b: a | b, m, m), st.builds(lambda a: ~a, m)
    ),
    max_leaves=4,
)
sample = st.integers(0, BATCH - 1)
head = st.integers(0, HEADS - 1)
quick = settings(max_examples=60, deadline=None)


def square(mask, b=0, h=0):
    return mask.dense(N, N, b=b, h=h)


def test_every_pattern_draws_itself():
    kinds = Mask.__subclasses__()
    patterns = [m for kind in kinds for m in kind.__subclasses__() or [kind]]
    drawn = [m for m in patterns if "■" in (m.__doc__ or "")]
    assert {m.__name__ for m in patterns} - {m.__name__ for m in drawn} <= {"And", "Or", "Not"}


@quick
@given(masks, masks, sample, head)
def test_algebra_is_that_of_dense_squares(a, b, i, h):
    left, right = square(a, i, h), square(b, i, h)
    assert torch.equal(square(a & b, i, h), left & right)
    assert torch.equal(square(a | b, i, h), left | right)
    assert torch.equal(square(~a, i, h), ~left)
    assert torch.equal(square(~(a & b), i, h), square(~a | ~b, i, h))  # De Morgan
    assert torch.equal(square(~(a | b), i, h), square(~a & ~b, i, h))


@quick
@given(masks, sample, head, small, small)
def test_rows_are_slices_of_the_square(mask, b, h, start, stop):
    start, stop = sorted((start, stop))
    assert torch.equal(mask.rows(start, stop, N, b=b, h=h), square(mask, b, h)[start:stop])


@quick
@given(masks)
def test_calling_broadcasts_over_all_four_axes(mask):
    b, h, t = torch.arange(BATCH), torch.arange(HEADS), torch.arange(N)
    everything = mask(b[:, None, None, None], h[:, None, None], t[:, None], t)
    assert everything.shape == (BATCH, HEADS, N, N)
    assert everything.dtype == torch.bool
    for i in range(BATCH):
        for j in range(HEADS):
            assert torch.equal(everything[i, j], square(mask, i, j))
    one = mask(1, 2, 3, 4)
    assert isinstance(one, bool)
    assert one == bool(everything[1, 2, 3, 4])


@quick
@given(masks, masks)
def test_masks_are_values(a, b):
    twin = copy.deepcopy(a)
    assert a == twin
    assert hash(a) == hash(twin)
    assert {a: 1}[twin] == 1
    if a == b:
        assert torch.equal(square(a), square(b))
    with pytest.raises((AttributeError, TypeError)):
        a.anything = 1
    assert str(a)


@quick
@given(masks, sample, head)
def test_recognise_gives_back_the_square(mask, b, h):
    allowed = square(mask, b, h)
    assert torch.equal(recognise(allowed).dense(N, N), allowed)


@pytest.mark.parametrize(
    "mask",
    [
        Bidirectional(), Causal(), Window(2, 0), Window(1, 3), Prefix(4), Packed((0, 0, 1, 1, 1, 2, 2, 2, 2)),
        Causal() & Packed((0, 0, 1, 1, 1, 2, 2, 2, 2)), Bidirectional() & Padding((5,)),
        Causal() & Padding((6,), starts=(3,)), Prefix(3) & Padding((7,)), ~Bidirectional(),
    ],
    ids=repr,
)  # fmt: skip
def test_recognise_names_what_the_field_names(mask):
    assert recognise(square(mask)) == mask


def test_recognise_names_a_rectangle():
    assert recognise(Causal(3).dense(5, 8)) == Causal(3)
    assert recognise(Causal().dense(5, 8)) == Causal()


def test_by_hand():
    """Three tokens, written out: a window of two keys, one document boundary, one padded key …"""
    assert (Causal() & Window(1, 0)).dense(3).tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    assert Packed((5, 5, 6)).dense(3).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert Padding((3, 2)).dense(3, 3, b=1).tolist() == [[1, 1, 0]] * 3
    assert Prefix((1, 2)).dense(3, 3, b=1).tolist() == [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    assert Prefix((2,)).dense(3, 3, b=1).tolist() == [[1, 1, 0], [1, 1, 0], [1, 1, 1]]  # one length for all samples
    assert Global((1,)).dense(3).tolist() == [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    assert Strided(2).dense(3).tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]


def test_a_size_is_that_of_the_part_that_has_one():
    packed = Packed((0, 0, 1))
    for mask in (Causal() & packed, packed & Causal(), Causal() | packed, packed | Causal(), ~packed):
        assert mask.size == (3, 3) and mask.dense().shape == (3, 3)
    assert (Causal() & Window(1, 0)).size is None and (Causal() & Window(1, 0)).dense().shape == (8, 8)
    assert Dense(torch.ones(2, 5).bool()).rows(0, 1).shape == (1, 5) and Causal().rows(2, 4).shape == (2, 4)


def test_hugging_face_sliding_window_counts_the_query_itself():
    from transformers.masking_utils import sliding_window_overlay

    theirs = sliding_window_overlay(4)
    for q in range(N):
        for k in range(q + 1):
            assert Window(4 - 1, 0)(0, 0, q, k) == bool(theirs(0, 0, q, k))


def test_random_blocks_differ_by_seed_and_head_and_keep_their_density():
    big = RandomBlocks(1, block=1, density=0.25)
    assert not torch.equal(big.dense(64), RandomBlocks(2, block=1).dense(64))
    assert not torch.equal(big.dense(64, h=0), big.dense(64, h=1))
    assert 0.22 < float(big.dense(256).float().mean()) < 0.28


def test_random_blocks_are_whole_blocks_and_their_bands_those_of_the_square():
    mask = RandomBlocks(3, block=4, density=0.5)
    coarse = mask.dense(32)[::4, ::4]
    assert 0 < coarse.sum() < 64 and len(coarse.unique(dim=0)) > 1 and len(coarse.unique(dim=1)) > 1
    assert torch.equal(mask.dense(32), coarse.repeat_interleave(4, 0).repeat_interleave(4, 1))


def test_dense_broadcasts_as_sdpa_does():
    per_head = torch.rand(HEADS, 4, 5) > 0.5
    assert torch.equal(Dense(per_head).dense(4, 5, b=1, h=2), per_head[2])
    per_sample = torch.rand(BATCH, 1, 1, 5) > 0.5
    assert torch.equal(Dense(per_sample).dense(4, 5, b=1, h=2), per_sample[1, 0].expand(4, 5))


def test_a_wide_mask_is_cropped_when_drawn():
    drawing = str(Dense(torch.eye(200).bool())).splitlines()
    assert (len(drawing), len(drawing[0])) == (64, 64)


@pytest.mark.parametrize(
    "make, error, says",
    [
        (lambda: Strided(0), ValueError, "s ≥ 1"),
        (lambda: Chunks(0), ValueError, "size of 1 or more"),
        (lambda: Chunks(4, left=-1), ValueError, "None for all before it"),
        (lambda: Windows2d(2, 2, shift=2), ValueError, "a shift smaller than the window"),
        (lambda: Windows2d(2, 2).dense(4), ValueError, r"give grid=\(rows, columns\)"),
        (lambda: Dense(torch.zeros(3, 3)), TypeError, "bool"),
        (lambda: Dense(torch.ones(3).bool()), ValueError, r"\(Q, K\)"),
        (lambda: Padding((-1,)), ValueError, "non-negative"),
        (lambda: Padding((1, 2), starts=(0,)), ValueError, "one start a length"),
        (lambda: Packed(torch.zeros(1, 2, 3)), ValueError, r"\(B, T\)"),
        (lambda: Blocks((0, 1)).dense(3, 3), IndexError, "2 given"),
        (lambda: Padding((3, 2)).dense(3, 3, b=2), IndexError, "2 given"),
        (lambda: recognise(torch.zeros(3, 3)), ValueError, "bool"),
        (lambda: Mask().dense(3), NotImplementedError, "allowed"),
    ],
)
def test_errors_say_what_to_do(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_chunks_are_those_of_streaming_speech_and_of_llama():
    """WeNet's subsequent_chunk_mask(4, 2): [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]."""
    assert Chunks(2, left=None).dense(4).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert Chunks(2).dense(4).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert torch.equal(Chunks(3, left=2).dense(20), Segments(3, 6).dense(20)) and Chunks(3).size is None
    from transformers.masking_utils import chunked_overlay

    theirs, mine = chunked_overlay(4, torch.zeros(1, dtype=torch.long)), Causal() & Chunks(4)
    for q in range(N):
        for k in range(q + 1):
            assert mine(0, 0, q, k) == bool(theirs(torch.tensor(0), torch.tensor(0), torch.tensor(q), torch.tensor(k)))


@pytest.mark.parametrize(("side", "window", "shift"), [(8, 4, 2), (5, 4, 2), (7, 3, 1), (6, 3, 0)])
def test_windows_of_a_grid_are_those_that_swin_masks(side, window, shift):
    """Rolled, cut into windows and told apart by region, as Swin does it (Liu et al. 2021, §3.2 and figure 4)."""
    full = -(-side // window) * window
    line = torch.zeros(full, dtype=torch.long)
    if shift:
        line[full - window : full - shift], line[full - shift :] = 1, 2
    label = (full // window + torch.arange(full) // window) * 3 + line  # window and region of a rolled row
    rolled = (torch.arange(side) - shift) % full
    group = label[rolled][:, None] * 1000 + label[rolled]
    allowed = group.flatten()[:, None] == group.flatten()
    mask = Windows2d(window, window, shift, grid=(side, side))
    assert torch.equal(mask.dense(), allowed) and mask.size == (side * side, side * side)
