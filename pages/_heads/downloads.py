"""What of a head leaves the house: figures, numbers, BertViz's page, and the Python that makes the view."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from headwise.interp.analysis.effects import answers_at_all
from headwise.interp.attention.call import AttentionCall
from headwise.interp.drawing import files as export
from headwise.interp.drawing.matrix import recorded
from headwise.interp.drawing.paper.colour import COLOURS
from headwise.pages._heads.answer import writes
from headwise.pages._heads.choices import HeadsChoices, state
from headwise.pages._heads.head import Shown
from headwise.pages._shared import changes
from headwise.pages._shared.bar import Run
from headwise.pages._shared.code import capturing, placement
from headwise.pages._shared.words import note


def downloads(run: Run, call: AttentionCall, shown: Shown, edited: Run) -> None:
    """A row of buttons, each making its file when it is clicked. ``edited`` is the run as it was changed."""
    cap, view = run.capture, shown.view
    minuend, head = shown.minuend, None if state.whole_layer else state.head
    name = f"layer{call.layer}-head{state.head}"
    numbers = f"layer{call.layer}" if head is None else name
    options = {  # read now: a file is made on another thread, which has no session
        "scale": state.scale,
        "theme": "dark" if st.context.theme.type == "dark" else "light",
        "paper": export.Paper(
            state.figure_width if state.figure_width >= 2 else None,
            state.figure_font,
            state.figure_colours,
            state.figure_top or None,
        ),
    }
    query = state.pin["index"] if state.pin and state.pin["axis"] == "query" else 0
    painted = state.view == "picture"

    def figure(kind: str) -> bytes:
        stamp = export.stamp(cap, minuend)
        if painted:
            return getattr(export, f"picture_{kind}")(view, query, stamp=stamp, **options)
        return getattr(export, f"to_{kind}")(view, stamp=stamp, **options)

    narrow = _why_not(figure) if options["paper"].width else None
    small = max(call.queries, call.keys) <= export.BERTVIZ_TOKENS
    wanted = [
        ("PNG", f"{name}.png", "image/png", lambda: figure("png"), narrow),
        ("SVG", f"{name}.svg", "image/svg+xml", lambda: figure("svg"), narrow),
        ("PDF", f"{name}.pdf", "application/pdf", lambda: figure("pdf"), narrow),
        ("CSV", f"{name}.csv", "text/csv", lambda: export.to_csv(view), None),
        ("NPZ", f"{numbers}.npz", "application/octet-stream", lambda: export.to_npz(cap, call, head), None),
        (
            "BertViz",
            f"{numbers}.html",
            "text/html",
            lambda: export.to_html(cap, call.stack, call.layer, head=head),
            None if small else f"BertViz draws up to {export.BERTVIZ_TOKENS} tokens.",
        ),
    ]
    with st.container(horizontal=True, gap="small"):
        for label, file, kind, make, why_not in wanted:
            st.download_button(
                label,
                make,
                file,
                kind,
                icon=":material/download:",
                on_click="ignore",
                disabled=why_not is not None,
                key=f"download-{label}",
                help=why_not,
            )
        _for_a_paper()
    if narrow:
        note(narrow)
    with st.expander("Show the code", icon=":material/code:"):
        st.code(code(run, call, minuend is not None, edited), language="python")


def _why_not(figure: Callable[[str], bytes]) -> str | None:
    """Why a figure as wide as was asked for cannot be drawn."""
    try:
        figure("svg")
    except ValueError as error:
        return str(error)
    return None


def _for_a_paper() -> None:
    """How figures are drawn, and of what numbers are."""
    with st.popover("For a paper", icon=":material/tune:"):
        st.number_input(
            "Width in cm",
            0.0,
            120.0,
            step=0.5,
            format="%.1f",
            help="Of the whole figure, such as 8.5 for a column; 0 leaves it as wide as it comes.",
            **HeadsChoices.figure_width.widget,
        )
        st.number_input(
            "Labels in points",
            3.0,
            40.0,
            step=0.5,
            format="%.1f",
            help="The size of the letters in print.",
            **HeadsChoices.figure_font.widget,
        )
        st.segmented_control(
            "Colours",
            COLOURS,
            format_func=str.capitalize,
            required=True,
            help="Of weights and scores; a difference always has two.",
            **HeadsChoices.figure_colours.widget,
        )
        st.number_input(
            "Scale ends at",
            0.0,
            step=0.1,
            format="%.2f",
            help="One end for several figures, so that they can be compared; 0 is the largest of this one.",
            **HeadsChoices.figure_top.widget,
        )
        st.toggle(
            "Numbers of the whole layer",
            help="NPZ and BertViz hold all heads of the layer, or only the chosen one.",
            **HeadsChoices.whole_layer.widget,
        )


def code(run: Run, call: AttentionCall, compared: bool = False, edited: Run | None = None) -> str:
    """The Python that makes this view, and the number beside it where something is changed."""
    region = state.zoom or (None if state.padding else recorded(run.capture, call))
    choices = (("words", state.words, False), ("special", state.special, True), ("region", region, None))
    options = "".join(f", {name}={value!r}" for name, value, default in choices if value != default)

    def view_of(name: str) -> str:
        where = f"{name}.find({call.layer}, {call.stack!r})"
        return f"head_view({name}, {where}, head={state.head}, quantity={state.quantity!r}{options})"

    edits = [] if edited is None or not edited.made else [*editing(edited, "changed"), _effect(edited)]
    of = "changed" if edits and state.side == "after" else "cap"
    compares = [
        f"other = capture(load({state.compare!r}{placement()}), inputs)",
        f"view = {view_of('other')}.minus(view)",
    ]
    if edits and state.side == "change":
        compares = [f"view = {view_of('changed')}.minus(view)"]
    return "\n".join(
        [
            *capturing(run, "from headwise.interp.drawing.matrix import head_view", *_imports(edits), edits=edits),
            f"view = {view_of(of)}",
            *(compares if compared else []),
            "view.values, view.queries, view.keys",
        ]
    )


def editing(run: Run, name: str) -> list[str]:
    """The lines that make the edited run of ``cap``, called ``name``; none where nothing is changed."""
    parts = [part for change in run.made for part in changes.code(run.capture, change)]
    return [f"{name} = rerun(cap, [", *(f"    {part}," for part in parts), "])"] if parts else []


def _effect(run: Run) -> str:
    """What the changes did to the answer."""
    wanted, against = (word or None for word in (state.answer, state.rather))
    if not answers_at_all(run.capture):
        return "done = moved(cap, changed)"
    if state.counted == "whole" and wanted is not None and writes(run):
        return f"done = word_effect(cap, changed, {wanted!r}, {against!r})"
    return f"done = effect(cap, changed, asked(cap, {wanted!r}, {against!r}))"


def _imports(edits: list[str]) -> list[str]:
    if not edits:
        return []
    name = edits[-1].removeprefix("done = ").partition("(")[0]
    return [f"from headwise.interp.analysis.effects import {'asked, effect' if name == 'effect' else name}"]
