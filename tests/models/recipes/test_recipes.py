"""Every recipe on a part of its data: batches, losses, and what is published."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from headwise.models.catalogue import BUNDLED
from headwise.models.recipes import encoder, recipe_of, train
from headwise.models.recipes.data import load_reviews, load_speeches, load_words
from headwise.models.sources import bundled
from headwise.models.sources.bundled import load_bundled


def test_every_bundled_model_has_a_recipe():
    assert all(callable(recipe_of(name).prepare) and callable(recipe_of(name).report) for name in BUNDLED)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """(folder, {name: Training}): each recipe prepared on a part of its data, and published untrained."""
    folder = tmp_path_factory.mktemp("assets")
    corpus, speeches, words, reviews = encoder.load_corpus(), load_speeches(), load_words(), load_reviews()
    some = encoder.Corpus(corpus.training[:20] + corpus.training[1200:1300], corpus.held_out[:10])
    trainings = {}
    with pytest.MonkeyPatch.context() as patch:
        for recipe in ("decoder", "attention_only", "variants"):
            patch.setattr(f"headwise.models.recipes.{recipe}.load_speeches", lambda: (speeches[0][:5], speeches[1][:1]))
        patch.setattr(encoder, "load_corpus", lambda: some)
        patch.setattr("headwise.models.recipes.classifier.load_reviews", lambda: (reviews[0][:100], reviews[1][:20]))
        patch.setattr("headwise.models.recipes.encoder_decoder.load_words", lambda: (words[0][:400], words[1][:20]))
        patch.setattr(bundled, "ASSETS", folder)
        patch.setattr(train, "ASSETS", folder)
        patch.setattr(train, "recipe_of", lambda name: SimpleNamespace(report=lambda: "as measured"))
        for name in BUNDLED:
            trainings[name] = recipe_of(name).prepare()
            train.publish(name, trainings[name], minutes=61)
    return folder, trainings


@pytest.mark.parametrize("name", list(BUNDLED))
def test_published_models_load_and_have_a_card(published, name, monkeypatch):
    folder, training = published[0], published[1][name]
    monkeypatch.setattr(bundled, "ASSETS", folder)
    module, tokenizers, config = load_bundled(name)
    for key, value in module.state_dict().items():
        assert torch.equal(value, training.module.state_dict()[key].half().float()), key
    assert config == json.loads(json.dumps(training.config)) and not module.training
    sizes = {"text": "vocab_size", "source": "source_size", "target": "target_size"}
    assert all(tokenizer.get_vocab_size() == config[sizes[what]] for what, tokenizer in tokenizers.items())
    card = (folder / name / "README.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {name}\n") and "as measured" in card and "seed 1, 61 minutes" in " ".join(card.split())
    assert not re.search(r"[{}]", card) and f"{training.recipe.steps:,} steps" in " ".join(card.split())


@pytest.mark.parametrize("name", list(BUNDLED))
def test_batches_depend_on_the_step_alone(published, name):
    batch = published[1][name].batch
    seventh, eighth = batch(7), batch(8)
    for again, part in zip(batch(7), seventh, strict=True):
        assert torch.equal(again, part)
    assert eighth[0].shape != seventh[0].shape or not torch.equal(eighth[0], seventh[0])


@torch.no_grad()
@pytest.mark.parametrize("name", list(BUNDLED))
def test_untrained_losses_are_near_chance(published, name):
    """The loss of a model that knows nothing is near the logarithm of how many answers there are."""
    training = published[1][name]
    training.module.eval()
    config = training.config
    chance = {
        "tiny-encoder": np.log(config.get("vocab_size", 1)) + np.log(2),
        "tiny-encoder-decoder": np.log(config.get("target_size", 1)),
        "tiny-classifier": np.log(2),
        "tiny-vit": np.log(10),
    }.get(name, np.log(config.get("vocab_size", 1)))
    given = training.batch(3)
    some = (part[:12] if len(part) == len(given[0]) else part for part in given)  # an order is that of all samples
    loss = float(training.loss(*some))
    assert chance - 0.1 < loss < chance + 1.2


@torch.no_grad()
def test_the_encoders_loss_is_the_sum_of_berts_two(published):
    training = published[1]["tiny-encoder"]
    ids, segments, real, places, targets, follows = (part[:24] for part in training.batch(7))
    said = training.module.eval()(ids, segments, real)
    labels = torch.full_like(ids, -100).scatter(1, places, targets)
    expected = F.cross_entropy(said["logits"].flatten(0, 1), labels.flatten())
    expected += F.cross_entropy(said["next_sentence"], follows)
    loss = training.loss(ids, segments, real, places, targets, follows)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
