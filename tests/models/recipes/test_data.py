"""The data of the bundled models: what is in it, what is held out, and what its tokenizers make of a text."""

import re
from itertools import groupby

import numpy as np
import pytest

from headwise.models.recipes.data import (
    BIBLE,
    DIGITS,
    END_OF_TEXT,
    REVIEWS,
    SPEECHES,
    WORDS,
    character_tokenizer,
    load_bible,
    load_digits,
    load_reviews,
    load_snippets,
    load_speeches,
    load_words,
    token_stream,
    train_tokenizer,
    train_wordpiece,
)

GENESIS = (
    "In the beginning God created the heaven and the earth.",
    "And the earth was without form, and void; and darkness was upon the face of the deep. And the Spirit of God moved "
    "upon the face of the waters.",
)


@pytest.fixture(scope="module")
def bible():
    return load_bible()


@pytest.mark.parametrize("source", [SPEECHES, BIBLE, REVIEWS, WORDS, DIGITS], ids=lambda source: source.package)
def test_every_source_says_its_licence_and_its_hash(source):
    assert re.fullmatch("[0-9a-f]{64}", source.sha256) and source.about and source.licence
    assert str(source) == f"{source.package}, sha256 {source.sha256} (checked)"
    assert source.archive().is_file()


def test_speeches():
    training, held_out = load_speeches()
    assert (len(training), len(held_out)) == (222, 11)
    assert not set(training) & set(held_out)
    assert training[0].startswith("Fellow-Citizens of the Senate and House of Representatives: In meeting you again")
    assert (training, held_out) == load_speeches()


def test_bible(bible):
    training, held_out = bible
    assert (len(training), len(held_out)) == (1130, 59)  # 1,189 chapters
    assert not {" ".join(chapter) for chapter in training} & {" ".join(chapter) for chapter in held_out}
    assert tuple(training[0][:2]) == GENESIS
    assert len(training[0]) == 31 and len(held_out[0]) == 18  # Genesis 1 and 20
    assert held_out[0][0].startswith("And Abraham journeyed from thence toward the south country")
    assert training[-1][-1] == "The grace of our Lord Jesus Christ be with you all. Amen."
    assert (training, held_out) == load_bible()


def test_every_verse_of_the_king_james_bible_and_nothing_else(bible):
    verses = [verse for part in bible for chapter in part for verse in chapter]
    assert len(verses) == 31_102 and all(verses)
    assert not [verse for verse in verses if re.search(r"[\d\[\]\n]|\s\s", verse)]
    assert any(chapter[0].startswith("Blessed is the man that walketh not") for part in bible for chapter in part)


def test_reviews():
    training, held_out = load_reviews()
    assert (len(training), len(held_out)) == (9545, 1060)
    everything = load_snippets("movieReviewSnippets")
    assert [snippet for number, snippet in enumerate(everything, 1) if number % 10 == 0] == held_out
    assert len(training) + len(held_out) == len(everything) == 10_605
    assert all(-4 <= snippet.rating <= 4 and snippet.text for snippet in everything)
    first = training[0]
    assert first.text.startswith('The Rock is destined to be the 21st Century\'s new "Conan"')
    assert first.rating == pytest.approx(2.2667, abs=1e-4)
    assert (training, held_out) == load_reviews()


@pytest.mark.parametrize(
    ("kind", "count", "documents"), [("amazonReviewSnippets", 3708, 300), ("nytEditorialSnippets", 5190, 498)]
)
def test_neighbouring_snippets_share_a_document(kind, count, documents):
    """3,708 snippets of product reviews and 5,190 of editorials, as the package's _README_.txt counts them."""
    snippets = load_snippets(kind)
    assert len(snippets) == count
    assert len([*groupby(snippets, key=lambda snippet: snippet.document)]) == documents  # each in one run
    assert len({snippet.document for snippet in snippets}) == documents


def test_words():
    training, held_out = load_words()
    assert (len(training), len(held_out)) == (73_709, 4_058)
    known = {word for word, _ in training}
    assert len(known) == len(training) and not known & {word for word, _ in held_out}
    assert all(re.fullmatch(r"[a-z]+('[a-z]+)*", word) and said for word, said in training + held_out)
    assert ("aapa", "ˈɑpə") in training and ("abet", "əbˈɛt") in held_out
    assert {letter for _, said in held_out for letter in said} <= {letter for _, said in training for letter in said}
    assert (training, held_out) == load_words()


def test_digits():
    (pictures, labels), (held_pictures, held_labels) = load_digits()
    assert pictures.shape == (8004, 28, 28) and held_pictures.shape == (1996, 28, 28)
    assert pictures.dtype == np.float32 and labels.dtype == np.int64
    assert pictures.min() == 0 and 0.99 < pictures.max() <= 1
    for digit in range(10):
        known, held = (labels == digit).sum(), (held_labels == digit).sum()
        assert held == (known + held) // 5  # every 5th
    distinct = {picture.tobytes() for picture in pictures}
    assert not distinct & {picture.tobytes() for picture in held_pictures}
    assert np.mean([picture[0].max() for picture in pictures]) < 0.01  # light on dark: the border is dark


def test_character_tokenizer():
    tokenizer = character_tokenizer(["cab", "it's"], ["<pad>", "<s>", "</s>"], "<s> $A </s>")
    encoding = tokenizer.encode("cat's")
    assert encoding.tokens == ["<s>", "c", "a", "t", "'", "s", "</s>"]
    assert encoding.ids == [1, 7, 5, 10, 4, 9, 2]  # <pad> <s> </s> [UNK], then ' a b c i s t
    assert encoding.offsets == [(0, 0), (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (0, 0)]
    assert tokenizer.decode(encoding.ids) == "cat's"
    assert tokenizer.encode("caß").tokens == ["<s>", "c", "a", "[UNK]", "</s>"]
    assert tokenizer.get_vocab_size() == 11


def test_character_tokenizer_of_phonemes():
    tokenizer = character_tokenizer(["tɹænsfˈɔɹməɹ"], ["<pad>", "<s>", "</s>"], "<s> $A")
    encoding = tokenizer.encode("fˈɔɹm")
    assert encoding.tokens == ["<s>", "f", "ˈ", "ɔ", "ɹ", "m"]
    assert tokenizer.decode(encoding.ids) == "fˈɔɹm"


@pytest.fixture(scope="module")
def wordpiece(bible):
    return train_wordpiece([verse for chapter in bible[0][:60] for verse in chapter], 700)


def test_wordpiece_template(wordpiece):
    assert [wordpiece.id_to_token(number) for number in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    alone, pair = wordpiece.encode("the earth"), wordpiece.encode("the earth", "the heaven")
    assert alone.tokens == ["[CLS]", "the", "earth", "[SEP]"] and alone.type_ids == [0] * 4
    assert pair.tokens == ["[CLS]", "the", "earth", "[SEP]", "the", "heaven", "[SEP]"]
    assert pair.type_ids == [0, 0, 0, 0, 1, 1, 1]
    assert wordpiece.encode("the [MASK] ☃").tokens == ["[CLS]", "the", "[MASK]", "[UNK]", "[SEP]"]


@pytest.mark.parametrize("text", GENESIS)
def test_wordpiece_round_trip(wordpiece, text):
    said = wordpiece.decode(wordpiece.encode(text).ids)
    assert "".join(said.split()) == "".join(text.lower().split())


@pytest.mark.parametrize("text", [*GENESIS, "IN THE BEGINNING God CREATED the  HEAVEN", "Célèbre ÉARTH, isn’t it?"])
def test_wordpiece_offsets_point_into_the_text(wordpiece, text):
    encoding = wordpiece.encode(text)
    plain = str.maketrans("éèÉ", "eee")
    for token, (start, stop) in zip(encoding.tokens[1:-1], encoding.offsets[1:-1], strict=True):
        assert token == "[UNK]" or token.removeprefix("##") == text[start:stop].translate(plain).lower()
    covered = "".join(text[start:stop] for start, stop in encoding.offsets)
    assert covered == "".join(text.split())


def test_token_stream_parts_texts():
    tokenizer = train_tokenizer(["the people of the United States"] * 3, vocab_size=270)
    start = tokenizer.token_to_id(END_OF_TEXT)
    one, two = tokenizer.encode("the people").ids, tokenizer.encode("of the United States").ids
    assert token_stream(tokenizer, ["the people", "of the United States"]) == [start, *one, start, *two]


def test_byte_tokenizer_knows_every_byte():
    tokenizer = train_tokenizer(["the people of the United States"] * 3, vocab_size=270)
    for text in ("Ünïcödé 🙂", "\t\r\n\x00", "日本"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
