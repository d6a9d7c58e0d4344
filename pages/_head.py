"""One head large: as a matrix, as edges or over its picture."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from interp import Capture
from interp.call import AttentionCall
from interp.export import axis_names
from interp.subject import Axis, InputError, LoadError
from interp.view import HeadView, difference, expect_same_tokens, head_view, recorded
from models import available, fetched
from pages import _canvas
from pages._server import server
from pages._sidebar import Run
from pages._state import CHOICES

VALUES = {"weights": "Weights", "scores": "Scores", "value_weighted": "‖a·v‖"}
NAMES = {"weights": "weight", "scores": "score", "value_weighted": "‖a·v‖"}


@dataclass(frozen=True)
class Shown:
    """One head as it was drawn: ``plain`` when no tokens were merged or hidden, ``signed`` when it is a difference."""

    view: HeadView
    plain: bool
    signed: bool


def head(run: Run, call: AttentionCall) -> Shown:
    """Draw the chosen head of a layer, with the switches above it."""
    cap, state = run.capture, st.session_state
    query_axis, key_axis = cap.axis(call, "query"), cap.axis(call, "key")
    views = _views(query_axis, key_axis)
    if state.view not in views or state.get("views", views) != views:  # another kind of input: its own view comes first
        state.view = views[0]
    state.views = views
    with st.container(horizontal=True, gap="small"):
        choice("View", "view", options=views)
        choice("Values", "quantity", VALUES.get)
        choice("Colour scale", "scale")
    axis = key_axis
    with st.container(horizontal=True, vertical_alignment="center"):
        if axis.offsets is not None or query_axis.offsets is not None:
            st.toggle(
                "Merge words",
                key="words",
                persist_state="session",
                help=(
                    "Sub-word tokens become words by their character offsets: weights are summed over keys "
                    "and averaged over queries."
                ),
            )
        if axis.special is not None and any(axis.special) and state.view != "picture":
            st.toggle(
                "Special tokens",
                key="special",
                persist_state="session",
                help="Show the tokens that were added to the input.",
            )
        if axis.sound is not None:
            st.toggle(
                "Silence after the end",
                key="padding",
                persist_state="session",
                help="The model takes recordings of a fixed length; what follows the end of yours is padding.",
            )
        other = _other(run)
    name = f"layer {call.layer} · head {state.head}"
    if call.kv_heads != call.heads:
        name += f" · key/value head {state.head // (call.heads // call.kv_heads)}"
    looked = (state.words, state.special, state.stack, state.padding)
    if state.get("looked", looked) != looked:  # other positions: a zoom or a pin of before means nothing
        state.zoom = state.pin = None
    state.looked = looked
    whole = state.view == "picture"
    region = None if whole else state.zoom or (None if state.padding else recorded(cap, call))
    options = {"words": state.words and not whole, "special": state.special or whole, "region": region}
    try:
        view = head_view(cap, call, state.head, state.quantity, **options, **({"size": 592} if whole else {}))
    except (ValueError, InputError) as error:
        st.info(str(error))
        options = {"words": False, "special": True, "region": region}
        view = head_view(cap, call, state.head, state.quantity, **options)
    kind, value_name = "score" if state.quantity == "scores" else "weight", NAMES[state.quantity]
    if other is not None:
        try:
            view = difference(
                view, head_view(other, other.find(call.layer, call.stack), state.head, state.quantity, **options)
            )
            kind, value_name = "signed", f"{value_name}, {state.compare} − {cap.subject.name}"
        except (ValueError, IndexError) as error:
            st.info(f"{state.compare} cannot be compared here: {error}")
    plain = not options["words"] and options["special"]
    _canvas.head(
        view.matrix.cpu().numpy(),
        key="one",
        query_labels=view.queries,
        key_labels=view.keys,
        forbidden=view.forbidden.cpu().numpy(),
        view=state.view,
        scale=state.scale,
        kind=kind,
        origin=view.origin,
        factor=view.factor,
        shape=view.shape,
        value_name=value_name,
        title=name,
        selected=state.pin,
        picture=key_axis.picture if whole else None,
        grid=key_axis.grid if whole else None,
        query_sound=query_axis.sound if plain else None,
        key_sound=key_axis.sound if plain else None,
        axis_names=axis_names(cap, call),
    )
    notes = list(view.left_out)
    if max(view.factor) > 1:
        notes.append(
            f"each cell is the largest of {view.factor[0]} × {view.factor[1]} positions; drag over a region "
            "to see it at full resolution"
        )
    if not call.mask.size:
        notes.append(f"mask as given: {call.mask!r}")
    elif call.pattern.size is None:
        notes.append(f"mask as given: {call.pattern!r}")
    st.caption(" · ".join(notes).replace("[", r"\[").replace("<", r"\<").replace("$", r"\$"))
    return Shown(view, plain, kind == "signed")


def _views(query_axis: Axis, key_axis: Axis) -> tuple[str, ...]:
    """What this head can be drawn as, the best first."""
    pictured = key_axis.picture is not None and len(query_axis) == len(key_axis) <= 592
    return ("picture", "heatmap", "bipartite") if pictured else ("heatmap", "bipartite")


def _other(run: Run) -> Capture | None:
    """The same input through another model, to be subtracted; chosen beside the view."""
    state, subject = st.session_state, run.subject
    if subject.family not in ("encoder", "decoder"):
        return None
    names = [name for name in (*available(), *fetched()) if name != state.model]
    if state.compare not in ("", *names):
        state.compare = ""
    st.selectbox(
        "Compare with",
        ["", *names],
        key="compare",
        format_func=lambda name: f"Minus {subject.name}: {name}" if name else "Compare with …",
        persist_state="session",
        label_visibility="collapsed",
        width=220,
        help="Shows this head of another model minus this one, on the same tokens.",
    )
    if not state.compare:
        return None
    try:
        with st.spinner(f"Running {state.compare} …", show_time=True):
            found = server().subject(state.compare, state.device, state.dtype)
            expect_same_tokens(subject, found, run.inputs)
            return server().capture(("compare", state.compare, run.key), found, run.inputs)
    except (InputError, LoadError) as error:
        st.info(str(error))
        return None


def choice(label: str, key: str, name=str.capitalize, options: tuple[str, ...] | None = None) -> None:
    """A row of buttons, one of which is on."""
    st.segmented_control(
        label,
        options or CHOICES[key],
        key=key,
        format_func=name,
        required=True,
        persist_state="session",
        label_visibility="collapsed",
        width="content",
    )
