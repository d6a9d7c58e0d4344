"""The canvas in a real browser: what it shows, what it says, what it sends back."""

import json
import math
import re

import numpy as np
import pytest
import torch
from playwright import sync_api

from headwise.assets import ASSETS
from headwise.interp.attention.axes import Sound
from headwise.interp.drawing.canvas import CANVAS, UNREAD, script
from headwise.interp.drawing.matrix import LEAK, Matrix, Span
from headwise.interp.drawing.paper.text import visible
from headwise.interp.drawing.quantities import Quantity
from headwise.pages._shared import canvas as _canvas
from tests.browser import canvas_page

server, contexts, picture = canvas_page.server, canvas_page.contexts, canvas_page.picture

ALARM = {"light": [0xE0, 0x34, 0x0B], "dark": [0xFF, 0x55, 0x30]}


# --- packing --------------------------------------------------------------------------------------------


def unpack(message):
    """The same format, read a second time: header and arrays."""
    size = int.from_bytes(message[:4], "little")
    header, body = json.loads(message[4 : 4 + size]), message[4 + size :]
    arrays = {}
    for entry in header.pop("arrays"):
        assert (4 + size + entry["offset"]) % 4 == 0, "the browser can read float32 only from a multiple of 4"
        count = int(np.prod(entry["shape"]))
        array = np.frombuffer(body, f"<{entry['dtype']}", count, entry["offset"])
        arrays[entry["name"]] = array.reshape(entry["shape"])
    return header, arrays


def test_pack_keeps_every_bit():
    matrix = np.array([[0.1, np.nan, -np.inf], [1e-38, 1, 3]], np.float32)
    mask = np.array([[1, 0, 2]], np.uint8)
    header, arrays = unpack(_canvas.pack({"title": "é ⏎ \ud83d"}, mask=mask, matrix=matrix))
    assert header == {"title": "é ⏎ \ud83d"}  # half of a surrogate pair is a token that byte-level models can make
    assert arrays["matrix"].tobytes() == matrix.tobytes()
    assert arrays["mask"].tolist() == mask.tolist()
    with pytest.raises(TypeError, match="float64"):
        _canvas.pack({}, matrix=matrix.astype(np.float64))


def test_the_largest_message_stays_small():
    matrix = np.zeros((512, 512), np.float32)
    message = _canvas.pack({"labels": ["a token"] * 1024}, matrix=matrix, forbidden=matrix.astype(np.uint8))
    assert len(message) <= 2_000_000
    assert len(script()) < 50_000  # it travels with each message


MODULES = [path for path in sorted(ASSETS.glob("*/*.js")) if not path.match("*.min.js") and path.parent.name != "shell"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_travels_is_the_code_without_its_comments(path):
    """Lines of code stay, comments on lines of their own go; a string that goes over lines would lose its indent."""
    source = path.read_text("utf-8")
    assert not [text for text in re.findall(r"`[^`]*`", source) if "\n" in text]
    without = re.sub(r"^\s*/\*\*(.|\n)*?\*/\s*$", "", source, flags=re.MULTILINE)
    code = [line.strip() for line in without.splitlines() if line.strip() and not line.strip().startswith("//")]
    assert [line.rstrip() for line in UNREAD.sub("", source).splitlines() if line.strip()] == code


def five(**change):
    sides = (Span(tuple("abcde"), name) for name in ("queries", "keys"))
    return Matrix(torch.zeros(5, 5), *sides, **change)


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(ValueError, match="heatmap, bipartite, picture, got 'pie'"):
        _canvas.head(five(), key="k", view="pie")
    with pytest.raises(ValueError, match="linear, log, got 'square'"):
        _canvas.head(five(), key="k", scale="square")
    sides = (Span(("",) * count, name) for count, name in ((513, "queries"), (3, "keys")))
    with pytest.raises(ValueError, match=r"each 1 … 512, got \(513, 3\)"):
        _canvas.head(Matrix(torch.zeros(513, 3), *sides), key="k")
    with pytest.raises(ValueError, match="columns: expected 3 labels, one for each, got 2"):
        _canvas.Heads(np.zeros((2, 3, 4, 4)), rows="ab", columns="ab")
    with pytest.raises(ValueError, match="t ≤ 64"):
        _canvas.Heads(np.zeros((2, 3, 65, 65)), rows="ab", columns="abc")


def test_a_message_holds_what_a_matrix_knows(monkeypatch):
    sent = {}
    monkeypatch.setattr(_canvas, "send", lambda key, message: sent.update({key: unpack(message)}))
    sound = Sound(np.zeros((4, 40), np.float32), hop=0.01, step=0.02, seconds=0.3)
    codes = torch.tensor([[0, 1], [0, 3]], dtype=torch.uint8)
    values = torch.tensor([[0.25, 0.0], [0.5, math.nan]])
    rows = Span(("<s>", "a"), "target queries", origin=1, whole=4)
    columns = Span(("0.08 s", "0.12 s"), "source keys", 4, 2, 20, sound)
    change = Quantity("weight difference", "signed")
    matrix = Matrix(values, rows, columns, change, codes, "cross · layer 0", "b − a", ("a note",))
    _canvas.head(matrix, key="one", scale="log", selected={"axis": "key", "index": 5})
    header, arrays = sent["one"]
    assert header["query_labels"] == ["<s>", "a"] and header["axis_names"] == ["target queries", "source keys"]
    assert (header["origin"], header["factor"], header["shape"]) == ([1, 4], [1, 2], [4, 20])
    assert (header["kind"], header["value_name"]) == ("signed", "weight difference, b − a")
    assert (header["title"], header["scale"], header["height"]) == ("cross · layer 0", "log", None)
    assert header["selected"] == {"axis": "key", "index": 5}
    assert header["key_sound"] == {"step": 0.02, "seconds": 0.3, "start": pytest.approx(0.08), "hop": 0.01}
    assert "query_sound" not in header and "grid" not in header
    np.testing.assert_array_equal(arrays["matrix"], values.numpy())
    np.testing.assert_array_equal(arrays["forbidden"], codes.numpy())
    assert arrays["spectrogram"].shape == (4, 8)
    _canvas.head(five(), key="two", view="bipartite")
    assert set(sent["two"][1]) == {"matrix"}, "a mask that forbids nothing is not sent"


def test_one_threshold_and_one_way_to_show_a_token(browser):
    """The browser does by itself what Python does: it tells a leak from rounding, and makes letters visible."""
    source = (CANVAS / "matrix.js").read_text("utf-8")
    assert float(re.search(r"const LEAK = ([\de-]+);", source)[1]) == LEAK
    tokens = [
        " the",
        "a\r\nb",
        "\n\t",
        "\u202eabc",
        "\x00\x7f\x9f",
        "é🙂",
        "\ufeff\u2066x\u2069",
        "\u200b\u2060",
        "x" * 300,
    ]
    shown = (CANVAS / "text.js").read_text("utf-8").replace("export ", "")
    page = browser.new_page()
    theirs = page.evaluate(
        "([source, tokens]) => tokens.map(new Function(source + '; return visible')())", [shown, tokens]
    )
    page.close()
    assert theirs == [visible(token) for token in tokens]


# --- the grid -------------------------------------------------------------------------------------------


def test_grid_click_and_hover(picture):
    grid = picture("grid")
    assert grid.root.get_attribute("data-testid") == "headwise-grid"
    assert grid.root.get_attribute("data-head") == "1.2"
    grid.hover(grid.at(3, 2))
    grid.says("layer 2 · head 3 · entropy 2.1 bits · window 128")
    grid.page.mouse.click(*grid.at(3, 2))
    grid.sent({"layer": 2, "head": 3})
    assert grid.root.get_attribute("data-head") == "2.3"
    assert grid.page.get_by_text("window 128", exact=True).get_attribute("title").startswith("each query sees 128 keys")


def test_grid_keyboard(picture):
    grid = picture("grid")
    grid.stage.focus()
    grid.keys_at_once("ArrowRight", "ArrowRight", "ArrowDown")  # one answer
    grid.sent({"layer": 2, "head": 4})
    grid.page.keyboard.press("Home")
    grid.sent({"layer": 2, "head": 4}, {"layer": 2, "head": 0})
    grid.page.keyboard.press("End")
    grid.sent({"layer": 2, "head": 4}, {"layer": 2, "head": 0}, {"layer": 2, "head": 5})
    grid.says("layer 2 · head 5 · window 128")
    focused = "document.activeElement.shadowRoot.activeElement.className"
    assert grid.page.evaluate(focused) == "hw-stage"  # three reruns later


def test_sorted_grid(picture):
    grid = picture("sorted")
    order = sorted(np.ndindex(4, 6), key=lambda h: (h[1] * 7 + h[0] * 3) % 11)
    grid.page.mouse.click(*grid.at(4, 0))
    grid.sent({"layer": order[4][0], "head": order[4][1]})


# --- the heatmap ----------------------------------------------------------------------------------------


def test_hover_reads_query_key_and_value(picture):
    head = picture("tiny")
    assert head.root.get_attribute("data-testid") == "headwise-head"
    assert head.root.get_attribute("data-head") == "1.2"
    head.hover(head.at(2, 3))
    head.says("query 3 ‘d’ → key 2 ‘x⏎’ · weight 0.3200")
    head.hover(head.at(1, 4))
    head.says("query 4 ‘e’ → key 1 ‘·w’ · weight 0.4100")
    head.hover(head.at(4, 0))
    head.says("query 0 ‘a’ → key 4 ‘z’ · forbidden")
    head.hover(head.label(2))
    head.says("query 2 ‘c’ → ‘x⏎’ 0.2200 · ‘·w’ 0.2100 · ‘v’ 0.2000")
    sync_api.expect(head.legend).not_to_contain_text("weight on forbidden positions")


def test_a_rerun_keeps_hover_and_focus(picture):
    head = picture("tiny")
    head.stage.focus()
    head.hover(head.at(2, 3))
    head.says("query 3 ‘d’ → key 2 ‘x⏎’ · weight 0.3200")
    head.page.locator(".hw-base").evaluate("canvas => { canvas.marker = 1 }")
    head.rerun()
    head.says("query 3 ‘d’ → key 2 ‘x⏎’ · weight 0.3210")
    assert head.page.locator(".hw-base").evaluate("canvas => canvas.marker") == 1
    assert head.page.evaluate("document.activeElement.shadowRoot.activeElement.className") == "hw-stage"
    assert head.data()["drawn"] == "2"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_alarm_marks_the_leak_and_nothing_else(picture, theme):
    head = picture("leak", theme)
    left, top, width, height = head.plot()
    found = head.coloured(ALARM[theme])
    assert found["box"] == pytest.approx([left + 3 * width, top + height, left + 4 * width, top + 2 * height], abs=0.6)
    assert found["count"] > 0.8 * width * height * 4  # all of the cell but its number
    sync_api.expect(head.legend).to_contain_text("weight on forbidden positions (1)")
    head.page.get_by_text("weight on forbidden positions").click()
    head.says("query 1 ‘b’ → key 3 ‘y’ · weight 0.02000 · on a forbidden position")
    for clean in ("tiny", "signed"):
        assert head.open(clean).coloured(ALARM[theme])["count"] == 0


def test_alarm_survives_a_picture_smaller_than_the_matrix(picture):
    head = picture("leak-512", width=420, ratio=1)
    assert head.plot()[2] < 1  # a cell is narrower than a pixel
    assert head.pixel(head.at(400, 200)) == [*ALARM["light"], 255]


def test_only_the_given_mask_is_drawn(picture):
    """Without `forbidden` the upper triangle is data like any other; with it, the given shape decides."""
    head = picture("open")
    sync_api.expect(head.legend).not_to_contain_text("forbidden")
    assert len({tuple(head.pixel(head.at(key + 0.3, 4 - key))) for key in range(5)}) == 1
    head.open("middle")  # a causal window of 32: below the band lies forbidden ground too
    head.hover(head.at(10, 60))
    head.says("query 60 ‘·word60’ → key 10 ‘·word10’ · forbidden")
    head.hover(head.at(40, 60))
    assert "forbidden" not in head.readout.inner_text()


def test_themes_redraw_and_lightness_follows_the_value(picture):
    head = picture("tiny", "light")
    light = [sum(head.pixel(head.at(0.3, row))[:3]) for row in range(5)]  # beside the number
    assert light == sorted(light, reverse=True), "on a light page, more weight is darker"
    drawn = int(head.data()["drawn"])
    head.page.emulate_media(color_scheme="dark")
    head.wait_drawn(drawn + 1)
    dark = [sum(head.pixel(head.at(0.3, row))[:3]) for row in range(5)]
    assert dark == sorted(dark), "on a dark page, more weight is lighter"


def test_drag_zooms_in_full_coordinates(picture):
    head = picture("pooled")
    head.hover(head.at(1, 2))
    sync_api.expect(head.readout).to_contain_text("queries 108–111 → keys 22–23 · max weight 0.")
    head.drag(head.at(3, 2), head.at(8, 5))
    head.sent({"zoom": [108, 124, 26, 38]})
    head.drag(head.at(8, 5), head.at(3, 2))  # from the other corner
    head.sent(*[{"zoom": [108, 124, 26, 38]}] * 2)
    head.drag(head.at(18, 8), head.at(40, 30))  # past the edge
    head.sent(*[{"zoom": [108, 124, 26, 38]}] * 2, {"zoom": [132, 140, 56, 60]})


def test_double_click_zooms_around_and_out_again(picture):
    head = picture("pooled")
    head.page.mouse.dblclick(*head.at(19, 9))
    zoom = {"zoom": [131, 141, 48, 68]}  # 10 queries around 136, 20 keys around 58: no longer pooled
    head.sent(zoom)
    head.page.keyboard.press("Escape")
    head.sent(zoom, {"zoom": None})
    head.page.get_by_test_id("headwise-zoom-out").click()
    head.sent(zoom, {"zoom": None}, {"zoom": None})


def test_keyboard_moves_pins_and_zooms(picture):
    head = picture("words")
    assert not head.page.get_by_test_id("headwise-zoom-out").is_visible()
    head.stage.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight"):  # the first shows the cursor
        head.page.keyboard.press(key)
    sync_api.expect(head.readout).to_contain_text("query 2 ‘·and’ → key 1 ‘·Mary’ · weight 0.9")
    head.page.keyboard.press("Enter")
    pin = {"token": {"axis": "query", "index": 2}, "key": 1}
    head.sent(pin)
    head.page.keyboard.press("Shift+ArrowDown")
    head.page.keyboard.press("Shift+ArrowRight")
    head.says("zoom to queries 2–3 × keys 1–2")
    head.page.keyboard.press("Enter")
    head.sent(pin, {"zoom": [2, 4, 1, 3]})
    head.page.keyboard.press("Escape")
    head.sent(pin, {"zoom": [2, 4, 1, 3]}, {"token": None})
    head.page.keyboard.press("ArrowDown")
    sync_api.expect(head.readout).to_contain_text("query 0 ‘When’ → key 0")
    head.page.get_by_role("button", name="rerun").focus()  # the cursor goes with the focus
    sync_api.expect(head.readout).to_contain_text("Point at a cell")


def test_label_click_pins_and_unpins(picture):
    head = picture("pinned")  # the page says: query 7 is pinned
    sync_api.expect(head.readout).to_contain_text("query 7 ‘·store’ → ‘·the’ 0.9")
    head.page.mouse.click(*head.label(7))
    head.sent({"token": None})
    head.page.mouse.click(*head.label(3))
    head.sent({"token": None}, {"token": {"axis": "query", "index": 3}})


def test_a_cell_pins_its_query_and_tells_its_key(picture):
    """Another cell of the row is another key; the same one again lets go."""
    head = picture("words")
    first, second = ({"token": {"axis": "query", "index": 3}, "key": key} for key in (1, 2))
    head.page.mouse.click(*head.at(1, 3))
    head.sent(first)
    head.page.mouse.click(*head.at(2, 3))
    head.sent(first, second)
    head.page.mouse.click(*head.at(2, 3))
    head.sent(first, second, {"token": None})


def test_a_map_calls_its_rows_and_columns_by_their_names_and_does_not_zoom(picture):
    head = picture("map")
    sync_api.expect(head.root).to_have_attribute("data-testid", "headwise-map")
    sync_api.expect(head.readout).not_to_contain_text("zoom")
    head.hover(head.at(2, 3))
    sync_api.expect(head.readout).to_contain_text("key 3 ‘·John’ → dimension 2 ‘2’ · adds 0.")
    head.drag(head.at(0, 0), head.at(3, 3))
    head.page.keyboard.press("Shift+ArrowDown")
    sync_api.expect(head.readout).not_to_contain_text("zoom")
    head.page.mouse.click(*head.at(4, 5))
    dragged = {"token": {"axis": "query", "index": 3}, "key": 3}  # is a click where it ended
    head.sent(dragged, {"token": {"axis": "query", "index": 5}, "key": 4})


def test_a_click_picks_a_cell_where_that_is_asked_for(picture):
    head = picture("picking")
    head.says("Click a cell to forbid it")
    head.hover(head.at(1, 2))
    head.says("click to forbid this edge: query 2 ‘c’ → key 1 ‘·w’ · weight 0.2100")
    head.page.mouse.click(*head.at(1, 2))
    head.sent({"cell": [2, 1]})
    head.hover(head.at(1, 3))
    head.says("click to take this back: query 3 ‘d’ → key 1 ‘·w’ · weight 0.3100")
    head.page.mouse.click(*head.label(4))  # a label still pins,
    pin = {"token": {"axis": "query", "index": 4}}
    head.sent({"cell": [2, 1]}, pin)
    head.drag(head.at(0, 1), head.at(1, 2))  # a rectangle still zooms,
    zoom = {"zoom": [1, 3, 0, 2]}
    head.sent({"cell": [2, 1]}, pin, zoom)
    head.stage.focus()
    head.page.mouse.move(2, 2)
    head.keys_at_once("ArrowDown", "Enter")  # and the keyboard picks too, below the cell that was clicked
    picked = {"cell": [3, 1]}
    sync_api.expect(head.page.get_by_text("events ")).to_contain_text(json.dumps(picked))
    head.page.keyboard.press("Escape")
    sync_api.expect(head.page.get_by_text("events ")).to_contain_text('{"done": true}]')


def test_a_marked_cell_carries_a_cross(picture):
    """Its middle has the colour of text, its neighbour has not."""
    head = picture("picking", width=1000)
    text = [0x1D, 0x27, 0x33]  # the theme's
    x, y = head.at(1, 3)
    assert max(abs(a - b) for a, b in zip(head.pixel((x, y))[:3], text, strict=True)) < 12
    assert head.pixel(head.at(1, 4))[:3] != head.pixel((x, y))[:3]


def test_a_cell_of_several_positions_is_not_picked(picture):
    head = picture("picking-pooled")
    head.hover(head.at(1, 2))
    sync_api.expect(head.readout).to_contain_text("drag over a region to see single positions · queries 4–5")
    head.page.mouse.click(*head.at(1, 2))
    head.page.wait_for_timeout(500)
    head.sent()


def test_numbers_of_heads_are_called_by_their_names_and_lead_there(picture):
    shown = picture("numbers")
    assert shown.root.get_attribute("data-testid") == "headwise-numbers"
    shown.hover(shown.at(2, 1))
    shown.says("click to look at this head: layer 7 → head 2 · Δ logit -0.2500")
    shown.page.mouse.click(*shown.at(2, 1))
    shown.sent({"cell": [1, 2]})


def test_a_compact_grid_leaves_room_below_in_a_narrow_window(picture):
    """20 layers: 84 or fewer pixels a thumbnail, all of them; in a narrow window no more than 42 % of its height."""
    wide, narrow = picture("compact-grid", width=1500), picture("compact-grid", width=1200)
    assert wide.stage.bounding_box()["height"] > 900
    assert narrow.stage.bounding_box()["height"] <= 0.42 * 900 + 1
    narrow.page.mouse.click(*narrow.at(3, 2))
    narrow.sent({"layer": 2, "head": 3})


# --- the bipartite view ---------------------------------------------------------------------------------


def test_bipartite_hover_lists_the_weights(picture):
    score = np.random.default_rng(0).normal(size=(14, 14)) * 2.0  # as canvas_app.attention(14)
    score[:, 0] += 2.5
    score += 4.0 * np.eye(14, k=-1)
    weight = np.exp(score[3, :4]) / np.exp(score[3, :4]).sum()
    head = picture("edges")
    head.hover(head.token("query", 3))
    sync_api.expect(head.readout).to_contain_text("query 3 ‘·John’ → ")
    listed = dict(re.findall(r"‘(.*?)’ ([\d.]+)", head.readout.inner_text().split("→")[1]))
    assert float(listed["When"]) == pytest.approx(weight[0], rel=1e-3)
    assert float(listed["·and"]) == pytest.approx(weight[2], rel=1e-3)
    assert listed[","] == "0.05000"  # the leak, on a forbidden position
    sync_api.expect(head.legend).to_contain_text("weight on forbidden positions (1)")
    head.hover(head.token("key", 8))
    sync_api.expect(head.readout).to_contain_text("key 8 ‘,’ ← ")
    head.page.mouse.click(*head.token("key", 8))
    head.sent({"token": {"axis": "key", "index": 8}})
    head.page.keyboard.press("Escape")
    head.sent({"token": {"axis": "key", "index": 8}}, {"token": None})


def test_bipartite_scrolls_with_the_wheel(picture):
    head = picture("edges-512")
    head.hover(head.token("query", 2))
    head.page.mouse.wheel(0, 2000)  # 100 rows
    sync_api.expect(head.readout).to_contain_text("query 102 ‘·word102’", timeout=3000)
    head.stage.focus()
    head.page.keyboard.press("End")
    sync_api.expect(head.readout).to_contain_text("query 511 ‘·word511’", timeout=3000)


# --- everywhere -----------------------------------------------------------------------------------------


def test_user_text_is_never_html(picture):
    head = picture("html")
    evil = "<img src=x onerror=window.hacked=1>"
    head.hover(head.at(0, 1))
    sync_api.expect(head.readout).to_contain_text("‘<img·src=x")
    assert head.root.locator(".hw-title").inner_text() == evil
    assert head.root.locator("img").count() == 0
    assert head.page.evaluate("window.hacked") is None
    head.hover(head.at(1, 1))
    sync_api.expect(head.readout).to_contain_text("‘◌abc’")  # a character that turns the text around is shown


def test_resizes_with_its_container(picture):
    head = picture("words", width=1000)
    before = head.plot()[2]
    head.page.get_by_test_id("stMainBlockContainer").evaluate("block => { block.style.maxWidth = '400px' }")
    sync_api.expect(head.page.locator(".hw-base")).not_to_have_attribute("data-drawn", "1")
    assert head.plot()[2] < before
    assert head.root.evaluate("root => root.scrollWidth <= root.clientWidth")


def test_leaves_nothing_behind(picture):
    head = picture("tiny")
    head.root.evaluate("root => { window.old = root }")
    head.page.get_by_text("hide").click()
    sync_api.expect(head.root).to_have_count(0)
    head.page.wait_for_function("window.old.parentNode === null")  # unmounted by us, not just dropped
    head.page.set_viewport_size({"width": 500, "height": 900})
    head.page.get_by_text("hide").click()
    head.wait_drawn(1)  # a new figure


def test_a_full_redraw_is_fast(picture):
    head = picture("big")
    times = []
    for count in range(1, 7):
        times.append(float(head.wait_drawn(count)["drawMs"]))
        head.rerun()
    assert min(times) < 30, f"512 × 512, unpacked, coloured and drawn, took {times} ms"
