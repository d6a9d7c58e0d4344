"""A changed token, and the verdict on how far it went."""

import pytest
import torch

from headwise import capture, load
from headwise.assets import ASSETS
from headwise.interp.analysis import travel as module
from headwise.interp.analysis.travel import Travel, followed, travel
from headwise.interp.errors import InputError
from headwise.interp.masks import Bidirectional, Window
from headwise.interp.run.edits import ReplaceMask
from headwise.models import read_image

TEXT = "The people of the United States and the Congress."


def judged(moved, forbidden, position=1) -> Travel:
    return Travel(position, torch.tensor(moved, dtype=torch.float32), torch.tensor(forbidden, dtype=torch.bool))


def test_the_first_leaked_depth_is_where_it_enters():
    past = [[1, 0, 0]] * 3
    kept = judged([[0, 1, 0], [0, 1, 1], [0, 1, 1]], past)
    assert kept.leaked == () and kept.promised and kept.past
    leaked = judged([[0, 1, 0], [0, 1, 1], [1e-9, 1, 1]], past)
    assert leaked.depths == ("embedding", "after block 0", "after block 1")
    assert leaked.leaked == ("after block 1",) and leaked.leaks.nonzero().tolist() == [[2, 0]]


def test_where_everything_is_allowed_nothing_leaks():
    free = judged([[0, 1, 0], [1, 1, 1]], [[0, 0, 0]] * 2)
    assert free.leaked == () and not free.promised and not free.past


def test_a_causal_model_keeps_its_past():
    cap = capture(load("tiny-decoder"), TEXT)
    found = followed(cap, 4)
    assert torch.equal(found.moved, travel(cap, 4)) and found.past and found.leaked == ()
    assert found.forbidden[:, :4].all() and not found.forbidden[:, 4:].any()


def test_a_sum_in_another_order_is_no_leak(monkeypatch):
    """Reformer sorts tokens by bucket: a changed one moves the others, and the last bits of their sums."""
    cap = capture(load("tiny-reformer"), f"{TEXT} {TEXT} {TEXT}")
    found = followed(cap, 20)
    assert found.leaked == () and 0 < found.rounding < 1e-5 * float(found.moved.max())
    assert not found.moved[:, :20].any() and (travel(cap, 20)[:, :20] > 0).any()
    far = travel(cap, 20)
    far[3, 5] = 1e-4 * far[3].max()  # what is more than that is one
    monkeypatch.setattr(module, "travel", lambda *_: far)
    assert followed(cap, 20).leaked == ("after block 2",)


def test_where_nothing_is_sorted_the_last_bit_counts(monkeypatch):
    cap = capture(load("tiny-decoder"), TEXT)
    far = travel(cap, 4)
    far[2, 1] = 1e-9
    monkeypatch.setattr(module, "travel", lambda *_: far)
    found = followed(cap, 4)
    assert found.leaked == ("after block 1",)
    assert found.rounding == 0


def test_a_mask_forgotten_in_one_layer_is_named():
    cap = capture(load("tiny-decoder"), TEXT, edits=(ReplaceMask(2, Bidirectional()),))
    found = followed(cap, 4)
    assert found.leaked == ("after block 2", "after block 3") and found.leaks[:, 4:].sum() == 0


def test_a_bidirectional_model_promises_nothing():
    found = followed(capture(load("tiny-encoder"), TEXT), 3)
    assert not found.promised and found.leaked == () and (found.moved[-1] > 0).all()


def test_the_target_of_an_encoder_decoder_is_judged_by_the_decoder():
    found = followed(capture(load("tiny-encoder-decoder"), ("knight", "nIt")), 2)
    assert found.past and found.leaked == ()


def test_each_layer_widens_what_a_window_lets_through(monkeypatch):
    """Window(2, 0) lets a change travel two positions further a layer: by hand."""
    cap = capture(load("tiny-decoder"), TEXT)
    monkeypatch.setattr(module, "_claims", lambda cap, length: [Window(2, 0)] * 4)
    found = followed(cap, 1)
    allowed = [(~row).nonzero().flatten().tolist() for row in found.forbidden]
    assert allowed[:4] == [[1, 2, 3], [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6, 7]]
    assert not found.past and found.leaked[0] == "after block 0"  # the model itself is causal without a window


def test_what_has_no_tokens_is_said():
    cap = capture(load("tiny-vit"), read_image(ASSETS / "examples" / "seven.png"))
    with pytest.raises(InputError, match="takes no token ids"):
        followed(cap, 0)
