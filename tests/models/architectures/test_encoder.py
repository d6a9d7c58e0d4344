"""The encoder against Hugging Face's BERT, and its promises."""

from dataclasses import replace

import pytest
import torch
from transformers import BertConfig, BertForPreTraining, BertForSequenceClassification

from headwise import capture
from headwise.models import wrap
from headwise.models.architectures.encoder import Encoder, EncoderConfig
from headwise.testing import assert_padding_invariant

CONFIG = EncoderConfig(vocab_size=61, context=24, layers=2, heads=3, width=12)
BERT = BertConfig(
    vocab_size=61,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=48,
    max_position_embeddings=24,
    type_vocab_size=2,
    hidden_act="gelu",
    layer_norm_eps=1e-12,
    attn_implementation="eager",
    num_labels=4,
)
PARTS = {  # of BERT → of ours
    "embeddings.word_embeddings": "token_embedding",
    "embeddings.position_embeddings": "position_embedding",
    "embeddings.token_type_embeddings": "segment_embedding",
    "embeddings.LayerNorm": "embedding_norm",
    "pooler.dense": "pooler",
}
BLOCK_PARTS = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "mlp.expand",
    "output.dense": "mlp.contract",
    "output.LayerNorm": "mlp_norm",
}
HEADS = {
    "cls.predictions.transform.dense": "transform",
    "cls.predictions.transform.LayerNorm": "transform_norm",
    "cls.seq_relationship": "next_sentence",
}


def encoder(config):
    """With weights far larger than at initialisation, so that attention is far from uniform."""
    torch.manual_seed(0)
    module = Encoder(config).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return module


def copied(ours: Encoder, theirs: torch.nn.Module, heads: dict[str, str]) -> None:
    """Give BERT our weights, every one of them."""
    names = {f"bert.{source}": target for source, target in PARTS.items()} | heads
    for layer in range(CONFIG.layers):
        for source, target in BLOCK_PARTS.items():
            names[f"bert.encoder.layer.{layer}.{source}"] = f"blocks.{layer}.{target}"
    weights = {
        f"{source}.{key}": value
        for source, target in names.items()
        for key, value in ours.get_submodule(target).state_dict().items()
    }
    if not ours.config.classes:
        weights["cls.predictions.bias"] = weights["cls.predictions.decoder.bias"] = ours.output_bias
        weights["cls.predictions.decoder.weight"] = ours.token_embedding.weight
    theirs.load_state_dict(weights)


@pytest.fixture(scope="module")
def pretraining():
    ours, theirs = encoder(CONFIG), BertForPreTraining(BERT).eval()
    copied(ours, theirs, HEADS)
    return ours, theirs


@pytest.fixture
def batch():
    """Two pairs of texts; of the second row four places are padding."""
    generator = torch.Generator().manual_seed(1)
    segments = torch.zeros(2, 14, dtype=torch.long)
    segments[0, 6:] = segments[1, 4:10] = 1
    real = torch.ones(2, 14, dtype=torch.long)
    real[1, 10:] = 0
    return {
        "input_ids": torch.randint(61, (2, 14), generator=generator),
        "token_type_ids": segments,
        "attention_mask": real,
    }


@torch.no_grad()
def test_equals_bert(pretraining, batch):
    ours, theirs = pretraining
    real = batch["attention_mask"].bool()
    said, expected = ours(**batch), theirs(**batch, output_hidden_states=True)
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(said["logits"][real], expected.prediction_logits[real], **close)
    torch.testing.assert_close(said["next_sentence"], expected.seq_relationship_logits, **close)
    torch.testing.assert_close(said["last_hidden_state"][real], expected.hidden_states[-1][real], **close)


@torch.no_grad()
def test_equals_bert_without_segments_and_mask(pretraining, batch):
    ours, theirs = pretraining
    ids = batch["input_ids"]
    torch.testing.assert_close(ours(ids)["logits"], theirs(ids).prediction_logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_equals_berts_classifier(batch):
    ours = encoder(replace(CONFIG, classes=("a", "b", "c", "d")))
    theirs = BertForSequenceClassification(BERT).eval()
    copied(ours, theirs, {"classifier": "classifier"})
    said = ours(**batch)
    assert set(said) == {"logits", "last_hidden_state"}
    torch.testing.assert_close(said["logits"], theirs(**batch).logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_every_head_equals_berts(pretraining, batch):
    ours, theirs = pretraining
    expected = theirs(**batch, output_attentions=True).attentions
    real = batch["attention_mask"].bool()
    run = capture(wrap(ours, kind="encoder"), batch)
    assert run.stacks == ("encoder",) and [call.layer for call in run.calls] == [0, 1] and not run.unseen
    for call, weights in zip(run.calls, expected, strict=True):
        for head in range(CONFIG.heads):
            torch.testing.assert_close(call.weights(head)[real], weights[:, head][real], atol=1e-5, rtol=1e-5)
    assert max(weights.max() for weights in expected) > 0.5  # the comparison is not one of uniform rows


def test_dropout_acts_in_training_alone(batch):
    module = encoder(replace(CONFIG, dropout=0.3))
    same = encoder(CONFIG)
    with torch.no_grad():
        torch.testing.assert_close(module(**batch)["logits"], same(**batch)["logits"], atol=0, rtol=0)
        module.train()
        assert (module(**batch)["logits"] - same(**batch)["logits"]).abs().max() > 0.1


@torch.no_grad()
def test_later_tokens_are_seen(pretraining, batch):
    ours, _ = pretraining
    changed = batch["input_ids"].clone()
    changed[:, 9] = (changed[:, 9] + 1) % 61
    before, after = (ours(ids)["logits"][:, 2] for ids in (batch["input_ids"], changed))
    assert (before - after).abs().max() > 1e-3


def test_padding_changes_nothing(pretraining):
    assert_padding_invariant(pretraining[0])


def test_long_inputs_are_named(pretraining):
    with pytest.raises(ValueError, match="25 tokens exceed the context of 24; shorten the input"):
        pretraining[0](torch.zeros(1, 25, dtype=torch.long))
    with pytest.raises(ValueError, match="width 10 does not split into 3 heads"):
        Encoder(replace(CONFIG, width=10))
