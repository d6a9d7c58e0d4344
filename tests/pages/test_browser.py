"""What a person does on the Heads page, in a real Chromium."""

import io
import re

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from headwise import capture, sweep
from headwise.models import load
from tests.browser.opening import SLOW, address, at_rest, downloaded, grid, head, links_to, shows

TEXT = "The people of the United States and the people of the world."


@pytest.fixture
def page(visit):
    return visit()


def type_text(page: Page, text: str) -> None:
    box = page.get_by_label("Text", exact=True)
    box.fill(text)
    box.press("Control+Enter")
    tokens = len(load("tiny-decoder").encode(text).axes["input"])
    expect(page.get_by_test_id("headline")).to_contain_text(f"{tokens} tokens")
    expect(page.get_by_test_id("headline")).not_to_contain_text("measuring")


def choose(page: Page, layer: int, number: int) -> None:
    """Click a head in the grid, where the canvas says that it stands."""
    base = grid(page).locator(".hw-base")
    left, top, step_x, step_y = (float(x) for x in base.get_attribute("data-plot").split(","))
    box = grid(page).locator(".hw-over").bounding_box()
    page.mouse.click(box["x"] + left + (number + 0.5) * step_x, box["y"] + top + (layer + 0.5) * step_y)
    shows(page, layer, number)


def test_type_choose_look_download_and_share(page, browser):
    type_text(page, TEXT)
    choose(page, 2, 3)
    page.keyboard.press("ArrowRight")
    shows(page, 2, 4)
    page.keyboard.press("ArrowUp")
    shows(page, 1, 4)

    page.get_by_role("button", name="Log").or_(page.get_by_role("radio", name="Log")).first.click()
    page.get_by_role("button", name="Bipartite").or_(page.get_by_role("radio", name="Bipartite")).first.click()
    page.get_by_text("Merge words").click()
    expect(page.get_by_text("keys summed, queries averaged")).to_be_visible()

    table = pd.read_csv(io.BytesIO(downloaded(page, "CSV", 0)))
    expected = sweep(capture(load("tiny-decoder"), TEXT))
    assert list(table["head"]) == list(expected["head"])
    for name in ("entropy", "previous", "forbidden"):
        assert (table[name] - expected[name]).abs().max() < 1e-6

    links_to(page, words="1")
    assert {k: address(page)[k] for k in ("text", "layer", "head", "view", "scale", "words")} == {
        "text": TEXT,
        "layer": "1",
        "head": "4",
        "view": "bipartite",
        "scale": "log",
        "words": "1",
    }
    other = browser.new_context(viewport={"width": 1500, "height": 1000}).new_page()
    other.goto(page.url)
    shows(other, 1, 4)
    expect(other.get_by_label("Text", exact=True)).to_have_value(TEXT)
    expect(other.get_by_text("keys summed, queries averaged")).to_be_visible()
    assert other.get_by_test_id("headwise-readout").last.inner_text()
    other.context.close()


@pytest.mark.parametrize(("label", "starts"), [("PNG", b"\x89PNG"), ("SVG", b"<"), ("NPZ", b"PK"), ("BertViz", b"<")])
def test_downloads(page, label, starts):
    type_text(page, TEXT)
    assert downloaded(page, label, 0).startswith(starts)


def test_a_figure_for_a_paper_and_numbers_of_one_head(page):
    page.get_by_role("button", name="For a paper").click()
    width = page.get_by_role("spinbutton", name="Width in cm")
    width.fill("8.5")
    width.press("Enter")
    page.get_by_text("Numbers of the whole layer").click()
    page.keyboard.press("Escape")
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+)", downloaded(page, "PDF", 0))
    assert float(box[1]) / 72 * 2.54 == pytest.approx(8.5, abs=0.01)
    assert np.load(io.BytesIO(downloaded(page, "NPZ", 0)))["weights"].shape[1] == 1


def test_hover_reads_the_exact_weight(page):
    type_text(page, TEXT)
    choose(page, 1, 2)
    at_rest(page)
    base = head(page).locator(".hw-base")
    left, top, width, height = (float(x) for x in base.get_attribute("data-plot").split(","))
    box = head(page).locator(".hw-over").bounding_box()
    query, key = 6, 4
    page.mouse.move(box["x"] + left + (key + 0.5) * width, box["y"] + top + (query + 0.5) * height)
    weight = float(capture(load("tiny-decoder"), TEXT).find(1).weights(2)[0, query, key])
    readout = head(page).get_by_test_id("headwise-readout")
    expect(readout).to_contain_text(f"query {query}")
    shown = float(re.search(r"([\d.e+-]+)\s*$", readout.inner_text()).group(1))
    assert shown == pytest.approx(weight, rel=2e-3)


def test_long_text_is_pooled_and_zooms_to_full_resolution(page):
    words = " ".join(f"The Congress met {i} times." for i in range(500))
    box = page.get_by_label("Text", exact=True)
    box.fill(words)
    box.press("Control+Enter")
    page.get_by_test_id("stCheckbox").get_by_text("Cut after").click()
    expect(page.get_by_test_id("headline")).to_contain_text("2,048 tokens")
    expect(page.get_by_text("each cell is the largest of 4 × 4 positions")).to_be_visible()
    over = head(page).locator(".hw-over").bounding_box()
    left, top, width, height = (float(x) for x in head(page).locator(".hw-base").get_attribute("data-plot").split(","))
    page.mouse.move(over["x"] + left + 10 * width, over["y"] + top + 200 * height)
    page.mouse.down()
    page.mouse.move(over["x"] + left + 60 * width, over["y"] + top + 260 * height, steps=5)
    page.mouse.up()
    expect(page.get_by_text("each cell is the largest of")).not_to_be_visible()
    page.wait_for_url(re.compile("zoom="))
    zoom = [int(x) for x in address(page)["zoom"].split("-")]
    assert zoom[1] - zoom[0] <= 300 and zoom[3] - zoom[2] <= 300 and zoom[0] >= 700


def test_dark_theme_and_narrow_window(browser, app_url):
    context = browser.new_context(viewport={"width": 700, "height": 900}, color_scheme="dark")
    page = context.new_page()
    page.goto(app_url)
    expect(head(page)).to_be_visible(timeout=SLOW)
    dark = page.locator(".stApp").evaluate("e => getComputedStyle(e).backgroundColor")
    assert dark == "rgb(18, 23, 29)"
    context.close()


def corners(page: Page, *parts: str) -> list[dict[str, float]]:
    return [page.locator(f".st-key-part-{part}").bounding_box() for part in parts]


@pytest.mark.parametrize("width", [1280, 1500])
def test_a_laptop_shows_all_heads_one_and_what_it_does_beside_each_other(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    left, middle, right = corners(page, "left", "head", "right")
    assert left["x"] + left["width"] <= middle["x"] and middle["x"] + middle["width"] <= right["x"]
    assert page.locator(".st-key-bar").bounding_box()["y"] < 70  # no empty band above,
    assert max(box["y"] for box in (left, middle, right)) < 270  # also with the line of a first visit
    drawn = head(page).locator(".hw-base").bounding_box()
    assert drawn["y"] + drawn["height"] <= 800  # the whole head, without scrolling
    for part in (grid(page), page.get_by_test_id("does"), page.get_by_test_id("effect")):
        box = part.bounding_box()
        assert box["y"] + box["height"] < 800


def test_a_projector_shows_all_heads_and_one_with_what_if_below_the_grid(page):
    page.set_viewport_size({"width": 1024, "height": 768})
    all_heads, one, what_if, does = corners(page, "grid", "one", "whatif", "does")
    assert all_heads["x"] + all_heads["width"] <= one["x"]
    assert what_if["x"] == pytest.approx(all_heads["x"], abs=2)
    assert what_if["y"] >= all_heads["y"] + all_heads["height"] and what_if["y"] < 768
    assert does["x"] == pytest.approx(one["x"], abs=2) and does["y"] >= one["y"] + one["height"]
    drawn = head(page).locator(".hw-base").bounding_box()
    assert drawn["y"] + drawn["height"] <= 768  # the whole of it, without scrolling


@pytest.mark.parametrize("width", [600, 800])
def test_a_narrow_window_stacks_in_the_order_of_reading(page, width):
    """The head, what it does, then all heads; and nothing is wider than the window."""
    page.set_viewport_size({"width": width, "height": 1000})
    parts = corners(page, "one", "does", "whatif", "files", "grid", "measures")
    assert sorted(parts, key=lambda box: box["y"]) == parts
    assert max(box["x"] + box["width"] for box in parts) <= width
    main = page.get_by_test_id("stMain")
    assert main.evaluate("e => e.scrollWidth") <= width
