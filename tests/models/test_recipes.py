"""What the recipes measure with, by hand: alignments, baselines, masking, pairs of passages, head scores."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn, tensor

from interp import capture
from models import wrap
from models.attention_only import AttentionOnly, AttentionOnlyConfig
from models.bundled import ASSETS, BUNDLED, load_bundled
from models.data import END_OF_TEXT, Snippet, character_tokenizer, load_digits, train_wordpiece
from models.decoder import Decoder, DecoderConfig
from models.encoder import Encoder, EncoderConfig
from models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from models.recipes import RECIPES, classifier, encoder, recipe_of, vision
from models.recipes.encoder import MASKED, Between, Pairs, corrupt, examples
from models.recipes.encoder_decoder import (
    ChunkTable,
    MonotoneAlignment,
    alignment_scores,
    compare,
    cross_weights,
    edit_distance,
    error_rate,
    padded,
    spoken,
)
from models.recipes.language import KneserNeyTrigram, attention_weights, best_head, head_scores, token_losses


def generator(seed=5):
    return torch.Generator().manual_seed(seed)


def enlarged(module):
    """Weights far larger than at initialisation, so that attention is far from uniform."""
    for parameter in module.eval().requires_grad_(False).parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator())
    return module


def test_every_bundled_model_has_a_recipe():
    assert list(RECIPES) == list(BUNDLED)
    assert all(callable(recipe_of(name).prepare) and callable(recipe_of(name).report) for name in RECIPES)


# Language models


def test_kneser_ney_by_hand():
    """a b a b a c over {a, b, c}: trigrams aba ×2, bab ×1, bac ×1; so d₃ = 2 / (2 + 2·1) = 1/2.

    N(·vw): ba 1, ab 1, ac 1, so d₂ = 3 / 3 = 1. N(·w): a 1, b 1, c 1, so d₁ = 1.
    P(w) = 1/3 and P(a | b) = P(c | a) = P(w) = 1/3, as nothing is left after such discounts.
    P(a | ab) = (2 − 1/2) / 2 + (1/2 · 1) / 2 · 1/3 = 5/6.
    P(c | ba) = (1 − 1/2) / 2 + (1/2 · 2) / 2 · 1/3 = 5/12.
    """
    a, b, c = range(3)
    model = KneserNeyTrigram([a, b, a, b, a, c], vocab_size=3)
    assert model.probability(a, b, a) == pytest.approx(5 / 6)
    assert model.probability(b, a, c) == pytest.approx(5 / 12)
    assert model.probability(c, c, b) == pytest.approx(1 / 3)  # a context never seen


def test_kneser_ney_sums_to_one():
    ids = torch.randint(9, (400,), generator=generator()).square().remainder(11).tolist()
    model = KneserNeyTrigram(ids, vocab_size=11)
    for u, v in ((0, 1), (4, 4), (10, 3)):
        assert sum(model.probability(u, v, w) for w in range(11)) == pytest.approx(1)


@pytest.mark.parametrize(
    "module",
    [
        Decoder(DecoderConfig(vocab_size=40, context=64, layers=2, heads=2, width=8)),
        AttentionOnly(AttentionOnlyConfig(vocab_size=40, context=64, layers=2, heads=2, width=8)),
    ],
    ids=["decoder", "attention-only"],
)
def test_head_scores_are_means_of_captured_patterns(module):
    ids = torch.randint(40, (2, 17), generator=generator())
    weights = attention_weights(enlarged(module), ids)  # (L, B, H, T, T)
    for call, layer in zip(capture(wrap(module, kind="decoder"), {"input_ids": ids}).calls, weights, strict=True):
        for head in range(2):
            torch.testing.assert_close(layer[:, head], call.weights(head), atol=1e-6, rtol=1e-5)
    previous, induction = head_scores(module, bos=0, length=5, seeds=range(3))
    rows = []
    for seed in range(3):
        r = torch.randint(39, (5,), generator=generator(seed)) + 1  # bos is token 0
        rows.append(torch.cat([tensor([0]), r, r]))
    weights = attention_weights(module, torch.stack(rows))
    for layer in range(2):
        for head in range(2):
            pattern = weights[layer, :, head]  # (B, T, T)
            before = [pattern[b, t, t - 1] for b in range(3) for t in range(1, 11)]
            after_earlier = [pattern[b, t, t - 4] for b in range(3) for t in range(6, 11)]
            assert float(previous[layer, head]) == pytest.approx(float(sum(before) / len(before)), abs=1e-6)
            assert float(induction[layer, head]) == pytest.approx(float(sum(after_earlier) / 15), abs=1e-6)


def test_bundled_decoder_scores_what_its_card_says():
    module, tokenizers, _ = load_bundled("tiny-decoder")
    card = (ASSETS / "tiny-decoder" / "README.md").read_text(encoding="utf-8")
    both = head_scores(module, tokenizers["text"].token_to_id(END_OF_TEXT), seeds=range(1000, 1008))
    for what, scores in zip(("previous-token", "induction"), both, strict=True):
        score, layer, head = re.search(rf"best {what} +([\d.]+) at layer (\d+), head (\d+)", card).groups()
        assert best_head(scores) == (int(layer), int(head), pytest.approx(float(score), abs=0.01))


def test_token_losses_are_those_of_each_window():
    module = enlarged(Decoder(DecoderConfig(vocab_size=40, context=64, layers=1, heads=2, width=8)))
    ids = torch.randint(40, (23,), generator=generator()).tolist()
    losses = token_losses(module, ids, window=7)
    assert losses.shape == (3, 7)  # 22 predictions; the last one fills no window
    chances = module(tensor([ids[7:14]]))[0].softmax(-1)
    for t in range(7):
        assert float(losses[1, t]) == pytest.approx(-float(chances[t, ids[8 + t]].log()), abs=1e-5)


# Encoder


def test_corrupt_hides_a_share_of_each_row():
    ids = torch.randint(5, 4000, (500, 100), generator=generator())
    ids[:, 0], ids[:, 60], ids[:, 99] = 2, 3, 3  # [CLS] and [SEP]
    real = ids > 4
    seen, places = corrupt(ids, real, mask=4, vocab_size=4000, generator=generator(6))
    assert places.shape == (500, 20) == (500, round(MASKED * 100))
    assert all(len(set(row)) == 20 for row in places.tolist())
    hidden = torch.zeros_like(real).scatter(1, places, True)
    assert not (hidden & ~real).any() and torch.equal(seen[~hidden], ids[~hidden])
    masked, kept = (seen == 4)[hidden].float().mean(), (seen == ids)[hidden].float().mean()
    assert masked == pytest.approx(0.8, abs=0.016) and kept == pytest.approx(0.1, abs=0.012)  # 4 σ of 10,000
    replaced = seen[hidden & (seen != 4) & (seen != ids)]
    assert len(replaced) / 10_000 == pytest.approx(0.1, abs=0.012)
    assert replaced.min() >= 5 and replaced.float().mean() == pytest.approx(2000, abs=150)
    per_place = hidden[:, 1:60].float().mean(0)
    assert per_place.min() > 0.1 and per_place.max() < 0.32  # no place is spared or preferred


def test_corrupt_leaves_padding_when_few_tokens_are_real():
    ids = torch.full((50, 20), 9)
    real = torch.zeros(50, 20, dtype=torch.bool)
    real[:, 4:6] = True
    seen, places = corrupt(ids, real, mask=4, vocab_size=30, generator=generator())
    assert places.shape == (50, 4) and torch.equal(seen[~real], ids[~real]) and (seen[real] == 4).any()


@pytest.fixture(scope="module")
def pairs():
    """Documents whose every word says where it stands: d3s1w0 is word 0 of sentence 1 of document 3."""
    sizes = torch.randint(2, 7, (12, 9), generator=generator()).tolist()
    documents = [
        [" ".join(f"d{d}s{s}w{w}" for w in range(size)) for s, size in enumerate(row[: 1 if d % 3 == 0 else 9])]
        for d, row in enumerate(sizes)
    ]
    words = " ".join(sentence for document in documents for sentence in document).split()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*special, *words])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Pairs(tokenizer, documents)


def places_of(pairs, ids):
    """Token ids → (document, sentence, word) of each."""
    return [tuple(map(int, re.findall(r"\d+", pairs.tokenizer.id_to_token(token)))) for token in ids]


def whole(pairs, places, room):
    """Successive sentences of one document, the first of them from its start: whole ones while there is room, or a part
    of the first."""
    (document,) = {d for d, _, _ in places}
    first, last = places[0][1], places[-1][1]
    expected = [(document, s, w) for s in range(first, last + 1) for w in range(len(pairs.documents[document][s]))]
    assert places == (expected if first < last else expected[:room])
    if last + 1 < len(pairs.documents[document]):
        assert len(places) + len(pairs.documents[document][last + 1]) > room  # the next one did not fit
    return document, first, last


@pytest.mark.parametrize("length", [40, 24, 9])
def test_pairs_follow_or_come_from_elsewhere(pairs, length):
    labels = []
    for seed in range(300):
        ids, segments, label = pairs.draw(length, generator(seed))
        labels.append(label)
        assert len(ids) == len(segments) <= length and ids[0] == pairs.cls and ids[-1] == pairs.sep
        cut = ids.index(pairs.sep)
        assert segments == [0] * (cut + 1) + [1] * (len(ids) - cut - 1)
        if label == -100:
            assert cut == len(ids) - 1
            assert len({d for d, _, _ in places_of(pairs, ids[1:-1])}) == 1
            continue
        first = places_of(pairs, ids[1:cut])
        room = length - 3
        document, _, last = whole(pairs, first, room // 2)
        other, start, _ = whole(pairs, places_of(pairs, ids[cut + 1 : -1]), room - len(first))
        if label == 0:
            assert (other, start) == (document, last + 1)
        else:
            assert other != document and len(pairs.documents[other]) > 1
    counts = {label: labels.count(label) for label in (-100, 0, 1)}
    assert min(counts.values()) > 5 and counts[1] > counts[0] / 2


def test_examples_say_what_stood_at_the_hidden_places(pairs):
    vocab_size = pairs.tokenizer.get_vocab_size()
    seen, segments, real, places, targets, follows = examples(pairs, 32, 40, vocab_size, generator())
    assert seen.shape == segments.shape == real.shape == (40, 32) and follows.shape == (40,)
    assert places.shape == targets.shape == (40, round(MASKED * 32))
    drawing = generator()
    for row in range(40):
        ids, parts, label = pairs.draw(32, drawing)
        assert int(real[row].sum()) == len(ids) and segments[row, : len(ids)].tolist() == parts
        assert follows[row] == label
        hidden = {p: t for p, t in zip(places[row].tolist(), targets[row].tolist(), strict=True) if t != -100}
        assert hidden and all(ids[p] == t and t > 4 for p, t in hidden.items())
        assert all(seen[row, p] == token for p, token in enumerate(ids) if p not in hidden)
        assert not seen[row, len(ids) :].any()


def test_encoder_batches_depend_on_seed_and_step_alone(monkeypatch):
    corpus = encoder.load_corpus()
    small = encoder.Corpus(corpus.training[:30] + corpus.training[2000:2200], corpus.held_out[:10])
    monkeypatch.setattr(encoder, "load_corpus", lambda: small)
    training = encoder.prepare()
    seventh, eighth = training.batch(7), training.batch(8)
    for again, part in zip(training.batch(7), seventh, strict=True):
        assert torch.equal(again, part)
    assert not torch.equal(eighth[0][:, :9], seventh[0][: len(eighth[0]), :9])
    monkeypatch.setattr(encoder, "RECIPE", replace(encoder.RECIPE, seed=2))
    assert not torch.equal(training.batch(7)[0], seventh[0])
    # the loss is the sum of BERT's two
    ids, segments, real, places, targets, follows = (part[:24] for part in seventh)
    with torch.no_grad():
        said = training.module(ids, segments, real)
        loss = training.loss(ids, segments, real, places, targets, follows)
    labels = torch.full_like(ids, -100).scatter(1, places, targets)
    masked = F.cross_entropy(said["logits"].flatten(0, 1), labels.flatten())
    torch.testing.assert_close(loss, masked + F.cross_entropy(said["next_sentence"], follows), atol=1e-5, rtol=1e-5)
    card = training.card.format(
        name="tiny-encoder",
        recipe=training.recipe,
        config=training.config,
        minutes=1.0,
        parameters=1,
        report="",
    )
    assert "{" not in card and "2,400 steps of about 3,072 tokens" in card


def test_guess_between_two_neighbours():
    """5 6 7 twice and 5 8 7 once: 6 stands between 5 and 7 and after 5; 9 is commonest of all."""
    baseline = Between([[[5, 6, 7], [5, 6, 7]], [[5, 8, 7]], [[9, 9, 9, 9]]])
    assert baseline.guess(5, 7) == 6
    assert baseline.guess(5, 9) == 6  # never seen between: after the left one
    assert baseline.guess(8, 5) == 7
    assert baseline.guess(99, 98) == 9


# Classifier


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


# Encoder-decoder

SOUNDS = {"a": "A", "b": "B", "c": "C", "d": "D", "x": "KS", "e": ""}  # x says two sounds, e at the end none


def made_up(number):
    """A word of 3 to 5 of a, b, c, d; of three words one has a silent e at its end, and one an x somewhere."""
    draw = generator(number)
    word = "".join("abcd"[i] for i in torch.randint(4, (3 + number // 3 % 3,), generator=draw))
    at = int(torch.randint(len(word) + 1, (), generator=draw))
    return (word, word + "e", word[:at] + "x" + word[at:])[number % 3]


@pytest.fixture(scope="module")
def dictionary():
    """Pairs in a made-up language, and their alignment."""
    pairs = [(word, "".join(SOUNDS[letter] for letter in word)) for word in map(made_up, range(180))]
    return pairs, MonotoneAlignment(pairs)


@pytest.mark.parametrize(
    ("word", "said", "path"),
    [
        ("abcd", "ABCD", [0, 1, 2, 3]),
        ("xab", "KSAB", [0, 0, 1, 2]),
        ("dax", "DAKS", [0, 1, 2, 2]),
        ("bdcae", "BDCA", [0, 1, 2, 3]),
        ("axe", "AKS", [0, 1, 1]),
    ],
)
def test_alignment_finds_the_letter_of_each_sound(dictionary, word, said, path):
    assert dictionary[1].align(word, said) == path


def test_alignment_of_every_pair_is_right(dictionary):
    pairs, alignment = dictionary
    for word, said in pairs:
        assert alignment.align(word, said) == [at for at, letter in enumerate(word) for _ in SOUNDS[letter]]


def test_alignment_takes_unknown_letters(dictionary):
    path = dictionary[1].align("qqqqqqqqqqqq", "AB")
    assert len(path) == 2 and 0 <= path[0] <= path[1] < 12


def test_chunk_table_by_hand():
    """ab says AB once, ac says EK twice. So a word's first a says E, unless the chunk is longer."""
    pairs = [("ab", "AB"), ("ac", "EK"), ("ac", "EK")]
    alignment = MonotoneAlignment(pairs)
    assert alignment.align("ab", "AB") == alignment.align("ac", "EK") == [0, 1]
    table = ChunkTable(pairs, alignment)
    assert table.best["^a"] == "E" and table.best["^ab$"] == "AB" and table.best["b"] == "B" and table.best["^"] == ""
    assert table.say("ab") == "AB" and table.say("ac") == "EK"
    assert table.say("aab") == "EAB"  # ^a, then ab$
    assert table.say("cb") == "KB" and table.say("q") == ""


@pytest.mark.parametrize(
    ("a", "b", "edits"),
    [("kitten", "sitting", 3), ("intention", "execution", 5), ("", "abc", 3), ("abc", "", 3), ("flaw", "lawn", 2)],
)
def test_edit_distance(a, b, edits):
    assert edit_distance(a, b) == edit_distance(b, a) == edits and edit_distance(a, a) == 0


def test_error_rates_by_hand():
    assert compare(["ab", "cx", "e"], ["ab", "cde", "f"]) == (3 / 6, 2 / 3)


def test_padded():
    assert padded([[1, 2, 3], [4]], 4).tolist() == [[1, 2, 3, 0], [4, 0, 0, 0]]
    assert padded([[1, 2, 3, 4, 5]], 4).shape == (1, 8) and padded([[1, 2, 3, 4]], 4).shape == (1, 4)
    assert padded([[1, 2, 3, 4, 5]], 4, extra=1).tolist() == [[1, 2, 3, 4, 5]]


@pytest.fixture(scope="module")
def speaker(dictionary):
    """A small encoder-decoder with tokenizers of the made-up language."""
    pairs, _ = dictionary
    special = ["<pad>", "<s>", "</s>"]
    spelling = character_tokenizer([word for word, _ in pairs], special, "$A </s>")
    phonemes = character_tokenizer([said for _, said in pairs], special, "<s> $A")
    config = EncoderDecoderConfig(spelling.get_vocab_size(), phonemes.get_vocab_size(), 70, 2, 2, 8)
    return enlarged(EncoderDecoder(config)), spelling, phonemes


def test_cross_weights_equal_those_captured(speaker):
    module, spelling, phonemes = speaker
    source, target = tensor([spelling.encode("abxcd").ids]), tensor([phonemes.encode("ABKSCD").ids])
    weights = cross_weights(module, source, target)
    run = capture(wrap(module, kind="encoder-decoder"), {"input_ids": source, "decoder_input_ids": target})
    assert weights.shape == (2, 2, 7, 6)
    for call, layer in zip(run.stack("cross"), weights, strict=True):
        for head in range(2):
            torch.testing.assert_close(layer[head], call.weights(head)[0], atol=1e-6, rtol=1e-5)
    assert not any(block.cross_attention._forward_hooks for block in module.decoder.blocks)


def test_alignment_scores_count_letters_by_hand(speaker, dictionary):
    module, spelling, phonemes = speaker
    pairs = [("abxcd", "ABKˈSCD"), ("cab", "CAB")]
    alignment = dictionary[1]
    hits, total = torch.zeros(2, 2), 0
    for word, said in pairs:
        source, target = tensor([spelling.encode(word).ids]), tensor([phonemes.encode(said).ids])
        weights, path = cross_weights(module, source, target), alignment.align(word, said)
        for t, phoneme in enumerate(said):  # position t has read said[:t] and writes said[t]
            if phoneme == "ˈ":
                continue
            total += 1
            for layer in range(2):
                for head in range(2):
                    looked = int(weights[layer, head, t, : len(word)].argmax())
                    hits[layer, head] += abs(looked - path[t]) <= 1
    assert total == 9
    torch.testing.assert_close(alignment_scores(module, spelling, phonemes, pairs, alignment), hits / total)


def test_words_are_spoken_alike_in_batches_and_alone(speaker):
    module, spelling, phonemes = speaker
    words = ["abx", "cde", "abcdx", "a", "dab"]
    said = spoken(module, spelling, phonemes, words)
    for word, batched in zip(words, said, strict=True):
        (row,) = module.generate(tensor([spelling.encode(word).ids]), start=1, end=2, limit=60)
        assert batched == phonemes.decode(row)
    wanted = [*said[:3], said[3] + "AB", said[4]]
    rate, wrong = error_rate(module, spelling, phonemes, list(zip(words, wanted, strict=True)))
    assert rate == pytest.approx(2 / sum(map(len, wanted))) and wrong == 1 / 5


# Vision


@pytest.fixture(scope="module")
def digits():
    (pictures, _), _ = load_digits()
    return torch.from_numpy(pictures[::800])[:, None]


def test_jitter_keeps_shape_and_range(digits):
    moved = vision.jitter(digits, generator())
    assert moved.shape == digits.shape and moved.min() >= 0 and moved.max() <= digits.max() + 1e-6
    assert torch.equal(moved, vision.jitter(digits, generator()))
    assert not torch.equal(moved, vision.jitter(digits, generator(6)))
    ink = moved.sum((1, 2, 3)) / digits.sum((1, 2, 3))
    assert (ink > 0.7).all() and (ink < 1.4).all()  # size changes by 12 % each way, and nothing leaves the picture


def test_jitter_in_the_middle_of_its_range_changes_nothing(digits, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda count, generator: torch.full((count,), 0.5))
    torch.testing.assert_close(vision.jitter(digits, generator()), digits, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("which", "axis"), [(3, 3), (4, 2)], ids=["columns", "rows"])
def test_jitter_shifts_by_two_pixels_at_most(digits, monkeypatch, which, axis):
    """The numbers are drawn in the order angle, size, shear, columns, rows; the largest reads two pixels further on."""
    drawn = iter(1.0 if number == which else 0.5 for number in range(5))
    monkeypatch.setattr(torch, "rand", lambda count, generator: torch.full((count,), next(drawn)))
    moved = vision.jitter(digits, generator())
    torch.testing.assert_close(moved.narrow(axis, 0, 26), digits.narrow(axis, 2, 26), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("which", "expected"), [(0, 12.0), (1, 0.12)], ids=["angle", "size"])
def test_jitter_turns_and_scales_by_at_most(monkeypatch, which, expected):
    """A spot at (20, 8) right of and above the middle is read from where the turn, or the scale, puts it."""
    drawn = iter(1.0 if number == which else 0.5 for number in range(5))
    monkeypatch.setattr(torch, "rand", lambda count, generator: torch.full((count,), next(drawn)))
    ramp = torch.arange(101.0).expand(1, 1, 101, 101) - 50  # each pixel says how far right of the middle it is
    moved = vision.jitter(ramp, generator())[0, 0]
    x, y = 20.0, -8.0
    turned = {0: x * np.cos(np.radians(expected)) - y * np.sin(np.radians(expected)), 1: x * (1 + expected)}[which]
    assert float(moved[42, 70]) == pytest.approx(turned, abs=1e-3)


def test_accuracy_and_nearest_neighbour_by_hand():
    pictures = np.eye(4, dtype=np.float32).reshape(4, 2, 2)
    assert vision.accuracy(nn.Flatten(), pictures, np.array([0, 1, 2, 2])) == 0.75  # the brightest pixel is the answer
    known = (pictures[:2], np.array([7, 5]))
    asked = np.array([[[0.9, 0.2], [0, 0]], [[0.4, 0.5], [0, 0]], [[0, 1], [1, 0]]], np.float32)
    assert vision.nearest_neighbour(known, asked, np.array([7, 5, 5])) == 1.0
    assert vision.nearest_neighbour(known, asked, np.array([7, 7, 5])) == pytest.approx(2 / 3)
