"""A picture of this page as a file."""

from __future__ import annotations

from headwise.interp.drawing import files as export
from headwise.interp.drawing.matrix import Matrix
from headwise.pages._shared.bar import Run
from headwise.pages._shared.files import figure_look, file_buttons


def files(run: Run, view: Matrix, title: str, name: str) -> None:
    """Buttons for a head under a mechanism."""
    look = figure_look(run, title)
    theme, stamp = look["theme"], look["stamp"] | {"notes": [title, *look["stamp"]["notes"]]}
    file_buttons(
        name,
        png=lambda: export.to_png(view, theme=theme, stamp=stamp),
        svg=lambda: export.to_svg(view, theme=theme, stamp=stamp),
        csv=lambda: export.to_csv(view),
    )
