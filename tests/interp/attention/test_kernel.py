"""Attention by features: its weights are products, one pair at a time here."""

import pytest
import torch

from headwise.interp.attention.kernel import Kernel
from headwise.interp.attention.report import gap
from headwise.interp.masks import Bidirectional, Causal

B, H, HK, Q, K, M = 2, 4, 2, 5, 5, 3
DRAW = torch.Generator().manual_seed(0)
LEFT, RIGHT = torch.rand(B, H, Q, M, generator=DRAW), torch.rand(B, HK, K, M, generator=DRAW)
ALL = slice(None)


def rises(width: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(width)
    return torch.randn(B, H, Q, width, generator=draw) * 3, torch.randn(B, HK, K, width, generator=draw) * 3


def by_pairs(form: Kernel) -> torch.Tensor:
    met = torch.zeros(B, H, Q, K, dtype=torch.float64)
    for query in range(Q):
        for key in range(K if not form.causal else query + 1):
            for h in range(H):
                each = form.left[:, h, query].double() * form.right[:, h // 2, key].double()
                if form.rise:
                    each = each * (form.rise[0][:, h, query].double() + form.rise[1][:, h // 2, key].double()).exp()
                met[:, h, query, key] = each.sum(-1)
    return met / (met.sum(-1, keepdim=True) + form.floor) if form.normalised else met


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("rise", [None, rises(1), rises(M)], ids=["plain", "risen", "risen by feature"])
def test_weights_are_products_of_features(causal, normalised, rise):
    form = Kernel(LEFT, RIGHT, causal, rise, normalised, floor=0.1)
    weights = form.weights(0, Q, ALL)
    assert torch.allclose(weights.double(), by_pairs(form), rtol=1e-4, atol=1e-7)
    assert torch.allclose(form.weights(1, 3, slice(1, 3)), weights[:, 1:3, 1:3], rtol=1e-5)
    assert form.mask() == (Causal() if causal else Bidirectional())
    v = torch.randn(B, HK, K, 2, generator=DRAW)
    assert gap(form, v, form.output(v)) < 1e-6


def test_scores_are_logarithms():
    form = Kernel(LEFT, RIGHT, True, rises(1))
    scores = form.scores(0, Q, ALL)
    assert torch.allclose(scores.softmax(-1), form.weights(0, Q, ALL), atol=1e-6)
    signed = Kernel(LEFT, -RIGHT, True, normalised=False)  # where there is no softmax, weights are the scores
    scores, seen = signed.scores(0, Q, ALL), Causal().dense(Q, K)
    assert torch.equal(scores.isfinite(), seen.expand_as(scores)) and (scores[:, :, seen] < 0).all()
    assert torch.equal(scores.masked_fill(~seen, 0), signed.weights(0, Q, ALL))


def test_sizes_far_beyond_floats_keep_their_ratio():
    """exp(500) is no float32; the weights of two keys whose rises differ by log 3 are 1/4 and 3/4 all the same."""
    ones = torch.ones(1, 1, 2, 1)
    rise = torch.zeros(1, 1, 2, 1), torch.tensor([500.0, 500.0 + torch.tensor(3.0).log()]).view(1, 1, 2, 1)
    form = Kernel(ones, ones, True, rise)
    assert torch.allclose(form.weights(0, 2, ALL)[0, 0], torch.tensor([[1, 0], [0.25, 0.75]]), atol=1e-4)


def test_what_stands_beside_exact_scores_is_the_error_of_the_features():
    q, k = torch.randn(2, 1, 1, 4, 3, generator=DRAW)
    form = Kernel(torch.rand(1, 1, 4, 2), torch.rand(1, 1, 4, 2), False, met=(q, k, 0.5))
    assert torch.allclose(form.added(0, 4, ALL) + q @ k.mT * 0.5, form.scores(0, 4, ALL), atol=1e-6)
    assert form.kv_heads == 1 and Kernel(LEFT, RIGHT).kv_heads is None
