"""Figures and numbers of this page as files."""

from __future__ import annotations

import pandas as pd

from headwise.interp.analysis.circuits.graph import Circuit
from headwise.interp.drawing import circuits as drawing
from headwise.interp.drawing import files as export
from headwise.interp.drawing.streams import Cells
from headwise.pages._circuits.choices import state
from headwise.pages._shared.bar import Run
from headwise.pages._shared.files import cells_files, csv, figure_look, file_buttons


def circuit_files(run: Run, circuit: Circuit, shown: drawing.Drawn) -> None:
    """Buttons for the graph and the numbers behind it."""
    look = figure_look(run, f"circuit of {circuit.target}, restores {circuit.restored:.0%} alone")
    file_buttons(
        "circuit",
        png=lambda: export.circuit_figure(shown, "png", **look),
        svg=lambda: export.circuit_figure(shown, "svg", **look),
        csv=lambda: csv(circuit.table()),
    )


def wiring_files(run: Run, cells: Cells, table: pd.DataFrame, name: str) -> None:
    """Buttons for the map of compositions and all of their scores."""
    cells_files(run, cells, f"{state.kind}-composition of {name}", lambda: table, "compositions")
