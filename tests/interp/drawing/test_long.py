"""Long texts: what is drawn of them against what is there."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headwise import capture, sweep
from headwise.interp.analysis.in_words import Follows
from headwise.interp.analysis.metrics import STANDARD, measure
from headwise.interp.attention.sampling import EXACT, drawn
from headwise.interp.drawing.survey import grid_pictures, survey
from headwise.interp.subject import Inputs
from headwise.models import wrap

LONG, METRICS = EXACT + 276, ["entropy", "entropy_normalised", "self", "previous", "first", "distance"]


class Attends(nn.Module):
    def forward(self, q, k):
        return F.scaled_dot_product_attention(q, k, k, is_causal=True)


def long_capture(length=LONG):
    """Two heads: one noisy, and one whose queries look at the one before, more surely the later they come."""
    g = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, 1, 1, length, 16, generator=g)
    angle = torch.arange(length) * 2.4
    place = torch.stack([angle.cos(), angle.sin()], -1)  # neighbours are 2.4 apart
    turned = torch.stack([(angle - 2.4).cos(), (angle - 2.4).sin()], -1) * torch.linspace(0, 60, length)[:, None]
    pad = torch.zeros(length, 14)
    heads = [torch.cat([noisy[0], torch.cat([turned, pad], -1)[None, None]], 1),
             torch.cat([noisy[1], torch.cat([place, pad], -1)[None, None]], 1)]  # fmt: skip
    return capture(wrap(Attends(), kind="decoder"), Inputs(dict(zip("qk", heads, strict=True))))


@pytest.fixture(scope="module")
def cap():
    return long_capture()


@pytest.fixture(scope="module")
def found(cap):
    return survey(cap)


def test_numbers_come_with_errors_that_hold(cap, found):
    """Every number lies within four of its own standard errors of the exact one, and none is wildly sure."""
    exact = sweep(cap)
    for name in METRICS:
        gap = (found.table[name] - exact[name]).abs()
        assert (gap <= 4 * found.errors[name] + 1e-6).all(), name
    assert (found.errors[["entropy", "distance"]] > 0).all().all()
    assert found.errors["previous"][1] < 0.05
    assert found.looked == (47 * 8, 1300)  # 47 strata of ⌈1300 / 48⌉ = 28 queries, the last of 12
    assert found.sampled == f"from {found.looked[0]:,} of {LONG:,} queries, spread over the text"
    assert found.table["forbidden"].tolist() == [0, 0]
    assert found.table["information"].isna().all()


def test_errors_are_as_large_as_what_other_samples_differ(cap):
    """Thirty samples with other seeds: their own errors, on average, are what they are off."""
    exact = sweep(cap)
    for name in ("entropy", "previous", "distance"):
        gaps, errors = [], []
        for seed in range(30):
            sample = drawn(LONG, seed=seed)
            ((_, results, own),) = measure(cap, STANDARD, sample=lambda call, sample=sample: sample)
            gaps.append(results[name].numpy() - exact[name].to_numpy())
            errors.append(own[name].numpy())
        spread, said = np.sqrt(np.square(gaps).mean(0)), np.sqrt(np.square(errors).mean(0))
        np.testing.assert_allclose(said, spread, rtol=0.4)
        assert (np.abs(np.mean(gaps, 0)) < 4 * spread / 30**0.5).all()  # no bias


def test_a_thumbnail_is_the_largest_of_the_drawn_rows(cap, found):
    sample, call = drawn(LONG), cap.calls[0]
    width = -(-LONG // 48)
    for head in (0, 1):
        rows = call.weights(head)[0, sample.rows]  # (S · draws, K)
        by_hand = np.zeros(found.thumbnails["decoder", 0].shape[1:], np.float32)
        for row, position in zip(rows.numpy(), sample.rows.tolist(), strict=True):
            for cell in range(by_hand.shape[1]):
                own = row[cell * width : (cell + 1) * width].max()
                by_hand[position // width, cell] = max(by_hand[position // width, cell], own)
        np.testing.assert_allclose(found.thumbnails["decoder", 0][head], by_hand, atol=1e-7)
    assert np.isfinite(np.diagonal(grid_pictures(cap, found, "decoder")[0, 1])).all()


def test_every_query_is_looked_at_on_demand_and_in_short_texts(cap):
    exact = survey(cap, exact=True)
    whole = sweep(cap)
    for name in METRICS:
        np.testing.assert_allclose(exact.table[name], whole[name], atol=1e-9)
    assert exact.sampled == "" and not exact.errors[METRICS].to_numpy().any()
    short = survey(long_capture(EXACT))
    assert short.looked == (EXACT, EXACT) and not short.errors[METRICS].to_numpy().any()
    assert "±" in survey(cap).said("decoder", 0, 1, "entropy") and "±" not in exact.said("decoder", 0, 1, "entropy")


def test_an_alignment_of_long_texts_is_found_with_its_error():
    """Cross-attention along a line, whose correlation is nearly one, against all its queries."""

    class Crosses(nn.Module):
        def forward(self, q, k):
            return F.scaled_dot_product_attention(q, k, k)

    angle = torch.linspace(0, 3, LONG)
    place = torch.stack([angle.cos(), angle.sin()], -1)[None, None]
    cap = capture(wrap(Crosses(), kind="encoder"), Inputs({"q": place * 40, "k": place[:, :, ::2]}))
    ((_, every, none),) = measure(cap, [Follows])
    ((_, some, error),) = measure(cap, [Follows], sample=lambda call: drawn(LONG))
    assert every["follows"].item() > 0.9 and none["follows"].item() == 0
    assert 0 < error["follows"].item() < 0.05
    assert abs(some["follows"] - every["follows"]).item() < 4 * error["follows"].item()


def test_errors_stand_beside_their_numbers(found):
    assert list(found.errors) == list(found.table)
    pd.testing.assert_frame_equal(found.errors[["stack", "layer", "head"]], found.table[["stack", "layer", "head"]])
