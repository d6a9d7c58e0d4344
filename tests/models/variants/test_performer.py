"""FAVOR+: unbiased, better with more features, strictly causal; with the published stabiliser it is not."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise import check, masks
from headwise.interp.attention.report import gap
from headwise.models.architectures.variant import VariantConfig, VariantDecoder
from headwise.models.variants.performer import BLOCK, STABILISERS, Favor, Performer, drawn
from tests.models.variants.decoding import assert_padding_changes_nothing, in_chunks

WIDTH, ALL = 8, slice(None)


def tensors(length: int, seed: int = 0, size: float = 0.7) -> torch.Tensor:
    return torch.randn(3, 1, 2, length, WIDTH, generator=torch.Generator().manual_seed(seed)) * size


def estimate(features: int, seed: int, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """φ(q)ᵀφ(k) of one draw, before it is divided by Z."""
    by = Favor(drawn(features, WIDTH, torch.Generator().manual_seed(seed)), causal=False)
    return replace(by.form(q, k), normalised=False).weights(0, q.shape[2], ALL)


def model(**options) -> VariantDecoder:
    torch.manual_seed(0)
    config = VariantConfig("performer", 13, context=300, layers=2, heads=2, width=16, options=options)
    return VariantDecoder(config).eval()


def test_the_estimate_is_unbiased():
    """Lemma 1: the mean over draws is exp(qᵀk/√D), within four standard errors in every cell."""
    q, k, _ = tensors(4, size=0.5)
    draws = torch.stack([estimate(16, seed, q, k).double() for seed in range(3000)])
    wanted = (q @ k.mT * WIDTH**-0.5).exp().double()
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - wanted).abs() < 4 * error).all()
    assert (error < 0.03 * wanted).all()  # it would be seen


def test_the_error_falls_with_the_root_of_the_features():
    q, k, v = tensors(24, size=0.3)
    exact = F.scaled_dot_product_attention(q, k, v)
    counts = torch.tensor([16, 64, 256, 1024])
    errors = []
    for count in counts.tolist():
        outs = (
            Favor(drawn(count, WIDTH, torch.Generator().manual_seed(seed)), False).output(q, k, v) for seed in range(40)
        )
        errors.append(torch.stack([(out - exact).pow(2).mean() for out in outs]).mean().sqrt())
    x, y = counts.double().log(), torch.stack(errors).double().log()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).pow(2).sum()
    assert float(slope) == pytest.approx(-0.5, abs=0.06)


def test_directions_are_orthogonal_in_blocks_and_as_long_as_normal_vectors():
    found = drawn(20, WIDTH, torch.Generator().manual_seed(0))
    assert found.shape == (20, WIDTH)
    for block in found.split(WIDTH):
        products = block @ block.T
        assert torch.allclose(products, products.diag().diag(), atol=1e-5)
    firsts = torch.stack([drawn(1, WIDTH, torch.Generator().manual_seed(seed))[0] for seed in range(500)])
    assert ((firsts > 0).float().mean(0) - 0.5).abs().max() < 0.1  # LAPACK's own signs make the first of them 0
    many = drawn(4000, WIDTH, torch.Generator().manual_seed(1)).pow(2).sum(1)
    assert float(many.mean()) == pytest.approx(WIDTH, rel=0.05) and float(many.var()) == pytest.approx(16, rel=0.15)


@settings(max_examples=60, deadline=None)
@given(
    length=st.sampled_from((1, 2, 50, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7)),
    stabiliser=st.sampled_from(STABILISERS),
    causal=st.booleans(),
    size=st.sampled_from((0.1, 1.0, 8.0)),
    padded=st.sampled_from((0, 3)),
)
def test_output_is_weights_times_values(length, stabiliser, causal, size, padded):
    q, k, v = tensors(length, size=size)
    real = torch.arange(length)[None] >= min(padded, length - 1) if padded else None
    by = Favor(drawn(16, WIDTH, torch.Generator().manual_seed(0)), causal, stabiliser, real)
    out, form = by.output(q, k, v), by.form(q, k)
    assert out.isfinite().all() and gap(form, v, out) < 1e-5
    weights = form.weights(0, length, ALL)
    assert real is None or not weights[..., ~real[0]].any()
    seen = weights.any(-1)
    assert torch.allclose(weights.sum(-1)[seen], torch.ones(int(seen.sum())), atol=1e-5)


@pytest.mark.parametrize("chunks", [(1,) * 41, (7, 1, 20, 13), (41,)], ids=len)
def test_steps_are_the_forward_and_remember_sums_alone(chunks):
    module, ids = model(features=8), torch.randint(13, (2, 41), generator=torch.Generator().manual_seed(1))
    said, states = in_chunks(module, ids, chunks)
    assert torch.allclose(said, module(ids), atol=1e-5)
    assert {state[1][0].total.shape for state in states} == {(2, 2, 8, 9)}  # (B, H, M, Dv + 1), whatever came before


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(side):
    assert_padding_changes_nothing(model(), side)


def test_no_leak_is_found():
    report = check(model(), masks.Causal(), step=lambda module, ids, cache: module.step(ids, cache))
    assert report.ok, report


def test_a_later_key_never_moves_an_earlier_row_by_a_bit():
    q, k, v = tensors(2 * BLOCK)
    by = Favor(drawn(16, WIDTH, torch.Generator().manual_seed(0)))
    before = by.output(q, k, v)
    k[:, :, -1] *= 50
    assert torch.equal(by.output(q, k, v)[:, :, :-1], before[:, :, :-1])


def test_the_published_stabiliser_leaks_and_is_found():
    """One later key, six times as long as the others, and its ε drown the features of the past."""
    q, k, v = tensors(32)
    by = Favor(drawn(16, WIDTH, torch.Generator().manual_seed(0)), stabiliser="global")
    before = by.output(q, k, v)
    k[:, :, -1] *= 6
    moved = (by.output(q, k, v) - before)[:, :, :-1].abs().amax() / before.abs().amax()
    assert float(moved) > 0.05
    report = check(model(stabiliser="global"), masks.Causal())
    assert not report.ok and any(f.module == "blocks.0.attention" for f in report.findings), report


def test_a_redraw_is_other_directions():
    module = Performer(16, 2, features=8, redraw=2)
    first = module.directions.clone()
    module(torch.zeros(1, 3, 16))
    assert torch.equal(module.directions, first)
    module(torch.zeros(1, 3, 16))
    assert not torch.equal(module.directions, first)
    again = module.eval().directions.clone()
    for _ in range(4):
        module(torch.zeros(1, 3, 16))
    assert torch.equal(module.directions, again)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"features": 0}, "features expects 1 or more random features, got 0"),
        ({"stabiliser": "none"}, "stabiliser expects one of own, global; got 'none'"),
        ({"redraw": -1}, "redraw expects a number of training steps"),
    ],
)
def test_bad_input_is_one_sentence(options, said):
    with pytest.raises(ValueError, match=said):
        Performer(16, 2, **options)


def test_the_published_stabiliser_cannot_decode():
    with pytest.raises(ValueError, match="must know the later ones"):
        Performer(16, 2, stabiliser="global").step(torch.zeros(1, 1, 16), None, 0, False)


def test_gradients_are_those_of_its_weights():
    q, k, v = (t.double().requires_grad_() for t in tensors(9))
    by = Favor(drawn(8, WIDTH, torch.Generator().manual_seed(0)).double())
    loose = by.form(q, k).weights(0, 9, ALL) @ v
    ours = torch.autograd.grad(by.output(q, k, v).pow(2).sum(), (q, k, v))
    wanted = torch.autograd.grad(loose.pow(2).sum(), (q, k, v))
    assert all(torch.allclose(a, b, atol=1e-8) for a, b in zip(ours, wanted, strict=True))
