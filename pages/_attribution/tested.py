"""The figures of faithfulness of both methods, beside random orders."""

from __future__ import annotations

import html
from collections.abc import Sequence

import streamlit as st

from headwise.interp.analysis.attribution import Attribution
from headwise.interp.analysis.attribution.faithfulness import Faithfulness
from headwise.interp.drawing import faithful
from headwise.interp.drawing.streams import percent
from headwise.pages._shared.words import heading, note

MEANINGS = (  # as FIGURES, and how many random orders it beats: name, what it means
    (
        "comprehensiveness ↑",
        "How much of the chance goes when the first 1, 5, 10, 20, 50 % are taken away, on average. High: what it marks "
        "was needed. (DeYoung et al. 2020)",
    ),
    (
        "sufficiency ↓",
        "How much of the chance is missing when only the first 1, 5, 10, 20, 50 % are left, on average. Low: what it "
        "marks is enough. (DeYoung et al. 2020)",
    ),
    ("gain ↑", "Area under “put back” less area under “take away”; random orders come to 0. (Blücher et al. 2024)"),
    ("random orders beaten", "How many of the random orders have less gain."),
)
GAP = ("scores add up to", "How far they are from adding up to what they explain, where the method says they do.")


def tested(results: Sequence[Faithfulness | None], found: Sequence[Attribution | None]) -> None:
    """Draw the table, figures down and methods across, and the sentence of each method."""
    done = [each for each in results if each]
    if not done:
        return
    st.html(heading("Tested on this very input"))
    columns = faithful.columns(done)
    own = [each.method for each in results if each]
    head = "".join(
        f"<th>{_dash(results, column.name) if column.name in own else ''}{html.escape(column.name)}</th>"
        for column in columns
    )
    lines = [_line(meaning, [(column.figures[i], column.best[i]) for column in columns])
             for i, meaning in enumerate(MEANINGS)]  # fmt: skip
    gaps = {one.method: f"± {percent(one.gap)}" for one in found if one and one.gap is not None}
    if gaps:
        lines.append(_line(GAP, [(gaps.get(column.name, ""), False) for column in columns]))
    st.html(f"<table class='figures' data-testid='figures'><tr><th></th>{head}</tr>{''.join(lines)}</table>")
    told = [one.note for one in found if one and one.note]
    for sentence in dict.fromkeys([*(each.sentence for each in done), *told]):
        note(sentence)


def _dash(results: Sequence[Faithfulness | None], name: str) -> str:
    """How the method's line is drawn in the curves."""
    place = next(i for i, each in enumerate(results) if each and each.method == name)
    return f"<i class='{'second' if place else ''}'></i>"


def _line(meaning: tuple[str, str], cells: Sequence[tuple[str, bool]]) -> str:
    name, told = meaning
    body = "".join(f"<td>{f'<b>{html.escape(text)}</b>' if best else html.escape(text)}</td>" for text, best in cells)
    return f"<tr><td title='{html.escape(told, quote=True)}'>{html.escape(name)}</td>{body}</tr>"
