"""What the Vision Transformer learns from and is measured with: jitter, accuracy, nearest neighbours, by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from headwise.models.recipes import vision
from headwise.models.recipes.data import load_digits
from tests.models.drawn import generator


@pytest.fixture(scope="module")
def digits():
    (pictures, _), _ = load_digits()
    return torch.from_numpy(pictures[::800])[:, None]


def test_jitter_keeps_shape_and_range(digits):
    moved = vision.jitter(digits, generator())
    assert moved.shape == digits.shape and moved.min() >= 0 and moved.max() <= digits.max() + 1e-6
    assert torch.equal(moved, vision.jitter(digits, generator()))
    assert not torch.equal(moved, vision.jitter(digits, generator(6)))
    ink = moved.sum((1, 2, 3)) / digits.sum((1, 2, 3))
    assert (ink > 0.7).all() and (ink < 1.4).all()  # size changes by 12 % each way, and nothing leaves the picture


def test_jitter_in_the_middle_of_its_range_changes_nothing(digits, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda count, generator: torch.full((count,), 0.5))
    torch.testing.assert_close(vision.jitter(digits, generator()), digits, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("which", "axis"), [(3, 3), (4, 2)], ids=["columns", "rows"])
def test_jitter_shifts_by_two_pixels_at_most(digits, monkeypatch, which, axis):
    """The numbers are drawn in the order angle, size, shear, columns, rows; the largest reads two pixels further on."""
    drawn = iter(1.0 if number == which else 0.5 for number in range(5))
    monkeypatch.setattr(torch, "rand", lambda count, generator: torch.full((count,), next(drawn)))
    moved = vision.jitter(digits, generator())
    torch.testing.assert_close(moved.narrow(axis, 0, 26), digits.narrow(axis, 2, 26), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("which", "expected"), [(0, 12.0), (1, 0.12)], ids=["angle", "size"])
def test_jitter_turns_and_scales_by_at_most(monkeypatch, which, expected):
    """A spot at (20, 8) right of and above the middle is read from where the turn, or the scale, puts it."""
    drawn = iter(1.0 if number == which else 0.5 for number in range(5))
    monkeypatch.setattr(torch, "rand", lambda count, generator: torch.full((count,), next(drawn)))
    ramp = torch.arange(101.0).expand(1, 1, 101, 101) - 50  # each pixel says how far right of the middle it is
    moved = vision.jitter(ramp, generator())[0, 0]
    x, y = 20.0, -8.0
    turned = {0: x * np.cos(np.radians(expected)) - y * np.sin(np.radians(expected)), 1: x * (1 + expected)}[which]
    assert float(moved[42, 70]) == pytest.approx(turned, abs=1e-3)


def test_accuracy_and_nearest_neighbour_by_hand():
    pictures = np.eye(4, dtype=np.float32).reshape(4, 2, 2)
    assert vision.accuracy(nn.Flatten(), pictures, np.array([0, 1, 2, 2])) == 0.75  # the brightest pixel is the answer
    known = (pictures[:2], np.array([7, 5]))
    asked = np.array([[[0.9, 0.2], [0, 0]], [[0.4, 0.5], [0, 0]], [[0, 1], [1, 0]]], np.float32)
    assert vision.nearest_neighbour(known, asked, np.array([7, 5, 5])) == 1.0
    assert vision.nearest_neighbour(known, asked, np.array([7, 7, 5])) == pytest.approx(2 / 3)
