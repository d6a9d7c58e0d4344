"""One head in both runs: the two texts beside each other, and its pattern as what changed."""

from __future__ import annotations

import html

import streamlit as st

from headwise.interp.analysis.comparing.compare import Comparison, Move
from headwise.interp.drawing import comparing
from headwise.interp.drawing.canvas import LARGEST_PICTURE
from headwise.interp.drawing.comparing import Beside, Head
from headwise.interp.drawing.paper.text import visible
from headwise.pages._compare.choices import CompareChoices, state
from headwise.pages._compare.downloads import matrix_files
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared import pictures
from headwise.pages._shared.bar import Run
from headwise.pages._shared.buttons import choice
from headwise.pages._shared.leading import heads_address, named
from headwise.pages._shared.words import heading, note

MOST = 400  # places of a text that are laid beside each other
SHARES = 6  # kinds of keys that are told
STYLE = """<style>
.beside { display: flex; flex-wrap: wrap; gap: 4px 1px; max-height: 13rem; overflow-y: auto; font-size: .88rem;
  line-height: 1.35; scrollbar-width: thin }
.beside .names { display: grid; font-size: .8rem; opacity: .78; padding-right: .6rem; white-space: nowrap }
.beside .names span, .beside .place span { padding: .05rem .18rem }
.beside .place { display: grid; white-space: pre }
.beside .place span { border-radius: 3px; min-height: 1.35em;
  background: color-mix(in srgb, light-dark(#0b6e99, #5bb8e0) calc(var(--w) * 72%), transparent) }
.beside .differs span { box-shadow: inset 0 -2px 0 light-dark(#b5651d, #e0a860) }
.beside .none { opacity: .35 }
.beside .query span { outline: 1.5px solid currentColor; outline-offset: -1px }
</style>"""


def texts(found: Comparison, chosen: Head, move: Move) -> None:
    """The keys of the head in both runs, one under the other, coloured by what the query gives them."""
    call = found.one.find(chosen[1], chosen[0])
    axis = call.key_axis
    keys = comparing.sides(found, chosen)[1]
    note(comparing.aligned_sentence(found, chosen))
    if axis.grid is not None or axis.sound is not None or len(axis) > MOST or len(keys.corrupted) > MOST:
        return
    places = comparing.laid(found, chosen, move)
    names = "".join(f"<span>{html.escape(comparing.side_name(found, side))}</span>" for side in (0, 1))
    same = call.kind == "self"
    drawn = "".join(_place(place, same and place.places[0] == move.query[0]) for place in places)
    st.html(f"{STYLE}<div class='beside' data-testid='beside'><div class='names'>{names}</div>{drawn}</div>")


def _place(place: Beside, query: bool) -> str:
    classes = " ".join(["place", *(["differs"] if place.differs else []), *(["query"] if query else [])])
    tokens = []
    for token, weight, at in zip((place.one, place.other), place.weights, place.places, strict=True):
        if at is None:
            tokens.append("<span class='none' style='--w:0'>–</span>")
        else:
            said = html.escape(visible(token))
            tokens.append(f"<span style='--w:{weight:.3f}' title='{at} {said} · weight {weight:.1%}'>{said}</span>")
    return f"<div class='{classes}'>{''.join(tokens)}</div>"


def head(run: Run, found: Comparison, chosen: Head, move: Move) -> None:
    """The large picture, its sentence, and where its weight went."""
    own = "" if len(found.pairs) == 1 else f"{chosen[0]} "
    st.html(heading(f"Head {own}{comparing.head_name(found, chosen)}", "on the positions that both runs have"))
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        words = {"change": "Change", "one": comparing.side_name(found, 0), "other": comparing.side_name(found, 1)}
        choice("Drawn", CompareChoices.drawn, lambda name: words[name][:1].upper() + words[name][1:])
        st.link_button(
            "On the Heads page",
            f"{heads_address(run.subject)}{_query(named(run.capture, chosen))}",
            icon=":material/grid_view:",
            type="tertiary",
        )
    matrix = comparing.head_matrix(found, chosen, state.drawn)
    queries = found.rows(*chosen).queries
    row = next((number for number, (mine, _) in enumerate(queries) if mine == move.query[0]), 0)
    pinned = {"axis": "query", "index": row}
    over = matrix.columns.picture is not None and len(matrix.columns) <= LARGEST_PICTURE
    view = {"view": "picture", "height": 300} if over else {"height": min(460, max(250, 18 * len(matrix.rows)))}
    _canvas.head(matrix, key="compare-head", selected=pinned, **view)
    note(comparing.move_sentence(found, chosen, move))
    lines = comparing.share_lines(found, chosen)[:SHARES]
    if lines:
        st.html(heading("Where its weight went", "share of all its weight, second less first"))
        rows = [
            {"name": name, "value": value, "text": f"{value:+.1%}".replace("-", "−")}
            for name, value in sorted(lines, key=lambda line: -line[1])
        ]
        pictures.bars(rows, key="compare-shares", title="Where its weight went")
    matrix_files(run, found, matrix, matrix.title, "compare-head")


def _query(names: dict) -> str:
    return "&".join(f"{name}={value}" for name, value in names.items())
