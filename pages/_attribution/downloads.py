"""What of the page leaves the house: the maps as a figure, the scores and the curves as numbers."""

from __future__ import annotations

import pandas as pd

from headwise.interp.analysis.attribution import Attribution
from headwise.interp.analysis.attribution.faithfulness import Faithfulness
from headwise.interp.analysis.targets import Target
from headwise.interp.drawing import attributions as drawing
from headwise.interp.drawing import files as export
from headwise.pages._shared.bar import Run
from headwise.pages._shared.files import csv, figure_look, file_buttons


def maps_files(run: Run, aim: Target, found: list[Attribution]) -> None:
    """Buttons for the maps and their scores."""
    look = figure_look(run, f"what {aim} rests on")
    file_buttons(
        "attribution",
        png=lambda: export.maps_figure(found, "png", **look),
        svg=lambda: export.maps_figure(found, "svg", **look),
        csv=lambda: csv(drawing.table(found)),
    )


def curves_file(results: list[Faithfulness]) -> None:
    """A button for the curves of each method, one below the other."""
    file_buttons(
        "faithfulness", csv=lambda: csv(pd.concat([each.table().assign(method=each.method) for each in results]))
    )
