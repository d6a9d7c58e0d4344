"""Who says it: the answer taken apart into what each part of the model put onto it."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from headwise.interp.drawing import streams
from headwise.interp.drawing.paper.text import brief, visible
from headwise.interp.errors import InputError
from headwise.pages._shared import pictures
from headwise.pages._shared.bar import Run
from headwise.pages._shared.buttons import choice
from headwise.pages._shared.code import show_code
from headwise.pages._shared.files import bars_files, cells_files
from headwise.pages._shared.leading import heads_address, named
from headwise.pages._shared.question import Question
from headwise.pages._shared.words import heading, note
from headwise.pages._stream.about import about
from headwise.pages._stream.choices import StreamChoices, state
from headwise.pages._stream.code import code
from headwise.pages._stream.found import parts_of, positions_of

TALL = 330  # pixels of a list that scrolls


def who(run: Run, asked: Question, read_as: str) -> None:
    """The right half. ``read_as``: what stands on the left."""
    title = f"direct effect on {asked.aim}" if asked.aim else ""
    st.html(heading("Who says it", title))
    readout = run.capture.anatomy.readout
    split = asked.aim is not None and readout is not None and readout.kind == "direct"
    choice("Taken apart into", StreamChoices.parts, disabled=not split)
    if (table := _table(run, asked)) is None:
        about(read_as)
    elif state.parts == "map":
        _map(run, table, asked.rather)
        about(read_as)
    else:
        read = state.parts == "positions"
        rows, numbers = _sources(run, asked) if read else (_parts(run, table, asked.rather), table)
        sums = _ways(numbers) if read else _sums(table)
        base, tall = heads_address(run.subject), TALL if read else None
        pictures.bars(rows, key="stream-bars", title=f"Who says it: {title}", sums=sums, height=tall, base=base)
        note(_sentence(table))
        about(read_as)
        bars_files(run, rows, sums, title, numbers)
    show_code(code(run, asked.aim))


def _table(run: Run, asked: Question) -> pd.DataFrame | None:
    """The parts; None where there are none, which is said."""
    if asked.aim is None:
        if asked.own is not None:  # else it is said on the left
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


def _ways(found: pd.DataFrame) -> list[tuple[str, str, bool]]:
    own, rest = float(found.attrs["own"]), float(found.attrs["rest"])
    return [
        ("through heads", streams.signed_number(own - rest), True),
        ("not through heads", streams.signed_number(rest), False),
        ("the model’s own", streams.signed_number(own), False),
    ]


def _sentence(table: pd.DataFrame) -> str:
    if state.parts == "positions":
        return "What reached the answer through heads, by the position where they read it."
    return streams.who_sentence(table, float(table.attrs["total"]))


def _parts(run: Run, table: pd.DataFrame, rather: str) -> list[dict[str, Any]]:
    return [
        {
            "name": part.name,
            "value": part.value,
            "text": streams.signed_number(part.value),
            "go": part.head and named(run.capture, part.head, rather),
        }
        for part in streams.parts(table)
    ]


def _sources(run: Run, asked: Question) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Where heads read what they put onto the answer, in the order of the text."""
    found = positions_of(run, asked.aim)
    cross = {"cross": "source "} if found["sequence"].nunique() > 1 else {}
    told = [(cross.get(row.sequence, "") + visible(row.token), float(row.value)) for row in found.itertuples()]
    return [{"name": name, "value": v, "text": streams.signed_number(v)} for name, v in told], found


def _map(run: Run, table: pd.DataFrame, rather: str) -> None:
    cells, heads = streams.head_map(table)
    ways = [[head and named(run.capture, head, rather) for head in row] for row in heads]
    leads = pictures.Leads(heads_address(run.subject), ways)
    pictures.cells(cells, key="stream-map", title="Heads and MLPs", leads=leads)
    note(f"Click a head to look at it. {_sentence(table)}")
    cells_files(run, cells, "Who says it", lambda: table, "map")
