"""Series and scores along the edges of a head on paper, and on the scale of its colours."""

import numpy as np
import pytest
import torch

from headwise import capture, load
from headwise.interp.attention.axes import Score, Series
from headwise.interp.drawing.files import to_csv, to_png, to_svg
from headwise.interp.drawing.matrix import Matrix, Span, head_view
from headwise.interp.drawing.paper.track import Edge, ticks

YEARS = tuple((12 * n, str(1990 + n)) for n in range(5))


def series(count: int = 60, written=None) -> Series:
    return Series(12, "month", "year", YEARS, written, values=np.arange(count, dtype=float), unit="ppm")


def span(track, origin=0, count=60, factor=1) -> Span:
    return Span(("x",) * count, "keys", origin, factor, 60, track=track)


def test_names_are_as_many_as_have_room():
    assert ticks(span(series()), 4.0, 40) == [(0, "1990"), (12, "1991"), (24, "1992"), (36, "1993"), (48, "1994")]
    assert ticks(span(series()), 2.0, 40) == [(0, "1990"), (24, "1992"), (48, "1994")]
    assert ticks(span(series(), origin=10, count=20), 4.0, 40) == [(2, "1991"), (14, "1992")]


def test_what_is_drawn_stands_over_its_columns():
    """Position 12 of a span that starts at 6, two positions a cell, cells of 5 pixels from 100 on: 100 + 3 · 5."""
    part = span(series(), origin=6, count=20, factor=2)
    edge = Edge(part, True, 10, 66, lambda cells: 100 + 5 * cells)
    x, y, w, h = edge.box(12, 14, 0, 1)
    assert (x, w) == (115, 5) and (y, h) == (16, 54)  # the depth of 66 less a margin of 6 on both sides
    down = Edge(part, False, 10, 54, lambda cells: 100 + 5 * cells)
    assert down.box(12, 14, 0, 1) == (16, 115, 42, 5)


@pytest.mark.parametrize(("first", "early"), [(0, 12), (5, 7), (20, 0)])
def test_the_first_cycle_may_go_beyond_the_scale(first, early):
    rows = span(series(), origin=first, count=30)
    matrix = Matrix(torch.rand(30, 30), rows, span(series(), count=30))
    assert matrix.early == early
    assert Matrix(torch.rand(30, 30), span(None, count=30), span(None, count=30)).early == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_figure_shows_the_series_with_what_was_written(theme):
    """One curve a month on either side, and those written in a colour of their own."""
    track = series(written=50)
    matrix = Matrix(torch.rand(60, 60), span(track), span(track))
    svg = to_svg(matrix, theme=theme).decode()
    assert svg.count('<path d="M') >= 2 * 59 and ">1990</text>" in svg and ">59 ppm</text>" in svg
    own = {"light": "#0b6e99", "dark": "#5bb8e0"}[theme]
    assert svg.count(f'stroke="{own}" stroke-width="1.4"') == 2 * 10
    assert to_png(matrix, theme=theme).startswith(b"\x89PNG")


def test_a_figure_shows_the_notes():
    notes = np.array([[0, 8, 60, 0], [8, 60, 64, 1]], np.int64)
    track = Score(12, "note", "bar", YEARS, notes=notes, seconds=0.1, voices=("soprano", "alto"))
    svg = to_svg(Matrix(torch.rand(60, 60), span(track), span(track))).decode()
    assert svg.count('fill="#0b6e99"') == 2 and svg.count('fill="#8a4fb5"') == 2  # both sides, a colour a voice
    assert "pitch ↑" in svg


def test_a_head_of_a_series_names_its_months():
    cap = capture(load("tiny-forecaster"), "\n".join(f"19{90 + n // 12}-{n % 12 + 1:02d} {n % 7}" for n in range(30)))
    matrix = head_view(cap, cap.calls[0], 0)
    assert matrix.rows.track is cap.axes["input"].track and matrix.early == 12
    assert "'Feb 1991: 6'" in to_csv(matrix).decode().replace("\u00a0", " ")
