"""What all tests share: a real browser, real weights, and a fixed seed for those that draw at random."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parent))  # for weights.py beside this file

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def browser():
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "the browser tests need Chromium: apt-get install chromium, or set CHROMIUM to its path"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    import weights

    return weights.smollm2_folder()


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    import weights

    return weights.minilm_folder()


@pytest.fixture(scope="session")
def whisper_folder() -> Path:
    import weights

    return weights.whisper_folder()


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
