"""Who saw whom, drawn."""

from __future__ import annotations

from headwise.interp.check import Edges
from headwise.interp.drawing.edges import edges
from headwise.pages._shared import canvas as _canvas

WIDEST = 512  # positions drawn


def draw_edges(picture: Edges, key: str) -> None:
    """Observed edges, with what was not expected in the alarm colour."""
    _canvas.head(edges(picture.observed, picture.expected, picture.of), key=f"picture-{key}", height=360)
