"""A picture of this page as a file."""

from __future__ import annotations

import streamlit as st

from headwise.interp.drawing import files as export
from headwise.interp.drawing.matrix import Matrix
from headwise.pages._shared.bar import Run
from headwise.pages._shared.files import figure_look, file_buttons


def files(run: Run, view: Matrix, title: str, name: str) -> None:
    """Buttons for a head under a mechanism, made when somebody unfolds them: sliders are to be quick."""
    icon = {"icon": ":material/download:", "type": "tertiary", "help": "PNG, SVG, CSV"}
    place = st.popover("", key=f"{name}-files", on_change="rerun", **icon)
    if place.open:
        with place:
            _buttons(run, view, title, name)


def _buttons(run: Run, view: Matrix, title: str, name: str) -> None:
    look = figure_look(run, title)
    theme, stamp = look["theme"], look["stamp"] | {"notes": [title, *look["stamp"]["notes"]]}
    file_buttons(
        name,
        png=lambda: export.to_png(view, theme=theme, stamp=stamp),
        svg=lambda: export.to_svg(view, theme=theme, stamp=stamp),
        csv=lambda: export.to_csv(view),
    )
