"""One head large: as a matrix, as edges or over its picture."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from headwise import Capture, capture
from headwise.interp.attention.axes import Axis
from headwise.interp.attention.call import AttentionCall
from headwise.interp.drawing.canvas import LARGEST_PICTURE, Look, Packed, all_heads
from headwise.interp.drawing.matrix import Matrix, head_view, recorded
from headwise.interp.drawing.quantities import QUANTITIES
from headwise.interp.errors import InputError, LoadError
from headwise.interp.subject import same_tokens
from headwise.pages._heads.choices import MEAN, HeadsChoices, state
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared.bar import Run, models_beside
from headwise.pages._shared.buttons import choice
from headwise.pages._shared.frame import waiting
from headwise.pages._shared.shelf import server

PICTURED = LARGEST_PICTURE  # positions that are drawn over a picture at most
EXPLORER = "heads"  # where grid, head and text meet in the browser


@dataclass(frozen=True)
class Shown:
    """One head as it was drawn, and what it was taken from where it is a difference."""

    view: Matrix
    minuend: Capture | None = None


def head(run: Run, call: AttentionCall, picking: _canvas.Picking, edited: Capture | None = None) -> Shown:
    """Draw the chosen head of a layer, with the switches above it and what must be said of it below; where there is an
    ``edited`` run, how the head differs there."""
    cap = run.capture
    axes = call.query_axis, call.key_axis
    other = _switches(run, *axes)
    call = cap.find(call.layer, call.stack)
    shown = _shown(cap, call, edited or other)
    packed = None if shown.minuend else _packed(run, call)
    if packed is not None:
        _canvas.heads(packed, key="all-heads")
    place = {each.layer: row for row, each in enumerate(cap.stack(call.stack))}
    rows = place | {MEAN: MEAN}
    beside = [(rows[layer], number) for layer, number in state.beside if layer in rows]
    found = _canvas.Explorer(EXPLORER, packed, (place[call.layer], state.head), beside, state.pin, state.zoom)
    _canvas.large(found, shown.view, key="one", view=state.view, scale=state.scale, picking=picking)
    st.caption(_notes(call, shown.view))
    return shown


def look_at() -> Look:
    """How all heads are looked at now."""
    whole = state.view == "picture"
    words = state.words and not whole and state.quantity != "scores"
    return Look(words, state.special or whole, state.padding)


def _packed(run: Run, call: AttentionCall) -> Packed | None:
    """All heads of the chosen one's stack, as they travel to the browser; None where they are too large."""
    look, stack, quantity = look_at(), call.stack, state.quantity
    key = (run.key, stack, quantity, look)
    return server().made("packed", key, lambda: all_heads(run.capture, stack, quantity, look, explorer=EXPLORER))


def _switches(run: Run, query_axis: Axis, key_axis: Axis) -> Capture | None:
    """How to look at the head, as far as it applies to these positions → the capture to compare with, or None."""
    views = _views(query_axis, key_axis)
    if state.view not in views or (state.views or views) != views:  # another kind of input: its own view comes first
        state.view = views[0]
    state.views = views
    with st.container(horizontal=True, gap="small"):
        choice("View", HeadsChoices.view, options=views)
        choice("Values", HeadsChoices.quantity, lambda quantity: QUANTITIES[quantity].many.capitalize())
        choice("Colour scale", HeadsChoices.scale)
    toggles = []
    if key_axis.track is None and (key_axis.offsets is not None or query_axis.offsets is not None):
        merged = "Sub-word tokens become words by their character offsets: weights are summed over keys and averaged "
        toggles.append(("Merge words", HeadsChoices.words, merged + "over queries."))
    if key_axis.special is not None and any(key_axis.special) and state.view != "picture":
        toggles.append(("Special tokens", HeadsChoices.special, "Show the tokens that were added to the input."))
    if key_axis.sound is not None:
        filled = "The model takes recordings of a fixed length; what follows the end of yours is padding."
        toggles.append(("Silence after the end", HeadsChoices.padding, filled))
    with st.container(horizontal=True, vertical_alignment="center"):
        for label, switch, help in toggles:
            st.toggle(label, help=help, on_change=state.other_positions, **switch.widget)
        return _other(run)


def _shown(cap: Capture, call: AttentionCall, other: Capture | None) -> Shown:
    """The numbers of the chosen head, minus which the other model's are drawn when there is one."""
    whole = state.view == "picture"
    region = None if whole else state.zoom or (None if state.padding else recorded(cap, call))
    options = {
        "words": state.words and not whole and call.key_axis.track is None,
        "special": state.special or whole,
        "region": region,
    }
    if whole:
        options["size"] = PICTURED
    try:
        view = head_view(cap, call, state.head, state.quantity, **options)
    except (ValueError, InputError) as error:
        st.info(str(error))
        options |= {"words": False, "special": True}
        view = head_view(cap, call, state.head, state.quantity, **options)
    if other is not None:
        try:
            theirs = head_view(other, other.find(call.layer, call.stack), state.head, state.quantity, **options)
            return Shown(theirs.minus(view), other)
        except (ValueError, IndexError) as error:
            st.info(f"{state.compare} cannot be compared here: {error}")
    return Shown(view)


def _notes(call: AttentionCall, view: Matrix) -> str:
    notes = list(view.left_out)
    if view.still:
        notes.append("this pattern did not change: removing or scaling a head changes what it says, not where it looks")
    if max(view.factor) > 1:
        notes.append(
            f"each cell is the largest of {view.factor[0]} × {view.factor[1]} positions; drag over a region "
            "to see it at full resolution"
        )
    if not call.mask.size:
        notes.append(f"mask as given: {call.mask!r}")
    elif call.pattern.size is None:
        notes.append(f"mask as given: {call.pattern!r}")
    return " · ".join(notes).replace("[", r"\[").replace("<", r"\<").replace("$", r"\$")


def _views(query_axis: Axis, key_axis: Axis) -> tuple[str, ...]:
    """What this head can be drawn as, the best first."""
    pictured = key_axis.picture is not None and len(query_axis) == len(key_axis) <= PICTURED
    return ("picture", "heatmap", "bipartite") if pictured else ("heatmap", "bipartite")


def _other(run: Run) -> Capture | None:
    """The same input through another model, to be subtracted; chosen beside the view."""
    subject = run.subject
    if subject.family not in ("encoder", "decoder") or subject.reads != "text":
        return None
    names = models_beside("tokens")
    models = ["", *names]
    if state.compare not in models:  # by a link
        st.info(f"{state.compare} reads other tokens than {subject.name}, so their heads cannot be compared.")
    if not names:
        return None
    HeadsChoices.compare.one_of(models)
    st.selectbox(
        "Compare with",
        models,
        format_func=lambda name: f"{name} − {subject.name}" if name else "Compare with …",
        label_visibility="collapsed",
        width=220,
        help="Shows this head of another model minus this one, on the same tokens.",
        **HeadsChoices.compare.widget,
    )
    if not state.compare:
        return None
    try:
        key = ("compare", state.compare, run.key)
        with waiting(st.empty(), f"Running {state.compare} …", server().has("capture", key)):
            found = server().subject(state.compare, state.device, state.dtype)
            same_tokens(subject, found, run.inputs)
            return server().made("capture", key, lambda: capture(found, run.inputs))
    except (InputError, LoadError) as error:
        st.info(str(error))
        return None
