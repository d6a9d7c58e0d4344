"""What both runs say, and how far that is apart."""

from __future__ import annotations

import streamlit as st

from headwise.interp.analysis.comparing.answer import Answers, answers_of
from headwise.interp.analysis.comparing.compare import Comparison
from headwise.interp.drawing import comparing
from headwise.interp.drawing.paper.text import visible
from headwise.interp.drawing.streams import percent, wanted
from headwise.interp.errors import InputError
from headwise.pages._compare.choices import CompareChoices, state
from headwise.pages._shared import pictures
from headwise.pages._shared.bar import Run
from headwise.pages._shared.choices import ALONE, Choice
from headwise.pages._shared.files import bars_files
from headwise.pages._shared.markdown import plain
from headwise.pages._shared.words import heading, note

SHOWN = 7  # answers
NONE = "on its own"


def says(run: Run, found: Comparison) -> None:
    """The answers whose probability changed most, and the logit that is asked about."""
    names = [comparing.side_name(found, side) for side in (0, 1)]
    st.html(heading("What they say", f"probability, {names[0]} → {names[1]}"))
    try:
        likely = answers_of(found)
    except InputError as error:
        st.info(plain(str(error)), icon=":material/visibility_off:")
        return
    said = _asked(found, likely)
    rows = [
        {
            "name": visible(row.answer),
            "value": float(row.change),
            "text": f"{percent(row.one)} → {percent(row.other)}",
        }
        for row in said.table.head(SHOWN).itertuples()
    ]
    pictures.bars(rows, key="compare-says", title="What they say")
    note(comparing.answer_sentence(said))
    bars_files(run, rows, [], "What they say", said.table, "compare-answers")


def _asked(found: Comparison, likely: Answers) -> Answers:
    """With the answer and the alternative that are asked about; where these are none, what both say themselves."""
    names = list(dict.fromkeys(likely.table["answer"]))
    with st.container(horizontal=True, gap="small"):
        _field("Answer", CompareChoices.answer, {"": f"logit of {visible(likely.aim.names[0])}"}, names)
        other = visible(likely.aim.names[1])
        rather = {"": f"rather than {other}", ALONE: NONE} if other else {"": NONE}
        _field("Rather than", CompareChoices.against, rather, names)
    if not state.answer and not state.against:
        return likely
    against = likely.aim.against if not state.against else None if state.against == ALONE else wanted(state.against)
    answer = wanted(state.answer) if state.answer else likely.aim.token
    try:
        return answers_of(found, answer, against)
    except InputError as error:
        st.error(plain(str(error)))
        return likely


def _field(label: str, choice: Choice, fixed: dict[str, str], names: list[str]) -> None:
    value = getattr(state, choice.key)
    st.selectbox(
        label,
        list(dict.fromkeys([*fixed, *names, *([value] if value else [])])),
        format_func=lambda key: fixed.get(key, visible(key)),
        accept_new_options=True,
        label_visibility="collapsed",
        width=150,
        **choice.widget,
    )
