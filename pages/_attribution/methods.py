"""The two methods that stand side by side."""

from __future__ import annotations

import html

import streamlit as st

from headwise.interp.analysis.attribution import METHODS
from headwise.pages._attribution.choices import AttributionChoices, state
from headwise.pages._attribution.found import refusals_of
from headwise.pages._shared.bar import Run
from headwise.pages._shared.choices import Choice

USUAL = ("attention rollout", "Chefer relevance", "integrated gradients")  # beside the first: what applies of these


def usual(run: Run) -> str:
    """What stands beside the first method until somebody chooses."""
    refused = refusals_of(run)
    return next((name for name in USUAL if name not in refused), USUAL[-1])


def choose(run: Run) -> tuple[str, str]:
    """Draw the two choices, each with what its method does → their names."""
    refused = refusals_of(run)
    state.compared = state.compared or usual(run)
    fields = (("Method", AttributionChoices.method), ("Beside it", AttributionChoices.compared))
    for column, (label, choice) in zip(st.columns(2, gap="medium"), fields, strict=True):
        with column:
            _field(label, choice, refused)
    return state.method, state.compared


def _field(label: str, choice: Choice, refused: dict[str, str]) -> None:
    name = choice.one_of(list(METHODS))
    st.selectbox(
        label,
        list(METHODS),
        format_func=lambda each: f"{_capital(each)}{' – does not apply here' if each in refused else ''}",
        label_visibility="collapsed",
        **choice.widget,
    )
    method = METHODS[name]
    title, address = method.paper
    st.html(
        f"<div class='method' data-testid='method'><span title='{html.escape(method.limits)}'>"
        f"{html.escape(method.sentence)}</span> <a href='{html.escape(address)}' target='_blank' rel='noopener'>"
        f"{html.escape(title.split(',')[0])}</a></div>"
    )


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]
