"""The keys that a band can see are all among those that ``seen`` names."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from headwise.interp.masks import (
    Bidirectional,
    Causal,
    Chunks,
    Columns,
    Drawn,
    Global,
    Listed,
    Marked,
    Mask,
    Padding,
    PerHead,
    Prefix,
    Segments,
    Shifted,
    Strided,
    Window,
    Windows2d,
)
from headwise.interp.masks.seen import seen

KEYS = 24
small, few = st.integers(0, 6), st.integers(1, 6)
leaves = st.one_of(
    st.builds(Causal, small),
    st.builds(Window, small, small),
    st.builds(Prefix, small),
    st.just(Bidirectional()),
    st.builds(Strided, few),
    st.builds(Global, st.lists(st.integers(0, 30), max_size=3).map(tuple)),
    st.builds(Segments, few, small, small),
    st.builds(Chunks, few, st.none() | st.integers(0, 2)),
    st.builds(lambda down, right: Windows2d(3, 4, (down, right), grid=(4, 6)), st.integers(0, 2), st.integers(0, 3)),
    st.builds(Columns, st.integers(3, 6), st.integers(1, 3)),
    st.builds(Drawn, small, few, small, small, small, st.sampled_from([None, 8])),
    st.builds(Listed, st.just(4), st.lists(st.tuples(small), min_size=6, max_size=6).map(tuple)),
    st.lists(st.booleans(), min_size=KEYS, max_size=KEYS).map(lambda marks: Marked(torch.tensor(marks))),
    st.lists(st.booleans(), min_size=KEYS, max_size=KEYS).map(lambda marks: Marked(torch.tensor(marks), "query")),
    st.builds(Padding, st.tuples(small, small), st.tuples(small, small)),
)
masks = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        inner.map(lambda m: ~m),
        st.builds(lambda a, b: PerHead((a, b)), inner, inner),
        st.builds(lambda a, starts: Shifted(a, starts, KEYS), inner, st.tuples(small, small)),
    ),
    max_leaves=5,
)


@given(masks, st.integers(0, KEYS - 1), st.integers(1, KEYS), st.sampled_from([(0,), (1,), (0, 1)]))
def test_no_key_is_missed(mask: Mask, start: int, many: int, heads: tuple[int, ...]):
    stop = min(KEYS, start + many)
    allowed = torch.stack([mask.rows(start, stop, KEYS, b=b, h=h) for b in (0, 1) for h in heads]).any(0).any(0)
    found = seen(mask, (start, stop), KEYS, heads)
    assert set(allowed.nonzero().flatten().tolist()) <= set(found.tolist())
    assert found.tolist() == sorted(set(found.tolist()))


def test_windows_columns_and_blocks_name_no_more():
    assert seen(Causal() & Window(4, 0), (100, 110), 8192).tolist() == [*range(96, 110)]
    assert seen(Causal() & Columns(8, 1), (20, 24), 64).tolist() == [7, 15, 23]
    assert seen(Causal() & (Window(2, 0) & Strided(2) | Global((0,))), (9, 10), 64).tolist() == [0, 7, 9]
    drawn = Drawn(0, block=4, count=2)
    assert torch.equal(seen(drawn, (40, 44), 64), drawn.rows(40, 41, 64)[0].nonzero().flatten())
    both = PerHead((Window(1, 0), Columns(4)))
    assert seen(both, (5, 6), 12, (1,)).tolist() == [3, 7, 11] and seen(both, (5, 6), 12, (0,)).tolist() == [4, 5]
