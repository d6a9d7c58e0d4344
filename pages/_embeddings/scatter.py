"""Points in two dimensions, coloured by one kind of name and shaped by another, with texts to hover over."""

from __future__ import annotations

import html
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

# Okabe & Ito 2008 without vermillion, which is for alarms, and with two more hues
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#7A5C3E", "#8F7FE0")
SHAPES = {"circle": "●", "diamond": "◆", "square": "■", "triangle-up": "▲", "cross": "✚", "star": "★", "hexagon": "⬢"}
GREY, OPEN = "#8C949C", "circle-open"  # no name, or one of too many


def colours(names: Iterable[str]) -> dict[str, str]:
    """Colours of the names, in their order; those beyond the palette stay grey."""
    return {name: PALETTE[i] if i < len(PALETTE) else GREY for i, name in enumerate(names)}


def shapes(names: Iterable[str]) -> dict[str, str]:
    """Plotly's symbols for the names, in their order; those beyond the known shapes are open circles."""
    known = list(SHAPES)
    return {name: known[i] if i < len(known) else OPEN for i, name in enumerate(names)}


def ranked(names: Iterable[str]) -> list[str]:
    """The different names, the commonest first; "" is none."""
    counted = Counter(name for name in names if name)
    return sorted(counted, key=lambda name: (-counted[name], name))


def hover(text: str, facts: Sequence[str]) -> str:
    """A text and lines about it as Plotly shows them: broken into lines, shortened, nothing in it taken for markup."""
    lines = textwrap.wrap(text, 64)
    lines = [*lines[:7], *(["…"] if len(lines) > 7 else [])]
    return "<br>".join(html.escape(line, quote=False) for line in [*lines, *facts])


def legend(what: str, colours: dict[str, str], shapes: dict[str, str]) -> str:
    """One line of HTML: what the colours, each ``what`` they stand for, and the shapes mean. Where both have the same
    names, each name is said once."""
    if list(colours) == list(shapes) and what == "label":
        groups = [("label", [(SHAPES.get(shapes[name], "○"), colours[name], name) for name in colours])]
    else:
        groups = [
            (what, [("⬤", colour, name) for name, colour in colours.items()]),
            ("label", [(SHAPES.get(shape, "○"), "inherit", name) for name, shape in shapes.items()]),
        ]
    parts = []
    for (title, entries), size in zip(groups, ("1.25em",) if len(groups) == 1 else (".9em", "1.25em"), strict=True):
        if entries:
            parts.append(f"<span style='opacity:.65'>{title}</span>")
            parts += [
                f"<span style='white-space:nowrap'><span style='color:{colour};font-size:{size}'>{mark}</span> "
                f"{html.escape(name)}</span>"
                for mark, colour, name in entries
            ]
    style = "display:flex;flex-wrap:wrap;column-gap:.8em;align-items:baseline;font-size:.82rem;line-height:1.6"
    return f"<div data-testid='embedding-legend' style='{style}'>{''.join(parts)}</div>"


def figure(
    place: np.ndarray,
    hovers: list[str],
    colours: list[str],
    shapes: list[str],
    chosen: int | None,
    axes: tuple[str, str],
):
    """A Plotly figure of N points: ``place`` (N, 2), the rest one entry each; the ``chosen`` point wears a ring."""
    import plotly.graph_objects as go

    edge = {"width": 0.8, "color": "rgba(128,128,128,0.7)"}
    points = go.Scattergl if len(place) > 600 else go.Scatter
    drawn = points(
        x=place[:, 0],
        y=place[:, 1],
        mode="markers",
        hovertext=hovers,
        hoverinfo="text",
        marker={"color": colours, "symbol": shapes, "size": 9, "line": edge, "opacity": 0.9},
        unselected={"marker": {"opacity": 0.75}},  # a click is no reason to hide the others
    )
    fig = go.Figure(drawn)
    if chosen is not None:
        x, y = place[chosen]
        ring = {"symbol": "circle-open", "size": 21, "line": {"width": 3}, "color": "#8C949C"}
        fig.add_scatter(x=[x], y=[y], mode="markers", marker=ring, hoverinfo="skip")
    bare = {"showticklabels": False, "zeroline": False, "ticks": "", "title_standoff": 4, "title_font_size": 11}
    fig.update_xaxes(title=axes[0], showgrid=True, **bare)
    fig.update_yaxes(title=axes[1], showgrid=True, **bare)
    fig.update_layout(
        height=350,
        margin={"l": 0, "r": 0, "t": 4, "b": 0},
        showlegend=False,
        hoverlabel={"align": "left"},
        dragmode="pan",
    )
    return fig
