"""Every method that applies, tested on this very input, the most faithful first."""

from __future__ import annotations

import streamlit as st

from headwise.interp.analysis.attribution import METHODS
from headwise.interp.analysis.targets import Target
from headwise.interp.drawing import faithful
from headwise.interp.errors import InputError
from headwise.pages._attribution.found import attribution_of, faithfulness_of, floor_of, refusals_of
from headwise.pages._shared import pictures
from headwise.pages._shared.bar import Run
from headwise.pages._shared.words import heading, note


def ranking(run: Run, aim: Target, kind: str) -> None:
    """Draw it."""
    st.html(heading("All methods", "gain on this input"))
    floor = floor_of(run, aim, kind)
    if floor is None:
        return
    tested, refused = [], refusals_of(run)
    for name in METHODS:
        if name in refused:
            continue
        try:
            found = attribution_of(run, aim, name, kind)
            tested.append(found and faithfulness_of(run, found, kind, floor))
        except InputError as error:
            refused = {**refused, name: str(error)}
    lines, sentence = faithful.ranking([one for one in tested if one], floor)
    pictures.bars(lines, key="attribution-ranking", title="Gain of each method")
    note(sentence)
    for name, why in refused.items():
        note(f"{name}: {why}")
