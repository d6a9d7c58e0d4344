"""Longformer and the Sparse Transformer: full attention under their own masks, steps, padding, and no leak."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise import capture, check, masks, wrap
from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.report import gap
from headwise.interp.run.memory import peak_of
from headwise.models.architectures.variant import VariantConfig, VariantDecoder
from headwise.models.variants.bigbird import BigBird, Scattered
from headwise.models.variants.longformer import Band, Longformer
from headwise.models.variants.sparse import Sparse, Stripes
from tests.models.variants.decoding import assert_padding_changes_nothing, assert_steps_are_the_forward, some_ids

HEADS = 4
patterns = st.one_of(
    st.builds(
        Band,
        window=st.integers(0, 40),
        dilation=st.one_of(st.integers(1, 5), st.tuples(*[st.integers(1, 4)] * HEADS)),
        globals=st.integers(0, 4),
        causal=st.booleans(),
    ),
    st.builds(
        lambda stride, part, kind, causal: Stripes(stride, max(1, stride * part // 4), kind, HEADS, causal),
        st.integers(1, 20), st.integers(1, 4), st.sampled_from(("strided", "fixed")), st.booleans(),
    ),
    st.builds(
        Scattered,
        block=st.integers(1, 9), window=st.integers(0, 2), globals=st.integers(0, 2), random=st.integers(0, 3),
        seed=st.integers(0, 99), last=st.integers(0, 2), causal=st.booleans(),
    ),
)  # fmt: skip
OPTIONS = {
    "longformer": {"window": 5, "dilation": (1, 2), "globals": 2},
    "own": {"window": 3, "globals": 3, "own": True},
    "strided": {"stride": 4},
    "bigbird": {"block": 3, "random": 2},
    "fixed": {"stride": 5, "columns": 2, "kind": "fixed"},
}


def tensors(length: int, heads: int = HEADS, batch: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(3, batch, heads, length, 8, generator=torch.Generator().manual_seed(seed))


def dense(mask, heads: int, length: int) -> torch.Tensor:
    return torch.stack([mask.dense(length, length, h=head) for head in range(heads)])


@settings(max_examples=150, deadline=None)
@given(pattern=patterns, length=st.integers(1, 70))
def test_output_is_full_attention_under_the_mask(pattern, length):
    q, k, v = tensors(length)
    wanted = F.scaled_dot_product_attention(q, k, v, dense(pattern.mask(length), HEADS, length))
    got = pattern.output(q, k, v)
    assert torch.allclose(got, wanted, atol=1e-5)
    assert gap(pattern.form(q, k), v, got) < 1e-5


def module(name: str, seed: int = 0) -> VariantDecoder:
    torch.manual_seed(seed)
    kind = {"longformer": "longformer", "own": "longformer", "bigbird": "bigbird"}.get(name, "sparse")
    config = VariantConfig(kind, 13, context=300, layers=2, heads=2, width=16, options=OPTIONS[name])
    return VariantDecoder(config).eval()


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("chunks", [(1,) * 41, (7, 1, 20, 13), (41,)], ids=len)
def test_steps_are_the_forward(name, chunks):
    assert_steps_are_the_forward(module(name), some_ids(41, 2), chunks)


def test_a_window_remembers_no_more_than_it_sees():
    model = module("longformer")
    _, (start, states) = model.step(torch.zeros(1, 300, dtype=torch.long))
    assert start == 300 and [s.k.shape[2] for s in states] == [10 + 2] * 2  # window 5 · dilation 2, 2 global tokens


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing_and_its_calls_are_true(name, side):
    assert_padding_changes_nothing(module(name), side)


def test_a_global_tokens_logit_is_told_by_the_keys_that_its_own_projections_met():
    ids = {"input_ids": torch.randint(13, (1, 12), generator=torch.Generator().manual_seed(1))}
    cap = capture(wrap(module("own"), kind="decoder"), ids)
    for position in (2, 7):  # one of the three global tokens, and another
        parts = cap.stream.parts(lambda logits, at=position: logits[0, at, 5])
        heads = [part for part in parts if part.head is not None]
        assert len(heads) == 4 and abs(parts.remainder) < 1e-5
        for part in heads:
            assert float(part.by_key().sum()) == pytest.approx(part.value, abs=1e-6)


@pytest.mark.parametrize("name", OPTIONS)
def test_no_leak_is_found_and_a_planted_one_is(name, monkeypatch):
    options = {"expect": masks.Causal(), "step": lambda model, ids, cache: model.step(ids, cache)}
    report = check(module(name), **options)
    assert report.ok, report
    kind = {"longformer": Longformer, "own": Longformer, "bigbird": BigBird}.get(name, Sparse)
    honest = kind.bound
    monkeypatch.setattr(kind, "bound", lambda self, causal: honest(self, False))
    found = check(module(name), **options)
    assert not found.ok and any(f.module == "blocks.0.attention" for f in found.findings), found


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: Longformer(16, 2, window=-1), r"window ≥ 0.*got -1, 1 and 0"),
        (lambda: Longformer(16, 2, window=4, dilation=0), r"dilation ≥ 1.*got 4, 0 and 0"),
        (lambda: Longformer(16, 2, window=4, dilation=1.5), r"dilation ≥ 1.*got 4, 1.5 and 0"),
        (lambda: Longformer(16, 2, dilation=(1, 2, 3)), "one dilation a head is expected, 2; got 3"),
        (lambda: Sparse(16, 2, stride=0), "1 ≤ width ≤ stride; got width 1 and stride 0"),
        (lambda: Sparse(16, 2, stride=4, columns=5), "got width 5 and stride 4"),
        (lambda: Sparse(16, 2, kind="random"), "one of strided, fixed; got 'random'"),
        (lambda: BigBird(16, 2, block=0), "block ≥ 1.*got 0, 1, 1 and 1"),
        (lambda: BigBird(16, 2, random=-1), "got 16, 1, 1 and -1"),
        (lambda: Longformer(16, 2)(torch.zeros(1, 3, 16), torch.zeros(1, 3, 16)), "within one text; give no memory"),
        (lambda: Longformer(16, 2)(torch.zeros(1, 3, 16), mask=torch.ones(1, 1, 3, 3)), r"\(B, 1, 1, T\) is expected"),
    ],
)
def test_bad_input_is_one_sentence(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize("pattern", [Band(100), Band(100, dilation=7), Band(4, globals=100)])
def test_a_window_wider_than_the_text_is_causal_attention(pattern):
    q, k, v = tensors(9)
    if pattern.dilation == 1:
        assert torch.allclose(
            pattern.output(q, k, v), F.scaled_dot_product_attention(q, k, v, is_causal=True), atol=1e-6
        )
    else:
        assert torch.allclose(pattern.output(q, k, v)[:, :, :7], v[:, :, :7], atol=1e-6)  # none stands 7 before them


def test_random_blocks_are_as_many_in_every_row_and_no_neighbours():
    mask, blocks = masks.Drawn(5, block=4, count=3, near=1, first=1, blocks=12), 12
    square = torch.stack([mask.dense(48, 48, h=head) for head in range(3)])[:, ::4, ::4]  # (H, rows, blocks)
    assert (square.sum(-1) == 3).all() and not square[:, :, 0].any()
    near = masks.Window(1, 1).dense(blocks, blocks)
    assert not (square & near).any()
    assert not torch.equal(square[0], square[1])
    drawn = torch.stack([masks.Drawn(seed, 1, 2, 0).dense(8, 8)[6] for seed in range(600)]).float().mean(0)
    assert torch.allclose(drawn[:6], torch.full((6,), 1 / 3), atol=0.06) and not drawn[6:].any()  # 2 of 6, each alike


def test_each_layer_draws_its_own_and_keeps_it():
    model = module("bigbird")
    one, other = (block.attention.pattern for block in model.blocks)
    assert one.seed != other.seed
    again = module("bigbird", seed=7)
    again.load_state_dict(model.state_dict())
    assert again.blocks[0].attention.pattern == one


@pytest.mark.parametrize("pattern", [Band(64, globals=2), Scattered(32), Stripes(90)], ids=lambda p: type(p).__name__)
def test_long_texts_are_computed_and_drawn_far_below_a_square(pattern):
    q, k, v = tensors(8192, heads=2)
    square = 4 * 8192**2
    out, peak = peak_of(lambda: pattern.output(q, k, v))
    assert torch.isfinite(out).all() and peak < square / 2
    call = AttentionCall("attention", "self", pattern.form(q, k), v)
    picture, peak = peak_of(lambda: call.image(1))
    assert picture.shape == (512, 512) and peak < square
    assert torch.allclose(picture[-1, -1], call.weights(1, (8176, 8192))[0, :, -16:].max())
