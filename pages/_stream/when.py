"""When the answer appears: every state of the stream read early, or how long it is and how it turns."""

from __future__ import annotations

import streamlit as st

from headwise.interp.analysis.lens import Lens
from headwise.interp.drawing import streams
from headwise.interp.drawing.paper.text import visible
from headwise.interp.errors import InputError
from headwise.pages._shared import pictures
from headwise.pages._shared.bar import Run
from headwise.pages._shared.buttons import choice
from headwise.pages._shared.files import cells_files
from headwise.pages._shared.question import Question
from headwise.pages._shared.words import heading, note
from headwise.pages._stream.choices import StreamChoices, state
from headwise.pages._stream.found import lens_of, norms_of

TITLES = {
    "lens": ("When the answer appears", "logit lens: final norm and unembedding, read early"),
    "tuned": ("When the answer appears", "tuned lens: a learned map to the end, then the same"),
    "norms": ("How the stream grows and turns", "length and direction of every state"),
}
TOP = 5  # tokens of the chosen cell


def when(run: Run, asked: Question) -> str:
    """The left half → what it was read as, one of TITLES."""
    title = st.empty()
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        choice("Read by", StreamChoices.reading, disabled=asked.own is None)
        if state.reading == "norms" or asked.own is None:
            choice("Colour", StreamChoices.measure, {"norm": "Length", "change": "Change", "cosine": "Turn"}.get)
        else:
            choice("Colour", StreamChoices.shade, {"chance": "Chance", "rank": "Rank", "kl": "To the end"}.get)
    lens = _lens(run, asked)
    read_as = "norms" if lens is None else state.reading
    title.html(heading(*TITLES[read_as]))
    if lens is None:
        _norms(run)
    else:
        _read(run, asked, lens)
    return read_as


def _lens(run: Run, asked: Question) -> Lens | None:
    """The lens that was asked for; None where that is none, and where there is none, which is said."""
    if state.reading == "norms":
        return None
    if asked.own is None:
        if asked.problem:
            st.info(asked.problem, icon=":material/visibility_off:")
        return None
    try:
        return lens_of(run, state.stream, state.reading == "tuned")
    except InputError as error:
        st.info(str(error), icon=":material/visibility_off:")
        return None


def _chosen(states: int, positions: int, answer: int) -> tuple[int, int]:
    """The (row, position) looked at."""
    row = state.row if 0 <= state.row < states else states - 1
    return row, state.position if 0 <= state.position < positions else min(answer, positions - 1)


def _read(run: Run, asked: Question, lens: Lens) -> None:
    own = asked.own
    states, positions = len(lens.labels), len(lens.axis)
    answer = own.position or 0  # where a model scores its whole input, most read the first position
    at = _chosen(states, positions, answer)
    shown = streams.window(states, positions, at, state.every)
    cells = streams.lens_cells(lens, own.token, own.names[0], state.shade, shown)
    pictures.cells(cells, key="stream-cells", title="Read early", selected=at, window=shown, marked=answer)
    note(streams.when_sentence(lens, own.token, own.names[0], at[1]))
    left, right = st.columns(2, gap="medium")
    where = f"{visible(lens.axis.labels[at[1]])} ({at[1]})"
    with left:
        _ranks(asked, lens, at, where)
    with right:
        _best(lens, at, where)
        _ask_here(own.position, at[1], where)
    cells_files(run, cells, TITLES[state.reading][0], lambda: lens.table(own.token))


def _ranks(asked: Question, lens: Lens, at: tuple[int, int], where: str) -> None:
    """The answer's rank through the layers, and that of its alternative."""
    aim = asked.aim or asked.own
    st.html(heading(f"Rank of {visible(aim.names[0])}", f"at {where}"))
    told = [(name, token) for name, token in zip(aim.names, (aim.token, aim.against), strict=True) if token is not None]
    ranks = [(visible(name), lens.rank(token)[:, at[1]]) for name, token in told]
    labels = [streams.state_name(label) for label in lens.labels]
    pictures.lines(ranks, labels, key="stream-lines", title="Rank through the layers", row=at[0])


def _best(lens: Lens, at: tuple[int, int], where: str) -> None:
    """The most probable answers of the chosen cell."""
    st.html(heading(streams.state_name(lens.labels[at[0]]).capitalize(), f"at {where}"))
    best = [(visible(name), chance) for _, name, chance in lens.top(*at, TOP)]
    rows = [{"name": name, "value": chance, "text": streams.percent(chance)} for name, chance in best]
    pictures.bars(rows, key="stream-top", title="Most probable", signed=False)
    note(streams.distance_sentence(lens, *at))


def _ask_here(answer: int | None, position: int, where: str) -> None:
    """Let the question be about another position."""
    if answer is None or answer == position:
        return

    def ask() -> None:
        state.asked, state.answer, state.against = position, "", ""

    st.button(f"Ask at {where}".replace("[", r"\["), icon=":material/help:", on_click=ask)


def _norms(run: Run) -> None:
    try:
        table = norms_of(run, state.stream)
    except InputError as error:
        st.info(str(error), icon=":material/visibility_off:")
        return
    states, positions = table["after"].nunique(), table["position"].nunique()
    at = _chosen(states, positions, positions - 1)
    shown = streams.window(states, positions, at, state.every)
    cells = streams.norm_cells(table, state.measure, shown)
    pictures.cells(cells, key="stream-cells", title="Norms", selected=at, window=shown)
    note(streams.turning_sentence(table))
    cells_files(run, cells, TITLES["norms"][0], lambda: table)
