"""Reformer: full attention under its own mask, one bucket, no leak without chunk borders, and the published leak."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise import capture, check, masks, wrap
from headwise.interp.attention.report import gap
from headwise.models.architectures.variant import VariantConfig, VariantDecoder
from headwise.models.variants.reformer import LSH, Reformer, hashed, unit
from headwise.models.variants.shared import Hashed
from tests.models.variants.decoding import assert_padding_changes_nothing, assert_steps_are_the_forward, some_ids

B, H, D, ALL = 2, 2, 8, slice(None)


def tensors(length: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    q, v = torch.randn(2, B, H, length, D, generator=torch.Generator().manual_seed(seed))
    return q, unit(q), v


def rotations(rounds: int, buckets: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(H, D, rounds, buckets // 2, generator=torch.Generator().manual_seed(seed))


def model(**options) -> VariantDecoder:
    torch.manual_seed(0)
    options = {"buckets": 4, "chunk": 4, **options}
    config = VariantConfig("reformer", 13, context=300, layers=2, heads=2, width=16, options=options)
    return VariantDecoder(config).eval()


def others(length: int) -> masks.Mask:
    """The past without the token itself, which the first has only."""
    alone = torch.zeros(length, length, dtype=torch.bool)
    alone[0, 0] = True
    return masks.Causal(-1) | masks.Dense(alone)


@settings(max_examples=120, deadline=None)
@given(
    length=st.integers(1, 70), chunk=st.sampled_from((1, 3, 4, 16, 100)), rounds=st.integers(1, 3),
    buckets=st.sampled_from((1, 2, 8)), causal=st.booleans(), published=st.booleans(), padded=st.sampled_from((0, 5)),
)  # fmt: skip
def test_output_is_weights_times_values(length, chunk, rounds, buckets, causal, published, padded):
    q, k, v = tensors(length)
    real = None if not padded else (torch.arange(length)[None] >= min(padded, length - 1)).expand(B, -1)
    bucket = hashed(q, rotations(rounds, buckets))
    bucket = bucket if real is None else bucket.masked_fill(~real[:, None, None], buckets)
    by = LSH(bucket, chunk, causal, published, real)
    out = by.output(q, k, v)
    assert out.isfinite().all() and gap(by.form(q, k), v, out, rows=length) < 1e-5
    weights = by.form(q, k).weights(0, length, ALL)
    assert real is None or not weights[:, :, real[0]][..., ~real[0]].any()


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("length", [1, 2, 37])
def test_one_bucket_is_full_attention(rounds, published, length):
    q, k, v = tensors(length)
    wanted = F.scaled_dot_product_attention(q, k, v, others(length).dense(length))
    by = LSH(hashed(q, rotations(rounds, 1)), length, published=published)
    assert torch.allclose(by.output(q, k, v), wanted, atol=1e-5)


def test_one_round_is_full_attention_under_its_mask():
    q, k, v = tensors(50)
    by = LSH(hashed(q, rotations(1, 8)), 6)
    square = torch.stack([torch.stack([by.mask().dense(50, 50, b=b, h=h) for h in range(H)]) for b in range(B)])
    past = square & ~torch.eye(50, dtype=torch.bool)
    square = torch.where(past.any(-1, keepdim=True), past, square)  # itself only where there is nobody else
    assert torch.allclose(by.output(q, k, v), F.scaled_dot_product_attention(q, k, v, square), atol=1e-5)


def test_the_like_meet_in_more_rounds():
    """Kitaev et al. 2020, figure 4: the share of exact attention that is met grows with rounds."""
    q, k, v = tensors(200)
    exact = F.scaled_dot_product_attention(q * 4, k, v, others(200).dense(200))
    errors = []
    for rounds in (1, 4, 16):
        by = LSH(hashed(q, rotations(rounds, 16)), 200)
        errors.append(float((by.output(q * 4, k, v) - exact).pow(2).mean()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_a_hash_is_of_the_direction_alone():
    q, _, _ = tensors(20)
    turn = rotations(3, 16)
    found = hashed(q, turn)
    assert torch.equal(found, hashed(7 * q, turn)) and found.shape == (B, H, 3, 20) and found.max() < 16
    assert torch.equal(hashed(-q, turn), (found + 8) % 16)  # [xR; −xR]
    assert torch.allclose(unit(q).norm(dim=-1), torch.full((B, H, 20), D**0.5), atol=1e-4)


@pytest.mark.parametrize("chunks", [(1,) * 41, (7, 1, 20, 13), (41,)], ids=len)
@pytest.mark.parametrize("local", [0, 1])
def test_steps_are_the_forward(chunks, local):
    assert_steps_are_the_forward(model(local=local), some_ids(41, 2), chunks)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(side):
    assert_padding_changes_nothing(model(), side)


def test_a_call_tells_its_rounds():
    cap = capture(wrap(model(rounds=3), kind="decoder"), {"input_ids": torch.arange(13)[None]})
    call = cap.calls[0]
    assert not cap.unseen and call.seen == "bucketed" and call.form.rounds == 3
    assert isinstance(call.mask.right, masks.Buckets)
    one = call.form.round(1).weights(0, 13, ALL)
    assert torch.allclose(one.sum(-1), torch.ones(1, 2, 13)) and not torch.allclose(one[:, 0], call.weights(0))


def test_local_heads_are_a_window():
    call = capture(wrap(model(local=1), kind="decoder"), {"input_ids": torch.arange(13)[None]}).calls[0]
    near = masks.Causal() & masks.Window(4, 0)
    assert torch.equal(call.mask.dense(13, 13, h=0), near.dense(13)) and not torch.equal(
        call.mask.dense(13, 13, h=1), near.dense(13)
    )


def test_no_leak_is_found():
    report = check(model(), masks.Causal(), step=lambda module, ids, cache: module.step(ids, cache))
    assert report.ok, report


def test_the_published_chunks_leak_and_are_found():
    report = check(model(published=True), masks.Causal())
    assert not report.ok and any(f.module == "blocks.0.attention" for f in report.findings), report


def moved(published: bool, draws: int = 50) -> float:
    """The share of earlier positions whose output changes when the last token of 64 is another."""
    changed = []
    for seed in range(draws):
        q, _, v = tensors(64, seed)
        outs = []
        for last in (1, 2):
            q[:, :, -1] = torch.randn(B, H, D, generator=torch.Generator().manual_seed(1000 * last + seed))
            outs.append(LSH(hashed(q, rotations(2, 8)), 8, published=published).output(q, unit(q), v)[:, :, :-1])
        changed.append(((outs[0] - outs[1]).abs().amax(-1) > 1e-4).float().mean())
    return float(torch.stack(changed).mean())


def test_how_much_of_the_past_a_last_token_moves():
    assert moved(published=False) == 0
    assert moved(published=True) > 0.15


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: Reformer(16, 2, buckets=0), "buckets expects an even number, or 1 for no hashing; got 0"),
        (lambda: Reformer(16, 2, buckets=7), "got 7"),
        (lambda: Reformer(16, 2, rounds=0), "rounds and chunk expect 1 or more, got 0 and 32"),
        (lambda: Reformer(16, 2, chunk=0), "got 2 and 0"),
        (lambda: Reformer(16, 2, local=3), "local expects a number of heads, 0 … 2; got 3"),
        (lambda: Reformer(16, 2)(torch.zeros(1, 3, 16), torch.zeros(1, 3, 16)), "its keys, so it reads no other text"),
        (lambda: Reformer(16, 2)(torch.zeros(1, 3, 16), mask=torch.ones(1, 1, 3, 3)), r"\(B, 1, 1, T\) is expected"),
    ],
)
def test_bad_input_is_one_sentence(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_gradients_are_those_of_its_weights():
    q, _, v = (t.double().requires_grad_() for t in tensors(21))
    by = LSH(hashed(q.float(), rotations(2, 4)), 4)
    loose = by.form(q, unit(q)).scores(0, 21, ALL).softmax(-1) @ v
    ours = torch.autograd.grad(by.output(q, unit(q), v).pow(2).sum(), (q, v))
    wanted = torch.autograd.grad(loose.pow(2).sum(), (q, v))
    assert all(torch.allclose(a, b, atol=1e-8) for a, b in zip(ours, wanted, strict=True))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 3), st.sampled_from([2, 4, 8]), st.data())
def test_a_round_that_is_shown_alone_is_that_round_of_all(length, rounds, buckets, data):
    alone = data.draw(st.integers(1, rounds))
    q, k, _ = tensors(length)
    joint, one = (Hashed(buckets, rounds, 8, seed=5, alone=number).form(q, k) for number in (0, alone))
    assert torch.allclose(one.weights(0, length, ALL), joint.round(alone - 1).weights(0, length, ALL), atol=1e-6)
