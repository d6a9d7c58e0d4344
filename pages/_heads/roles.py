"""Heads in words: chips that leave those of one kind, and a card that says what the chosen one does."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import streamlit as st

from headwise.interp.analysis.in_words import DEFINITIONS, OTHERS, Chip, chips, in_words
from headwise.interp.attention.call import AttentionCall
from headwise.pages._heads.choices import HeadsChoices, state
from headwise.pages._heads.measures import METRIC_LABELS
from headwise.pages._shared.bar import Run
from headwise.pages._shared.shelf import server

ALWAYS = ("induction", "previous", "first", "entropy", "forbidden")  # figures of the card, beside those of its roles
ALL = "all"


def told(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """What each head of the chosen stack is called, and the figure that says so."""
    cap, stack = run.capture, state.stack
    return server().made("words", _key(run, table), lambda: in_words(cap, table.assign(stack=stack)))


def _key(run: Run, table: pd.DataFrame) -> tuple:
    return run.key, state.stack, tuple(table.columns)


def filters(run: Run, table: pd.DataFrame, found: pd.DataFrame) -> set[tuple[int, int]] | None:
    """Chips by what heads do → the heads (layer, head) of the chosen one, None where all are wanted."""
    cap, stack = run.capture, state.stack
    listed = server().made("chips", _key(run, table), lambda: chips(cap, found, stack))
    made = {chip.role: chip for chip in listed}
    names = [ALL, *made]
    HeadsChoices.role.one_of(names)
    every = sum(call.heads for call in cap.stack(state.stack))
    st.pills(
        "Heads that are",
        names,
        format_func=lambda role: f"{role} {every if role == ALL else len(made[role].heads)}",
        required=True,
        label_visibility="collapsed",
        **HeadsChoices.role.widget,
    )
    if state.role == ALL:
        return None
    st.html(f"<div class='chip-says' data-testid='chip-says'>{html.escape(_said(made[state.role]))}</div>")
    return set(made[state.role].heads)


def does(run: Run, call: AttentionCall, table: pd.DataFrame, found: pd.DataFrame) -> None:
    """The card of the chosen head: what it does, and the figures that say so."""
    layer, head = call.layer, state.head
    st.html(server().made("card", (*_key(run, table), layer, head), lambda: _card(layer, head, table, found)))


def _card(layer: int, head: int, table: pd.DataFrame, found: pd.DataFrame) -> str:
    own = found[(found["layer"] == layer) & (found["head"] == head)]
    row = table[(table["layer"] == layer) & (table["head"] == head)].iloc[0]
    said = [f"<p><b>{html.escape(each.role)}</b>: {html.escape(each.evidence)}</p>" for each in own.itertuples()]
    names = dict.fromkeys([*own["metric"], *ALWAYS])
    figures = "".join(_figure(name, float(row[name]), table[name]) for name in names if name in row)
    otherwise = "<p>It passes none of the tests for a head that has a name, on this input.</p>"
    return (
        f"<div class='does-title'>What it does <span>layer {layer} · head {head}</span></div>"
        f"<div class='does' data-testid='does'>{''.join(said) or otherwise}{figures}</div>"
    )


def _said(chip: Chip) -> str:
    return chip.sentence if chip.role == OTHERS else f"{chip.sentence}; {chip.least}"


def _figure(name: str, value: float, column: pd.Series) -> str:
    """One metric: a bar of what it could be, or of the most that any head here has."""
    most = float(np.nanmax([1.0, column.max()]))
    share = 0.0 if value != value else min(max(value / most, 0.0), 1.0)
    style = "alarm" if name == "forbidden" and value > 0 else ""
    number = "–" if value != value else "< 0.01" if 0 < value < 0.005 else f"{value:.2f}"
    return (
        f"<div title='{html.escape(DEFINITIONS[name], quote=True)}' class='{style}'><span>{METRIC_LABELS[name]}</span>"
        f"<u><i style='width:{share:.0%}'></i></u><em>{number}</em></div>"
    )
