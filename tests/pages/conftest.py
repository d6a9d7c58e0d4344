"""The app, served once for all tests that open it."""

from contextlib import ExitStack

import pytest

from tests.browser.opening import link, opened
from tests.browser.serving import ROOT, serve


@pytest.fixture(scope="session")
def app_url():
    """The app itself, as the README starts it."""
    with serve(ROOT / "app.py") as url:
        yield url


@pytest.fixture
def visit(browser, app_url):
    """``visit(model="tiny-vit", …)`` opens the app at that address → the page."""
    with ExitStack() as stack:
        yield lambda **view: stack.enter_context(opened(browser, link(app_url, **view)))
