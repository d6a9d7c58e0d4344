"""What the classifier learns from and is measured with."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import tensor

from headwise.models.architectures.encoder import Encoder, EncoderConfig
from headwise.models.recipes import classifier
from headwise.models.recipes.data import Snippet, train_wordpiece
from tests.models.drawn import enlarged


@pytest.fixture(scope="module")
def reviews():
    """Texts, ratings and a tokenizer of their words."""
    texts = ["a fine film", "a dull film", "a fine and moving film", "it was dull, and long"] * 5
    ratings = [2.0, -1.5, 3.0, 0.0] * 5
    snippets = [Snippet(text, rating, "1") for text, rating in zip(texts, ratings, strict=True)]
    return train_wordpiece(texts, 120), snippets


def test_reviews_are_labelled_by_their_rating_and_padded(reviews):
    tokenizer, snippets = reviews
    ids, labels = classifier.encode(tokenizer, snippets[:4])
    assert labels.tolist() == [1, 0, 1, 0] and ids.shape == (4, classifier.LONGEST)
    for row, snippet in zip(ids.tolist(), snippets, strict=False):
        plain = tokenizer.encode(snippet.text).ids
        assert row == plain + [0] * (classifier.LONGEST - len(plain))
    long = classifier.encode(tokenizer, [Snippet("fine " * 100, 1.0, "1")])[0][0]
    assert long[-1] == tokenizer.token_to_id("[SEP]") and tokenizer.padding is None and tokenizer.truncation is None


def test_fine_tuning_starts_from_the_encoder(reviews):
    tokenizer, snippets = reviews
    config = EncoderConfig(tokenizer.get_vocab_size(), context=64, layers=1, heads=2, width=8)
    before = enlarged(Encoder(config))
    after = classifier.fine_tunable(before, replace(config, classes=classifier.CLASSES)).eval()
    ids, labels = classifier.encode(tokenizer, snippets)
    with torch.no_grad():
        assert torch.equal(before(ids)["last_hidden_state"], after(ids)["last_hidden_state"])
        said = [after(tensor([tokenizer.encode(s.text).ids]))["logits"].argmax().item() for s in snippets]
    expected = np.mean([said == label for said, label in zip(said, labels.tolist(), strict=True)])
    assert classifier.accuracy(after, tokenizer, snippets) == pytest.approx(float(expected))


def test_bag_of_words_learns_what_words_can_tell(reviews):
    _, snippets = reviews
    unseen = [Snippet("a fine, fine film", 1.0, "2"), Snippet("dull and long", -1.0, "2")]
    assert classifier.bag_of_words(snippets, unseen) == 1.0
    assert classifier.bag_of_words(snippets, [replace(s, rating=-s.rating - 0.1) for s in unseen[:1]]) == 0.0
