"""A series and a score in a real Chromium: drawn along both edges, read by pointing, written on, listened to."""

import base64
import io
import re

import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.opening import at_rest, downloaded, head, links_to, shows

COLOURS = {"series": (11, 110, 153), "soprano": (79, 151, 182), "bass": (117, 161, 113)}  # notes let the page through


def base(page: Page):
    return head(page).locator(".hw-base")


def place(page: Page) -> tuple[float, float, float, float]:
    """Left, top, width and height of the cells."""
    return tuple(float(side) for side in base(page).get_attribute("data-plot").split(","))


def pixels(page: Page) -> np.ndarray:
    """(height, width, 3), one for each CSS pixel."""
    url, ratio = base(page).evaluate("canvas => [canvas.toDataURL('image/png'), devicePixelRatio]")
    image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGBA")
    sheet = Image.new("RGBA", image.size, "white")
    sheet.alpha_composite(image)
    return np.asarray(sheet.convert("RGB").resize([round(side / ratio) for side in image.size])).astype(int)


def close_to(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.abs(image - np.array(colour)).max(-1) < 40


def point(page: Page, row: float, column: float) -> None:
    left, top, w, h = place(page)
    head(page).locator(".hw-stage").scroll_into_view_if_needed()
    box = base(page).bounding_box()
    page.mouse.move(box["x"] + left + (column + 0.5) * w, box["y"] + top + (row + 0.5) * h)


def test_a_series_along_both_edges(visit):
    page = visit(model="tiny-forecaster", temperature="0")
    page.set_viewport_size({"width": 1500, "height": 1300})  # where a row of the head is more than a few pixels
    shows(page, 1, 3)
    at_rest(page)
    assert base(page).bounding_box()["height"] > 560
    names = [tick.split("@") for tick in head(page).locator(".hw-base").get_attribute("data-key-ticks").split(",")]
    left, top, w, h = place(page)
    for name, x in names:  # a year begins every twelve cells
        assert (
            float(x) == left + 12 * w * (int(name) - 1990) or abs(float(x) - left - 12 * w * (int(name) - 1990)) < 0.1
        )
    image = pixels(page)
    over, beside = image[4 : int(top) - 30, int(left) : int(left + 120 * w)], image[int(top) : int(top + 120 * h), 2:50]
    dark = (over.max(-1) < 110).argmax(0)  # of each column the highest dark pixel: the line
    # carbon dioxide rises: the line of the last year is higher than that of the first
    assert np.median(dark[-int(12 * w) :]) < np.median(dark[: int(12 * w)]) - 15
    assert (beside.max(-1) < 180).any(1).mean() > 0.9  # a line in nearly every row, between two pixels at times

    point(page, 111, 100)
    expect(head(page).locator(".hw-readout")).to_contain_text("query 111 ‘Apr 1999: ")
    expect(head(page).locator(".hw-readout")).to_contain_text("→ key 100 ‘May 1998: ")

    at_rest(page)
    page.get_by_role("button", name="Write a year").click()
    expect(page.get_by_test_id("headline")).to_contain_text("132 months")
    expect(base(page)).to_have_attribute("data-key-ticks", re.compile("2000@"))
    left, top, w, h = place(page)
    written = close_to(pixels(page), COLOURS["series"])[4 : int(top) - 30]
    columns = np.where(written.any(0))[0]
    assert columns.min() >= left + 118 * w and columns.max() > left + 130 * w  # the model's own, and no other

    svg = downloaded(page, "SVG").decode()
    assert ">1990</text>" in svg and "ppm</text>" in svg


def test_a_score_as_a_piano_roll(visit):
    page = visit(model="tiny-music", temperature="0")
    shows(page, 2, 1)
    expect(page.locator("audio")).to_have_count(1)
    at_rest(page)
    left, top, w, _h = place(page)
    image = pixels(page)
    roll = image[2 : int(top) - 28, int(left) : int(left + 257 * w)]
    rows = {voice: np.where(close_to(roll, COLOURS[voice]).any(1))[0] for voice in ("soprano", "bass")}
    assert rows["soprano"].mean() < rows["bass"].mean() - 20  # the soprano is above the bass
    point(page, 200, 150)
    expect(head(page).locator(".hw-readout")).to_contain_text(re.compile(r"query 200 ‘[SATB]\s\(?[A-G].* → key 150 ‘"))
    page.get_by_role("button", name="Write a bar").click()
    expect(page.get_by_test_id("headline")).to_contain_text("289 notes")
    at_rest(page)
    page.get_by_role("radio", name="The continuation").click()
    shorter = (
        "(() => { const audio = document.querySelector('audio'); return audio?.duration < 10 && audio.duration; })()"
    )
    seconds = page.wait_for_function(shorter).json_value()
    assert 2.5 < seconds < 3.5  # a bar of eight eighths at 0.36 s; all of it lasts 26 s
    at_rest(page)
    page.get_by_role("button", name="Start over").click()
    expect(page.get_by_test_id("headline")).to_contain_text("257 notes")


def test_a_view_of_a_series_is_a_link(visit):
    page = visit(model="tiny-forecaster", layer="0", head="2", pin="query-100")
    shows(page, 0, 2)
    links_to(page, model="tiny-forecaster", layer="0", head="2", pin="query-100")
    expect(head(page).locator(".hw-readout")).to_contain_text("query 100 ‘May 1998: ")
