"""What a mechanism saves and what that costs, as it is turned up; and how long it takes on this very machine."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from headwise.interp.attention.call import AttentionCall
from headwise.models.variants.beside import Beside
from headwise.models.variants.offered import OFFERED
from headwise.models.variants.timing import ASYMPTOTE, LENGTHS, Timed, timed
from headwise.pages._shared.bar import Run
from headwise.pages._shared.files import csv, file_buttons
from headwise.pages._shared.words import heading, note
from headwise.pages._shared.work import Work, worked
from headwise.pages._variants.choices import SIDES, VariantsChoices, state
from headwise.pages._variants.side import made, per_cent, through, turned, work

COLOURS = {"left": "#0072B2", "right": "#E69F00", "full": "#8C949C"}  # Okabe & Ito 2008
STEPS = 6  # values of an option
LONGEST = 1024  # tokens, for which errors are swept without being asked


def charts(run: Run, call: AttentionCall, head: int, sides: Sequence[Beside]) -> None:
    """Both charts, side by side."""
    left, right = st.columns(2, gap="medium")
    with left:
        _errors(run, call, head)
    with right:
        _times(call)


def _errors(run: Run, call: AttentionCall, head: int) -> None:
    names = " and ".join(f"{_grown(side).label.lower()} ({_title(side)})" for side in dict.fromkeys(SIDES))
    st.html(heading("What is saved, and what that costs", f"as one turns up {names}"))
    if call.queries > LONGEST:
        note(f"Drawn for texts of up to {LONGEST:,} tokens.")
        return
    curves = {side: _curve(run, call, head, side) for side in SIDES}
    st.plotly_chart(_error_figure(curves), key="variants-errors")
    note("Each point is a value of that option, the others as they are. Down and left is better.")


def _grown(side: str):
    """The option that is turned up: the first of the mechanism."""
    return OFFERED[getattr(state, side)].options[0]


def _title(side: str) -> str:
    return OFFERED[getattr(state, side)].title


def _curve(run: Run, call: AttentionCall, head: int, side: str) -> list[tuple[int, float, float]]:
    """(value, work as a share of the pairs, error) of a few values of its first option."""
    name, option, options = getattr(state, side), _grown(side), turned()
    values = sorted({max(option.low, option.high >> step, 1) for step in range(STEPS)})
    found = [(value, {**options, option.name: value}) for value in values]
    made = [(value, through(run, call, head, name, new), new) for value, new in found]
    return [(value, work(one, name, new), one.error) for value, one, new in made]


def _hover(label: str, value: int, seen: float, error: float) -> str:
    return f"{label} {value}: as much as {per_cent(seen)} of the pairs, off by {per_cent(error)}"


def _error_figure(curves):
    import plotly.graph_objects as go  # half a second, for those who look at this page

    fig = go.Figure()
    for side, curve in curves.items():
        label = _grown(side).label.lower()
        fig.add_scatter(
            x=[seen for _, seen, _ in curve],
            y=[error for _, _, error in curve],
            name=_title(side),
            mode="lines+markers",
            line={"color": COLOURS[side]},
            hovertext=[_hover(label, *point) for point in curve],
            hoverinfo="text",
        )
    return _laid_out(fig, "work, in pairs", "error of the output", {"tickformat": ".0%"}, {"tickformat": ".3~p"})


def _times(call: AttentionCall) -> None:
    st.html(heading("Time on this machine", f"one layer of {call.heads} heads, random queries and keys"))
    if not state.timed:
        note(
            f"Each mechanism as it is turned now, beside full attention, on {LENGTHS[0]:,} to {LENGTHS[-1]:,} tokens: "
            "some seconds of this machine."
        )
        st.toggle("Measure it here", **VariantsChoices.timed.widget)
        return
    mechanisms = {side: made(call, getattr(state, side), turned()) for side in SIDES}
    key = tuple((getattr(state, side), repr(by)) for side, by in mechanisms.items())
    width = call.query_width
    work = Work("timings", (key, call.heads, width), "timing")
    found = worked(work, lambda tell: timed(mechanisms, heads=call.heads, width=width, progress=tell))
    if found is None:
        return
    st.plotly_chart(_time_figure(found), key="variants-times")
    note(_slopes(found))
    file_buttons("variants-times", csv=lambda: csv(found.table))


def _slopes(found: Timed) -> str:
    names = {"full": "full attention", **{side: _title(side) for side in SIDES}}
    told = ", ".join(f"n^{slope:.1f} for {names[name]}" for name, slope in found.slopes.items())
    return f"Time grows with {told}, fitted from {LENGTHS[-ASYMPTOTE]:,} tokens on, while others may use this machine."


def _time_figure(found: Timed):
    import plotly.graph_objects as go

    fig = go.Figure()
    for name, rows in found.table.groupby("mechanism", sort=False):
        title = "Full attention" if name == "full" else _title(name)
        fig.add_scatter(
            x=rows["tokens"],
            y=rows["seconds"] * 1000,
            name=title,
            mode="lines+markers",
            line={"color": COLOURS[name]},
            hovertemplate="%{x:,} tokens: %{y:.3g} ms",
        )
    return _laid_out(fig, "tokens", "milliseconds", {"type": "log", "dtick": 0.30103}, {"type": "log"})


def _laid_out(fig, x: str, y: str, x_more: dict, y_more: dict):
    fig.update_xaxes(title=x, title_font_size=11, **x_more)
    fig.update_yaxes(title=y, title_font_size=11, **y_more)
    fig.update_layout(
        height=270,
        margin={"l": 0, "r": 0, "t": 4, "b": 0},
        legend={"orientation": "h", "y": 1.12, "x": 0},
        hoverlabel={"align": "left"},
    )
    return fig
