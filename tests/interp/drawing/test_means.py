"""Means of heads against averages of their own weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headwise import capture, load
from headwise.interp.drawing.matrix import ALLOWED, FORBIDDEN, head_view
from headwise.interp.drawing.means import mean_view
from headwise.interp.subject import Inputs
from headwise.models import wrap

TEXT = "The people of the United States, the people"


@pytest.fixture(scope="module")
def cap():
    return capture(load("tiny-attention-only"), TEXT)


def every(cap, stack="decoder"):
    """(L, H, Q, K), head by head."""
    return torch.stack([torch.stack([c.weights(h)[0] for h in range(c.heads)]) for c in cap.stack(stack)])


def test_a_mean_is_the_average_of_what_is_averaged(cap):
    weights = every(cap)
    layers, heads = weights.shape[:2]
    for asked, by_hand, title in (
        ({"layer": 1}, weights[1].mean(0), f"layer 1 · mean of {heads} heads"),
        ({"head": 2}, weights[:, 2].mean(0), f"head 2 · mean of {layers} layers"),
        ({}, weights.mean((0, 1)), f"mean of {layers * heads} heads"),
    ):
        found = mean_view(cap, "decoder", **asked)
        torch.testing.assert_close(found.values, by_hand, atol=1e-6, rtol=0)
        assert found.title == title and "mean of" in found.caption and found.of == "tiny-attention-only"
        assert found.queries == head_view(cap, cap.calls[0], 0).queries
    assert torch.equal(mean_view(cap, "decoder", 1, 2).values, head_view(cap, cap.find(1), 2).values)


def test_a_pooled_cell_is_the_largest_of_the_mean_and_words_are_merged_of_it(cap):
    weights = every(cap).mean((0, 1))
    pooled = mean_view(cap, "decoder", size=4)
    factor = pooled.factor[0]
    by_hand = F.max_pool2d(weights[None, None], factor, ceil_mode=True)[0, 0]
    torch.testing.assert_close(pooled.values, by_hand, atol=1e-6, rtol=0)
    words = mean_view(cap, "decoder", words=True)
    single = [head_view(cap, call, head, words=True).values for call in cap.calls for head in range(call.heads)]
    torch.testing.assert_close(words.values, torch.stack(single).mean(0), atol=1e-6, rtol=0)


class Layer(nn.Module):
    def forward(self, q, mask):
        return F.scaled_dot_product_attention(q, q, q, mask)


class Windows(nn.Module):
    """Two layers whose queries see one token back, then two."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Layer(), Layer()])

    def forward(self, q):
        back = torch.arange(q.shape[2])[:, None] - torch.arange(q.shape[2])
        for reach, layer in enumerate(self.layers, 1):
            q = layer(q, (back >= 0) & (back <= reach))
        return q


def test_a_cell_is_forbidden_where_it_is_to_all():
    torch.manual_seed(0)
    cap = capture(wrap(Windows(), kind="decoder"), Inputs({"q": torch.randn(1, 2, 5, 4)}))
    calls = {call.layer: call for call in cap.calls}
    assert len(calls) == 2
    codes = mean_view(cap, cap.calls[0].stack).forbidden
    back = torch.arange(5)[:, None] - torch.arange(5)
    assert torch.equal(codes, torch.where((back >= 0) & (back <= 2), ALLOWED, FORBIDDEN).to(torch.uint8))
    narrow = mean_view(cap, cap.calls[0].stack, layer=min(calls)).forbidden
    assert torch.equal(narrow, torch.where((back >= 0) & (back <= 1), ALLOWED, FORBIDDEN).to(torch.uint8))


def test_a_stack_whose_layers_have_other_positions_has_no_mean():
    class Pools(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([Plain(), Plain()])

        def forward(self, q):
            return self.layers[1](self.layers[0](q)[:, :, ::2])

    class Plain(nn.Module):
        def forward(self, q):
            return F.scaled_dot_product_attention(q, q, q)

    cap = capture(wrap(Pools(), kind="encoder"), Inputs({"q": torch.randn(1, 2, 6, 4)}))
    with pytest.raises(ValueError, match="have 3 × 3 and 6 × 6 positions, which have no mean"):
        mean_view(cap, "encoder")
