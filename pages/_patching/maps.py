"""The maps: what each part of one run does in the other, by position and by head."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from headwise.interp.analysis.targets import Target
from headwise.interp.drawing import patched as drawing
from headwise.interp.drawing import streams
from headwise.interp.drawing.streams import WIDE, signed_number
from headwise.pages._patching.choices import PatchingChoices, state
from headwise.pages._patching.found import Two, estimated_of, patched_of, seconds_of
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared import pictures
from headwise.pages._shared.buttons import choice
from headwise.pages._shared.files import cells_files
from headwise.pages._shared.leading import heads_address, named, to_head
from headwise.pages._shared.sidebar import Run
from headwise.pages._shared.words import heading, note

QUICK = 4.0  # seconds of exact patching that begins by itself
BESIDE = 26  # positions at most of maps that stand beside each other
NAMES = {"exact": "Exact", "estimated": "Estimated", "error": "Error"}
HELP = {
    "denoising": "The corrupted input is run with one part of the clean run put in: what suffices to bring the answer "
    "back?",
    "noising": "The clean input is run with one part of the corrupted run put in: what can the answer not do without?",
}


def maps(two: Two, aim: Target) -> pd.DataFrame | None:
    """Draw them → the table that is shown, None where there is none. Raises InputError where the runs do not differ."""
    told = st.empty()
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        choice("Direction", PatchingChoices.direction)
        slot = st.container(horizontal=True, vertical_alignment="center", gap="small")
    note(HELP[state.direction])
    estimated = estimated_of(two, aim, state.direction)
    with slot:
        exact = _measured(two, aim, len(estimated))
        if exact is not None:
            choice("Shown", PatchingChoices.shown, NAMES.get)
    told.html(heading(drawing.answer_sentence(estimated)))
    shown = _shown(exact, estimated)
    most = drawing.scale_of(exact if exact is not None else estimated)
    _take_events(two.run, shown)
    for group in _groups(two):
        for column, kind in zip(st.columns(len(group), gap="medium") if len(group) > 1 else [st], group, strict=True):
            with column.container(key=f"patched-{kind}"):
                _map(two, kind, shown, (exact, estimated), most)
    for kind, why in two.kinds.items():
        if why:
            note(f"{drawing.TITLES[kind][0]}: {why}")
    return shown


def _measured(two: Two, aim: Target, parts: int) -> pd.DataFrame | None:
    """The exact maps, at once where that is quick, else when they are asked for."""
    seconds = seconds_of(two, parts)
    if seconds > QUICK and not state.measured:
        st.button(
            f"Measure exactly (≈ {round(seconds)} s)", key="patching-measure", icon=":material/straighten:",
            on_click=_measure,
        )  # fmt: skip
        note("Shown are estimates by one gradient.")
        return None
    return patched_of(two, aim, state.direction)


def _measure() -> None:
    state.measured = True


def _shown(exact: pd.DataFrame | None, estimated: pd.DataFrame) -> pd.DataFrame:
    if exact is None or state.shown == "estimated":
        return estimated
    return exact if state.shown == "exact" else drawing.differences(exact, estimated)


def _groups(two: Two) -> list[list[str]]:
    """Which maps stand beside each other."""
    there = [kind for kind, why in two.kinds.items() if not why]
    placed = [kind for kind in there if kind in drawing.PLACED]
    headed = [kind for kind in there if kind in drawing.HEADED]
    positions = max((len(axis) for axis in two.run.capture.axes.values()), default=0)
    rows = [placed] if positions <= BESIDE else [[kind] for kind in placed]
    return [row for row in (*rows, headed) if row]


def _map(two: Two, kind: str, table: pd.DataFrame, both: tuple, most: float) -> None:
    run, (exact, estimated) = two.run, both
    own = drawing.scale_of(drawing.of_kind(table, kind)) if kind in drawing.HEADED else most
    shown = drawing.mapped(table, kind, state.direction, own)
    st.html(heading(*drawing.TITLES[kind]))
    selected, window = _at(kind), None
    part = shown
    if kind in drawing.PLACED:
        states, positions = shown.rows.shape
        chosen = (selected or (0, 0))[0], state.placed if 0 <= state.placed < positions else positions - 1
        window = streams.window(states, positions, chosen, every=True)
        part = shown.cut(window.first, window.end)
        window = window if positions > WIDE else None
    heads = drawing.heads_of(table, part)
    leads = None
    if any(head for row in heads for head in row):
        ways = [[head and named(run.capture, head) for head in row] for row in heads]
        leads = pictures.Leads(heads_address(run.subject.family), ways)
    pictures.cells(
        part.cells, key=f"patching-{kind}", title=drawing.TITLES[kind][0], selected=selected, window=window, leads=leads
    )
    note(drawing.strongest_sentence(exact if exact is not None else estimated, kind, state.direction))
    if exact is not None:
        note(drawing.near_sentence(exact, estimated, kind))
    _chosen(kind, shown, both, selected)
    with st.popover("Files", icon=":material/download:"):
        cells_files(run, part.cells, drawing.TITLES[kind][0], lambda: drawing.of_kind(table, kind), f"patching-{kind}")


def _chosen(kind: str, shown: drawing.Map, both: tuple, selected: tuple[int, int] | None) -> None:
    """The cell that was clicked, in figures."""
    exact, estimated = both
    if selected is None or (row := shown.at(estimated if exact is None else exact, *selected)) is None:
        return
    said = f"{drawing.place(row)}: {signed_number(row['effect'])}, {drawing.share(row['restored'])}"
    if exact is not None:
        said += f"; estimated {signed_number(shown.at(estimated, *selected)['effect'])}"
    note(f"{said[:1].upper()}{said[1:]}.")


def _at(kind: str) -> tuple[int, int] | None:
    """The (row, position) that is looked at in the map of a kind."""
    name, _, rest = state.spot.partition(":")
    row, _, position = rest.partition(":")
    return (int(row), int(position)) if name == kind and row.isdecimal() and position.isdecimal() else None


def _take_events(run: Run, table: pd.DataFrame) -> None:
    """What the pictures say the person just did, before anything is drawn."""
    for kind in drawing.TITLES:
        acted = _canvas.event(f"patching-{kind}")
        if "go" in acted:
            to_head(run.capture, acted["go"])
        if "position" in acted:
            state.spot, state.placed = f"{kind}:{int(acted['row'])}:{int(acted['position'])}", int(acted["position"])
