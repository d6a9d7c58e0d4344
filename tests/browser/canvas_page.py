"""One page of tests/browser/canvas_app.py in a real browser: what it shows, what it says, what it sends back."""

import functools
import json
import re

import pytest
from playwright import sync_api

from tests.browser.serving import ROOT, serve


@pytest.fixture(scope="module")
def server():
    with serve(ROOT / "tests" / "browser" / "canvas_app.py") as url:
        yield url


@pytest.fixture(scope="module")
def contexts(browser):
    """One context per pixel ratio: what it has cached of Streamlit makes the next page quick."""
    return functools.cache(lambda ratio: browser.new_context(device_scale_factor=ratio))


class Picture:
    """One open page of canvas_app.py."""

    def __init__(self, page, url):
        self.page, self.url = page, url
        self.readout = page.get_by_test_id("headwise-readout")
        self.legend = page.get_by_test_id("headwise-legend")
        self.stage = page.locator(".hw-stage")
        self.root = page.locator(".hw")

    def open(self, case):
        self.page.goto(f"{self.url}/?case={case}")
        self.wait_drawn(1)
        return self

    def wait_drawn(self, count):
        """Wait for the count-th full drawing (a cold server imports torch first); the canvas's data: drawn, plot …"""
        sync_api.expect(self.page.locator(f".hw-base[data-drawn='{count}']")).to_be_attached(timeout=30_000)
        return self.data()

    def data(self):
        return self.page.locator(".hw-base").evaluate("canvas => ({...canvas.dataset})")

    def plot(self):
        """Heatmap: left, top, cell width and height. Grid: left, top, steps. Edges: left, right, top, row."""
        return [float(x) for x in self.data()["plot"].split(",")]

    def at(self, column, row):
        """The middle of a heatmap's cell, or of a grid's thumbnail, on the page."""
        left, top, width, height = self.plot()
        box = self.page.locator(".hw-over").bounding_box()
        return box["x"] + left + (column + 0.5) * width, box["y"] + top + (row + 0.5) * height

    def label(self, row):
        """A query's label left of a heatmap."""
        return self.at(0, row)[0] - self.plot()[2] / 2 - 20, self.at(0, row)[1]

    def token(self, axis, row):
        """A token of a bipartite view."""
        left, right, top, height = self.plot()
        box = self.page.locator(".hw-over").bounding_box()
        x = left - 20 if axis == "query" else right + 20
        return box["x"] + x, box["y"] + top + (row + 0.5) * height

    def hover(self, point):
        self.page.mouse.move(*point)

    def keys_at_once(self, *keys):
        """Keys pressed faster than any machine's round trip."""
        press = "key => stage.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }))"
        self.stage.evaluate(f"(stage, keys) => keys.forEach({press})", keys)

    def drag(self, start, end):
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move(*[(a + b) / 2 for a, b in zip(start, end, strict=True)])
        self.page.mouse.move(*end)
        self.page.mouse.up()

    def says(self, text):
        sync_api.expect(self.readout).to_have_text(text, timeout=10_000)

    def sent(self, *events):
        """Exactly these events reached Python, in this order."""
        sync_api.expect(self.page.get_by_text("events ")).to_have_text(
            "events " + json.dumps(list(events)), timeout=10_000
        )

    def rerun(self):
        """Rerun the script with new numbers, without moving mouse or focus."""
        self.page.get_by_role("button", name="rerun").evaluate("button => button.click()")

    def coloured(self, rgb):
        """How many pixels of the data canvas have exactly this colour, and their box in CSS pixels."""
        return self.page.locator(".hw-base").evaluate(
            """(canvas, [r, g, b]) => {
                const { width, height } = canvas;
                const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
                const box = [Infinity, Infinity, -1, -1];
                let count = 0;
                for (let y = 0, i = 0; y < height; y++) for (let x = 0; x < width; x++, i += 4) {
                    if (data[i] !== r || data[i + 1] !== g || data[i + 2] !== b) continue;
                    count++;
                    box[0] = Math.min(box[0], x), box[1] = Math.min(box[1], y);
                    box[2] = Math.max(box[2], x + 1), box[3] = Math.max(box[3], y + 1);
                }
                return { count, box: box.map((v) => v / devicePixelRatio) };
            }""",
            rgb,
        )

    def pixel(self, point):
        """The colour of the data canvas at a place on the page."""
        box = self.page.locator(".hw-over").bounding_box()
        return self.page.locator(".hw-base").evaluate(
            "(canvas, [x, y]) => [...canvas.getContext('2d').getImageData("
            "x * devicePixelRatio, y * devicePixelRatio, 1, 1).data]",
            [point[0] - box["x"], point[1] - box["y"]],
        )


@pytest.fixture
def picture(server, contexts):
    """picture(case, theme, width, ratio) → Picture. Holds that no console error and no request elsewhere."""
    pages, troubles, hosts = [], [], set()

    def start(case, theme="light", width=1000, ratio=2):
        context = contexts(ratio)
        page = context.new_page()
        pages.append(page)
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme)
        page.on("console", lambda message: message.type == "error" and troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: hosts.add(re.sub(r"^(\w+:(//[^/]*)?).*", r"\1", request.url)))
        return Picture(page, server).open(case)

    yield start
    for page in pages:
        page.close()
    assert troubles == []
    assert hosts <= {server, server.replace("http", "ws"), "data:", "blob:"}, "a request left the host"
