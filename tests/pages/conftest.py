"""The app, served once for all tests that open it."""

import pytest
from serving import ROOT, serve


@pytest.fixture(scope="session")
def app_url():
    """The app itself, as the README starts it."""
    with serve(ROOT / "app.py") as url:
        yield url
