"""Heads: the grid of all heads, one of them large, and the table that measures them."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import streamlit as st

from headwise import Capture
from headwise.interp.analysis.metrics import DEFINITIONS
from headwise.interp.drawing.survey import Survey, grid_pictures, layer_marks, patch_pictures
from headwise.pages._heads.downloads import downloads
from headwise.pages._heads.head import choice, head
from headwise.pages._heads.output import output
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared.shelf import server
from headwise.pages._shared.sidebar import Run, share, sidebar

CHEAP_PARAMETERS = 20_000_000  # below it, induction scores are simply there
METRIC_LABELS = {  # in the order of the table's columns
    "previous": "previous",
    "first": "first",
    "self": "self",
    "induction": "induction",
    "duplicate": "duplicate",
    "entropy": "entropy",
    "entropy_normalised": "entropy 0–1",
    "distance": "distance",
    "information": "information",
    "forbidden": "forbidden",
}
NARROW = """<style>@media (max-width: 1000px) {
.st-key-halves > [data-testid=stLayoutWrapper] > [data-testid=stHorizontalBlock] { flex-wrap: wrap }
.st-key-halves > [data-testid=stLayoutWrapper] > [data-testid=stHorizontalBlock] > [data-testid=stColumn] {
  min-width: 100% }
}</style>"""  # Streamlit itself puts columns below each other at 640 pixels only


def heads() -> None:
    """The page."""
    run = sidebar()
    cap = run.capture
    if not cap.calls:
        st.error(
            f"{cap.subject.name} gave no attention to look at: "
            f"{'; '.join(map(str, cap.unseen[:3])) or 'it has no attention module'}."
        )
        st.stop()
    header = st.empty()
    header.html(header_line(run, "measuring …"))
    for warning in cap.subject.warnings:
        st.warning(warning[:1].upper() + warning[1:] + ".", icon=":material/info:")
    if cap.inputs.notes:
        st.html(f"<div class='headline' data-testid='notes'>{html.escape(' · '.join(cap.inputs.notes))}</div>")
    output(run)
    surveyed = _survey(run)
    _explorer(run, surveyed)
    with server().stove:
        header.html(header_line(run, fidelity_words(cap.fidelity)))


def fidelity_words(fidelity: float | None) -> str:
    return "not measured" if fidelity is None else f"{fidelity:.1e}" if fidelity else "0"


def header_line(run: Run, fidelity: str) -> str:
    """The line that is always true, as HTML; all of it escaped."""
    cap, subject = run.capture, run.capture.subject
    shape = " + ".join(
        f"{len(calls)} layers × {'/'.join(str(h) for h in sorted({c.heads for c in calls}))} heads"
        + (f" ({name})" if len(cap.stacks) > 1 else "")
        for name in cap.stacks
        for calls in [cap.stack(name)]
    )
    unseen = "; ".join(map(str, cap.unseen))
    parts = [
        f"<b>{html.escape(subject.name)}</b>",
        f"{_count(subject.parameters)} parameters",
        html.escape(shape),
        sizes(cap),
        f"attention {html.escape(subject.implementation)}",
        html.escape(subject.precision),
        "<span title='largest change of any logit between the captured run and the same run without "
        f"capture'>max |Δlogit| {fidelity}</span>",
        f"<span class='alarm' title='{html.escape(unseen)}'>{len(cap.unseen)} modules unseen</span>"
        if cap.unseen
        else "nothing unseen",
    ]
    style = (
        "<style>.headline{font-size:.86rem;opacity:.92;line-height:1.5}.headline .alarm{color:#d1342f;font-weight:600}"
        ".headline i{opacity:.4;font-style:normal;padding:0 .35em}</style>"
    )
    return f"{style}<div class='headline' data-testid='headline'>{'<i>·</i>'.join(parts)}</div>"


def sizes(cap: Capture) -> str:
    """How long the input is, in the words of its kind."""
    if not cap.axes:
        return f"{max(max(c.queries, c.keys) for c in cap.calls):,} positions"
    parts = []
    for name, axis in cap.axes.items():
        own = "" if len(cap.axes) == 1 else f"{name} "
        if axis.sound is not None:
            parts.append(f"{own}{axis.sound.seconds:.2f} s in {len(axis):,} frames")
        elif axis.grid is not None:
            rows, columns = axis.grid
            parts.append(f"{rows} × {columns} patches")
        else:
            parts.append(f"{own}{len(axis):,} token{'s' if len(axis) != 1 else ''}")
    return html.escape(" + ".join(parts))


def _survey(run: Run) -> Survey:
    bar = st.progress(0.0, text="Looking at every head …") if run.cost.survey_seconds > 0.5 else None

    def progress(fraction: float) -> None:
        if bar is not None:
            bar.progress(min(fraction, 1.0), text=f"Looking at every head … {fraction:.0%}")

    found = server().survey(run.key, run.capture, progress)
    if bar is not None:
        bar.empty()
    return found


@st.fragment
def _explorer(run: Run, surveyed: Survey) -> None:
    cap, state = run.capture, st.session_state
    if state.stack not in cap.stacks:
        state.stack = first_stack(cap)
    st.html(NARROW)
    with st.container(key="halves"):
        left, right = st.columns([6, 8], gap="medium")
    with left:
        if len(cap.stacks) > 1:
            st.segmented_control(
                "Stack",
                cap.stacks,
                key="stack",
                format_func=str.capitalize,
                required=True,
                persist_state="session",
                label_visibility="collapsed",
            )
        table = _metrics(run, surveyed)
        _take_events(cap, table)
        _grid(cap, surveyed, table)
        with st.container(horizontal=True):
            choice("Metrics as", "metrics")
            st.download_button(
                "CSV",
                table.to_csv(index=False).encode(),
                "head-metrics.csv",
                "text/csv",
                key="download-metrics",
                icon=":material/download:",
                on_click="ignore",
            )
            if run.subject.family == "decoder" and "induction" not in table:
                st.toggle("Induction scores", key="induction", help="Runs the model on random tokens said twice.")
        (_table if state.metrics == "table" else _scatter)(table)
    with right:
        call = cap.find(state.layer, state.stack)
        downloads(run, call, head(run, call))
    if not share(run, stack=first_stack(cap), view=state.views[0]):
        st.caption(
            "A long text or a file of your own does not travel in a link; the link carries the rest of the view."
        )


def first_stack(cap: Capture) -> str:
    """Where a first look goes: across, if there are two sequences."""
    return "cross" if "cross" in cap.stacks else cap.stacks[0]


def _metrics(run: Run, surveyed: Survey) -> pd.DataFrame:
    """The table of the chosen stack, with induction scores where they are cheap or wanted."""
    subject = run.subject
    table = surveyed.table
    wanted = subject.parameters <= CHEAP_PARAMETERS or st.session_state.get("induction")
    if subject.family == "decoder" and subject.vocab_size and wanted:
        with st.spinner("Repeated random tokens …"):
            scores = server().induction(run.key[:3], subject)
        table = table.merge(scores, on=["stack", "layer", "head"], how="left")
    return table[table["stack"] == st.session_state.stack].drop(columns="stack").reset_index(drop=True)


def _take_events(cap: Capture, table: pd.DataFrame) -> None:
    """What the pictures and the table say the person just did, before anything is drawn."""
    state = st.session_state
    chosen = _canvas.event("grid")
    if "layer" in chosen:  # the canvas counts rows, the model counts layers
        state.layer, state.head = cap.stack(state.stack)[chosen["layer"]].layer, chosen["head"]
    acted = _canvas.event("one")
    if "zoom" in acted:
        state.zoom = tuple(acted["zoom"]) if acted["zoom"] else None
    if "token" in acted:
        state.pin = acted["token"]
    for widget, part in (("table", "rows"), ("scatter", "point_indices")):
        picked = list((state.get(widget) or {}).get("selection", {}).get(part, []))
        if picked != state.get(f"{widget}_seen", []):  # a selection stays; only a new one is an act
            state[f"{widget}_seen"] = picked
            if picked:
                state.layer, state.head = int(table.layer[picked[0]]), int(table["head"][picked[0]])
    if min(state.layer, state.head) < 0:
        first = _first_look(cap, table)
        state.layer, state.head = int(first.layer), int(first["head"])
    layers = {c.layer: c for c in cap.stack(state.stack)}
    if state.layer not in layers:
        state.layer = min(layers)
    state.head = min(state.head, layers[state.layer].heads - 1)


def _first_look(cap: Capture, table: pd.DataFrame) -> pd.Series:
    """The row of the head that is most worth it: the best induction head, the one across that follows its queries best
    (the sharpest, while there is one query), the last layer of a model that sees."""
    if "induction" in table:
        return table.loc[table.induction.idxmax()]
    if st.session_state.stack == "cross":
        followed = table.information.max() > 1e-3  # of one query it is 0, up to rounding
        return table.loc[table.information.idxmax() if followed else table.entropy.idxmin()]
    return table[table.layer == table.layer.max()].iloc[0] if cap.subject.family == "vision" else table.iloc[0]


def _grid(cap: Capture, surveyed: Survey, table: pd.DataFrame) -> None:
    state = st.session_state
    calls = cap.stack(state.stack)
    metrics = [c for c in table.columns if c not in ("layer", "head")]
    if state.order not in ("layer", *metrics):
        state.order = "layer"
    st.selectbox(
        "Order",
        ["layer", *metrics],
        key="order",
        persist_state="session",
        format_func=lambda name: "By layer" if name == "layer" else f"By {METRIC_LABELS[name]}, highest first",
        label_visibility="collapsed",
    )
    place = {call.layer: row for row, call in enumerate(calls)}
    ordered = None
    if state.order != "layer":
        ranked = table.sort_values(state.order, ascending=False, kind="stable")
        ordered = [(place[layer], head) for layer, head in zip(ranked.layer, ranked["head"], strict=True)]
    shown = state.order if state.order != "layer" else "entropy"
    captions = {
        (place[layer], head): f"{METRIC_LABELS[shown]} {value:.3g}"
        for layer, head, value in zip(table.layer, table["head"], table[shown], strict=True)
    }
    pictured = calls[0].key_axis.picture is not None and state.view in ("", "picture")
    if pictured:
        query = state.pin["index"] if state.pin and state.pin["axis"] == "query" else 0
        pictures = patch_pictures(cap, state.stack, min(query, calls[0].queries - 1))
    else:
        pictures = grid_pictures(cap, surveyed, state.stack)
    shown_heads = _canvas.Heads(
        pictures,
        rows=[str(c.layer) for c in calls],
        columns=[str(h) for h in range(max(c.heads for c in calls))],
        marks={place[k]: v for k, v in layer_marks(cap, surveyed, state.stack).items()},
        captions=captions,
    )
    _canvas.grid(shown_heads, selected=(place[state.layer], state.head), key="grid", order=ordered)


def _table(table: pd.DataFrame) -> None:
    columns = {name: st.column_config.NumberColumn(width=44) for name in ("layer", "head")}
    for name in table.columns[2:]:
        top = float(np.nanmax([1.0, table[name].max()]))
        columns[name] = st.column_config.ProgressColumn(
            METRIC_LABELS[name], help=DEFINITIONS[name], format="%.2f", min_value=0.0, max_value=top, width=82
        )
    st.dataframe(
        table,
        column_config=columns,
        hide_index=True,
        height=320,
        key="table",
        on_select="rerun",
        selection_mode="single-row",
        column_order=["layer", "head", *_by_importance(table)],
    )


def _scatter(table: pd.DataFrame) -> None:
    """Two metrics against each other: heads that do something particular stand apart."""
    import plotly.express as px

    names = _by_importance(table)
    with st.container(horizontal=True):
        x = st.selectbox(
            "Across", names, index=0, key="across", format_func=METRIC_LABELS.get, label_visibility="collapsed"
        )
        y = st.selectbox(
            "Up",
            names,
            index=names.index("induction" if "induction" in names else "entropy"),
            key="up",
            format_func=METRIC_LABELS.get,
            label_visibility="collapsed",
        )
    named = table.assign(name=[f"{layer}.{head}" for layer, head in zip(table.layer, table["head"], strict=True)])
    figure = px.scatter(
        named,
        x=x,
        y=y,
        color="layer",
        hover_name="name",
        color_continuous_scale="Viridis",
        labels=METRIC_LABELS,
        height=320,
        hover_data={"layer": False},
    )
    figure.update_layout(margin={"l": 0, "r": 0, "t": 8, "b": 0})
    st.plotly_chart(figure, key="scatter", on_select="rerun", selection_mode="points")


def _by_importance(table: pd.DataFrame) -> list[str]:
    return sorted(table.columns[2:], key=list(METRIC_LABELS).index)


def _count(n: int) -> str:
    return f"{n / 1e9:.1f} B" if n >= 1e9 else f"{n / 1e6:.1f} M" if n >= 1e6 else f"{n:,}"


if __name__ == "__main__":  # the first visitor of a server came here
    from headwise.pages import navigate

    navigate()
