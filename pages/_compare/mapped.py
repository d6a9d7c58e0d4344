"""The map of heads: those that look alike lie together; of two runs, each head is joined with itself."""

from __future__ import annotations

import html

import streamlit as st

from headwise.interp.analysis.comparing.compare import Comparison
from headwise.interp.analysis.comparing.likeness import SHORT, HeadMap
from headwise.interp.drawing import comparing
from headwise.interp.drawing.comparing import Head
from headwise.interp.errors import InputError
from headwise.pages._compare.beside import Other
from headwise.pages._compare.choices import state
from headwise.pages._compare.found import likeness
from headwise.pages._shared.bar import Run
from headwise.pages._shared.files import csv, file_buttons
from headwise.pages._shared.markdown import plain
from headwise.pages._shared.words import heading, note

# Okabe & Ito 2008 without vermillion, which is for alarms, and with two more hues
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#7A5C3E", "#8F7FE0", "#B8A900", "#8C949C")
JOINED = 40  # heads, those that moved most, that are joined with themselves


def mapped(run: Run, other: Other, found: Comparison, chosen: Head) -> None:
    """Draw it, with what each group looks at."""
    st.html(heading("Heads that look alike", "by where they look, in both runs"))
    try:
        shown = likeness(run, other, found)
    except InputError as error:
        st.info(plain(str(error)), icon=":material/visibility_off:")
        return
    picked = state.news("compare-likeness")
    if picked:
        row = shown.table.iloc[picked[0]]
        if (found.pairs[state.stack].get((int(row["layer"]), int(row["head"])))) and row["side"] == "one":
            state.layer, state.head, state.query = int(row["layer"]), int(row["head"]), -1
            st.rerun(scope="fragment")
    st.plotly_chart(_figure(shown, found, chosen), key="compare-likeness", on_select="rerun", selection_mode="points")
    st.html(_legend(shown))
    note(comparing.map_sentence(shown))
    file_buttons("compare-map", csv=lambda: csv(shown.table))


def _figure(shown: HeadMap, found: Comparison, chosen: Head):
    import plotly.graph_objects as go  # half a second, for those who look at this page

    table = shown.table
    one, other = (table[table["side"] == side] for side in ("one", "other"))
    fig = go.Figure()
    fig.add_scatter(
        x=table["x"],
        y=table["y"],
        mode="markers",
        hovertext=[_hover(row, found) for row in table.itertuples()],
        hoverinfo="text",
        marker={
            "color": [PALETTE[group % len(PALETTE)] for group in table["group"]],
            "symbol": ["circle" if side == "one" else "circle-open" for side in table["side"]],
            "size": 9 if len(table) < 200 else 6,
            "line": {"width": 1.5},
            "opacity": 0.9,
        },
        unselected={"marker": {"opacity": 0.75}},
    )
    ends = _joined(one, other, found)
    fig.add_scatter(
        x=ends[0], y=ends[1], mode="lines", hoverinfo="skip", line={"width": 1, "color": "rgba(128,128,128,.5)"}
    )
    mine = one[(one["layer"] == chosen[1]) & (one["head"] == chosen[2])]
    ring = {"symbol": "circle-open", "size": 19, "line": {"width": 2.5}, "color": "#8C949C"}
    fig.add_scatter(x=mine["x"], y=mine["y"], mode="markers", marker=ring, hoverinfo="skip")
    bare = {"showticklabels": False, "zeroline": False, "ticks": "", "showgrid": False}
    fig.update_xaxes(**bare)
    fig.update_yaxes(**bare)
    fig.update_layout(
        height=280,
        margin={"l": 0, "r": 0, "t": 4, "b": 0},
        showlegend=False,
        hoverlabel={"align": "left"},
        dragmode="pan",
    )
    return fig


def _joined(one, other, found: Comparison) -> tuple[list, list]:
    """Lines from heads to themselves in the other run."""
    places = {(row.layer, row.head): (row.x, row.y) for row in other.itertuples()}
    starts = {(row.layer, row.head): (row.x, row.y) for row in one.itertuples()}
    across, up = [], []
    rows = found.table[found.table["stack"] == state.stack].head(JOINED)
    for row in rows.itertuples():
        begin, end = starts.get((row.layer, row.head)), places.get((row.other_layer, row.other_head))
        if begin and end:
            across += [begin[0], end[0], None]
            up += [begin[1], end[1], None]
    return across, up


def _hover(row, found: Comparison) -> str:
    side = comparing.side_name(found, 0 if row.side == "one" else 1)
    shares = sorted(((name, getattr(row, name, 0.0)) for name in SHORT), key=lambda pair: -pair[1])[:3]
    told = ", ".join(f"{SHORT[name]} {share:.0%}" for name, share in shares if share >= 0.05)
    return f"{html.escape(side)} {row.layer}·{row.head}<br>{told}"


def _legend(shown: HeadMap) -> str:
    parts = "".join(
        f"<div style='display:flex;gap:.45em'><span style='color:{PALETTE[number % len(PALETTE)]}'>⬤</span>"
        f"<span>{html.escape(group.name)} <span style='opacity:.6'>· {group.count}</span></span></div>"
        for number, group in enumerate(shown.groups)
    )
    sides = "<div style='opacity:.66'>filled: first run · open: second run · joined: the same head</div>"
    return f"<div data-testid='groups' style='font-size:.79rem;line-height:1.5'>{parts}{sides}</div>"
