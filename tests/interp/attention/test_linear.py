"""Weights that no softmax made: of any sign and sum; metrics take them as shares of their sizes."""

from types import SimpleNamespace

import pytest
import torch

from headwise.interp.analysis.metrics import sweep
from headwise.interp.attention import linear
from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.linear import Linear
from headwise.interp.attention.report import gap
from headwise.interp.masks import Bidirectional, Causal, Window
from headwise.interp.run.tap.changes import CallChanges

DRAW = torch.Generator().manual_seed(0)
LEFT, RIGHT = torch.randn(2, 4, 6, 3, generator=DRAW), torch.randn(2, 2, 6, 3, generator=DRAW)
WHOLE = LEFT @ RIGHT.repeat_interleave(2, 1).mT
VALUES = torch.randn(2, 2, 6, 5, generator=DRAW)
ALL = slice(None)


@pytest.mark.parametrize("mask", [Bidirectional(), Causal(), Window(2, 1)], ids=repr)
def test_weights_are_products_where_the_mask_allows(mask):
    form, seen = Linear(LEFT, RIGHT, mask), mask.dense(6)
    assert torch.allclose(form.weights(0, 6, ALL), WHOLE * seen, atol=1e-6)
    assert torch.allclose(form.weights(2, 4, slice(1, 3)), (WHOLE * seen)[:, 1:3, 2:4], atol=1e-6)
    assert torch.equal(form.scores(0, 6, ALL).isfinite(), seen.expand_as(WHOLE)) and form.mask() == mask


def test_made_of_rows_of_its_own_heads():
    form = Linear(LEFT, RIGHT, made=lambda q, k, query, heads: (q @ k.mT) * query * torch.arange(4)[heads, None, None])
    wanted = WHOLE * torch.arange(6)[:, None] * torch.arange(4)[:, None, None]
    assert torch.allclose(form.weights(1, 5, slice(2, 4)), wanted[:, 2:, 1:5], atol=1e-5)


@pytest.mark.parametrize("room", [1, 4 * 2 * 6 * 7, 2**20])
def test_output_is_weights_times_values_however_little_room_there_is(room, monkeypatch):
    monkeypatch.setattr(linear, "BAND_BYTES", room)
    form = Linear(LEFT, RIGHT, Causal())
    wanted = (WHOLE * Causal().dense(6)) @ VALUES.repeat_interleave(2, 1)
    assert torch.allclose(form.output(VALUES), wanted, atol=1e-5)
    assert gap(form, VALUES, wanted) < 1e-6


def test_a_forbidden_key_loses_its_weight_and_no_other_gains():
    def forbid(may):
        may[:, 1, 4, 2] = False

    scores, weights, out = CallChanges(masks=[("it", forbid)]).attended(Linear(LEFT, RIGHT, Causal()), VALUES)
    wanted = WHOLE * Causal().dense(6)
    wanted[:, 1, 4, 2] = 0
    assert torch.allclose(weights, wanted, atol=1e-6) and (scores[:, 1, 4, 2] == -torch.inf).all()
    assert torch.allclose(out, wanted @ VALUES.repeat_interleave(2, 1), atol=1e-5)


def test_metrics_take_shares_of_sizes():
    """Weights 3 and −1 are ¾ and ¼: 0.8113 bits, and a quarter of what is looked at is itself."""
    left, right = torch.ones(1, 1, 2, 1), torch.tensor([3.0, -1.0]).view(1, 1, 2, 1)
    call = AttentionCall("a", "self", Linear(left, right), torch.ones(1, 1, 2, 1))
    assert call.linear and call.weights(0)[0].tolist() == [[3, -1], [3, -1]]
    (row,) = sweep(SimpleNamespace(calls=(call,)), expect=Causal()).to_dict("records")
    assert row["entropy"] == pytest.approx(0.8113, abs=1e-4)
    assert row["self"] == pytest.approx((0.75 + 0.25) / 2)
    assert row["forbidden"] == pytest.approx(0.25 / 2)
