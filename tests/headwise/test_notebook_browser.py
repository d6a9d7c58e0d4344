"""The explorer in a real JupyterLab and in marimo, each in a real Chromium that no request leaves."""

import csv
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlparse

import pytest
from playwright.sync_api import Page, expect

from headwise import capture, load
from tests.browser.opening import SLOW
from tests.browser.serving import ROOT, free_port

TEXT = "The people of the United States and the people of the world."
MAKES = f"from headwise import load, capture\ncap = capture(load('tiny-decoder'), {TEXT!r})\n"
needs = {
    name: pytest.mark.skipif(
        find_spec(name) is None or find_spec("anywidget") is None, reason=f"{name} is no part of it"
    )
    for name in ("jupyterlab", "marimo")
}


def serving(command: list[str], place: Path):
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen([sys.executable, "-m", *command], cwd=place, env=os.environ | {"PYTHONPATH": path})


@pytest.fixture
def page(browser):
    """A page that tells what left this machine, and what went wrong in what is ours."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(SLOW)
    left, wrong = [], []
    page.on("request", lambda r: left.append(r.url) if urlparse(r.url).hostname not in ("127.0.0.1", None, "") else 0)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    context.close()
    assert not left and not [error for error in wrong if "headwise" in error], (left, wrong)


def arrive(page: Page, url: str) -> None:
    """The server may still be starting."""
    for _ in range(120):
        try:
            page.goto(url)
            return
        except Exception:  # whatever the browser calls a refused connection
            page.wait_for_timeout(500)
    pytest.fail(f"{url} did not answer")


def tried(page: Page) -> None:
    """Choose a head, hover, pin, export."""
    cap = capture(load("tiny-decoder"), TEXT)
    first = page.locator(".hw-notebook").first
    head, grid = first.get_by_test_id("headwise-head"), first.get_by_test_id("headwise-grid")
    expect(head).to_have_attribute("data-head", "layer 1 · head 6", timeout=SLOW)
    expect(grid.get_by_test_id("headwise-readout")).to_contain_text("induction")
    left, top, wide, high = map(float, grid.locator(".hw-base").get_attribute("data-plot").split(","))
    grid.locator(".hw-over").click(position={"x": left + 3.5 * wide, "y": top + 2.5 * high})
    expect(head).to_have_attribute("data-head", "layer 2 · head 3")
    weights = cap.find(2).weights(3)[0]
    first.locator("[data-position='6']").hover()
    best = cap.axes["input"].labels[int(weights[6].argmax())].replace(" ", "·")
    expect(head.get_by_test_id("headwise-readout")).to_contain_text(f"→ ‘{best}’ {float(weights[6].max()):.4g}"[:-1])
    first.locator("[data-position='6']").click()
    expect(first.locator("[data-position='6']")).to_have_class(re.compile("hw-pinned"))
    with page.expect_download() as found:
        first.get_by_role("button", name="CSV").click()
    rows = list(csv.reader(Path(found.value.path()).read_text("utf-8").splitlines()))
    assert float(rows[7][1 + int(weights[6].argmax())]) == float(weights[6].max())
    with page.expect_download() as found:
        first.get_by_role("button", name="PNG").click()
    assert Path(found.value.path()).read_bytes().startswith(b"\x89PNG")
    one = page.locator(".hw-notebook").nth(1)
    expect(one.get_by_test_id("headwise-head")).to_have_attribute("data-head", "layer 3 · head 1")
    expect(one.get_by_test_id("headwise-grid")).to_have_count(0)


@needs["jupyterlab"]
def test_in_jupyterlab(page, tmp_path):
    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "outputs": [], "execution_count": None, "source": source}
        for i, source in enumerate((MAKES + "cap", "cap.head(3, 1)"))
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    book = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "book.ipynb").write_text(json.dumps(book), "utf-8")
    port = free_port()
    options = (f"--ServerApp.port={port}", "--IdentityProvider.token=", "--ServerApp.ip=127.0.0.1")
    lab = serving(
        ["jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.root_dir={tmp_path}", *options], tmp_path
    )
    try:
        arrive(page, f"http://127.0.0.1:{port}/lab/tree/book.ipynb")
        expect(page.locator(".jp-Notebook .jp-CodeCell")).to_have_count(2)
        expect(page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").first).to_be_visible()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        tried(page)
    finally:
        lab.terminate()
        lab.wait(20)


@needs["marimo"]
def test_in_marimo(page, tmp_path):
    body = "".join(f"    {line}\n" for line in (MAKES + "cap").splitlines())
    (tmp_path / "book.py").write_text(
        f"import marimo\n\napp = marimo.App()\n\n\n@app.cell\ndef _():\n{body}    return (cap,)\n\n\n"
        "@app.cell\ndef _(cap):\n    cap.head(3, 1)\n    return\n",
        "utf-8",
    )
    port = free_port()
    book = serving(["marimo", "run", "book.py", "--headless", "--no-token", "--port", str(port)], tmp_path)
    try:
        arrive(page, f"http://127.0.0.1:{port}/")
        tried(page)
    finally:
        book.terminate()
        book.wait(20)
