"""A head's queries and keys through another mechanism: figures computed by hand from dense matrices."""

import pytest
import torch

from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.scores import Computed, Seen
from headwise.interp.errors import InputError
from headwise.interp.masks import Causal, Window
from headwise.models.variants.beside import beside, looks_back, reached
from headwise.models.variants.longformer import Band
from headwise.models.variants.offered import OFFERED, Head
from headwise.pages._variants.choices import VariantsChoices

Q, K, V = torch.randn(3, 1, 2, 11, 4, generator=torch.Generator().manual_seed(0)).unbind(0)
CALL = AttentionCall("a", "self", Computed(Q, K, 0.7, causal=True), V)


def dense(mask) -> torch.Tensor:
    return (Q @ K.mT * 0.7).masked_fill(~mask.dense(11), -torch.inf).softmax(-1)


def test_the_figures_are_those_of_dense_matrices():
    found, own, kept = beside(CALL, 1, Band(window=3)), dense(Causal()), Causal() & Window(3, 0)
    out, moved = own @ V, dense(kept) @ V
    assert torch.allclose(found.call.weights(1), dense(kept)[:, 1], atol=1e-6)
    assert found.error == pytest.approx(float((out - moved)[0, 1].norm() / out[0, 1].norm()), rel=1e-5)
    assert found.held == pytest.approx(float((own[0, 1] * kept.dense(11)).sum() / 11), rel=1e-5)
    assert found.seen == pytest.approx(int(kept.dense(11).sum()) / 66)


def test_what_sees_everything_changes_nothing():
    found = beside(CALL, 0, Band(window=20))
    assert (found.error, found.held, found.seen) == pytest.approx((0, 1, 1), abs=1e-6)


def test_heads_that_share_keys_are_put_through_alike():
    shared = AttentionCall("a", "self", Computed(Q, K[:, :1], 0.7, causal=True), V[:, :1])
    found = beside(shared, 1, Band(window=2))
    scores = (Q[0, 1] @ K[0, 0].mT * 0.7).masked_fill(~(Causal() & Window(2, 0)).dense(11), -torch.inf)
    assert torch.allclose(found.call.weights(1)[0], scores.softmax(-1), atol=1e-6)


def test_reach_is_counted_over_layers_and_heads():
    assert reached(Causal() & Window(2, 0), 9, 3, 1)[:, -1].tolist() == [3, 5, 7]
    stripes = OFFERED["sparse"].make({"stride": 3}, Head(4, 2, True)).mask()
    assert reached(stripes, 9, 2, 2)[:, -1].tolist() == [5, 9]  # 8 7 6 5 and 2; then all


def test_which_way_a_head_looks_is_read_off_its_mask():
    assert looks_back(CALL)
    assert not looks_back(AttentionCall("a", "self", Computed(Q, K, 0.7), V))


def test_what_cannot_be_put_through_says_why():
    weights = dense(Causal())
    written = AttentionCall("layer.0", "self", Seen(weights.log(), weights), V)
    with pytest.raises(InputError, match="only showed its scores"):
        beside(written, 0, Band(window=3))
    cross = AttentionCall("a", "cross", Computed(Q, K[:, :, :5], 0.7), V[:, :, :5])
    with pytest.raises(InputError, match="within one sequence"):
        beside(cross, 0, Band(window=3))


@pytest.mark.parametrize("name", OFFERED)
def test_every_mechanism_is_made_of_its_options_and_each_has_a_choice(name):
    offered = OFFERED[name]
    for values in (lambda o: o.start, lambda o: o.low, lambda o: o.high):
        by = offered.make({option.name: values(option) for option in offered.options}, Head(4, 2, True))
        found = beside(CALL, 1, by)
        assert 0 <= found.seen <= 1 + 1e-6
        assert torch.allclose(found.call.weights(1).sum(-1), torch.ones(1, 11), atol=1e-4)
        assert not bool(found.call.weights(1).triu(1).any())
    for option in offered.options:
        choice = getattr(VariantsChoices, option.name)
        assert choice.between == (option.low, option.high)
        assert choice.default == option.start
