"""The neuron view of the Heads page: its figures, its reasons, its address; and what a person does there, in a
browser."""

import io
import re

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from headwise import capture
from headwise.interp.analysis.neuron import neuron
from headwise.models import load
from headwise.pages._heads import neuron as view
from headwise.pages._shared import canvas as _canvas
from tests.browser.opening import downloaded, head, links_to
from tests.pages.test_heads import app

TEXT = "The people of the United States and the people of the world."


def said(test) -> str:
    """The sum and its parts; '' where there is none."""
    return " ".join(h.proto.body for h in test.get("html") if "'neuron'" in h.proto.body)


def captions(test) -> str:
    return " ".join(c.value for c in test.caption)


def expected(query: int, key: int | None = None, layer: int = 1, number: int = 5):
    """As the page has it: its pairs are the halves of a head's 32 dimensions."""
    pairs = [(d, d + 16) for d in range(16)]
    return neuron(capture(load("tiny-decoder"), TEXT), layer, number, query, key, pairs=pairs)


def figures(text: str) -> list[float]:
    return [float(x.replace("−", "-")) for x in re.findall(r"<b>([+−\d.e-]+)</b>", text)]


def test_nothing_is_pinned():
    test = app(text=TEXT, layer="1", head="5")
    assert not said(test) and "click a cell, a query or a key" in captions(test)


@pytest.mark.parametrize("parts", ["size", "dimension"])
def test_sum_of_the_strongest_key(parts):
    test = app(text=TEXT, layer="1", head="5", pin="query-6", apart=parts)
    assert not test.exception and not test.error
    found = expected(6)
    total, score, weight = figures(said(test))
    assert total == pytest.approx(found.total, abs=0.006) and score == pytest.approx(found.score, abs=0.006)
    assert weight == pytest.approx(found.weight, rel=0.01)
    assert "the largest of 7 keys" in said(test) and "not explained" in said(test)
    assert "Attention is not Explanation" in captions(test)
    assert "Σ 16 pairs" in said(test) and ("cos" in said(test)) and (parts != "size" or "class='turn" in said(test))


def test_a_chosen_key_and_one_that_is_hidden():
    found = expected(6, 2)
    assert figures(said(app(text=TEXT, layer="1", head="5", pin="query-6", neuron="2")))[0] == pytest.approx(
        found.total, abs=0.006
    )
    hidden = said(app(text=TEXT, layer="1", head="5", pin="query-6", neuron="9"))
    assert "hidden by the mask <b>−∞</b>" in hidden and "weight <b>0</b>" in hidden


def test_a_pinned_key_meets_the_query_that_looks_at_it_most(monkeypatch):
    drawn = {}
    monkeypatch.setattr(_canvas, "rows", lambda matrix, key, **how: drawn.update({key: (matrix, how)}))
    app(text=TEXT, layer="1", head="5", pin="key-3")
    matrix, how = drawn["neuron-map"]
    weights = capture(load("tiny-decoder"), TEXT).find(1).weights(5)[0]
    assert matrix.title == f"query {int(weights[:, 3].argmax())}, key by key"
    assert how["selected"] == 3


def test_a_merged_word_has_no_score_of_its_own():
    """“Washington”, the fourth word, is four tokens; “is”, the word after it, is the eighth token."""
    place = {"text": "A city of Washington is good.", "layer": "1", "head": "5", "words": "1"}
    labels = capture(load("tiny-decoder"), place["text"]).axes["input"].labels
    assert labels.index(" is") > 4
    test = app(**place, pin="query-3")
    assert "this word is several tokens" in captions(test) and not said(test)
    titles = [h.proto.body for h in app(**place, pin="query-4").get("html") if "neuron-title" in h.proto.body]
    assert f"·is {labels.index(' is')}" in titles[0]


@pytest.mark.parametrize(
    "address",
    [{"neuron": "999"}, {"neuron": "x"}, {"neuron": "-5"}, {"pin": "query-999"}, {"pin": "key-999"}, {"apart": "no"}],
)
def test_an_address_that_means_nothing_still_opens(address):
    test = app(**({"text": TEXT, "layer": "1", "head": "5", "pin": "query-6"} | address))
    assert not test.exception and not test.error and said(test)


def test_code_makes_the_figures():
    test = app(text=TEXT, layer="1", head="5", pin="query-6", neuron="2")
    code = next(c.value for c in test.code if "neuron" in c.value)
    scope = {}
    exec(code, scope)
    assert scope["found"].score == pytest.approx(expected(6, 2).score)
    assert scope["found"].parts == expected(6, 2).parts


def test_hostile_tokens_are_escaped():
    test = app(text="<b onclick=alert(1)>$x$</b> <i>", layer="1", head="5", pin="query-3")
    title = next(h.proto.body for h in test.get("html") if "neuron-title" in h.proto.body)
    assert "onclick" not in title and "<bdi><b>" in title and not test.exception


def test_scores_only_says_why(monkeypatch):
    monkeypatch.setattr("headwise.interp.attention.call.AttentionCall.scale", property(lambda self: None))
    assert "showed its scores only" in captions(app(text=TEXT, layer="1", head="5", pin="query-6"))


def test_what_is_drawn_adds_up():
    """The widths of the bars, read off the HTML: each starts where the one above ended."""
    found = expected(8)
    bars = re.findall(r"left:([\d.]+)%;width:([\d.]+)%", view._waterfall(found))
    *parts, (_, whole) = [(float(left), float(width)) for left, width in bars]
    assert len(parts) == 9
    signs = [1 if "'up" in row else -1 for row in re.findall(r"<i class=('\w+)", view._waterfall(found))][:-1]
    assert sum(s * w for s, (_, w) in zip(signs, parts, strict=True)) == pytest.approx(
        whole if found.score > 0 else -whole, abs=0.2
    )


# -- in a browser -------------------------------------------------------------------------------------------------
def cell(page: Page, test_id: str, row: int, column: int) -> tuple[float, float]:
    box = page.get_by_test_id(test_id).locator(".hw-over").bounding_box()
    base = page.get_by_test_id(test_id).locator(".hw-base")
    left, top, width, height = (float(x) for x in base.get_attribute("data-plot").split(","))
    return box["x"] + left + (column + 0.5) * width, box["y"] + top + (row + 0.5) * height


def test_click_a_cell_read_its_parts_choose_another_key_and_share(visit, browser):
    page = visit(text=TEXT, layer="1", head="5")
    page.mouse.click(*cell(page, "headwise-head", 6, 2))
    title = page.get_by_test_id("neuron-title")
    labels = capture(load("tiny-decoder"), TEXT).axes["input"].labels
    expect(title).to_contain_text(re.compile(r"query .* 6 → key .* 2$"))
    links_to(page, pin="query-6", neuron="2")
    found = expected(6, 2)
    expect(page.get_by_test_id("neuron")).to_contain_text(f"{found.score:+.2f}".replace("-", "−"))
    table = pd.read_csv(io.BytesIO(downloaded(page, "Parts as CSV")))
    assert table.value.sum() == pytest.approx(found.total)

    rows = page.get_by_test_id("headwise-map")
    rows.scroll_into_view_if_needed()
    point = cell(page, "headwise-map", 4, 3)
    page.mouse.move(*point)
    expect(rows.get_by_test_id("headwise-readout")).to_contain_text(f"key 4 ‘{labels[4].replace(' ', '·')}’")
    page.mouse.click(*point)
    expect(title).to_contain_text(re.compile(r"key .* 4$"))
    links_to(page, pin="query-6", neuron="4")

    page.get_by_role("button", name="By dimension").or_(page.get_by_role("radio", name="By dimension")).first.click()
    links_to(page, apart="dimension")
    expect(page.locator(".neuron .bars span")).to_have_count(len(found.parts))
    other = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    other.goto(page.url)
    expect(other.get_by_test_id("neuron-title")).to_contain_text(re.compile(r"query .* 6 → key .* 4$"))
    other.context.close()

    head(page).locator(".hw-stage").focus()
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("neuron")).not_to_be_attached()


@pytest.mark.parametrize("model", ["tiny-vit", "tiny-encoder-decoder", "tiny-encoder"])
def test_other_kinds_of_input(visit, model):
    page = visit(model=model, pin="query-1")
    expect(page.get_by_test_id("neuron")).to_contain_text("not explained")
