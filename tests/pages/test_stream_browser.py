"""The Stream page in a real Chromium: ask, look into a cell, switch, follow a part to its head, come back, share."""

import io
import re

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from headwise import capture, lens
from headwise.interp.analysis.targets import target
from headwise.models import load
from tests.browser.opening import SLOW, address, at_rest, downloaded, go, links_to, shows

TEXT = "The people of the United States and the people of the"


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).or_(
        page.get_by_role("radio", name=name, exact=True)
    ).first.click()


def cell(page: Page, row: int, column: int, view: str = "stream-cells"):
    """Of a table's rows and columns as drawn."""
    return page.get_by_test_id(view).first.locator(f"td[data-r='{row}'][data-c='{column}']")


def choose(page: Page, field: str, word: str) -> None:
    box = page.get_by_role("combobox", name=re.compile(field))
    box.click()
    box.fill(word)
    box.press("Enter")


@pytest.fixture
def page(visit):
    found = visit(text=TEXT)
    go(found, "Stream")
    expect(found.get_by_test_id("stream-cells").first).to_be_visible()
    expect(found.get_by_test_id("stream-bars").first).to_be_visible()
    return found


def question(page: Page):
    return page.get_by_test_id("question")


def test_ask_look_into_a_cell_and_switch(page):
    choose(page, "Answer", "people")
    expect(question(page)).to_contain_text("Why ·people rather than")
    choose(page, "Rather than", "United")
    expect(question(page)).to_have_text("Why ·people rather than ·United?")
    links_to(page, answer="people", against="United")

    early = lens(capture(load("tiny-decoder"), TEXT))
    expect(cell(page, 2, 4)).to_have_text(early.best_labels[2][4].replace(" ", "·"))  # of five rows the middle one
    cell(page, 2, 4).click()
    links_to(page, row="2", position="4")
    _, best, chance = early.top(2, 4, 1)[0]
    expect(page.get_by_text(re.compile("After 1")).first).to_be_visible()
    top = page.get_by_test_id("stream-bars").filter(has_text="%").first
    expect(top).to_contain_text(best.replace(" ", "·"))
    expect(top).to_contain_text(f"{chance:.0%}" if chance >= 0.0995 else f"{chance:.1%}")
    page.keyboard.press("ArrowUp")
    expect(cell(page, 1, 4)).to_have_attribute("aria-selected", "true")
    links_to(page, row="3", position="4")
    page.keyboard.press("ArrowRight")
    links_to(page, row="3", position="5")

    press(page, "Rank")
    expect(page.get_by_test_id("stream-cells").locator(".legend")).to_contain_text("rank of ·people")
    press(page, "Norms")
    expect(cell(page, 4, 0)).to_have_text(re.compile(r"^[\d.]+k?$"))
    links_to(page, reading="norms")
    press(page, "Turn")
    expect(cell(page, 0, 0)).to_have_text(re.compile(r"^−?\d\.\d\d$"))
    press(page, "Tuned")
    links_to(page, reading="tuned")
    expect(page.get_by_text(re.compile("tuned lens", re.I)).first).to_be_visible()


def test_follow_a_part_to_its_head_and_come_back(page):
    choose(page, "Answer", "people")
    links_to(page, answer="people")
    choose(page, "Rather than", "United")
    expect(question(page)).to_have_text("Why ·people rather than ·United?")
    at_rest(page)
    part = page.locator("a.line").first
    layer, number = map(int, re.search(r"(\d+)\.(\d+)", part.inner_text()).groups())
    assert f"layer={layer}&head={number}" in part.get_attribute("href")
    part.click()
    shows(page, layer, number)
    links_to(page, layer=str(layer), head=str(number), text=TEXT, answer="people", rather="United")
    assert "/stream" not in page.url
    at_rest(page)
    page.go_back()
    expect(question(page)).to_have_text("Why ·people rather than ·United?")
    expect(page.locator("a.line").first).to_be_visible()

    press(page, "Map")
    links_to(page, parts="map")
    grid = page.locator("[data-view=cells]").last
    expect(grid.locator("td a")).to_have_count(32)
    grid.locator("td a").nth(8 + 3).click()  # the second row from the top, which is layer 2 of 0 … 3
    shows(page, 2, 3)


def test_a_part_in_a_window_of_its_own(page, browser):
    at_rest(page)
    link = page.locator("a.line").first
    layer, number = map(int, re.search(r"(\d+)\.(\d+)", link.inner_text()).groups())
    other = browser.new_context().new_page()
    other.goto(link.evaluate("a => a.href"))
    shows(other, layer, number)
    expect(other.get_by_label("Text", exact=True)).to_have_value(TEXT)
    other.context.close()


def test_a_copied_address_opens_the_same_view(page, browser):
    choose(page, "Answer", "people")
    links_to(page, answer="people")
    cell(page, 3, 2).click()
    links_to(page, row="1", position="2")
    press(page, "Positions")
    links_to(page, parts="positions")
    other = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="dark").new_page()
    other.goto(page.url)
    expect(question(other)).to_contain_text("Why ·people", timeout=SLOW)
    expect(cell(other, 3, 2)).to_have_attribute("aria-selected", "true", timeout=SLOW)
    expect(other.get_by_text("not through heads")).to_be_visible()
    other.context.close()


@pytest.mark.parametrize("width, beside", [(1500, True), (1280, True), (1024, False)])
def test_nothing_is_cut_off(page, width, beside):
    page.set_viewport_size({"width": width, "height": 800})
    table, parts = page.get_by_test_id("stream-cells").first, page.locator("[data-view=bars]:has(.sums)")
    expect(parts).to_be_visible()
    page.wait_for_timeout(300)
    left, right = table.bounding_box(), parts.bounding_box()
    assert (right["x"] > left["x"] + left["width"]) is beside
    assert (right["y"] > left["y"] + left["height"]) is not beside
    main = page.get_by_test_id("stMain")
    assert main.evaluate("e => e.scrollWidth - e.clientWidth") <= 0
    for name in ("sum", "the model’s own", "not explained"):
        line = parts.locator(".sums .line").filter(has_text=name).locator("em")
        assert line.evaluate("e => e.scrollWidth <= e.clientWidth + 1")
    answer = table.locator("th[aria-current=true]")  # the column of the answer is in sight
    box, spot = table.locator(".box").bounding_box(), answer.bounding_box()
    assert box["x"] <= spot["x"] and spot["x"] + spot["width"] <= box["x"] + box["width"] + 1


def test_the_same_answer_and_alternative_is_one_sentence(page):
    choose(page, "Answer", "people")
    links_to(page, answer="people")
    choose(page, "Rather than", "people")
    expect(page.get_by_text("are the same")).to_be_visible()
    expect(page.get_by_test_id("stAlert")).to_have_count(1)
    expect(page.get_by_test_id("stream-cells").first).to_be_visible()


def test_downloads(page):
    at_rest(page)
    table = pd.read_csv(io.BytesIO(downloaded(page, "CSV", 0)))
    cap = capture(load("tiny-decoder"), TEXT)
    wanted = lens(cap).table(target(cap).token)
    assert (table["probability"] - wanted["probability"]).abs().max() < 1e-6
    parts = pd.read_csv(io.BytesIO(downloaded(page, "CSV", 1)))
    best = cap.logits[0, -1].topk(2).values
    assert parts["value"].sum() == pytest.approx(float(best[0] - best[1]), abs=1e-4)
    assert downloaded(page, "SVG", 0).startswith(b"<?xml") and downloaded(page, "PNG", 1)[1:4] == b"PNG"


def test_a_picture_is_read_by_its_patches(visit):
    page = visit(model="tiny-vit")
    go(page, "Stream")
    expect(question(page)).to_contain_text("Why 7 rather than")
    expect(page.get_by_test_id("stream-cells").first.locator("thead th")).to_have_count(1 + 50)
    cell(page, 0, 10).click()
    links_to(page, position="10")
    press(page, "Map")
    grid = page.locator("[data-view=cells]").last
    expect(grid.locator("td a")).to_have_count(16)


def test_a_long_text_is_read_in_pages(visit):
    words = "The people of the United States met and spoke of peace. " * 16
    page = visit(text=words.strip())
    go(page, "Stream")
    said = page.get_by_test_id("stream-cells").first.locator(".pages")
    expect(said).to_contain_text(re.compile(r"positions \d+–\d+ of \d+"))
    count = int(re.search(r"of (\d+)", said.inner_text()).group(1))
    expect(page.get_by_test_id("stream-cells").first.locator("thead th")).to_have_count(1 + 96)
    page.get_by_role("button", name="Earlier").click()
    links_to(page, position=str(count - 97))
    expect(said).to_contain_text(f"–{count - 97} of")
    page.get_by_role("button", name="Later").click()
    links_to(page, position=str(count - 96))
    assert address(page)["row"] == "4"
