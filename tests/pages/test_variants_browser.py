"""The Variants page in a real Chromium: turn a slider, choose another mechanism, time it, share, take home."""

import io

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from tests.browser.opening import SLOW, at_rest, downloaded, go, links_to

TEXT = "The people of the United States have a right to know what the government of the United States does."


def facts(page: Page, side: str):
    return page.locator(f".st-key-variant-{side}").get_by_test_id("variant-facts")


@pytest.fixture
def page(visit):
    found = visit(text=TEXT)
    go(found, "Variants")
    expect(facts(found, "right")).to_be_visible(timeout=SLOW)
    at_rest(found)
    return found


def test_a_slider_is_heard_and_travels_in_the_address(page):
    before = facts(page, "left").inner_text()
    slider = page.get_by_role("slider", name="Window")
    slider.focus()
    for _ in range(12):
        page.keyboard.press("ArrowLeft")
    links_to(page, window="4")
    expect(facts(page, "left")).not_to_have_text(before, timeout=SLOW)
    expect(page.get_by_text("Window(4, 0)").first).to_be_visible()


def test_its_pictures_can_be_taken_home(page):
    page.locator(".st-key-variants-left-files").get_by_role("button").click()
    png, svg = (downloaded(page, kind) for kind in ("PNG", "SVG"))
    assert png[1:4] == b"PNG"
    assert b"Longformer" in svg  # the small print says through what
    assert downloaded(page, "CSV").decode("utf-8-sig").startswith("query / key")


def test_another_mechanism_its_time_here_and_its_numbers(page):
    page.locator(".st-key-variant-left").get_by_role("combobox").first.click()
    page.get_by_role("option", name="BigBird", exact=True).click()
    links_to(page, left="bigbird")
    expect(page.get_by_role("slider", name="Random blocks")).to_be_visible(timeout=SLOW)
    at_rest(page)
    page.get_by_text("Measure it here").click()
    expect(page.get_by_text("fitted from")).to_be_visible(timeout=SLOW)
    times = pd.read_csv(io.BytesIO(downloaded(page, "CSV", -1)))
    assert list(times.columns) == ["mechanism", "tokens", "seconds"]
    assert (times.seconds > 0).all()


@pytest.mark.parametrize("width", [1500, 1280, 1024])
def test_it_fits(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_timeout(600)
    main = page.get_by_test_id("stMain")
    assert main.evaluate("e => e.scrollWidth <= e.clientWidth")
    tops = [page.locator(f".st-key-variant-{side} canvas").first.bounding_box() for side in ("full", "left", "right")]
    assert max(box["y"] + box["height"] for box in tops) < 800  # all three pictures on one screen
    assert max(box["y"] for box in tops) - min(box["y"] for box in tops) < 12  # in one line


def test_recall_and_another_order(page):
    page.get_by_role("radio", name="Trained alike").click()
    links_to(page, part="trained")
    expect(page.get_by_test_id("trained").get_by_text("Transformer-XL")).to_be_visible(timeout=SLOW)
    page.get_by_role("radio", name="In another order").click()
    expect(page.get_by_test_id("order-said")).to_contain_text("nats a token", timeout=SLOW)
    page.get_by_role("radio", name="Right to left").click()
    links_to(page, way="right to left")
    at_rest(page)
    page.locator(".st-key-variants-order-query canvas.hw-over").first.click(position={"x": 20, "y": 200})
    page.wait_for_url("**asked=**")
    page.go_back()
    expect(page.get_by_test_id("order-said")).to_be_visible(timeout=SLOW)
