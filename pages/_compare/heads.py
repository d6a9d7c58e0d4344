"""All heads of a stack by how far they look elsewhere: as a map, as a list, as a table."""

from __future__ import annotations

import numpy as np
import streamlit as st

from headwise.interp.analysis.comparing.compare import Comparison
from headwise.interp.analysis.comparing.places import KINDS
from headwise.interp.drawing import comparing
from headwise.interp.drawing.comparing import Head
from headwise.pages._compare.choices import state
from headwise.pages._compare.downloads import matrix_files
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared import pictures
from headwise.pages._shared.bar import Run
from headwise.pages._shared.files import csv, file_buttons
from headwise.pages._shared.leading import heads_address, named
from headwise.pages._shared.words import heading, note

LISTED = 8  # heads
ROW = 22  # pixels of a layer on the map
TOLD = {
    "divergence": "Jensen–Shannon divergence of the head’s two patterns, in bits, the mean over queries: 0 is "
    "the same, 1 has nothing in common.",
    "largest": "The same of the query that changed most.",
    "entropy": "How much more widely the head spreads its weight in the second run, 0 … 1.",
}


def heads(run: Run, found: Comparison, chosen: Head) -> None:
    """The map and the list."""
    st.html(heading("Who looks elsewhere", "bits between its two patterns"))
    matrix = comparing.divergence_matrix(found, state.stack)
    calls = found.one.stack(state.stack)
    row = next(number for number, call in enumerate(calls) if call.layer == chosen[1])
    _canvas.numbers(
        matrix,
        key="compare-map",
        height=min(460, max(110, ROW * len(calls))),
        picking=_canvas.Picking("look at this head", [(row, chosen[2])], "Click a head to look at it here"),
    )
    note(comparing.heads_sentence(found, state.stack))
    matrix_files(run, found, matrix, "Who looks elsewhere", "compare-heads")
    st.html(heading("The furthest", "a click leads to the head on the Heads page"))
    rows = found.table[found.table["stack"] == state.stack].head(LISTED)
    lines = []
    for each in rows.itertuples():
        place = (each.stack, int(each.layer), int(each.head))
        lines.append({
            "name": f"head {comparing.head_name(found, place)}",
            "value": float(each.divergence),
            "text": comparing.bits(each.divergence),
            "go": named(run.capture, place),
        })  # fmt: skip
    base = heads_address(run.subject)
    pictures.bars(lines, key="compare-ranked", title="Who looks elsewhere", signed=False, base=base)


def table(found: Comparison) -> None:
    """All heads, how far apart they are and where their weight went; a chosen row is looked at."""
    with st.expander("All heads in numbers", icon=":material/table_rows:"):
        shown = comparing.table_lines(found, state.stack)
        columns = {name: st.column_config.NumberColumn(width=52) for name in ("layer", "head", "query")}
        for name in shown.columns:
            if name in KINDS or name == "entropy":
                told = TOLD.get(name, f"Share of weight on {KINDS.get(name)}: the second run’s less the first’s.")
                columns[name] = st.column_config.NumberColumn(name, help=told, format="%+.3f", width=72)
        top = float(np.nanmax([1e-3, shown["divergence"].max()]))
        columns["divergence"] = st.column_config.ProgressColumn(
            "bits", help=TOLD["divergence"], format="%.3f", min_value=0.0, max_value=top, width=92
        )
        columns["largest"] = st.column_config.NumberColumn("largest", help=TOLD["largest"], format="%.3f", width=72)
        st.dataframe(
            shown,
            column_config=columns,
            hide_index=True,
            height=300,
            key="compare-table",
            on_select="rerun",
            selection_mode="single-row",
        )
        file_buttons("compare", csv=lambda: csv(found.table))
