"""Every bundled model on every page, as it opens: something is drawn, or one sentence says why not."""

import pytest
from streamlit.testing.v1 import AppTest

from headwise.models import available
from headwise.pages._shared.ways import ICONS
from tests.browser.serving import ROOT

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from headwise.pages.{page} import {page}
{page}()
"""
NOVEL = [name for name in available() if name not in ("tiny-decoder", "tiny-encoder", "tiny-vit")]  # have tests enough
LONG = ("attribution", "patching", "circuits", "compare")  # which compute for seconds
QUICK = [page for page in ICONS if page not in LONG]


@pytest.mark.parametrize("name", NOVEL)
@pytest.mark.parametrize("page", QUICK)
def test_it_opens(page, name):
    test = AppTest.from_string(SCRIPT.format(root=str(ROOT), page=page), default_timeout=200)
    test.query_params["model"] = name
    test.run()
    assert not test.exception, test.exception
    errors = [error.value for error in test.error]
    assert not [error for error in errors if "could not" in error or "Expected" in error], errors
