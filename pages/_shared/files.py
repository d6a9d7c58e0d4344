"""Figures and numbers that leave the house: a row of buttons, each making its file when it is clicked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from headwise.interp.drawing import files as export
from headwise.interp.drawing import streams
from headwise.pages._shared.bar import Run

KINDS = {"png": "image/png", "svg": "image/svg+xml", "csv": "text/csv", "html": "text/html"}


def cells_files(
    run: Run, cells: streams.Cells, title: str, numbers: Callable[[], pd.DataFrame], name: str = "stream"
) -> None:
    """Buttons for a table of cells, and for the numbers behind it."""
    look = figure_look(run, title)
    file_buttons(
        name,
        png=lambda: export.cells_figure(cells, "png", **look),
        svg=lambda: export.cells_figure(cells, "svg", **look),
        csv=lambda: csv(numbers()),
    )


def bars_files(
    run: Run, rows: Sequence[dict], sums: Sequence[tuple], title: str, table: pd.DataFrame, name: str = "parts"
) -> None:
    """The same for a list of bars."""
    look = figure_look(run, title)
    lines, below = [(row["name"], row["value"], row["text"]) for row in rows], [each[:2] for each in sums]
    file_buttons(
        name,
        png=lambda: export.bars_figure(lines, below, "png", **look),
        svg=lambda: export.bars_figure(lines, below, "svg", **look),
        csv=lambda: csv(table),
    )


def figure_look(run: Run, title: str) -> dict[str, Any]:
    """How a figure of this run is titled, coloured and stamped. Read now: a file is made on another thread, which has
    no session."""
    theme = "dark" if st.context.theme.type == "dark" else "light"
    return {"title": f"{run.subject.name} · {title}", "theme": theme, "stamp": export.stamp(run.capture)}


def file_buttons(name: str, **makers: Callable[[], bytes]) -> None:
    """A button for each kind of file, one of KINDS. ``name`` is the file's, and tells the buttons from others."""
    with st.container(horizontal=True, gap="small"):
        for kind, make in makers.items():
            st.download_button(
                kind.upper(),
                make,
                f"{name}.{kind}",
                KINDS[kind],
                key=f"download-{name}-{kind}",
                icon=":material/download:",
                on_click="ignore",
            )


def csv(table: pd.DataFrame) -> bytes:
    """A table as a spreadsheet opens it."""
    return table.to_csv(index=False).encode("utf-8-sig")
