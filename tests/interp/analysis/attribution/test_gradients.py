"""Attribution adds up to what it explains, is exact where the answer is known, and stays in its thread."""

import pytest
import torch
from torch import nn

from headwise.interp.analysis.attribution import attribute
from headwise.interp.errors import InputError
from headwise.interp.subject import Inputs, Subject
from headwise.models import load, wrap


class Bag(nn.Module):
    """Logits are a linear function of the summed embeddings: a token's attribution is its own dot product."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)

    def forward(self, input_ids):
        return self.head(self.embed(input_ids).cumsum(1))  # (B, T, V)


def test_linear_model_by_hand():
    module = Bag()
    subject = Subject(module, lambda raw: Inputs({"input_ids": raw}), "bag", "decoder", vocab_size=11)
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    found = attribute(subject, ids, target=7)
    expected = (module.embed(ids)[0] @ module.head.weight[7]).detach()
    torch.testing.assert_close(found.scores, expected, atol=1e-5, rtol=1e-4)
    assert found.gap < 1e-5 and found.position == 4


def test_scores_of_the_trained_decoder_add_up():
    subject = load("tiny-decoder")
    found = attribute(subject, "The Congress of the United", steps=100)
    assert found.scores.shape == (len(subject.encode("The Congress of the United").axes["input"]),)
    assert found.gap < 0.05
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in subject.module.modules())


def test_a_module_without_tokens_is_refused():
    with pytest.raises(InputError, match="no token ids"):
        attribute(wrap(nn.Linear(2, 2)), {"input": torch.ones(1, 2)})
