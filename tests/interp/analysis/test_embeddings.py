"""Embeddings equal Hugging Face's own hidden states; clusters and figures equal cases worked out by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from headwise import capture
from headwise.interp.analysis.embeddings import (
    MOST_TEXTS,
    accuracy,
    clusters,
    contingency,
    contrast,
    embed,
    matched,
    parse_texts,
    project,
    read,
    read_texts,
)
from headwise.interp.errors import InputError
from headwise.interp.subject import Inputs, Subject
from headwise.models import load, wrap

TEXTS = (
    "A cat sleeps.",
    "The weather in spring is mild and often wet.",
    "Rain.",
    "Dogs bark.",
    "A cat sleeps at noon.",
)
SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 99,
}  # fmt: skip


def letters(text: str, width: int = 0) -> Inputs:
    """A letter is a token; padded to ``width`` by token 0."""
    ids = [ord(letter) % 90 + 5 for letter in text]
    padding = [0] * max(0, width - len(ids))
    mask = [1] * len(ids) + padding
    return Inputs({"input_ids": torch.tensor([ids + padding]), "attention_mask": torch.tensor([mask])})


def at(*degrees: float, lengths=(1.0,)) -> torch.Tensor:
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1) * torch.tensor(lengths)[:, None]


# -- vectors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_minilm_equals_hugging_face_on_a_padded_batch(minilm_folder, pooling):
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder)
    batch = tokenizer(list(TEXTS), return_tensors="pt", padding=True)
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(minilm_folder).eval()(**batch).last_hidden_state  # (B, T, C)
    weight = batch["attention_mask"][..., None]
    wanted = hidden[:, 0] if pooling == "cls" else (hidden * weight).sum(1) / weight.sum(1)
    torch.testing.assert_close(embed(load(str(minilm_folder)), TEXTS, pooling), wanted, rtol=0, atol=1e-5)


def test_a_model_with_a_head_gives_what_lies_below_it(splade_folder):
    text = "Attention is a weighted mean."
    tokens = AutoTokenizer.from_pretrained(splade_folder)(text, return_tensors="pt")
    with torch.no_grad():
        hidden = AutoModelForMaskedLM.from_pretrained(splade_folder).eval()(**tokens, output_hidden_states=True)
    found = embed(load(str(splade_folder)), [text])
    torch.testing.assert_close(found, hidden.hidden_states[-1].mean(1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "family"), [("Bert", "encoder"), ("Llama", "decoder")])
def test_a_classifier_is_read_once_for_its_vectors_and_its_answers(kind, family):
    config = getattr(transformers, f"{kind}Config")(**SMALL, num_labels=3, pad_token_id=None)
    module = getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()
    subject = Subject(module, letters, kind, family, labels=("a", "b", "c"))
    found = read(subject, TEXTS)
    for text, vector, said in zip(TEXTS, found.vectors, found.answers, strict=True):
        with torch.no_grad():
            output = module(**letters(text).kwargs, output_hidden_states=True)
        torch.testing.assert_close(vector, output.hidden_states[-1][0].mean(0), rtol=0, atol=1e-5)
        assert said == "abc"[output.logits[0].argmax()]


def test_without_last_hidden_state_it_is_what_leaves_the_last_block():
    subject = load("tiny-decoder")
    wanted = torch.stack([capture(subject, text).residuals[-1][0].mean(0) for text in TEXTS])
    torch.testing.assert_close(embed(subject, TEXTS), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_neither_batch_nor_padding_changes_a_vector(pooling):
    module = transformers.BertModel(transformers.BertConfig(**SMALL)).eval()
    plain = Subject(module, letters, "plain", "encoder")
    padded = Subject(module, lambda text: letters(text, 64), "padded", "encoder")
    alone = torch.cat([embed(plain, [text], pooling) for text in TEXTS])
    torch.testing.assert_close(embed(plain, TEXTS, pooling), alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(embed(padded, TEXTS, pooling), alone, rtol=0, atol=1e-5)


def test_paraphrases_are_closest(minilm_folder):
    pairs = (
        "A man is playing a guitar.", "Someone plays the guitar.",
        "The bank raised its interest rates.", "Interest rates were put up by the bank.",
        "The child sleeps in her bed.", "A little girl is asleep in bed.",
    )  # fmt: skip
    unit = torch.nn.functional.normalize(embed(load(str(minilm_folder)), pairs))
    nearest = (unit @ unit.T).fill_diagonal_(-1).argmax(1)
    assert nearest.tolist() == [1, 0, 3, 2, 5, 4]


def test_progress_ends_at_one_and_nothing_stays_on_the_module():
    module = transformers.BertModel(transformers.BertConfig(**SMALL)).eval()
    told = []

    def stop(fraction):
        told.append(fraction)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read(Subject(module, letters, "b", "encoder"), TEXTS, progress=stop)
    read(Subject(module, letters, "b", "encoder"), TEXTS, progress=told.append)
    assert told == sorted(told) and told[-1] == 1
    assert not torch.nn.modules.module._global_forward_hooks


def test_what_cannot_be_embedded_says_why():
    decoder = load("tiny-decoder")
    broken = transformers.BertModel(transformers.BertConfig(**SMALL)).eval()
    torch.nn.init.constant_(broken.encoder.layer[1].output.dense.weight, math.inf)
    linear = wrap(torch.nn.Linear(3, 3), lambda text: {"input": torch.ones(1, 3)})
    for subject, options, words in (
        (decoder, {"pooling": "cls"}, "sees nothing but itself"),
        (decoder, {"pooling": "max"}, "expects one of mean, cls"),
        (Subject(broken, letters, "b", "encoder"), {}, "NaN or infinity for text 1"),
        (Subject(broken, letters, "b", "encoder-decoder"), {}, "need an encoder or a decoder"),
        (linear, {}, "cannot be told"),
    ):
        with pytest.raises(InputError, match=words):
            read(subject, TEXTS, **options)
    with pytest.raises(InputError, match="Text 2: The text is empty"):
        embed(decoder, ["One.", " "])
    with pytest.raises(InputError, match=r"Text 1: The text has .* tokens"):
        embed(decoder, ["word " * 2_000])
    assert read(decoder, ["word " * 2_000], truncate=True).vectors.shape[0] == 1


# -- clusters and figures -----------------------------------------------------------------------------------------


def test_clusters_are_directions_and_numbered_by_size():
    vectors = at(0, 5, 90, 95, 100, 180, lengths=(1, 9, 1, 7, 2, 3))
    assert clusters(vectors, 3).tolist() == [1, 1, 0, 0, 0, 2]
    assert clusters(vectors, 3, seed=8).tolist() == [1, 1, 0, 0, 0, 2]


def test_matched_clusters_keep_the_number_of_those_they_share_most_texts_with():
    reference = np.array([0, 0, 0, 1, 1, 2])
    assert matched(np.array([2, 2, 2, 0, 0, 1]), reference).tolist() == reference.tolist()
    assert matched(np.array([1, 1, 0, 0, 0, 2]), reference).tolist() == [0, 0, 1, 1, 1, 2]


def test_pca_keeps_the_distances_of_what_has_two_dimensions():
    vectors = at(0, 20, 70, 160, 250, lengths=(1, 2, 3, 4, 5)) @ torch.linalg.qr(torch.randn(6, 6))[0][:2]
    flat = torch.tensor(project(vectors))
    torch.testing.assert_close(
        torch.cdist(flat, flat), torch.cdist(*[torch.nn.functional.normalize(vectors).double()] * 2), atol=1e-6, rtol=0
    )


def test_tsne_keeps_neighbours_and_is_the_same_each_time():
    vectors = torch.cat([torch.randn(2, 8).repeat_interleave(8, 0) + 0.05 * torch.randn(16, 8)])
    flat = project(vectors, "tsne", seed=3)
    assert flat.shape == (16, 2) and np.array_equal(flat, project(vectors, "tsne", seed=3))
    distance = np.linalg.norm(flat[:, None] - flat[None], axis=2) + 1e9 * np.eye(16)
    assert ((distance.argmin(1) < 8) == (np.arange(16) < 8)).all()


def test_silhouette_by_hand():
    """Cosine distances of 0°, 60°, 180°, 240°: 60° apart ½, 120° apart 3/2, 180° apart 2."""
    vectors = at(0, 60, 180, 240, lengths=(1, 2, 3, 4))
    found = contrast(vectors, np.array([0, 0, 1, 1]), ["x", "y", "x", "y"])
    assert found.silhouette == pytest.approx((1.75 - 0.5) / 1.75, abs=1e-6)  # a = ½, b = (2 + 3/2) / 2
    assert found.label_silhouette == pytest.approx((1.0 - 2.0) / 2.0, abs=1e-6)  # a = 2, b = (½ + 3/2) / 2


def test_adjusted_rand_and_purity_by_hand():
    """Table [[2, 1], [0, 2]]: index 1 + 1; rows 3 + 1; columns 1 + 3; 10 pairs → (2 − 1.6) / (4 − 1.6)."""
    vectors, found = at(0, 10, 20, 90, 100, 50), np.array([0, 0, 0, 1, 1, 0])
    labels = ["a", "a", "b", "b", "b", ""]  # the last one has none and does not count
    result = contrast(vectors, found, labels)
    assert result.adjusted_rand == pytest.approx(1 / 6) and result.purity == pytest.approx(0.8)
    assert contingency(found, labels).to_dict() == {"a": {0: 2, 1: 0}, "b": {0: 1, 1: 2}}


def test_accuracy_counts_labelled_texts_only():
    subject = Subject(torch.nn.Identity(), letters, "c", "encoder", labels=("bad", "good"))
    assert accuracy(subject, ("good", "bad", "bad", "good"), ("good", "good", "", "good")) == pytest.approx(2 / 3)
    assert accuracy(subject, ("bad", "bad"), ("good", "good")) == 0
    assert math.isnan(accuracy(subject, ("good", "bad"), ("gut", "schlecht")))
    assert math.isnan(accuracy(subject, ("good", "bad"), ("", "")))


def test_degenerate_cases():
    three = at(0, 90, 180)
    for vectors, k, words in (
        (at(0, 90), 2, "at least 3 texts"),
        (three, 4, "Expected 2 to 3 clusters"),
        (three, 1, "Expected 2 to 3 clusters"),
        (at(0, 0, 0, 90), 3, "2 different vectors"),
        (at(30, 30, 30, lengths=(1, 2, 3)), 2, "the same vector"),
        (three * math.nan, 2, "finite"),
    ):
        with pytest.raises(InputError, match=words):
            clusters(vectors, k)
    with pytest.raises(InputError, match="the same vector"):
        project(at(30, 30, 30), "tsne")
    with pytest.raises(InputError, match="pca, tsne"):
        project(three, "umap")
    unlabelled = contrast(three, np.array([0, 1, 2]), ["", "", ""])
    assert all(map(math.isnan, (unlabelled.silhouette, unlabelled.label_silhouette, unlabelled.adjusted_rand)))
    assert math.isnan(contrast(three, np.array([0, 1, 1]), ["a", "a", "a"]).label_silhouette)
    assert project(three, "tsne").shape == (3, 2) and np.isfinite(project(three, "tsne")).all()


# -- texts --------------------------------------------------------------------------------------------------------


def test_labels_are_on_the_side_with_fewer_different_entries():
    after = parse_texts("# a note\n\nGood film.\tgood\nBad film.\tbad\nAwful.\tbad\n# no note\n")
    assert after.texts == ("Good film.", "Bad film.", "Awful.", "# no note")
    assert after.labels == ("good", "bad", "bad", "") and after.labelled
    before = parse_texts("good\tGood film.\nbad\tBad film.\nbad\tAwful.")
    assert (before.texts, before.labels) == (after.texts[:3], after.labels[:3])
    assert not parse_texts("One.\nTwo.").labelled


def test_texts_that_cannot_be_read_say_where():
    for source, words in (
        ("a\tb\tc", "Line 1 has 2 tabs"),
        (" \n# note", "no text"),
        ("One.\tx\n\tx", "Line 2 has a label and no text"),
        ("word\n" * (MOST_TEXTS + 1), "2,001 texts"),
    ):
        with pytest.raises(InputError, match=words):
            parse_texts(source)
    with pytest.raises(InputError, match="Byte 3 of the file is not UTF-8"):
        read_texts(b"abc\xff")
    assert read_texts("\ufeffÜber".encode()).texts == ("Über",)


def test_the_bundled_example_is_balanced():
    file = Path(__file__).parents[3] / "assets" / "examples" / "reviews.tsv"
    example = read_texts(file.read_bytes())
    assert len(set(example.texts)) == 120
    assert sorted(map(example.labels.count, set(example.labels))) == [60, 60]
