"""What a paper asks of its figures, measured in the files; and the numbers of one head."""

import io
import json
import re
import xml.etree.ElementTree as ElementTree
import zlib

import numpy as np
import pytest
from PIL import Image

from headwise import capture, load
from headwise.__main__ import main
from headwise.interp.drawing import files
from headwise.interp.drawing.files import Paper
from headwise.interp.drawing.matrix import head_view
from headwise.interp.drawing.paper import colour

TEXT = "The people of the United States"


@pytest.fixture(scope="module")
def cap():
    return capture(load("tiny-decoder"), TEXT)


@pytest.fixture(scope="module")
def view(cap):
    return head_view(cap, cap.calls[0], 1)


@pytest.mark.parametrize(("width", "font"), [(8.5, 7), (17, 8), (17.8, 10)])
def test_width_and_letters_are_those_asked_for(view, width, font):
    paper = Paper(width, font)
    image = Image.open(io.BytesIO(files.to_png(view, paper=paper)))
    dots = image.info["dpi"][0]
    assert image.width / dots * 2.54 == pytest.approx(width, abs=0.05) and dots >= 299.9

    drawing = ElementTree.fromstring(files.to_svg(view, paper=paper))
    wide, pixels = float(drawing.get("width").removesuffix("pt")), float(drawing.get("viewBox").split()[2])
    assert wide / 72 * 2.54 == pytest.approx(width, abs=0.01)
    label = next(text for text in drawing.iter("{http://www.w3.org/2000/svg}text") if "".join(text.itertext()) == "T")
    assert float(label.get("font-size")) * wide / pixels == pytest.approx(font, rel=0.01)

    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", files.to_pdf(view, paper=paper))
    assert float(box[1]) / 72 * 2.54 == pytest.approx(width, abs=0.01)


def test_nothing_of_the_figure_lies_beyond_its_width(view):
    """The page's own colour stands along all four edges of a narrow figure with large letters."""
    pixels = np.asarray(Image.open(io.BytesIO(files.to_png(view, paper=Paper(8, 9)))))
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge == 255).all()


def test_without_a_paper_a_figure_is_as_it_was(view):
    assert files.to_png(view) == files.to_png(view, paper=Paper())
    image = Image.open(io.BytesIO(files.to_png(view)))
    assert image.info["dpi"][0] == pytest.approx(192, abs=0.1)
    assert "pt" not in ElementTree.fromstring(files.to_svg(view)).get("width")


def inside(pdf: bytes) -> bytes:
    """What a PDF says, its streams unpacked."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)
    found = []
    for stream in streams:
        try:
            found.append(zlib.decompress(stream))
        except zlib.error:
            found.append(stream)
    return pdf + b"\n".join(found)


def test_pdf_keeps_its_text_and_brings_its_fonts(cap, view):
    whole = inside(files.to_pdf(view, stamp=files.stamp(cap)))
    assert b"/FontFile2" in whole and b"/Subtype /Type3" not in whole.replace(b"/CIDFontType", b"")
    assert b"tiny-decoder" in whole and b"CreationDate" not in whole
    lines = re.findall(rb"\[ (\(\x00.*?) \]\s+TJ", whole, re.DOTALL)
    shown = {b"".join(re.findall(rb"\(\x00(.)\)", line)) for line in lines}  # letters stand apart, as they are spaced
    assert {b"forbidden by the mask", b"weight", b"United", b"tiny-decoder"} <= shown | {
        word for line in shown for word in line.split()
    }


def test_cells_of_a_pdf_have_the_colour_of_their_value(view):
    """Row 1 of head 1 looks at the first key with all its weight; its cell has the last colour of the scale."""
    top = colour.sequential("light")[255] / 255
    drawn = inside(files.to_pdf(view)).decode("latin-1")
    fills = {
        tuple(round(float(part), 2) for part in found) for found in re.findall(r"([\d.]+) ([\d.]+) ([\d.]+) rg", drawn)
    }
    assert tuple(round(float(part), 2) for part in top) in fills


def test_grey_has_no_colour_and_viridis_is_matplotlibs(view):
    pixels = np.asarray(Image.open(io.BytesIO(files.to_png(view, paper=Paper(colours="grey")))))
    place = np.ptp(pixels.astype(int), -1)  # the text's ink is bluish, the cells are not
    assert place.max() < 30
    assert (np.diff(colour.grey("light")[:, 0].astype(int)) <= 0).all() and np.ptp(colour.grey("light"), -1).max() == 0
    assert colour.viridis("light")[[0, 255]].tolist() == [[68, 1, 84], [253, 231, 37]]


def test_a_scale_that_ends_where_it_is_told(view):
    """A weight of one under a scale that ends at two has the middle colour, and at a half it lies beyond the end."""
    biggest = float(view.values.max())
    for top, place in ((2 * biggest, 0.5), (biggest / 2, 1.0)):
        scale = colour.Scale.of(view.values.double().numpy(), "linear", "weight", top=top)
        assert scale.high == top and float(scale.place(np.array(biggest))) == pytest.approx(place)
        assert scale.above == (place == 1.0)
        svg = files.to_svg(view, paper=Paper(top=top)).decode()
        assert colour.css(colour.sequential("light")[scale.index(np.array(biggest))]) in svg
        assert ("≥ " in svg) == scale.above
    change = colour.Scale.of(np.array([-0.4, 0.1]), "linear", "signed", top=0.2)
    assert (change.low, change.high, change.below, change.above) == (-0.2, 0.2, True, False)


@pytest.mark.parametrize(
    ("paper", "says"),
    [
        ({"width": 1}, "width expects 2 … 120 centimetres; got 1"),
        ({"font": 99}, "font expects 3 … 40 points; got 99"),
        ({"colours": "pink"}, "colours expects one of headwise, grey, viridis; got 'pink'"),
        ({"top": -1.0}, "top expects a number above 0"),
    ],
)
def test_what_no_figure_can_have_is_one_sentence(paper, says):
    with pytest.raises(ValueError, match=says):
        Paper(**paper)


def test_a_width_without_room_is_refused(view):
    with pytest.raises(ValueError, match="make it wider or its font smaller"):
        files.to_svg(view, paper=Paper(3, 12))


# -- one head of a layer ----------------------------------------------------------------------------------------------
def test_npz_of_one_head(cap, tmp_path):
    call = cap.find(1)
    found = np.load(io.BytesIO(files.to_npz(cap, call, head=2)))
    np.testing.assert_allclose(found["weights"][:, 0], call.weights(2).numpy(), atol=1e-7)
    assert found["weights"].shape == (1, 1, call.queries, call.keys)
    assert json.loads(str(found["metadata"]))["calls"][0]["heads"] == [2]
    out = tmp_path / "a.npz"
    assert main(["export", "tiny-decoder", TEXT, "--out", str(out), "--layer", "1", "--head", "2"]) == 0
    np.testing.assert_allclose(np.load(out)["weights"], found["weights"])
    with pytest.raises(ValueError, match="say which"):
        files.to_npz(cap, head=2)


def test_html_of_one_head(cap, tmp_path, capsys):
    out = tmp_path / "a.html"
    assert main(["export", "tiny-decoder", TEXT, "--out", str(out), "--layer", "1", "--head", "2"]) == 0
    page = out.read_text("utf-8")
    shared = json.loads(re.search(r"const HEADWISE = (\{.*?\});\n", page)[1])
    weights = np.array(shared["attention"][0]["attn"])[0]
    assert weights.shape[0] == 1 and shared["include_heads"] == [2] and "layer 1 · head 2" in page
    np.testing.assert_allclose(weights[0], cap.find(1).weights(2)[0].numpy(), atol=1e-5)
    assert main(["export", "tiny-decoder", TEXT, "--out", str(out), "--head", "8"]) == 2
    assert "Layer 0 has heads 0 … 7, got 8." in capsys.readouterr().err


def test_the_command_takes_what_a_paper_asks(tmp_path, capsys):
    out = tmp_path / "a.pdf"
    asked = ["--width", "8.5", "--font", "7", "--colours", "grey", "--top", "1"]
    assert main(["export", "tiny-decoder", TEXT, "--out", str(out), *asked]) == 0
    assert out.read_bytes().startswith(b"%PDF")
    assert main(["export", "tiny-decoder", TEXT, "--out", str(tmp_path / "a.csv"), *asked]) == 2
    assert "does not apply to .csv; it is for .png, .svg, .pdf." in capsys.readouterr().err
