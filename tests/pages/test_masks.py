"""The Masks page: what it shows is computed, bad masks get a sentence, every zoo model is there with its finding."""

import numpy as np
import pytest
import torch
from playwright.sync_api import expect
from streamlit.testing.v1 import AppTest

from headwise import capture
from headwise.interp.analysis.travel import travel
from headwise.interp.attention.promise import UNKNOWN
from headwise.interp.masks import Causal, Strided, Window
from headwise.interp.masks.spoken import spoken_mask
from headwise.interp.zoo import CASES
from headwise.models import load
from headwise.pages._shared import canvas as _canvas
from tests.browser.serving import ROOT

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from headwise.pages.masks import masks
masks()
"""


def page(section: str, **state) -> AppTest:
    test = AppTest.from_string(SCRIPT.format(root=str(ROOT)), default_timeout=180)
    test.query_params["section"] = section
    for key, value in state.items():
        test.session_state[key] = value
    test.run()
    assert not test.exception, test.exception
    return test


@pytest.fixture
def drawn(monkeypatch):
    """What the canvas was given, by key."""
    pictures = {}
    monkeypatch.setattr(_canvas, "head", lambda matrix, *, key, **how: pictures.update({key: matrix}))
    return pictures


def test_look_shows_the_mask_given_and_the_travel_of_a_token(drawn):
    test = page("look", changed=7)
    table = test.dataframe[0].value
    assert list(table["mask given"]) == ["Causal()"] * 4 and float(table["forbidden mass"].max()) == 0
    assert [len(heads) for heads in table["per head"]] == [8] * 4
    assert list(table["promised"]) == ["Causal()"] * 4 and set(table["says"]) == {"its configuration: decoder"}
    cap = capture(load("tiny-decoder"), test.text_area(key="text").value)
    observed, moved = drawn["observed"], drawn["travel"]
    assert torch.equal(observed.values, torch.ones_like(observed.values).tril())
    torch.testing.assert_close(moved.values, travel(cap, 7), rtol=1e-5, atol=1e-6)
    assert moved.forbidden[:, :7].all() and not moved.forbidden[:, 7:].any()


def test_where_nobody_says_the_reader_chooses(drawn, monkeypatch):
    monkeypatch.setattr("headwise.interp.run.capture.claim", lambda *about: UNKNOWN)
    test = page("look", text="Nobody says what this may see.")
    table = test.dataframe[0].value
    assert set(table["promised"]) == {"unknown: choose"} and set(table["says"]) == {"nothing says"}
    assert not drawn["observed"].forbidden.any() and float(table["forbidden mass"].max()) == 0
    test.selectbox(key="mask_promise").select("causal").run()
    table = test.dataframe[0].value
    assert set(table["promised"]) == {"Causal()"} and set(table["says"]) == {"you chose"}
    np.testing.assert_array_equal(drawn["observed"].forbidden, 1 - drawn["observed"].values)


def test_compose_draws_the_expression_and_its_code(drawn):
    test = page("compose", compose_window=True, compose_strided=True)
    mask = Causal() & Window(3, 0) & Strided(4)
    assert test.code[0].value == repr(mask)
    assert torch.equal(drawn["composed"].values.bool(), mask.dense(24, 24))
    assert "~allowed" in test.code[2].value and "~" not in test.code[1].value


def test_compose_knows_chunks_and_windows_of_a_grid(drawn):
    test = page("compose", compose_chunks=True, compose_chunks_left=1, compose_windows2d=True, compose_shift=1)
    assert test.code[0].value == "Causal() & Chunks(4, left=1) & Windows2d(2, 2, 1, grid=(4, 6))"
    assert torch.equal(drawn["composed"].values.bool(), spoken_mask(test.code[0].value).dense(24, 24))


def test_lint_names_what_is_wrong(drawn):
    example = page("lint")
    assert not example.error and example.success and example.code[0].value == "Causal()"
    assert any("mask-convention" in e.value for e in page("lint", lint_text="[[1., 0.], [1., 1.]]").error)
    clean = page("lint", lint_text="■⬚⬚\n■■⬚\n■■■")
    assert not clean.error and clean.success and clean.code[0].value == "Causal()"
    assert any("different lengths" in e.value for e in page("lint", lint_text="1 0\n1").error)
    assert any("ellipsis" in e.value for e in page("lint", lint_text="[[1, ..., 0]]").error)
    assert any("is no number" in e.value for e in page("lint", lint_text="<script>").error)


@pytest.mark.parametrize("case", CASES[:: max(1, len(CASES) // 12)], ids=lambda case: case.name)
def test_zoo_shows_bug_and_fix(case, drawn):
    bug = page("zoo", zoo_class=case.cls, **{f"zoo_{case.cls}": case.name})
    assert any(e.value.startswith(f"**{case.cls}**") for e in bug.error)
    assert not case.report or any(f"]({case.link})" in m.value for m in bug.markdown)
    fix = page("zoo", zoo_class=case.cls, zoo_fixed="fix", **{f"zoo_{case.cls}": case.name})
    assert fix.success and not fix.error


def test_a_person_opens_the_page_first_and_changes_a_token(browser, app_url):
    context = browser.new_context(viewport={"width": 1500, "height": 1000})
    page = context.new_page()
    page.goto(f"{app_url}/masks")
    pictures = page.get_by_test_id("headwise-head")
    expect(pictures).to_have_count(2, timeout=60_000)
    before = pictures.last.get_attribute("data-head")
    base = pictures.last.locator(".hw-base")
    left, top, width, _ = (float(x) for x in base.get_attribute("data-plot").split(","))
    box = pictures.last.locator(".hw-over").bounding_box()
    page.mouse.click(box["x"] + left + 20.5 * width, box["y"] + top - 4)
    expect(pictures.last).not_to_have_attribute("data-head", before, timeout=60_000)
    page.get_by_text("Zoo", exact=True).click()
    expect(page.get_by_text("mask bugs as tiny living models")).to_be_visible(timeout=60_000)
    page.get_by_text("Fix", exact=True).first.click()
    expect(page.get_by_text("Clean:")).to_be_visible(timeout=60_000)
    context.close()
