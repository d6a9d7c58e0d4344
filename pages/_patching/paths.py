"""Path patching: what each head hands to one receiver."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from headwise.interp.analysis.patching import receiver_of
from headwise.interp.analysis.targets import Target
from headwise.interp.drawing import patched as drawing
from headwise.interp.run.sites import Site
from headwise.pages._patching.choices import ANSWER, PARTS, PatchingChoices, state
from headwise.pages._patching.found import Two, paths_of, seconds_of
from headwise.pages._patching.maps import PATHS, files
from headwise.pages._shared import pictures
from headwise.pages._shared.buttons import choice
from headwise.pages._shared.files import cells_files
from headwise.pages._shared.leading import heads_address, named
from headwise.pages._shared.words import heading, note

QUICK = 3.0  # seconds that begin by themselves
MANY = 12  # heads that are offered as receivers, the strongest
TITLE = ("Paths", "from each head to one receiver alone")


def paths(two: Two, aim: Target, table: pd.DataFrame) -> None:
    """Draw them. ``table``: what patching found, whose strongest heads are offered as receivers."""
    cap = two.run.capture
    heads = _strongest(table)
    title = st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute")
    title.html(heading(*TITLE), width="content")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        names = {ANSWER: "straight to the answer"} | {key: f"into head {name}" for key, name in heads.items()}
        options = [*names, *([state.receiver] if state.receiver not in names and _known(two) else [])]
        PatchingChoices.receiver.one_of(options)
        st.selectbox(
            "Receiver",
            options,
            format_func=lambda key: names.get(key, f"into head {'.'.join(key.split(':')[1:])}"),
            label_visibility="collapsed",
            width=190,
            **PatchingChoices.receiver.widget,
        )
        if state.receiver != ANSWER:
            choice("Received as", PatchingChoices.receives, options=PARTS)
    receiver, said = _receiver(two)
    count = sum(call.heads for call in cap.calls)
    seconds = seconds_of(two, count * (1 if receiver == ANSWER else 2))
    if seconds > QUICK and not state.traced:
        st.button(f"Trace (≈ {round(seconds)} s)", icon=":material/route:", on_click=_trace)
        return
    found = paths_of(two, aim, state.direction, receiver)
    if found is None:
        return
    cells, ways = drawing.path_map(found, drawing.scale_of(found))
    leads = [[head and named(cap, head) for head in row] for row in ways]
    pictures.cells(cells, key=PATHS, title="Paths", leads=pictures.Leads(heads_address(two.run.subject), leads))
    note(drawing.path_sentence(found, said))
    with title:
        files(PATHS, lambda: cells_files(two.run, cells, f"Paths to {said}", lambda: found, PATHS))


def _strongest(table: pd.DataFrame) -> dict[str, str]:
    """Heads as "stack:layer:head" → how they are called, those that do most first."""
    heads = drawing.of_kind(table, "heads")
    ranked = heads.reindex(heads["effect"].abs().sort_values(ascending=False, kind="stable").index).head(MANY)
    several = heads["stack"].nunique() > 1
    return {
        f"{row.stack}:{row.layer}:{row.head}": f"{f'{row.stack} ' if several else ''}{row.layer}.{row.head}"
        for row in ranked.itertuples()
    }


def _known(two: Two) -> bool:
    """Whether the receiver of an address is a head of this model."""
    stack, _, rest = state.receiver.partition(":")
    layer, _, head = rest.partition(":")
    if not (layer.isdecimal() and head.isdecimal()):
        return False
    calls = {call.layer: call.heads for call in two.run.capture.calls if call.stack == stack}
    return int(head) < calls.get(int(layer), 0)


def _receiver(two: Two) -> tuple[Site | str, str]:
    """The receiver, and what it is called in a sentence."""
    if state.receiver == ANSWER:
        return ANSWER, "the direct path to the answer"
    stack, layer, head = state.receiver.split(":")
    site = receiver_of(two.run.capture, state.receives, int(layer), int(head), stack)
    return site, f"the {state.receives} of head {layer}.{head}"


def _trace() -> None:
    state.traced = True
