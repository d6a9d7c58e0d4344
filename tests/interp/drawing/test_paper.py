"""What pens draw, and that a figure has room for all that stands in it. Places are in CSS pixels, each two of a PNG."""

import io
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from headwise.interp.attention.axes import PixelGrid
from headwise.interp.drawing import files as export
from headwise.interp.drawing.matrix import Matrix, Span
from headwise.interp.drawing.paper import picture as over
from headwise.interp.drawing.paper.colour import Palette
from headwise.interp.drawing.paper.pens import Png
from headwise.interp.drawing.paper.text import width
from headwise.interp.drawing.streams import Cells

SPACE = "{http://www.w3.org/2000/svg}"
BLACK = (0, 0, 0)


def matrix(rows: int, columns: int, **more) -> Matrix:
    spans = (Span([f"{name[0]}{i}" for i in range(n)], name) for n, name in ((rows, "queries"), (columns, "keys")))
    return Matrix(torch.linspace(0, 1, rows * columns).view(rows, columns), *spans, **more)


def over_picture(names: list[str], query: int = 0) -> Matrix:
    """Patches in two rows of two behind special tokens of these names."""
    labels = (*names, *"0123")
    shown = {"picture": PixelGrid(np.full((40, 40, 3), 128, np.uint8), (0, 0, 40, 40)), "grid": (2, 2)}
    rows, columns = Span(labels, "queries", **shown), Span(labels, "keys", **shown)
    return Matrix(torch.full((len(labels), len(labels)), 1 / len(labels)), rows, columns)


def drawn(draw) -> np.ndarray:
    """Where a pen left ink on a sheet of 100 × 100, bool (200, 200)."""
    pen = Png((100, 100), Palette.of("light"))
    draw(pen)
    return np.asarray(Image.open(io.BytesIO(pen.finish("", {}))).convert("L")) < 128


def written(svg: bytes) -> list[tuple[str, float, float, float]]:
    """(text, x, y, size) of what is not turned."""
    found = [t for t in ElementTree.fromstring(svg).iter(SPACE + "text") if t.get("transform") is None]
    return [("".join(t.itertext()), *(float(t.get(name)) for name in ("x", "y", "font-size"))) for t in found]


def height(svg: bytes) -> float:
    return float(ElementTree.fromstring(svg).get("height"))


# -- pens ----------------------------------------------------------------------------------------------------
def test_a_turned_text_rises_from_its_spot():
    rows, columns = np.nonzero(drawn(lambda pen: pen.text((50, 80), "HHHH", 12, BLACK, "start", 90)))
    assert 100 - 12 <= columns.min() < columns.max() <= 100 + 12  # 12 pixels of the font to both sides of the spot
    assert 80 < rows.min() < 110 and 152 <= rows.max() <= 160  # upwards, from just above it


def test_an_outline_is_as_wide_as_it_is_asked_to_be():
    """Line 4, its middle on the edge of 20 … 60: ink from 18 to 22 and from 58 to 62."""
    inked = drawn(lambda pen: pen.outline(20, 20, 40, 40, BLACK, 4))
    assert np.flatnonzero(inked[80]).tolist() == [*range(36, 44), *range(116, 124)]
    assert np.array_equal(inked, inked.T)


def test_a_pill_ends_in_half_circles():
    """Of radius 10 about (20, 20) and (50, 20)."""
    inked = drawn(lambda pen: pen.pill(10, 10, 50, 20, BLACK))
    y, x = (np.mgrid[:200, :200] + 0.5) / 2
    distance = np.hypot(x - x.clip(20, 50), y - 20)
    assert inked[distance < 9.5].all() and not inked[distance > 10.5].any()


def test_a_cell_without_a_value_stands_out_from_the_page():
    """Darker than paper, lighter than the dark."""
    assert Palette.of("light").empty == (243, 243, 243)
    assert Palette.of("dark").empty == (27, 32, 38)


# -- a sheet and what stands on it ---------------------------------------------------------------------------
@pytest.mark.parametrize("draw, view", [(export.to_svg, matrix(3, 3)), (export.picture_svg, over_picture(["CLS"]))])
def test_a_sheet_grows_with_its_small_print(draw, view):
    """Line by line: below the last one is always as much room."""
    said = [draw(view, stamp=None)]
    for count in (20, 60):
        notes = tuple(f"note number {i}" for i in range(count))
        said.append(draw(Matrix(view.values, view.rows, view.columns, left_out=notes)))
    for svg in said:  # a line is broken where the next part has no room
        room = float(ElementTree.fromstring(svg).get("width")) - 2 * over.PAD
        lines = [text for text, _, _, size in written(svg) if size == 10.5]
        assert all(width(line, 10.5) <= room for line in lines)
        assert all(width(f"{a} · {b.split(' · ')[0]}", 10.5) > room for a, b in pairwise(lines))
    below = [height(svg) - max(y for _, _, y, size in written(svg) if size == 10.5) for svg in said]
    assert below == pytest.approx([below[0]] * 3) and 0 < below[0] < 20
    assert height(said[0]) < height(said[1]) < height(said[2])


def test_labels_are_cut_only_where_they_are_very_long():
    view = Matrix(torch.zeros(2, 2), Span(["a", "responsibility"], "queries"), Span(["b", "extraordinary"], "keys"))
    svg = export.to_svg(view).decode()
    assert "responsibility" in svg and "extraordinary" in svg


@pytest.mark.parametrize("rows, tall", [(2, 100), (6, 6 * 34), (30, 260)])
def test_the_colour_bar_is_as_tall_as_the_matrix_within_bounds(rows, tall):
    """0 is written at its lower end, the largest value at its upper."""
    at = {text: y for text, _, y, size in written(export.to_svg(matrix(rows, rows))) if size == 11}
    assert at["0"] - at["1"] == pytest.approx(tall)


def test_small_print_tells_what_of_the_whole_is_shown():
    rows, columns = Span("abc", "queries", 4, 2, 20), Span("abcd", "keys")
    said = " ".join(text for text, *_ in written(export.to_svg(Matrix(torch.zeros(3, 4), rows, columns))))
    assert "each cell is the largest of 2 × 1 positions" in said
    assert "queries 4–9 of 20" in said and "keys 0" not in said
    assert "each cell" not in export.to_svg(matrix(3, 4)).decode()


def test_the_legend_stands_between_the_matrix_and_the_small_print():
    view = matrix(4, 4, forbidden=torch.ones(4, 4, dtype=torch.uint8).triu(1))
    svg = export.to_svg(view)
    at = {size: y for _, _, y, size in written(svg) if size in (11.5, 10.5)}
    cells = [r for r in ElementTree.fromstring(svg).iter(SPACE + "rect") if r.get("width") == r.get("height") == "34"]
    bottom = max(float(r.get("y")) + 34 for r in cells)
    assert bottom + 12 < at[11.5] < at[10.5] - 12


def test_chips_that_need_a_second_line_stand_between_the_title_and_the_picture():
    names = [f"register {i}" for i in range(4)]
    svg = export.picture_svg(over_picture(names))
    place = {text: (x, y) for text, x, y, size in written(svg) if size == 12}
    (x0, y0), (x2, y2) = place[names[0]], place[names[2]]
    top = min(float(image.get("y")) for image in ElementTree.fromstring(svg).iter(SPACE + "image"))
    assert y0 < y2 < top and x0 == x2
    assert top == over.PAD + 2 * over.CHIP + 5 + 8
    pills = [r for r in ElementTree.fromstring(svg).iter(SPACE + "rect") if float(r.get("rx", 0)) > 9]
    sides = [[float(r.get(side)) for side in ("x", "y", "width", "height")] for r in pills if r.get("fill") != "none"]
    middles = [(x + w / 2, y + h / 2) for x, y, w, h in sides[1:]]  # the first is the chosen query's
    assert len(middles) == 8  # a rim for each chip, and the chip in its middle
    assert np.allclose(middles[::2], middles[1::2], atol=0.02)


# -- tables and bars ---------------------------------------------------------------------------------------------------
def cells(rows: int, columns: int, text: str = "", **more) -> Cells:
    shades = np.linspace(0, 1, rows * columns).reshape(rows, columns)
    texts = ((text,) * columns,) * rows if text else None
    names = [tuple(f"{name}{i}" for i in range(n)) for name, n in (("after ", rows), ("t", columns))]
    return Cells(*names, shades, shades, "chance", "0", "1", tuple(range(rows)), 0, texts, **more)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (31, 96)])
@pytest.mark.parametrize("text", ["", "·tok", "·avery<b>longtoken&"])
def test_a_table_stands_on_its_sheet(shape, text):
    svg = export.cells_figure(cells(*shape, text=text), "svg", title="A title that is longer than a small table")
    sheet = ElementTree.fromstring(svg)
    wide, high = float(sheet.get("width")), float(sheet.get("height"))
    for t in sheet.iter(SPACE + "text"):
        x, y, size = (float(t.get(name)) for name in ("x", "y", "font-size"))
        long = width("".join(t.itertext()), size)
        left = x - {"start": 0, "middle": long / 2, "end": long}[t.get("text-anchor")]
        assert left >= 0 and left + long <= wide + 1 and 0 < y < high
    squares = [r for r in sheet.iter(SPACE + "rect") if r.get("height") == "22"]
    assert len(squares) == shape[0] * shape[1]


def test_a_tables_cells_have_the_canvas_colours():
    svg = export.cells_figure(cells(1, 2, text="x"), "svg").decode()
    table = Palette.of("light").table
    for row in (0, 255):
        assert 'fill="#{:02x}{:02x}{:02x}"'.format(*table[row]) in svg


def test_bars_start_at_zero_and_are_as_long_as_their_values():
    """−1 … 3 on 320 pixels: 80 a unit."""
    rows = [("one", 3.0, "+3.00"), ("two", -1.0, "−1.00"), ("three", 0.5, "+0.50")]
    svg = export.bars_figure(rows, [("sum", "+2.50")], "svg", title="parts")
    found = [r for r in ElementTree.fromstring(svg).iter(SPACE + "rect") if r.get("height") == "11"]
    assert [float(r.get("width")) for r in found] == [240, 80, 40]
    ends = [(float(r.get("x")), float(r.get("x")) + float(r.get("width"))) for r in found]
    assert ends[0][0] == ends[1][1] == ends[2][0]
    assert {"one", "+3.00", "−1.00", "sum", "+2.50", "parts"} <= {text for text, *_ in written(svg)}


def test_figures_of_tables_and_bars_come_as_png_and_pdf_too_and_as_nothing_else():
    assert export.cells_figure(cells(2, 2), "png", theme="dark")[1:4] == b"PNG"
    assert export.bars_figure([("a", -1.0, "−1")], [], "png")[1:4] == b"PNG"
    assert export.bars_figure([("a", -1.0, "−1")], [], "pdf")[:4] == b"%PDF"
    with pytest.raises(ValueError, match="kind expects one of png, svg, pdf"):
        export.cells_figure(cells(2, 2), "tiff")
