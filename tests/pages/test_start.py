"""A server warms up before anybody comes, and says when it is warm."""

import time
import urllib.error
import urllib.request

from tests.browser.serving import ROOT, serve


def answer(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_it_answers_at_once_and_is_ready_when_it_is_warm():
    with serve(ROOT / "app.py") as url:
        said = [answer(f"{url}/readyz")]
        while said[-1][0] != 200:
            assert answer(f"{url}/_stcore/health") == (200, "ok")
            assert len(said) < 200, "it never was"
            time.sleep(0.5)
            said.append(answer(f"{url}/readyz"))
    assert set(said) == {(503, "warming up"), (200, "ready")}
