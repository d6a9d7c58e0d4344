"""Heads in words: what the field calls a head that does this, and what was seen of it here."""

from __future__ import annotations

import streamlit as st

from headwise.interp.analysis.targets import Target
from headwise.interp.errors import InputError
from headwise.pages._circuits.choices import state
from headwise.pages._circuits.found import roles_of
from headwise.pages._shared.bar import Run
from headwise.pages._shared.files import csv, file_buttons
from headwise.pages._shared.markdown import plain
from headwise.pages._shared.words import heading, note

TABLE = "circuit-roles"
COLUMNS = {
    "head": st.column_config.TextColumn("Head", width=70),
    "role": st.column_config.TextColumn("Role", width=130),
    "score": st.column_config.NumberColumn("Score", format="%.2f", width=70),
    "evidence": st.column_config.TextColumn("What was seen"),
}
TALL = 260  # pixels


def words(run: Run, aim: Target | None) -> None:
    """Draw the table; a row that is chosen is a head that is looked at."""
    st.html(heading("Heads in words", "found by tests, not read off a picture"))
    try:
        table = roles_of(run, aim)
    except InputError as error:
        st.info(plain(str(error)), icon=":material/visibility_off:")
        return
    if table is None:
        return
    if len(table):
        shown = table.assign(head=[_name(row) for row in table.itertuples()])[list(COLUMNS)]
        st.dataframe(
            shown, key=TABLE, hide_index=True, height=min(TALL, 38 + 35 * len(shown)), column_config=COLUMNS,
            selection_mode="single-row", on_select=lambda: _chosen(table),
        )  # fmt: skip
        file_buttons("roles", csv=lambda: csv(table))
    else:
        note("No head of this model passes any of the tests on this input.")
    note(" ".join(table.attrs["untested"]))


def _name(row) -> str:
    return f"{'cross ' if row.stack == 'cross' else ''}{row.layer}·{row.head}"


def _chosen(table) -> None:
    rows = state.news(TABLE, "rows")
    if rows:
        row = table.iloc[rows[0]]
        state.look_at(str(row["stack"]), int(row["layer"]), int(row["head"]))
