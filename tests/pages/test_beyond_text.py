"""The pages for models that read no text: a series of months, a score in four voices."""

import json
from html import unescape

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from headwise.assets import ASSETS
from headwise.interp.drawing.canvas import head_message
from headwise.models.inputs.scores import SECONDS
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared.input import EXAMPLES, default_text
from tests.browser.serving import ROOT

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from pages.{page} import {page}
{page}()
"""
MODELS = {"tiny-forecaster": ("series", "120 months", "Next change"), "tiny-music": ("score", "257 notes", "Next note")}
PAGES = ("attribution", "circuits", "compare", "embeddings", "masks", "patching", "stream")


def app(page: str = "heads", **state) -> AppTest:
    test = AppTest.from_string(SCRIPT.format(root=str(ROOT), page=page), default_timeout=240)
    for name, value in state.items():
        test.query_params[name] = value
    test.run()
    assert not test.exception, test.exception
    return test


def html(test: AppTest, mark: str) -> str:
    return unescape(" ".join(h.proto.body for h in test.get("html") if f"data-testid='{mark}'" in h.proto.body))


@pytest.fixture
def drawn(monkeypatch):
    """What the large picture was drawn with."""
    seen = {}
    monkeypatch.setattr(_canvas, "large", lambda explorer, matrix, **how: seen.update(how, matrix=matrix))
    return seen


@pytest.mark.parametrize("model", MODELS)
def test_each_says_what_it_is_in_its_own_words(model, drawn):
    test = app(model=model)
    kind, size, question = MODELS[model]
    assert size in html(test, "headline") and "nothing unseen" in html(test, "headline")
    assert question in html(test, "says") and not test.error
    assert (
        test.text_area(key="text").value == default_text(kind) and test.text_area(key="text").label == kind.capitalize()
    )
    assert drawn["matrix"].rows.track is drawn["matrix"].columns.track is not None
    assert not any(toggle.label == "Merge words" for toggle in test.toggle)


@pytest.mark.parametrize("model", MODELS)
def test_the_head_that_follows_the_period_comes_first(model, drawn):
    """The best of the periodic metrics, as the table tells them, and as the card names it."""
    test = app(model=model, metrics="table")
    table = test.dataframe[0].value
    periodic = table.filter(items=["period", "next_period", "next_in_voice"])
    best = table.loc[periodic.max(axis=1).idxmax()]
    assert drawn["matrix"].title == f"layer {best.layer:.0f} · head {best['head']:.0f}"
    assert f"layer {best.layer:.0f}, head {best['head']:.0f}" in (ASSETS / model / "README.md").read_text("utf-8")
    assert "induction" not in table and ("next_in_voice" in table) == (model == "tiny-music")


@pytest.mark.parametrize("model", MODELS)
def test_examples_travel_with_their_model(model):
    kind = MODELS[model][0]
    assert EXAMPLES[kind] == json.loads((ASSETS / model / "examples.json").read_text("utf-8"))
    test = app(model=model)
    name = list(EXAMPLES[kind])[-1]
    test.selectbox(key="example").select(name).run()
    assert test.text_area(key="text").value == EXAMPLES[kind][name] and not test.error
    test.selectbox(key="model").select("tiny-decoder").run()
    assert test.text_area(key="text").value == default_text("decoder") and not test.error


@pytest.mark.parametrize(
    ("model", "text", "said"),
    [
        ("tiny-forecaster", "1990-01 353.7\n1990-03 355.5", "goes on month by month"),
        ("tiny-music", "S: C5\nA: C4", "a line for each of four voices"),
    ],
)
def test_what_it_does_not_read_is_one_sentence(model, text, said):
    test = app(model=model, text=text)
    assert said in " ".join(error.value for error in test.error) and len(test.error) == 1


def test_a_year_is_written_and_drawn_on(drawn):
    test = app(model="tiny-forecaster", temperature="0")
    test.button(key="write-many").click().run()
    track = drawn["matrix"].rows.track
    assert (
        track.written == 120
        and len(track.values) == 132
        and drawn["matrix"].rows.labels[-1].startswith("Dec\u00a02000:")
    )
    assert "132 months" in html(test, "headline")
    rise = track.values[120:].mean() - track.values[108:120].mean()  # as every year in the nineties, and 2000: 1.2 ppm
    assert 0.3 < rise < 3 and track.values[120:].argmax() in (3, 4, 5)  # highest in April, May or June
    test.button(key="write-none").click().run()
    assert drawn["matrix"].rows.track.written is None


def test_a_score_is_heard_and_its_continuation_alone(drawn):
    test = app(model="tiny-music", temperature="0")
    assert len(test.get("audio")) == 1 and not any(group.key == "heard" for group in test.segmented_control)
    test.button(key="write-many").click().run()
    score = drawn["matrix"].rows.track
    assert score.written == 257 and score.notes[:, 1].max() == 289 and pytest.approx(4 * score.seconds) == SECONDS
    test.segmented_control(key="heard").set_value("written").run()
    assert len(test.get("audio")) == 1 and not test.error


def test_a_series_has_no_player():
    assert not app(model="tiny-forecaster").get("audio")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("model", MODELS)
def test_all_pages_take_it_or_say_why_not(page, model):
    test = app(page, model=model)
    assert not test.error, [error.value for error in test.error]


def test_both_edges_are_sent_to_the_browser():
    """What the canvas is told of a head of a series: its values, its years, its unit."""
    from headwise import capture, load
    from headwise.interp.drawing.matrix import head_view

    cap = capture(load("tiny-forecaster"), default_text("series"))
    header, arrays = head_message(head_view(cap, cap.calls[1], 3), "heatmap")
    assert header["query_track"] == header["key_track"] and header["early"] == 12
    assert header["key_track"]["unit"] == "ppm" and header["key_track"]["marks"][:2] == [[0, "1990"], [12, "1991"]]
    np.testing.assert_allclose(arrays["key_values"][:2, 0], [353.65, 354.65], atol=0.01)
