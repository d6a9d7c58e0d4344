"""What the bundled models learned: the figures of their cards, measured again on held-out data."""

import re

import pytest
import torch

from headwise import capture
from headwise.assets import ASSETS
from headwise.interp.analysis.answers import answers
from headwise.interp.analysis.embeddings import clusters, contrast, embed, read_texts
from headwise.models import available, load
from headwise.models.recipes import classifier, encoder, encoder_decoder, vision
from headwise.models.recipes.data import END_OF_TEXT, load_digits, load_reviews, load_words
from headwise.models.recipes.language import best_head, head_table
from headwise.models.sources.bundled import load_bundled


def card(name: str, line: str) -> list[float]:
    """The numbers of a line of a card's report."""
    text = (ASSETS / name / "README.md").read_text("utf-8")
    (found,) = re.findall(rf"^\s*{re.escape(line)}\s+(.*)$", text, flags=re.MULTILINE)
    return [float(number) for number in re.findall(r"-?\d+\.\d+", found)]


@pytest.mark.parametrize("name", available())
def test_cards_name_command_data_licence_and_parameters(name):
    text = (ASSETS / name / "README.md").read_text("utf-8")
    assert f"headwise train {name}" in text and f"headwise evaluate {name}" in text
    assert re.search(r"sha256 [0-9a-f]{64} \(checked\)", text)
    parameters = sum(p.numel() for p in load(name).module.parameters())
    assert f"parameters              {parameters:,}" in text


def test_all_weights_together_are_small():
    assert sum(file.stat().st_size for name in available() for file in (ASSETS / name).iterdir()) < 60e6


def test_the_induction_circuit():
    module, tokenizers, _ = load_bundled("tiny-attention-only")
    table = head_table(module, tokenizers["text"].token_to_id(END_OF_TEXT), seed=1000)
    for metric, layer, line in (("previous", 0, "best previous-token"), ("induction", 1, "best induction")):
        found, _, score = best_head(table, metric)
        assert found == layer and score >= 0.8
        assert card("tiny-attention-only", line)[0] == pytest.approx(score, abs=6e-4)


def test_digits():
    module, _, _ = load_bundled("tiny-vit")
    _, held_out = load_digits()
    right = vision.accuracy(module, *held_out)
    assert right >= 0.97 and card("tiny-vit", "accuracy")[0] == pytest.approx(right, abs=2e-3)
    assert right > card("tiny-vit", "nearest neighbour")[0]


def test_masked_tokens_and_next_sentence():
    module, tokenizers, _ = load_bundled("tiny-encoder")
    pairs = encoder.Pairs(tokenizers["text"], encoder.load_corpus().held_out)
    nats, right, follows = encoder.measure(module, pairs, rows=1024, seed=1000)
    assert card("tiny-encoder", "masked tokens") == pytest.approx([nats, right], abs=2e-3)
    assert right > card("tiny-encoder", "from two neighbours")[0]
    assert card("tiny-encoder", "next sentence")[0] == pytest.approx(follows, abs=5e-3) and follows > 0.7


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("And the LORD spake unto [MASK], saying,", "moses"),
        ("This [MASK] is a waste of time.", "movie"),
        ("The [MASK] of the Lord came unto me, saying,", "word"),
        ("And it came to [MASK], when he had heard these words,", "pass"),
    ],
)
def test_a_mask_is_filled(text, word):
    (answer,) = answers(capture(load("tiny-encoder"), text))
    assert word in [label for label, _ in answer.rows]


def test_reviews():
    module, tokenizers, _ = load_bundled("tiny-classifier")
    _, held_out = load_reviews()
    right = classifier.accuracy(module, tokenizers["text"], held_out)
    assert card("tiny-classifier", "accuracy")[0] == pytest.approx(right, abs=3e-3)
    assert right > card("tiny-classifier", "the commoner class")[0] + 0.1


def test_before_and_after_fine_tuning_share_tokens_and_shape():
    before, after = load_bundled("tiny-encoder"), load_bundled("tiny-classifier")
    assert before[1]["text"].to_str() == after[1]["text"].to_str()
    for name in ("layers", "heads", "width", "context", "vocab_size"):
        assert before[2][name] == after[2][name]


def test_fine_tuning_parts_the_reviews():
    """Clusters of held-out reviews have nothing to do with their labels before, and much after."""
    texts = read_texts((ASSETS / "examples" / "reviews.tsv").read_bytes())
    found = {}
    for name in ("tiny-encoder", "tiny-classifier"):
        vectors = embed(load(name), texts.texts)
        found[name] = contrast(vectors, clusters(vectors, k=2), texts.labels)
    before, after = found.values()
    assert abs(before.adjusted_rand) < 0.05 and after.adjusted_rand > 0.15
    assert before.label_silhouette < 0.05 < 0.15 < after.label_silhouette


@pytest.fixture(scope="module")
def speller():
    module, tokenizers, _ = load_bundled("tiny-encoder-decoder")
    return module, tokenizers["source"], tokenizers["target"]


def test_phonemes(speller):
    _, held_out = load_words()
    rate, wrong = encoder_decoder.error_rate(*speller, held_out)
    assert card("tiny-encoder-decoder", "phoneme error rate") == pytest.approx([rate, wrong], abs=2e-3)
    assert rate < card("tiny-encoder-decoder", "letter-chunk table")[0]


def test_cross_attention_is_an_alignment(speller):
    """Against a hidden Markov model that was trained on pairs alone; on every 8th held-out word."""
    training, held_out = load_words()
    reference = encoder_decoder.MonotoneAlignment(training[::16], rounds=3)
    scores = encoder_decoder.alignment_scores(*speller, held_out[::8], reference)
    layer, head = divmod(int(scores.argmax()), scores.shape[1])
    assert scores.max() >= 0.8
    # the same head on the map that a person sees, word by word
    cap = capture(load("tiny-encoder-decoder"), ("transformer", "tɹænsfˈɔɹməɹ"))
    looked = cap.find(layer, "cross").weights(head)[0, :, :11].argmax(-1)[:12]  # the query after ˈ writes ɔ, and so on
    by_hand = torch.tensor([0, 1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10])  # t ɹ æ n s f ˈ ɔ ɹ m ə ɹ ← t r a n s f o o r m e r
    assert ((looked - by_hand).abs() <= 1).float().mean() >= 0.8
