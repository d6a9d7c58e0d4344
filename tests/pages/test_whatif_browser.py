"""What if, as a person does it in a real Chromium: by key, by a cell, by another text; undone, shared, and back."""

import re

import pytest
from playwright.sync_api import Page, expect

from headwise import capture, edits, rerun
from headwise.interp.analysis.effects import effect
from headwise.interp.analysis.targets import target
from headwise.models import load
from tests.browser.opening import address, at_rest, go, head, link, links_to, opened, shows

TEXT = "The people of the United States and the people of the world."
OTHER = "The state of the United States and the state of the world."  # cut into as many tokens
SIZES = [(1280, 800), (1024, 768)]


@pytest.fixture(params=SIZES, ids=lambda size: str(size[0]))
def page(visit, request):
    opened_page = visit(text=TEXT, layer="1", head="6")
    opened_page.set_viewport_size(dict(zip(("width", "height"), request.param, strict=True)))
    panel(opened_page)
    return opened_page


def panel(page: Page) -> None:
    """Wait until the panel stands, and with it its keys."""
    expect(page.locator(".st-key-whatif-x")).to_be_visible()
    at_rest(page)


def edits_listed(page: Page, count: int):
    expect(page.get_by_test_id("edit")).to_have_count(count)
    at_rest(page)
    return page.get_by_test_id("edit")


def change(page: Page) -> float:
    """The Δ logit that stands in the first tile."""
    text = page.get_by_test_id("effect").locator("b").first.inner_text()
    return float(text.replace("−", "-"))


def wanted(*made, text: str = TEXT) -> float:
    cap = capture(load("tiny-decoder"), text)
    return effect(cap, rerun(cap, made), target(cap)).change


def click_cell(page: Page, query: int, key: int) -> None:
    base = head(page).locator(".hw-base")
    left, top, width, height = (float(x) for x in base.get_attribute("data-plot").split(","))
    head(page).scroll_into_view_if_needed()
    box = head(page).locator(".hw-over").bounding_box()
    page.mouse.click(box["x"] + left + (key + 0.5) * width, box["y"] + top + (query + 0.5) * height)


def test_a_head_is_removed_by_its_key_and_comes_back(page):
    page.keyboard.press("x")
    edits_listed(page, 1)
    expect(page.get_by_test_id("edited")).to_contain_text("1 change: 1·6 removed (mean)")
    links_to(page, edits="mean-1-6")
    assert change(page) == pytest.approx(wanted(edits.MeanHead(1, 6)), abs=6e-3)
    expect(page.get_by_test_id("now-says")).to_contain_text("now says")
    page.keyboard.press("x")
    expect(page.get_by_test_id("edit")).to_have_count(0)
    expect(page.get_by_test_id("edited")).to_have_count(0)
    page.wait_for_url(lambda url: "edits=" not in url)


def test_an_edge_is_forbidden_by_its_cell_and_taken_back(page):
    page.keyboard.press("e")
    expect(head(page).get_by_test_id("headwise-readout")).to_contain_text("Click a cell to forbid that edge")
    click_cell(page, 8, 4)
    edits_listed(page, 1)
    links_to(page, edits="forbid-1-6-8-4")
    assert "pin" not in address(page)  # a click that picks does not pin
    forbidden = edits.ForbidEdge(1, 8, 4, head=6)
    assert change(page) == pytest.approx(wanted(forbidden), abs=6e-3)
    click_cell(page, 8, 4)
    expect(page.get_by_test_id("edit")).to_have_count(0)
    click_cell(page, 8, 4)
    edits_listed(page, 1)
    page.mouse.move(5, 5)
    head(page).locator(".hw-stage").press("Escape")
    at_rest(page)
    click_cell(page, 8, 4)  # now it pins again
    links_to(page, pin="query-8")
    edits_listed(page, 1)


def test_a_pattern_is_swapped_in_from_another_text(page):
    page.get_by_role("button", name="Swap the pattern").click()
    box = page.get_by_role("textbox", name="Look as in this text")
    box.fill("Short.")
    box.press("Control+Enter")
    tokens = len(load("tiny-decoder").encode(TEXT).axes["input"])
    fewer = len(load("tiny-decoder").encode("Short.").axes["input"])
    expect(page.get_by_text(f"That text has {fewer} tokens, this one {tokens}. Lengthen it by")).to_be_visible()
    expect(page.get_by_role("button", name="Swap it in")).to_be_disabled()
    box.fill(OTHER)
    box.press("Control+Enter")
    expect(page.get_by_text(f"{tokens} tokens, as many as here.")).to_be_visible()
    page.get_by_role("button", name="Swap it in").click()
    edits_listed(page, 1)
    other = capture(load("tiny-decoder"), OTHER)
    swap = edits.Replace(edits.Pattern(1, 6), other.find(1).weights(6))
    assert change(page) == pytest.approx(wanted(swap), abs=6e-3)


def test_undo_share_and_back(page, browser):
    page.keyboard.press("x")
    edits_listed(page, 1)
    page.keyboard.press("o")
    edits_listed(page, 2)
    both = "mean-1-6~only-1-6-mean"
    links_to(page, edits=both)
    numbers = page.get_by_test_id("effect").inner_text()
    with opened(browser, page.url) as other:
        edits_listed(other, 2)
        expect(other.get_by_test_id("effect")).to_have_text(re.compile(re.escape(numbers.splitlines()[0])))
    page.wait_for_timeout(1000)  # the browser knows its address
    page.get_by_role("button", name="undo", exact=True).first.click()
    edits_listed(page, 1)
    links_to(page, edits="only-1-6-mean")
    page.wait_for_timeout(1000)
    page.go_back()
    edits_listed(page, 2)
    assert address(page)["edits"] == both
    page.wait_for_timeout(1000)
    page.go_back()
    edits_listed(page, 1)
    page.get_by_role("button", name="Undo all").click()
    expect(page.get_by_test_id("edit")).to_have_count(0)


def test_edits_outlive_other_pages_and_end_with_another_model(page):
    page.keyboard.press("x")
    edits_listed(page, 1)
    go(page, "Masks")
    at_rest(page)
    go(page, "Heads")
    edits_listed(page, 1)
    box = page.get_by_label("Text", exact=True)
    box.fill("Another text.")
    box.press("Control+Enter")
    expect(page.get_by_test_id("headline")).to_contain_text("tokens")
    edits_listed(page, 1)
    page.get_by_role("combobox", name=re.compile("Model")).click()
    page.get_by_role("option", name="tiny-attention-only").click()
    expect(page.get_by_test_id("headline")).to_contain_text("tiny-attention-only")
    expect(page.get_by_test_id("edit")).to_have_count(0)


def test_the_map_of_removals_leads_to_its_heads(page):
    drawn = page.get_by_test_id("headwise-numbers")
    expect(drawn).to_contain_text("Click a head to look at it")
    base = drawn.locator(".hw-base")
    drawn.scroll_into_view_if_needed()
    left, top, width, height = (float(x) for x in base.get_attribute("data-plot").split(","))
    box = drawn.locator(".hw-over").bounding_box()
    x, y = box["x"] + left + 2.5 * width, box["y"] + top + 3.5 * height
    page.mouse.move(x, y)
    value = wanted(edits.MeanHead(3, 2))
    readout = drawn.get_by_test_id("headwise-readout")
    expect(readout).to_contain_text("layer 3 → head 2")
    assert float(readout.inner_text().split()[-1]) == pytest.approx(value, abs=1e-3 + 1e-3 * abs(value))
    page.mouse.click(x, y)
    shows(page, 3, 2)


def test_nothing_leaves_the_window(page):
    """The panel stands inside the window's width, its buttons and numbers on the first screen at 1,280."""
    page.keyboard.press("x")
    edits_listed(page, 1)
    width, height = page.viewport_size["width"], page.viewport_size["height"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    panel = page.locator(".st-key-part-whatif").bounding_box()
    assert panel["x"] >= 0 and panel["x"] + panel["width"] <= width
    page.evaluate("document.querySelector('[data-testid=stMain]').scrollTo(0, 0)")
    numbers = page.get_by_test_id("effect").bounding_box()
    assert numbers["y"] + numbers["height"] <= height


def test_a_picture(visit):
    page = visit(model="tiny-vit", layer="2", head="1")
    panel(page)
    page.keyboard.press("x")
    edits_listed(page, 1)
    subject = load("tiny-vit")
    assert subject.family == "vision"
    expect(page.get_by_test_id("effect")).to_contain_text("Δ logit")
    page.keyboard.press("e")  # the heatmap comes, where a cell is an edge
    expect(head(page)).to_have_attribute("data-view", "heatmap")
    at_rest(page)
    click_cell(page, 10, 20)
    edits_listed(page, 2)
    links_to(page, edits="mean-2-1~forbid-2-1-10-20")
    swap = page.get_by_role("button", name="Swap the pattern")
    expect(swap).to_be_disabled()
    swap.hover(force=True)
    expect(page.get_by_text("A pattern is borrowed from a text; this model takes none.")).to_be_visible()


def test_a_recording(browser, app_url, whisper_folder):
    with opened(browser, link(app_url, model="whisper-tiny-en", stack="cross", layer="2", head="1")) as page:
        panel(page)
        page.keyboard.press("x")
        edits_listed(page, 1)
        links_to(page, edits="mean-cross-2-1")
        expect(page.get_by_test_id("effect")).to_contain_text("Δ log P")
        page.get_by_role("button", name="Write it anew under the edits").click()
        expect(page.get_by_test_id("now-says")).to_contain_text("now says")
        shows(page, 2, 1)
