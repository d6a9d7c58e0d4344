"""Heads: the grid of all heads, one of them large, and the table that measures them."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import streamlit as st

from interp import Capture, export
from interp.call import AttentionCall
from interp.metrics import DEFINITIONS
from interp.subject import InputError
from interp.view import HeadView, Survey, grid_pictures, head_view, layer_marks
from pages import _canvas
from pages._server import server
from pages._sidebar import FIRST, Run, sidebar
from pages._state import CHOICES, publish

VALUES = {"weights": "Weights", "scores": "Scores", "value_weighted": "‖a·v‖"}
NAMES = {"weights": "weight", "scores": "score", "value_weighted": "‖a·v‖"}
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
    "forbidden": "forbidden",
}


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
    for note in cap.notes:
        st.warning(note.capitalize() + ".", icon=":material/info:")
    surveyed = _survey(run)
    _explorer(run, surveyed)
    with server().stove:
        header.html(header_line(run, f"{cap.fidelity:.1e}" if cap.fidelity else "0"))


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
        f"{run.cost.tokens:,} tokens",
        f"attention {html.escape(subject.implementation)}",
        html.escape(str(subject.dtype).removeprefix("torch.")),
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
        state.stack = cap.stacks[0]
    left, right = st.columns([6, 8], gap="medium")
    with left:
        if len(cap.stacks) > 1:
            st.segmented_control(
                "Stack", cap.stacks, key="stack", persist_state="session", label_visibility="collapsed"
            )
            state.stack = state.stack or cap.stacks[0]
        table = _metrics(run, surveyed)
        _take_events(cap, table)
        _grid(cap, surveyed, table)
        with st.container(horizontal=True):
            _choice("Metrics as", "metrics")
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
        view = _head(cap, call)
        _downloads(cap, call, view)
    if not publish(text=FIRST, stack=cap.stacks[0]):
        st.caption("This text is too long to travel in a link; the link carries the rest of the view.")


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
        first = table.loc[table.induction.idxmax()] if "induction" in table else table.iloc[0]
        state.layer, state.head = int(first.layer), int(first["head"])
    layers = {c.layer: c for c in cap.stack(state.stack)}
    if state.layer not in layers:
        state.layer = min(layers)
    state.head = min(state.head, layers[state.layer].heads - 1)


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
    _canvas.grid(
        grid_pictures(cap, surveyed, state.stack),
        selected=(place[state.layer], state.head),
        key="grid",
        rows=[str(c.layer) for c in calls],
        columns=[str(h) for h in range(max(c.heads for c in calls))],
        marks={place[k]: v for k, v in layer_marks(cap, surveyed, state.stack).items()},
        order=ordered,
        captions=captions,
    )


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


def _head(cap: Capture, call: AttentionCall) -> HeadView:
    state = st.session_state
    with st.container(horizontal=True, gap="small"):
        _choice("View", "view")
        _choice("Values", "quantity", VALUES.get)
        _choice("Colour scale", "scale")
    axis = cap.axis(call, "key")
    with st.container(horizontal=True):
        st.toggle(
            "Merge words",
            key="words",
            persist_state="session",
            help=(
                "Sub-word tokens become words by their character offsets: weights are summed over keys "
                "and averaged over queries."
            ),
        )
        if axis.special is not None and any(axis.special):
            st.toggle(
                "Special tokens",
                key="special",
                persist_state="session",
                help="Show the tokens that the tokenizer added.",
            )
    name = f"layer {call.layer} · head {state.head}"
    if call.kv_heads != call.heads:
        name += f" · key/value head {state.head // (call.heads // call.kv_heads)}"
    picture = (state.words, state.special, state.stack)
    if state.get("picture", picture) != picture:  # other positions: a zoom or a pin of before means nothing
        state.zoom = state.pin = None
    state.picture = picture
    try:
        view = head_view(
            cap, call, state.head, state.quantity, words=state.words, special=state.special, region=state.zoom
        )
    except (ValueError, InputError) as error:
        st.info(str(error))
        view = head_view(cap, call, state.head, state.quantity, region=state.zoom)
    _canvas.head(
        view.matrix.cpu().numpy(),
        key="one",
        query_labels=view.queries,
        key_labels=view.keys,
        forbidden=view.forbidden.cpu().numpy(),
        view=state.view,
        scale=state.scale,
        kind="score" if state.quantity == "scores" else "weight",
        origin=view.origin,
        factor=view.factor,
        shape=view.shape,
        value_name=NAMES[state.quantity],
        title=name,
        selected=state.pin,
    )
    notes = list(view.left_out)
    if max(view.factor) > 1:
        notes.append(
            f"each cell is the largest of {view.factor[0]} × {view.factor[1]} tokens; drag over a region "
            "to see it at full resolution"
        )
    if not call.mask.size:
        notes.append(f"mask as given: {call.mask!r}")
    elif call.pattern.size is None:
        notes.append(f"mask as given: {call.pattern!r}")
    st.caption(" · ".join(notes).replace("[", r"\[").replace("<", r"\<").replace("$", r"\$"))
    return view


def _choice(label: str, key: str, name=str.capitalize) -> None:
    st.segmented_control(
        label,
        CHOICES[key],
        key=key,
        format_func=name,
        required=True,
        persist_state="session",
        label_visibility="collapsed",
        width="content",
    )


def _downloads(cap: Capture, call: AttentionCall, view: HeadView) -> None:
    state = st.session_state
    title = f"{cap.subject.name} · layer {call.layer} · head {state.head}"
    name = f"layer{call.layer}-head{state.head}"
    options = {"title": title, "scale": state.scale, "quantity": state.quantity}
    theme = "dark" if st.context.theme.type == "dark" else "light"
    wanted = [
        (
            "PNG",
            f"{name}.png",
            "image/png",
            lambda: export.to_png(view, theme=theme, stamp=export.stamp(cap), **options),
            True,
        ),
        (
            "SVG",
            f"{name}.svg",
            "image/svg+xml",
            lambda: export.to_svg(view, theme=theme, stamp=export.stamp(cap), **options),
            True,
        ),
        ("CSV", f"{name}.csv", "text/csv", lambda: export.to_csv(view), True),
        ("NPZ", f"layer{call.layer}.npz", "application/octet-stream", lambda: export.to_npz(cap, call), True),
        (
            "BertViz",
            f"layer{call.layer}.html",
            "text/html",
            lambda: export.to_html(cap, call.stack, call.layer),
            max(call.queries, call.keys) <= export.BERTVIZ_TOKENS,
        ),
    ]
    with st.container(horizontal=True, gap="small"):
        for label, file, kind, make, possible in wanted:
            st.download_button(
                label,
                make,
                file,
                kind,
                icon=":material/download:",
                on_click="ignore",
                disabled=not possible,
                key=f"download-{label}",
                help=None if possible else f"BertViz draws up to {export.BERTVIZ_TOKENS} tokens.",
            )
    with st.expander("Show the code", icon=":material/code:"):
        st.code(code(cap, call), language="python")


def code(cap: Capture, call: AttentionCall) -> str:
    """The Python that makes this view."""
    state = st.session_state
    options = "".join(
        f", {k}={v!r}"
        for k, v, d in (("words", state.words, False), ("special", state.special, True), ("region", state.zoom, None))
        if v != d
    )
    placed = (
        ""
        if (state.device, state.dtype) == ("cpu", "float32")
        else f", device={state.device!r}, dtype=torch.{state.dtype}"
    )
    return "\n".join(
        [
            *(["import torch"] if placed else []),
            "from interp import capture",
            "from interp.view import head_view",
            "from models import load",
            "",
            f"cap = capture(load({state.model!r}{placed}), {state.text!r})",
            f"view = head_view(cap, cap.find({call.layer}, {call.stack!r}), head={state.head}, "
            f"quantity={state.quantity!r}{options})",
            "view.matrix, view.queries, view.keys",
        ]
    )


def _count(n: int) -> str:
    return f"{n / 1e9:.1f} B" if n >= 1e9 else f"{n / 1e6:.1f} M" if n >= 1e6 else f"{n:,}"
