"""The canvas over pictures and recordings: weights must land on the patch and the moment they belong to."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from playwright import sync_api

from headwise.interp.attention.axes import PixelGrid, Sound
from headwise.interp.drawing.canvas import message
from headwise.interp.drawing.matrix import Matrix, Span
from headwise.pages._shared import canvas as _canvas
from tests.browser import canvas_page

server, contexts, picture = canvas_page.server, canvas_page.contexts, canvas_page.picture
ALARM = [0xE0, 0x34, 0x0B]
CASES = {"picture-whole": 1, "picture-crop": 2, "picture-pad": 85 / 40}  # how much higher than wide a patch is


def pixels(head, selector=".hw-base"):
    """(height, width, 4) of a canvas, and its pixels for each CSS pixel."""
    canvas = head.page.locator(selector)
    url, ratio = canvas.evaluate("canvas => [canvas.toDataURL('image/png'), devicePixelRatio]")
    png = base64.b64decode(url.partition(",")[2])
    return np.array(Image.open(io.BytesIO(png)).convert("RGBA")), ratio


def chroma(image):
    """How far from grey each pixel is."""
    rgb = image[..., :3].astype(int)
    return rgb.max(-1) - rgb.min(-1)


def extent(where, ratio):
    """left, top, right, bottom of the true pixels, in CSS pixels."""
    rows, columns = np.where(where.any(1))[0], np.where(where.any(0))[0]
    return [columns[0] / ratio, rows[0] / ratio, (columns[-1] + 1) / ratio, (rows[-1] + 1) / ratio]


def patch(head, row, column, panel="query"):
    """The middle of a patch on the page, in the panel where queries are chosen or keys are read."""
    x, y = head.at(column, row)
    return (x if panel == "key" else x - head.plot()[0] + float(head.data()["queryLeft"])), y


def chip(head, index):
    box = head.page.locator(".hw-over").bounding_box()
    spots = [float(v) for v in head.data()["chips"].split(",")]
    return box["x"] + spots[2 * index], box["y"] + spots[2 * index + 1]


def shows(head, query):
    sync_api.expect(head.page.locator(".hw-base")).to_have_attribute("data-query", str(query), timeout=3000)


# --- pictures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1000, 420])
@pytest.mark.parametrize("case", CASES)
def test_weight_lands_on_its_patch(picture, case, width):
    head = picture(case, width=width)
    left, top, w, h = head.plot()
    assert h / w == pytest.approx(CASES[case], rel=1e-6)
    assert h * 4 <= 520
    cell = [left + 5 * w, top + 2 * h, left + 6 * w, top + 3 * h]
    image, ratio = pixels(head)
    image[:, : int(left * ratio)] = 255  # the plain panel
    image[: int((top + 1) * ratio)] = 255  # the chips, and with them the line around the patches
    assert extent(chroma(image) > 40, ratio) == pytest.approx(cell, abs=1)
    heads = [[chroma(image)[int((top + (r + 0.5) * h) * ratio), int((left + (c + 0.5) * w) * ratio)] for c in range(8)]
             for r in range(4)]  # fmt: skip
    assert np.unravel_index(np.argmax(heads), (4, 8)) == (2, 5)

    # The picture itself is black in that patch: seen where the query looks elsewhere, it is the same rectangle.
    head.hover(patch(head, 0, 0))
    shows(head, 1)
    image, _ = pixels(head)
    inside = np.zeros(image.shape[:2], bool)
    inside[int((top + 2) * ratio) : int((top + 4 * h - 2) * ratio), int((left + 2) * ratio) :] = True
    inside[:, int((left + 8 * w - 2) * ratio) :] = False
    grey = np.isin(np.arange(256), range(160, 200))[image[..., 0]] & (chroma(image) < 12)
    assert extent(grey & inside, ratio) == pytest.approx(cell, abs=1)


def test_dark_pages_light_the_strongest_patch(picture):
    head = picture("picture-crop", "dark")
    bright = [[sum(head.pixel(patch(head, r, c, "key"))[:3]) for c in range(8)] for r in range(4)]
    assert np.unravel_index(np.argmax(bright), (4, 8)) == (2, 5)
    assert np.sort(np.ravel(bright))[-2] < 0.5 * np.max(bright)


def test_patches_and_chips_pin_the_query(picture):
    head = picture("picture-crop")
    shows(head, 0)
    head.says(
        "Point at a patch on the left to see what it attends to, on the right to read a weight · click to keep it"
    )
    head.hover(patch(head, 1, 3))
    shows(head, 12)
    head.says("patch row 1, column 3 → ‘[CLS]’ 0.2500 · row 1, column 3: 0.7500")
    head.page.mouse.click(*patch(head, 1, 3))
    pin = {"token": {"axis": "query", "index": 1 + 8 + 3}}
    head.sent(pin)
    head.hover(patch(head, 3, 7))  # what is pointed at goes before what is pinned
    shows(head, 32)
    head.hover(patch(head, 3, 7, "key"))  # on the right one reads the pinned query's weights
    shows(head, 12)
    head.says("patch row 1, column 3 → patch row 3, column 7 · weight 0")
    head.hover(patch(head, 1, 3, "key"))
    head.says("patch row 1, column 3 → patch row 1, column 3 · weight 0.7500")
    head.page.mouse.click(*chip(head, 0))
    shows(head, 0)
    head.says("‘[CLS]’ → row 2, column 5: 1.000")
    head.sent(pin, {"token": {"axis": "query", "index": 0}})
    head.page.mouse.click(*patch(head, 3, 7, "key"))  # a key can be followed
    last = {"token": {"axis": "query", "index": 32}}
    head.sent(pin, {"token": {"axis": "query", "index": 0}}, last)
    head.page.mouse.click(*patch(head, 3, 7))
    head.sent(pin, {"token": {"axis": "query", "index": 0}}, last, {"token": None})


def test_one_panel_where_it_is_narrow(picture):
    head = picture("picture-whole", width=420)
    assert float(head.data()["queryLeft"]) == head.plot()[0]
    head.says("Point at a patch to see what it attends to · click to keep it")
    head.page.mouse.click(*patch(head, 0, 7))
    shows(head, 8)
    head.sent({"token": {"axis": "query", "index": 8}})
    assert head.root.evaluate("root => root.scrollWidth <= root.clientWidth")


def test_the_scale_spans_the_patches_of_the_query(picture):
    head = picture("picture-whole")
    sync_api.expect(head.legend).to_have_text("weight00.51")
    head.hover(patch(head, 1, 0))  # 0.125 to itself, 0.875 to [CLS], which is off the scale and says so
    sync_api.expect(head.legend).to_have_text("weight00.063≥0.13")
    head.says("patch row 1, column 0 → ‘[CLS]’ 0.8750 · row 1, column 0: 0.1250")


def test_the_keyboard_walks_over_patches(picture):
    head = picture("picture-crop")
    head.stage.focus()
    for key, query in [
        ("ArrowDown", 1),  # from [CLS] to the first patch
        ("ArrowLeft", 1),
        ("ArrowDown", 9),
        ("ArrowRight", 10),
        ("End", 32),
        ("ArrowDown", 32),
        ("ArrowUp", 24),
        ("Home", 0),
        ("ArrowRight", 1),
        ("ArrowUp", 0),
        ("End", 32),
    ]:
        head.page.keyboard.press(key)
        assert head.data()["query"] == str(query), f"after {key}"
    head.page.keyboard.press("Enter")
    head.sent({"token": {"axis": "query", "index": 32}})
    head.page.keyboard.press("Escape")
    head.sent({"token": {"axis": "query", "index": 32}}, {"token": None})
    shows(head, 0)


def test_a_forbidden_patch_raises_the_alarm(picture):
    head = picture("picture-leak")
    left, top, w, h = head.plot()
    found = head.coloured(ALARM)
    assert found["box"] == pytest.approx([left + 5 * w, top + 2 * h, left + 6 * w, top + 3 * h], abs=1)
    sync_api.expect(head.legend).to_contain_text("weight on forbidden positions (1)")
    sync_api.expect(head.legend).to_contain_text("forbidden")
    head.hover(patch(head, 3, 5, "key"))
    head.says("‘[CLS]’ → patch row 3, column 5 · forbidden")


def test_labels_of_a_picture_are_text(picture):
    head = picture("picture-html")
    head.hover(chip(head, 0))
    sync_api.expect(head.readout).to_contain_text("‘<img·src=x")
    assert head.root.locator("img").count() == 0
    assert head.page.evaluate("window.hacked") is None


LIES = {"picture": PixelGrid(np.zeros((20, 30, 3), np.uint8), (0, 0, 30, 20)), "grid": (2, 3)}


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"factor": 2}, "neither pool nor crop"),
        ({"origin": 1}, "neither pool nor crop"),
        ({"whole": 9}, "neither pool nor crop"),
        ({"grid": (3, 3)}, "grid"),
        ({"picture": None}, "expects picture and grid"),
        ({"picture": PixelGrid(np.zeros((20, 30, 3)), (0, 0, 30, 20))}, "uint8"),
        ({"picture": PixelGrid(np.zeros((20, 30, 3), np.uint8), (0, 0, 0, 20))}, "area"),
    ],
)
def test_head_says_what_does_not_fit_a_picture(change, hint):
    """2 × 3 patches after one special token can be drawn; with the change they cannot."""
    queries, keys = (Span(("CLS", *"abcdef"), name, **{**LIES, **change}) for name in ("queries", "keys"))
    with pytest.raises(ValueError, match=hint):
        _canvas.head(Matrix(torch.zeros(7, 7), queries, keys), key="k", view="picture")


def test_a_large_picture_makes_room_for_its_matrix():
    """A picture of 640 × 640 beside 577 positions: fewer pixels are sent, and the box stays in those it had."""
    shown = PixelGrid(np.zeros((640, 640, 3), np.uint8), (10, 10, 630, 630))
    header, sent = message._picture(shown, (24, 24), (577, 577), message.MESSAGE - 577 * 577 * 4)
    assert sent.nbytes + 577 * 577 * 4 <= 1_500_000 and sent.shape[0] == sent.shape[1] > 200
    assert header["size"] == [640, 640] and header["box"] == [10, 10, 630, 630]
    assert message._picture(shown, (14, 14), (197, 197), 1_300_000)[1] is shown.pixels  # there is room for all


# --- recordings -----------------------------------------------------------------------------------------

VIEWS = {"sound-pooled": (0, 4, 375), "sound-crop": (600, 1, 120), "sound-odd": (611, 3, 297)}  # origin, factor, cells


@pytest.mark.parametrize("width", [1000, 420])
@pytest.mark.parametrize("case", VIEWS)
def test_sound_and_seconds_stand_where_they_belong(picture, case, width):
    head = picture(case, width=width)
    first, factor, cells = VIEWS[case]
    left, top, w, h = head.plot()
    image, ratio = pixels(head)
    strip = image[int(4 * ratio) : int(68 * ratio), int((left + 1) * ratio) : int((left + cells * w - 1) * ratio), 0]
    strip = strip.max(0).astype(int)  # the line at the recording's end has gaps, the click has none
    bright = np.where(strip < strip.min() + 40)[0] + int((left + 1) * ratio)
    heard = bright.mean() / ratio + 0.5 / ratio
    assert heard == pytest.approx(left + (13.375 / 0.02 - first) / factor * w, abs=w / factor + 1 / ratio)
    seen = extent(chroma(image)[int((top + 0.2 * h) * ratio) : int((top + 0.4 * h) * ratio)] > 60, ratio)
    assert (seen[0], seen[2]) == pytest.approx(
        (left + (668 - first) // factor * w, left + ((668 - first) // factor + 1) * w), abs=1
    )
    near = w / factor + 0.5 / ratio  # a position, and half a pixel of the screen
    assert seen[0] - near <= heard <= seen[2] + near

    ticks = [tick.split("@") for tick in head.data()["keyTicks"].split(",")]
    over, ratio = pixels(head, ".hw-over")
    assert len(ticks) >= 3
    times = [float(text) for text, _ in ticks]
    assert np.diff(times) == pytest.approx(times[1] - times[0]), "equal steps"
    assert f"{times[1] - times[0]:.0e}"[0] in "125", "round steps"
    for text, x in ticks:
        wanted = left + (float(text) / 0.02 - first) / factor * w
        assert float(x) == pytest.approx(wanted, abs=0.01)
        line = over[int((top - 3) * ratio), :, 3]
        assert line[min(line.size - 1, int(wanted * ratio))] > 0, f"a mark at {text} s"
        assert line[int((wanted + 6) * ratio) : int((wanted + 12) * ratio)].max(initial=0) == 0
    assert times[-1] <= min(1500, first + factor * cells) * 0.02 + 1e-9


def test_the_end_of_a_recording_is_a_line(picture):
    head = picture("sound-crop")
    left, top, w, h = head.plot()
    image, ratio = pixels(head)
    dark = (image[int((top + 1) * ratio) : int((top + 12 * h - 1) * ratio), :, 0] < 150).mean(0)
    dark[: int((left + 1) * ratio)] = 0
    dark[int((left + 66 * w) * ratio) : int((left + 71 * w) * ratio)] = 0  # the bright column
    dark[int((left + 120 * w - 1) * ratio) :] = 0  # the frame
    assert (np.argmax(dark) + 0.5) / ratio == pytest.approx(left + (14.2 / 0.02 - 600) * w, abs=1)
    head.hover(head.at(115, 2))
    sync_api.expect(head.readout).to_contain_text("→ 14.30–14.32 s (padding) · weight 0.001")


def test_times_name_frames(picture):
    head = picture("sound-crop")
    head.hover(head.at(68, 3))
    head.says("query 3 ‘·John’ → 13.36–13.38 s · weight 0.5000")
    x, y = head.at(68, 0)
    head.page.mouse.click(x, y - 80)  # on the spectrogram
    head.sent({"token": {"axis": "key", "index": 668}})
    head.open("frames-crop")
    head.hover(head.at(68, 3))
    head.says("12.06–12.08 s → 13.36–13.38 s · weight 0.5000")
    assert float(head.data()["queryTicks"].split("@")[0]) == 12.0
    head.drag(head.at(10, 10), head.at(19, 29))
    head.sent({"zoom": [610, 630, 610, 620]})
    head.open("sound-bipartite")
    head.hover(head.token("query", 3))
    sync_api.expect(head.readout).to_contain_text("query 3 ‘·John’ → 13.36–13.38 s 0.5000 · ")


def test_few_queries_of_a_long_recording_fill_the_width(picture):
    head = picture("sound-pooled")
    _, _, w, h = head.plot()
    assert w * 375 > 0.8 * head.root.evaluate("root => root.clientWidth")
    assert 28 <= h <= 34
    alike = picture("frames-crop").plot()
    assert alike[2] == alike[3], "a diagonal should look like one"


def test_the_spectrogram_sent_is_cut_to_what_is_seen():
    spectrogram = np.full((80, 3000), -np.inf, np.float32)
    spectrogram[:, 100:2900] = np.linspace(-2, 2, 80, dtype=np.float32)[:, None]
    sound = Sound(spectrogram, hop=0.01, step=0.02, seconds=30)
    where, sent = message._strip(sound, 40, 60)
    assert where == {"start": pytest.approx(0.8), "hop": 0.01}
    assert sent["spectrogram"].shape == (80, 40)
    assert (sent["spectrogram"][:, :20] == 0).all()  # before frame 100 there is nothing
    assert sent["spectrogram"][0, 20] == 0 and sent["spectrogram"][79, 20] == 255
    where, sent = message._strip(sound, 0, 1500)
    assert where["hop"] == pytest.approx(0.03) and sent["spectrogram"].shape == (80, 1000)
    assert message._strip(sound, 1500, 1510) == ({}, {})  # behind its end
