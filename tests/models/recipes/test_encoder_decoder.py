"""What the speller is measured with: alignments and chunks by hand, edits, cross-attention as captured."""

import pytest
import torch
from torch import tensor

from headwise import capture
from headwise.models import wrap
from headwise.models.architectures.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from headwise.models.recipes.data import character_tokenizer
from headwise.models.recipes.encoder_decoder import (
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
from tests.models.drawn import enlarged, generator

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
