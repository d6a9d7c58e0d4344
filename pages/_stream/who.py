"""Who says it: the answer taken apart into what each part of the model put onto it."""

from __future__ import annotations

import html
from typing import Any

import pandas as pd
import streamlit as st

from headwise.interp.drawing import streams
from headwise.interp.drawing.paper.text import brief, visible
from headwise.interp.errors import InputError
from headwise.pages._shared.buttons import choice
from headwise.pages._shared.leading import heads_address
from headwise.pages._shared.sidebar import Run
from headwise.pages._stream import pictures
from headwise.pages._stream.about import about
from headwise.pages._stream.choices import StreamChoices, state
from headwise.pages._stream.downloads import code, parts_files
from headwise.pages._stream.found import parts_of, positions_of
from headwise.pages._stream.question import Question

TALL = 330  # pixels of a list that scrolls


def who(run: Run, asked: Question) -> None:
    """The right half."""
    small = f"direct effect on {asked.aim}" if asked.aim else ""
    st.html(
        f"<div style='font-size:.92rem;line-height:1.3'><b>Who says it</b> "
        f"<span style='font-size:.78rem;opacity:.66'>{html.escape(small)}</span></div>"
    )
    choice("Taken apart into", StreamChoices.parts)
    table = _table(run, asked)
    if table is not None:
        base = heads_address(run.subject.family)
        {"parts": _parts, "map": _map, "positions": _positions}[state.parts](run, asked, table, base)
        parts_files(run, asked.aim, table)
    about()
    with st.expander("Show the code", icon=":material/code:"):
        st.code(code(run, asked.aim), language="python")


def _table(run: Run, asked: Question) -> pd.DataFrame | None:
    """The parts; None where there are none, which is said."""
    if asked.aim is None:
        st.error(asked.problem)
        return None
    try:
        return parts_of(run, asked.aim)
    except InputError as error:
        st.info(str(error), icon=":material/visibility_off:")
        return None


def _sums(table: pd.DataFrame) -> list[tuple[str, str, bool]]:
    total, own, rest = (float(table.attrs[name]) for name in ("total", "own", "remainder"))
    return [
        ("sum", streams.signed_number(total), True),
        ("the model’s own", streams.signed_number(own), False),
        ("not explained", brief(rest).replace("-", "−"), False),
    ]


def _parts(run: Run, asked: Question, table: pd.DataFrame, base: str) -> None:
    rows = [
        {"name": part.name, "value": part.value, "text": streams.signed_number(part.value), "head": part.head}
        for part in streams.parts(table)
    ]
    pictures.bars(rows, key="stream-bars", title="Parts of the answer", sums=_sums(table), base=base)
    _note(streams.who_sentence(table, float(table.attrs["total"])))


def _map(run: Run, asked: Question, table: pd.DataFrame, base: str) -> None:
    matrix, heads = streams.head_map(table)
    leads = pictures.Leads(base, heads)
    pictures.cells(streams.map_cells(matrix), key="stream-map", title="Heads and MLPs", leads=leads)
    _note("Click a head to look at it. " + streams.who_sentence(table, float(table.attrs["total"])))


def _positions(run: Run, asked: Question, table: pd.DataFrame, base: str) -> None:
    found = positions_of(run, asked.aim)
    rows = [
        {"name": visible(row.token), "value": float(row.value), "text": streams.signed_number(row.value)}
        for row in found.itertuples()
    ]
    pictures.bars(rows, key="stream-bars", title="Where it was read", sums=_sums(table), height=TALL)
    _note("What reached the answer through heads, by the position where they read it.")


def _note(text: Any) -> None:
    if text:
        st.html(f"<div class='note'>{html.escape(str(text))}</div>")
