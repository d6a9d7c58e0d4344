"""The Circuits page in a real Chromium: point, click a part, follow it to its head, come back, share, take home."""

import io

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from tests.browser.opening import SLOW, at_rest, downloaded, go, links_to, shows

TEXT = "The people of the United"


def part(page: Page, key: str):
    return page.get_by_test_id("circuit-graph").locator(f"[data-key='{key}']")


@pytest.fixture
def page(visit):
    found = visit(text=TEXT)
    go(found, "Circuits")
    expect(found.get_by_test_id("circuit-graph")).to_be_visible(timeout=SLOW)
    return found


def test_point_at_a_part_click_it_and_follow_it_to_its_head(page):
    expect(page.get_by_test_id("restored").first).to_contain_text("restored by")
    page.mouse.move(5, 5)
    key = page.get_by_test_id("circuit-graph").locator("[data-key*=' head ']").first.get_attribute("data-key")
    layer, number = key.split()[-2:]
    head, name = part(page, key), f"Head {layer}·{number}"
    wires = page.get_by_test_id("circuit-graph").locator(".wire")
    assert wires.count() > 5
    head.hover()
    expect(page.get_by_test_id("circuit-graph").locator(".wire.off").first).to_be_attached()
    head.click()
    links_to(page, layer=layer, head=number)
    expect(page.get_by_text(name, exact=True)).to_be_visible(timeout=SLOW)
    other = page.get_by_test_id("circuit-graph").locator("[data-key*=' mlp ']").first
    key = other.get_attribute("data-key")
    other.focus()
    page.keyboard.press("Enter")
    links_to(page, part=key)
    expect(page.get_by_text("what it hears, and who hears it")).to_be_visible(timeout=SLOW)
    head.click()
    expect(page.get_by_text(name, exact=True)).to_be_visible(timeout=SLOW)
    page.wait_for_url(lambda url: "part=" not in url)
    at_rest(page)
    page.get_by_role("link", name="Look at this head").click()
    shows(page, int(layer), int(number))
    assert "/circuits" not in page.url
    at_rest(page)
    page.go_back()
    expect(page.get_by_test_id("circuit-graph")).to_be_visible(timeout=SLOW)


def test_switch_compare_and_take_home(page):
    page.get_by_role("button", name="mean", exact=True).click()
    links_to(page, corruption="mean")
    expect(page.get_by_test_id("restored").first).to_contain_text("the mean over the input", timeout=SLOW)
    page.get_by_role("radio", name="Values", exact=True).or_(
        page.get_by_role("button", name="Values", exact=True)
    ).first.click()
    links_to(page, kind="V")
    table = pd.read_csv(io.BytesIO(downloaded(page, "CSV", 0)))
    assert list(table.columns[:3]) == ["from", "to", "into"] and len(table) > 3
    picture = downloaded(page, "SVG", 0)
    assert picture.startswith(b"<?xml") and b"MLP" in picture
    assert downloaded(page, "PNG", 0).startswith(b"\x89PNG")


@pytest.mark.parametrize("width", [1280, 1024])
def test_it_fits(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_timeout(600)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box = page.get_by_test_id("circuit-graph").bounding_box()
    assert box["x"] + box["width"] <= width and box["height"] > 60
