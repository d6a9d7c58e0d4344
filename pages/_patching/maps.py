"""The maps: what each part of one run does in the other, by position and by head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd
import streamlit as st

from headwise.interp.analysis.targets import Target
from headwise.interp.drawing import patched as drawing
from headwise.interp.drawing import streams
from headwise.interp.drawing.streams import signed_number
from headwise.pages._patching.choices import PatchingChoices, state
from headwise.pages._patching.found import Two, estimated_of, patched_of, seconds_of
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared import pictures
from headwise.pages._shared.bar import Run
from headwise.pages._shared.buttons import choice
from headwise.pages._shared.files import cells_files
from headwise.pages._shared.leading import heads_address, named, to_head
from headwise.pages._shared.words import heading, note

QUICK = 4.0  # seconds of exact patching that begins by itself
BESIDE = 10  # positions at most of maps that stand beside each other
NAMES_OF = ("exact", "estimated", "shown")  # the fields of Tables
NAMES = {"exact": "Exact", "estimated": "Estimated", "error": "Error"}
PATHS = "patching-paths"
HELP = {
    "denoising": "The corrupted input is run with one part of the clean run put in: what suffices to bring the answer "
    "back?",
    "noising": "The clean input is run with one part of the corrupted run put in: what can the answer not do without?",
}


@dataclass(frozen=True, eq=False)
class Tables:
    """What patching found: ``exact``, None where that was not measured, and ``estimated``; ``shown``, one of them or
    what lies between."""

    exact: pd.DataFrame | None
    estimated: pd.DataFrame
    shown: pd.DataFrame

    @property
    def best(self) -> pd.DataFrame:
        return self.estimated if self.exact is None else self.exact


def maps(two: Two, aim: Target) -> Tables:
    """Draw those by position → what was found. Raises InputError where the runs do not differ."""
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
    told.html(heading(*drawing.answer_sentence(estimated)))
    tables = Tables(exact, estimated, _shown(exact, estimated))
    most = drawing.scale_of(*(drawing.of_kind(tables.best, kind) for kind in drawing.PLACED))
    first = drawing.begins(estimated)
    if first:
        note(f"Positions 0 … {first - 1} are left out: they are the same in both runs, so nothing is moved there.")
    names = drawing.streams_of(estimated)
    for stack in names:
        own = replace(tables, **{name: drawing.of_stack(getattr(tables, name), stack) for name in NAMES_OF})
        if len(names) > 1:
            st.html(heading(f"{stack.capitalize()} stream"))
        for group in _groups(two, own, first):
            for column, kind in zip(_columns(len(group)), group, strict=False):
                with column:
                    map_of(two, kind, own, (first, most))
    for kind, why in two.kinds.items():
        if why:
            note(f"{drawing.TITLES[kind][0]}: {why}")
    return tables


def key_of(kind: str, stack: str = "") -> str:
    """The picture of a map; each stream has its own, a decoder's has just its kind."""
    return f"patching-{kind}{'' if stack in ('', 'decoder') else f'-{stack}'}"


def files(key: str, draw: Callable[[], None]) -> None:
    """The buttons for files of the picture ``key``, folded up."""
    with st.popover("", icon=":material/download:", type="tertiary", help="PNG, SVG, CSV", key=f"{key}-files"):
        draw()


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


def _columns(count: int) -> list:
    return list(st.columns(count, gap="medium")) if count > 1 else [st.container()]


def _groups(two: Two, tables: Tables, first: int) -> list[list[str]]:
    """Which maps stand beside each other; ``first``: the first position that is shown."""
    placed = [kind for kind in drawing.PLACED if not two.kinds[kind] and len(drawing.of_kind(tables.best, kind))]
    positions = int(tables.best["position"].max()) + 1
    rows = [placed] if positions - first <= BESIDE else [[kind] for kind in placed]
    return [row for row in rows if row]


def map_of(two: Two, kind: str, tables: Tables, cut: tuple[int, float] = (0, 1.0)) -> None:
    """Draw one map. ``cut``: of those by position the first that is shown, and what the ends of the scale mean."""
    run, table, (first, most) = two.run, tables.shown, cut
    own = drawing.scale_of(drawing.of_kind(table, kind)) if kind in drawing.HEADED else most
    shown = drawing.mapped(table, kind, own)
    key = key_of(kind, table["stack"].iloc[0] if kind in drawing.PLACED else "")
    selected, window = _at(key), None
    part = shown
    if kind in drawing.PLACED:
        states, positions = shown.rows.shape
        chosen = (selected or (0, 0))[0], state.placed if 0 <= state.placed < positions else positions - 1
        window = streams.window(states, positions, chosen, every=True, start=min(first, positions - 1))
        part = shown.cut(window.first, window.end)
        window = replace(window, states=0)  # every row is shown, there are no fewer to ask for
    numbers = partial(drawing.of_kind, table, kind)
    heads = drawing.heads_of(table, part)
    leads = None
    if any(head for row in heads for head in row):
        ways = [[head and named(run.capture, head) for head in row] for row in heads]
        leads = pictures.Leads(heads_address(run.subject), ways)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.html(heading(*drawing.TITLES[kind]), width="content")
        files(key, lambda: cells_files(run, part.cells, drawing.TITLES[kind][0], numbers, key))
    pictures.cells(part.cells, key=key, title=drawing.TITLES[kind][0], selected=selected, window=window, leads=leads)
    _chosen(kind, shown, tables, selected)
    note(drawing.strongest_sentence(tables.best, kind))
    if tables.exact is not None:
        note(drawing.near_sentence(tables.exact, tables.estimated, kind))


def _chosen(kind: str, shown: drawing.Map, tables: Tables, selected: tuple[int, int] | None) -> None:
    """The cell that was clicked, in figures."""
    if selected is None or (row := shown.at(tables.best, *selected)) is None:
        return
    said = f"{drawing.place(row)}: {signed_number(row['effect'])}, {drawing.share(row['restored'])}"
    if tables.exact is not None:
        said += f"; estimated {signed_number(shown.at(tables.estimated, *selected)['effect'])}"
    note(f"{said[:1].upper()}{said[1:]}.")


def _at(key: str) -> tuple[int, int] | None:
    """The (row, position) that is looked at in a map."""
    name, _, rest = state.spot.partition(":")
    row, _, position = rest.partition(":")
    return (int(row), int(position)) if name == key and row.isdecimal() and position.isdecimal() else None


def take_events(run: Run) -> None:
    """What the pictures say the person just did, before anything is drawn: a field that is drawn cannot be set."""
    stacks = ["", *dict.fromkeys([*run.capture.stacks, *(stream.name for stream in run.capture.anatomy.streams)])]
    for key in [*(key_of(kind, stack) for kind in drawing.TITLES for stack in stacks), PATHS]:
        acted = _canvas.event(key)
        if "go" in acted:
            to_head(run.capture, acted["go"])
        if "position" in acted:
            state.spot, state.placed = f"{key}:{int(acted['row'])}:{int(acted['position'])}", int(acted["position"])
