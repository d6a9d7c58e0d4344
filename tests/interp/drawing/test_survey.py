"""Thumbnails against weights written down by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headwise import capture
from headwise.interp.attention.axes import Axis, Sound
from headwise.interp.drawing.survey import grid_pictures, patch_pictures, survey
from headwise.interp.subject import Inputs
from headwise.models import wrap


class Given(nn.Module):
    """Attention with the weights it is given, (B, H, Q, K), rows summing to one."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def forward(self, x):
        k = torch.eye(self.weights.shape[-1]).expand(*self.weights.shape[:2], -1, -1)  # q·kᵀ = log weights
        return F.scaled_dot_product_attention(self.weights.clamp_min(1e-30).log(), k, k, scale=1.0) + 0 * x.sum()


def seen(weights, kind="encoder", **axis):
    """Its capture. ``axis`` names the positions."""
    labels = tuple(map(str, range(weights.shape[-1])))
    axes = {"input": Axis(labels, **axis)} if axis else {}
    return capture(wrap(Given(weights), kind=kind), Inputs({"x": torch.zeros(len(weights), 1)}, axes))


HAND = torch.tensor(
    [
        [0.50, 0.10, 0.10, 0.20, 0.10],
        [0.05, 0.05, 0.70, 0.10, 0.10],
        [0.20, 0.20, 0.20, 0.20, 0.20],
        [0.00, 0.90, 0.05, 0.00, 0.05],
        [0.04, 0.06, 0.30, 0.25, 0.35],
    ]
)


def test_a_cell_is_the_largest_of_its_weights():
    """Five positions in three cells a side: the last cell has one."""
    cap = seen(HAND[None, None])
    small = survey(cap, size=3).thumbnails["encoder", 0]
    by_hand = torch.tensor([[0.50, 0.70, 0.10], [0.90, 0.20, 0.20], [0.06, 0.30, 0.35]])
    torch.testing.assert_close(small[0], by_hand)
    np.testing.assert_allclose(grid_pictures(cap, survey(cap, size=3), "encoder")[0, 0], by_hand.sqrt(), atol=1e-6)


def test_a_cell_is_the_largest_of_its_weights_also_where_bands_meet(monkeypatch):
    monkeypatch.setattr("headwise.interp.attention.call.BAND_BYTES", 4 * 5 * 2)  # two rows a band
    torch.testing.assert_close(
        survey(seen(HAND[None, None]), size=2).thumbnails["encoder", 0][0], torch.tensor([[0.70, 0.20], [0.90, 0.35]])
    )


def test_forbidden_cells_are_empty_unless_something_leaked():
    past = HAND.tril() / HAND.tril().sum(-1, keepdim=True)
    clean = seen(past[None, None], "decoder")
    picture = grid_pictures(clean, survey(clean), "decoder")[0, 0]
    assert np.isnan(picture[np.triu_indices(5, 1)]).all() and not np.isnan(picture[np.tril_indices(5)]).any()
    leaky = seen(HAND[None, None], "decoder")
    np.testing.assert_allclose(grid_pictures(leaky, survey(leaky), "decoder")[0, 0], HAND.sqrt(), atol=1e-6)


def test_rounding_in_the_future_is_no_leak():
    """Weights of 1e-8 are rounding, those of 1e-5 a leak, though a thumbnail shows square roots."""
    weights = torch.tensor([[1.0, 1e-8, 1e-5], [0.5, 0.5, 1e-8], [0.2, 0.3, 0.5]])
    cap = seen(weights[None, None], "decoder")
    picture = grid_pictures(cap, survey(cap), "decoder")[0, 0]
    assert np.isnan(picture).tolist() == [[False, True, False], [False, False, True], [False, False, False]]


class Padded(Given):
    def forward(self, x, attention_mask):
        return super().forward(x)


def test_each_sample_is_empty_where_its_own_padding_is():
    weights = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]])[:, None, None].repeat(1, 1, 3, 1)
    real = torch.tensor([[1, 1, 0], [0, 1, 1]])
    cap = capture(wrap(Padded(weights), kind="encoder"), {"attention_mask": real, "x": torch.zeros(2, 1)})
    for batch, hidden in ((0, [False, False, True]), (1, [True, False, False])):
        picture = grid_pictures(cap, survey(cap, batch=batch), "encoder")[0, 0]
        assert np.isnan(picture).tolist() == [hidden] * 3


def patches(grid, special, seed=0):
    """Weights of 1 head over ``special`` positions and the patches of a grid."""
    count = special + math.prod(grid)
    return torch.rand(count, count, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def test_patches_are_laid_out_and_scaled_by_the_strongest():
    rows = torch.tensor([[0.40, 0.05, 0.20, 0.10, 0.05, 0.05, 0.15]]).repeat(7, 1)  # CLS, then 2 × 3 patches
    cap = seen(rows[None, None], "vision", grid=(2, 3))
    picture = patch_pictures(cap, "encoder", 0)[0, 0]
    by_hand = np.array([[0.25, 1.0, 0.5], [0.25, 0.25, 0.75], [np.nan] * 3])
    np.testing.assert_allclose(picture, by_hand, atol=1e-6)
    with pytest.raises(ValueError, match="no patches"):
        patch_pictures(seen(rows[None, None], "vision"), "encoder", 0)


def test_many_patches_are_pooled_by_their_strongest():
    """50 rows are too many for a thumbnail: two of them, and both columns, share a cell."""
    weights = patches((50, 2), 1)
    picture = patch_pictures(seen(weights[None, None], "vision", grid=(50, 2)), "encoder", 7)[0, 0]
    own = weights[7, 1:].reshape(50, 2).numpy()
    by_hand = [own[2 * row : 2 * row + 2].max() / own.max() for row in range(25)]
    np.testing.assert_allclose(picture[:, 12], by_hand, atol=1e-6)
    assert np.isnan(np.delete(picture, 12, 1)).all()


def test_every_sample_has_its_own_thumbnails():
    other = HAND.flip(1)
    cap = seen(torch.stack([HAND, other])[:, None])
    for batch, weights in enumerate((HAND, other)):
        found = survey(cap, batch=batch)
        torch.testing.assert_close(found.thumbnails["encoder", 0][0], weights)
        np.testing.assert_allclose(grid_pictures(cap, found, "encoder")[0, 0], weights.sqrt(), atol=1e-6)
    with pytest.raises(IndexError, match="batch expects a sample 0 … 1; got 2"):
        survey(cap, batch=2)
    both = torch.stack([patches((2, 2), 0), patches((2, 2), 0, seed=1)])[:, None]
    looked = seen(both, "vision", grid=(2, 2))
    for batch in (0, 1):
        own = both[batch, 0, 3].reshape(2, 2)
        np.testing.assert_allclose(patch_pictures(looked, "encoder", 3, batch=batch)[0, 0], own / own.max(), atol=1e-6)


def test_a_band_of_silence_adds_nothing(monkeypatch):
    """Two or three of five frames are heard, in bands of two: nothing is shown of the last band, or of two."""
    monkeypatch.setattr("headwise.interp.attention.call.BAND_BYTES", 4 * 5 * 2)  # two rows a band
    sound = Sound(np.zeros((4, 10), np.float32), hop=0.01, step=0.02, seconds=0.1)
    for rows in (2, 3):
        cap = seen(HAND[None, None], sound=replace(sound, seconds=0.02 * rows))
        torch.testing.assert_close(survey(cap).thumbnails["encoder", 0][0], HAND[:rows, :rows])
    cap = seen(HAND[None, None], sound=replace(sound, seconds=0.06))  # three frames in two cells a side
    small = survey(cap, size=2).thumbnails["encoder", 0][0]
    torch.testing.assert_close(small, torch.tensor([[0.50, 0.70], [0.20, 0.20]]))


def test_thumbnails_of_a_causal_recording_ask_the_promise_within_it():
    """Of 100 frames 50 are heard, each a cell of its own: the promise is asked at those."""
    sound = Sound(np.zeros((4, 200), np.float32), hop=0.01, step=0.02, seconds=1.0)
    weights = torch.ones(100, 100).tril()
    cap = seen((weights / weights.sum(-1, keepdim=True))[None, None], "decoder", sound=sound)
    found = survey(cap, size=50)
    picture = grid_pictures(cap, found, "decoder")[0, 0]
    assert picture.shape == (50, 50)
    assert np.array_equal(np.isnan(picture), np.triu(np.ones((50, 50), bool), 1))
