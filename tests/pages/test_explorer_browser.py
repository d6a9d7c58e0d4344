"""The explorer in a real Chromium: heads, words and pins are the browser's own; the server hears of them at rest."""

import re

import pytest
import torch
from playwright.sync_api import Page, expect

from headwise import capture
from headwise.interp.drawing.means import mean_view
from headwise.models import load
from tests.browser.opening import grid, head, links_to, shows

TEXT = "The people of the United States and the people of the world."
REST = 300  # ms after which the server hears of a choice


@pytest.fixture
def cap():
    return capture(load("tiny-decoder"), TEXT)


@pytest.fixture
def page(visit):
    """Open on that text, at rest, with a count of what the browser sent since."""
    page = visit(text=TEXT, layer="1", head="6", view="heatmap")
    rested(page)
    return page


def rested(page: Page) -> None:
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    page.wait_for_timeout(600)
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")


def thumbnail(page: Page, layer: int, number: int) -> tuple[float, float]:
    left, top, wide, high = map(float, grid(page).locator(".hw-base").get_attribute("data-plot").split(","))
    box = grid(page).locator(".hw-over").bounding_box()
    return box["x"] + left + (number + 0.5) * wide, box["y"] + top + (layer + 0.5) * high


def word(page: Page, position: int):
    return page.get_by_test_id("headwise-text").locator(f"[data-position='{position}']")


def coloured(page: Page) -> list[int]:
    """Positions of the words that have a colour."""
    found = (
        page.get_by_test_id("headwise-text")
        .locator("[data-position]")
        .evaluate_all("words => words.filter(w => w.style.background).map(w => Number(w.dataset.position))")
    )
    return found


def looked_at(cap, layer: int, number: int, query: int) -> list[int]:
    """Keys that get more than 1.2% of what the head gives at most, and so a colour."""
    weights = cap.find(layer).weights(number)[0]
    return [key for key, value in enumerate((weights[query] / weights.max()).tolist()) if value > 0.012]


def test_the_text_is_coloured_by_what_the_last_token_looks_at(page, cap):
    words = page.get_by_test_id("headwise-text").locator("[data-position]")
    assert words.count() == len(cap.axes["input"])
    assert page.get_by_test_id("headwise-text").locator(".hw-text").inner_text() == TEXT
    assert coloured(page) == looked_at(cap, 1, 6, words.count() - 1)


def test_a_head_is_drawn_without_the_server(page, cap):
    """Though nothing can be asked of the server: its answers are held back for ever."""
    page.context.set_offline(True)
    for layer, number in ((2, 3), (0, 1), (3, 7)):
        page.mouse.click(*thumbnail(page, layer, number))
        shows(page, layer, number)
        assert coloured(page) == looked_at(cap, layer, number, len(cap.axes["input"]) - 1)
    page.mouse.move(0, 0)
    word(page, 4).hover()
    assert coloured(page) == looked_at(cap, 3, 7, 4)
    expect(head(page).get_by_test_id("headwise-readout")).to_contain_text("query 4")


def test_the_numbers_are_the_captures(page, cap):
    page.mouse.click(*thumbnail(page, 2, 5))
    shows(page, 2, 5)
    left, top, wide, high = map(float, head(page).locator(".hw-base").get_attribute("data-plot").split(","))
    box = head(page).locator(".hw-over").bounding_box()
    weights = cap.find(2).weights(5)[0]
    query = len(weights) - 2
    key = int(weights[query].argmax())
    page.mouse.move(box["x"] + left + (key + 0.5) * wide, box["y"] + top + (query + 0.5) * high)
    expect(head(page).get_by_test_id("headwise-readout")).to_contain_text(f"query {query}")
    said = float(re.search(r"([\d.e+-]+)\s*$", head(page).get_by_test_id("headwise-readout").inner_text())[1])
    assert said == pytest.approx(float(weights[query, key]), rel=6e-4)


def test_the_server_hears_of_it_when_the_hand_rests(page):
    page.mouse.click(*thumbnail(page, 2, 3))
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    shows(page, 2, 6)
    links_to(page, layer="2", head="6")
    word(page, 5).click()
    expect(word(page, 5)).to_have_class(re.compile("hw-pinned"))
    links_to(page, pin="query-5")
    rested(page)
    shows(page, 2, 6)


def test_heads_beside_each_other(page, cap):
    page.keyboard.down("Shift")
    for place in ((0, 1), (2, 3)):
        page.mouse.click(*thumbnail(page, *place))
    page.keyboard.up("Shift")
    heads = page.get_by_test_id("headwise-head")
    expect(heads).to_have_count(3)
    names = [heads.nth(i).get_attribute("data-head") for i in range(3)]
    assert names == ["layer 1 · head 6", "layer 0 · head 1", "layer 2 · head 3"]
    links_to(page, pinned="1.6-0.1-2.3")
    word(page, 6).hover()
    for i, (layer, number) in enumerate(((1, 6), (0, 1), (2, 3))):
        best = int(cap.find(layer).weights(number)[0, 6].argmax())
        query, key = (cap.axes["input"].labels[place].replace(" ", "·") for place in (6, best))
        expect(heads.nth(i).get_by_test_id("headwise-readout")).to_contain_text(f"query 6 ‘{query}’ → ‘{key}’")


def test_a_link_opens_them(visit):
    page = visit(text=TEXT, layer="1", head="6", pinned="1.6-3.0", pin="query-4")
    expect(page.get_by_test_id("headwise-head")).to_have_count(2)
    expect(word(page, 4)).to_have_class(re.compile("hw-pinned"))


def test_zoom_is_cut_in_the_browser(page, cap):
    left, top, wide, high = map(float, head(page).locator(".hw-base").get_attribute("data-plot").split(","))
    box = head(page).locator(".hw-over").bounding_box()
    corner = [(box["x"] + left + (k + 0.5) * wide, box["y"] + top + (q + 0.5) * high) for q, k in ((5, 2), (9, 6))]
    page.mouse.move(*corner[0])
    page.mouse.down()
    page.mouse.move(*corner[1], steps=4)
    page.mouse.up()
    expect(head(page).get_by_test_id("headwise-zoom-out")).to_be_visible()
    links_to(page, zoom="5-10-2-7")
    assert torch.equal(torch.tensor(coloured(page)), torch.tensor(looked_at(cap, 1, 6, len(cap.axes["input"]) - 1)))


def test_source_and_target_stand_apart(visit):
    page = visit(model="tiny-encoder-decoder", text="knight", stack="cross", layer="2", head="1")
    texts = page.get_by_test_id("headwise-text").locator(".hw-text")
    expect(texts).to_have_count(2)
    assert [texts.nth(i).get_attribute("data-axis") for i in range(2)] == ["key", "query"]
    cap = capture(load("tiny-encoder-decoder"), "knight")
    weights = cap.find(2, "cross").weights(1)[0]
    texts.nth(1).locator("[data-position='2']").hover()
    lit = texts.nth(0).locator("[data-position]").evaluate_all("words => words.map(w => Boolean(w.style.background))")
    assert lit == (weights[2] / weights.max() > 0.012).tolist()


def test_what_the_model_wrote_is_told_apart(visit, cap):
    page = visit(text=TEXT, written="265-300", layer="1", head="6")
    written = page.get_by_test_id("headwise-text").locator("[data-written]")
    count = len(cap.axes["input"])
    assert [w.get_attribute("data-position") for w in written.all()] == [str(count), str(count + 1)]
    assert written.first.evaluate("w => getComputedStyle(w).color") != word(page, 1).evaluate(
        "w => getComputedStyle(w).color"
    )


def test_an_image_has_no_text(visit):
    page = visit(model="tiny-vit")
    expect(page.get_by_test_id("headwise-text")).to_have_count(0)


def test_means_stand_beside_heads_and_are_told(page, cap):
    """What the browser averages is what the library does."""
    page.mouse.click(*thumbnail(page, 1, 8.15))  # the column after the last head
    heads = page.get_by_test_id("headwise-head")
    expect(heads).to_have_count(2)
    expect(heads.nth(1)).to_have_attribute("data-head", "layer 1 · mean of 8 heads")
    links_to(page, pinned="1.6-1.mean", layer="1", head="6")
    word(page, 7).hover()
    row = mean_view(cap, "decoder", layer=1).values[7]
    found = re.findall(r"’ ([\d.]+)", heads.nth(1).get_by_test_id("headwise-readout").inner_text())
    assert list(map(float, found)) == pytest.approx(row.sort(descending=True).values[: len(found)].tolist(), rel=1e-3)


def test_a_link_opens_a_mean_of_all(visit, cap):
    page = visit(text=TEXT, layer="1", head="6", pinned="mean.mean-mean.2")
    heads = page.get_by_test_id("headwise-head")
    expect(heads).to_have_count(3)
    expect(heads.first).to_have_attribute("data-head", mean_view(cap, "decoder").title)
    expect(heads.nth(1)).to_have_attribute("data-head", mean_view(cap, "decoder", head=2).title)
