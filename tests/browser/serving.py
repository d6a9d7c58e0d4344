"""Streamlit servers for the tests that click."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def flags(**options: object) -> list[str]:
    """Options of ``streamlit run`` for a server that only this machine reaches and that opens no browser."""
    options = {"headless": "true", "address": "127.0.0.1", **options}
    return [part for name, value in options.items() for part in (f"--server.{name}", str(value))]


def until_it_answers(url: str) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{url}/_stcore/health", timeout=1)
            return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.2)
    pytest.fail("streamlit did not start within 60 s")


@contextmanager
def serve(app: Path):
    """Run a Streamlit app on a free port → its address."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "streamlit", "run", str(app), *flags(port=port)], cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    try:
        until_it_answers(url)
        yield url
    finally:
        process.terminate()
        process.wait(20)
