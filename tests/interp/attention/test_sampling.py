"""Drawn queries: one sample for all, rows of a call as its bands have them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headwise import capture, load
from headwise.interp.attention.sampling import drawn
from headwise.interp.subject import Inputs
from headwise.models import wrap


def test_every_stratum_gives_as_many_rows_of_its_own():
    found = drawn(1000, strata=48, draws=8)
    assert found.sizes.tolist() == [21] * 47 + [13]  # ⌈1000 / 48⌉ each
    assert (found.rows.view(48, 8) // 21 == torch.arange(48)[:, None]).all()
    assert len(found.rows.unique()) == 48 * 8
    assert drawn(1000, strata=48, draws=8) is found


def test_a_stratum_with_few_rows_gives_them_again():
    assert drawn(10, strata=3, draws=4).rows.view(3, 4)[2].tolist() in ([8, 8, 9, 9], [8, 9, 8, 9])
    assert drawn(10, strata=3, draws=4).rows.view(3, 4)[2].unique().tolist() == [8, 9]


class Attends(nn.Module):
    """Scaled dot-product attention of what it is given."""

    def forward(self, q, k, mask=None, causal=False):
        return F.scaled_dot_product_attention(q, k, k, mask, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1])


def given(**options):
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 4, 30, 8, generator=g), torch.randn(2, 2, 30, 8, generator=g)
    return capture(wrap(Attends(), kind="decoder"), Inputs({"q": q, "k": k, **options})).calls[0]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"causal": True},
        {"mask": torch.rand(2, 1, 30, 30, generator=torch.Generator().manual_seed(1)) < 0.6},
        {"mask": torch.randn(1, 4, 30, 30, generator=torch.Generator().manual_seed(1))},
        {"mask": torch.arange(30)[None] < 20},
    ],
    ids=["all", "causal", "bool", "bias", "keys"],
)
def test_drawn_rows_are_those_of_the_whole(options, monkeypatch):
    """Against every head's own weights; two rows a band, and four queries to two keys."""
    monkeypatch.setattr("headwise.interp.attention.call.BAND_BYTES", 4 * 2 * 4 * 30 * 2)
    call, rows = given(**options), torch.tensor([3, 4, 11, 17, 29])
    whole = torch.stack([call.weights(head) for head in range(4)], 1)
    parts = list(call.drawn(rows))
    assert [len(part) for part, _ in parts] == [2, 2, 1]
    torch.testing.assert_close(torch.cat([weights for _, weights in parts], 2), whole[:, :, rows])


@pytest.mark.parametrize("model", ["tiny-reformer", "tiny-performer", "tiny-longformer", "tiny-transformer-xl"])
def test_drawn_rows_of_other_mechanisms(model):
    call = capture(load(model), "The people of the United States of America").calls[-1]
    rows = torch.tensor([1, call.queries // 2, call.queries - 1])
    whole = torch.stack([call.weights(head) for head in range(call.heads)], 1)
    found = torch.cat([weights for _, weights in call.drawn(rows)], 2)
    torch.testing.assert_close(found, whole[:, :, rows])
