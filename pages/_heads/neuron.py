"""The neuron view: the score of one query and one key of the large head, taken apart into its dimensions."""

from __future__ import annotations

import html

import streamlit as st

from headwise import Capture
from headwise.interp.analysis.neuron import Neuron, looks_most, neuron, rotary_pairs
from headwise.interp.attention.axes import Axis
from headwise.interp.attention.call import AttentionCall
from headwise.interp.drawing.matrix import recorded
from headwise.interp.drawing.neurons import BIAS, PART, SCORE, Step, neuron_map, position_name, steps
from headwise.interp.drawing.words import groups_of
from headwise.interp.errors import InputError
from headwise.pages._heads.choices import HeadsChoices, state
from headwise.pages._heads.downloads import editing
from headwise.pages._heads.head import choice
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared.bar import Run
from headwise.pages._shared.code import capturing
from headwise.pages._shared.markdown import plain
from headwise.pages._shared.shelf import server

WORDS = {
    "none": "Neuron view: click a cell, a query or a key above to take its score apart.",
    "words": "Neuron view: a score belongs to one query and one key, and this word is several tokens; switch off "
    "*Merge words*.",
    "can": "Exact for this one score: all of its parts, for this query and this key. It does not say what a dimension "
    "stands for, nor that the weight explains the answer "
    "([Vig 2019](https://arxiv.org/abs/1906.05714), Neuron View; "
    "[Jain & Wallace 2019](https://arxiv.org/abs/1902.10186), “Attention is not Explanation”).",
    "unseen": "attention is written by hand in this layer and showed its scores only, not the queries and keys that "
    "made them; see *Scores* above.",
    "map": "Each row is a key: blue raises its score, amber lowers it. Click a row to take that key's score apart.",
}
ORDERS = {"size": "Largest first", "dimension": "By dimension"}
TERMS = {
    "parts": "the sum over all dimensions of query × key × scale; the scale here is {scale:.4g}",
    "bias": "what the model adds to this score, as it was given to the attention: positions, ALiBi, a soft mask",
    "added": "what the score has beside query × key × scale: the model's bias, or what its own function made of it",
    "score": "what goes into the softmax, as the capture has it",
    "weight": "e to the power of this score, over the sum of that for all keys the query may see",
    "remainder": "score − (parts + bias): rounding",
    "single": "query {q:.4g} × key {k:.4g} × scale = {value:+.4g}, {share:+.1%} of all |parts|",
    "pair": "length {q:.4g} of the query × length {k:.4g} of the key × cos {angle:.1f}° × scale = {value:+.4g}, "
    "{share:+.1%} of all |parts|; rotary positions turn dimensions {dimension} and {partner} together",
    "others": "the parts that are not shown one by one, together",
}
STYLE = """<style>
.neuron{--up:oklch(.62 .12 238);--down:oklch(.7 .12 68);font-size:.84rem;line-height:1.45;container-type:inline-size;
font-variant-numeric:tabular-nums}
.neuron .sum{display:flex;flex-wrap:wrap;gap:.15rem .55rem;align-items:baseline;margin-bottom:.45rem}
.neuron .sum b{font-weight:600;font-size:1rem}
.neuron .sum span{white-space:nowrap}
.neuron .sum i,.neuron .quiet{font-style:normal;opacity:.62}
.neuron [title]{cursor:help}
.neuron .row{display:grid;grid-template-columns:4.6rem 10.2rem 1fr 3.6rem;gap:.6rem;align-items:center;height:1.35rem}
.neuron .row.score{border-top:1px solid color-mix(in srgb,currentColor 22%,transparent);margin-top:.15rem;
padding-top:.15rem;font-weight:600}
.neuron .name{white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.neuron .of{display:flex;gap:.35rem;align-items:center;white-space:nowrap;opacity:.72;font-size:.78rem}
.neuron .value{text-align:right}
.neuron .track{position:relative;height:100%}
.neuron .track i{position:absolute;top:22%;bottom:22%;border-radius:2px;min-width:1.5px}
.neuron .track u{position:absolute;top:-14%;bottom:-14%;width:1px;
background:color-mix(in srgb,currentColor 30%,transparent)}
.neuron .up{background:var(--up)}.neuron .down{background:var(--down)}
.neuron .rest{opacity:.5}
.neuron .turn{position:relative;width:1.25rem;height:1.25rem;flex:none;border-radius:50%;
border:1px solid color-mix(in srgb,currentColor 28%,transparent)}
.neuron .turn i{position:absolute;left:50%;top:50%;height:2px;margin-top:-1px;border-radius:1px;transform-origin:0 50%;
background:currentColor}
.neuron .turn i+i{background:var(--up)}.neuron .turn.against i+i{background:var(--down)}
.neuron .bars{display:flex;align-items:stretch;height:7.5rem;gap:1px;position:relative;margin:.3rem 0 .1rem}
.neuron .bars span{flex:1;position:relative;min-width:1px}
.neuron .bars span:hover{background:color-mix(in srgb,currentColor 8%,transparent)}
.neuron .bars i{position:absolute;left:0;right:0;border-radius:1px;min-height:1px}
.neuron .ends{display:flex;justify-content:space-between}
@container (max-width:430px){.neuron .row{grid-template-columns:4.6rem 1fr 3.6rem}.neuron .of{display:none}}
</style>"""


def take_neuron_events(call: AttentionCall) -> None:
    """The key of a cell that was clicked in the head, or of a row of the neuron view's own map."""
    acted = _canvas.event("one")
    if "token" in acted:
        keys = _shown_positions(call.key_axis)
        state.neuron = keys[acted["key"]][0] if acted.get("key", len(keys)) < len(keys) else -1
    row = _canvas.event("neuron-map").get("token", {"axis": ""})
    if row is None:
        state.neuron = -1
    elif row["axis"] == "query":  # what the canvas calls rows; here they are keys
        if state.pin is not None and state.pin["axis"] == "key":
            query = looks_most(call, state.head, _pinned(call) or 0)
            state.pin = {"axis": "query", "index": _shown_at(call.query_axis, query)}
        state.neuron = row["index"]


def neuron_view(run: Run, call: AttentionCall) -> None:
    """Draw the score of the pinned query and its chosen key, or say why there is none."""
    if call.scale is None:
        st.caption(f"Neuron view: {WORDS['unseen']}")
        return
    if state.pin is None:
        st.caption(WORDS["none"])
        return
    position = _pinned(call)
    if position is None:
        st.caption(WORDS["words"])
        return
    with st.container(key="neuron-view"):
        try:
            found = _found(run.capture, call, position)
        except InputError as error:
            st.info(plain(str(error)))
            return
        _heading(call, found)
        st.html(STYLE + drawn(found))
        matrix = neuron_map(run.capture, found, _keys_shown(run.capture, call))
        _canvas.rows(matrix, key="neuron-map", selected=found.key, height=300)
        st.caption(f"{WORDS['map']} {WORDS['can']}")
        _downloads(run, call, found)


def drawn(found: Neuron) -> str:
    """The sum and its parts as HTML."""
    body = _waterfall(found) if state.apart == "size" else _bars(found)
    return f"<div class='neuron' data-testid='neuron'>{_sum(found)}{body}</div>"


# -- which score --------------------------------------------------------------------------------------------------
def _pinned(call: AttentionCall) -> int | None:
    """The position that is pinned in the head, None where it is a word of several tokens."""
    axis = call.query_axis if state.pin["axis"] == "query" else call.key_axis
    shown = _shown_positions(axis)
    group = shown[min(state.pin["index"], len(shown) - 1)]
    return group[0] if len(group) == 1 else None


def _shown_positions(axis: Axis) -> list[list[int]]:
    """The positions of each row or column of the large head."""
    whole = state.view == "picture"
    return groups_of(axis, state.words and not whole, state.special or whole)[0]


def _shown_at(axis: Axis, position: int) -> int:
    """The row that shows a position, the first where none does."""
    return next((row for row, group in enumerate(_shown_positions(axis)) if position in group), 0)


def _keys_shown(cap: Capture, call: AttentionCall) -> tuple[int, int] | None:
    """The keys of the part of the head that is shown large."""
    plain_positions = not state.words and state.special
    region = state.zoom if plain_positions else None
    region = region or (None if state.padding else recorded(cap, call))
    return None if region is None else region[2:]


def _found(cap: Capture, call: AttentionCall, position: int) -> Neuron:
    """By a pinned query and the key that was chosen, or by a pinned key and the query that looks at it most."""
    with st.spinner("Looking for rotary positions …", show_time=True), server().slots:
        pairs = rotary_pairs(cap, call)
    place = {"layer": call.layer, "head": state.head, "stack": call.stack, "pairs": pairs}
    if state.pin["axis"] == "key":
        return neuron(cap, query=looks_most(call, state.head, position), key=position, **place)
    found = neuron(cap, query=position, **place)
    if 0 <= state.neuron < call.keys:
        found = found.at(state.neuron)
    else:
        state.neuron = -1
    return found


def _heading(call: AttentionCall, found: Neuron) -> None:
    axes = call.query_axis, call.key_axis
    query, key = (html.escape(position_name(a, i)) for a, i in zip(axes, (found.query, found.key), strict=True))
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.html(
            f"<div style='font-size:.95rem' data-testid='neuron-title'><b>Neuron view</b> &nbsp;query "
            f"<bdi><b>{query}</b></bdi> → key <bdi><b>{key}</b></bdi></div>",
            width="stretch",
        )
        choice("Order of parts", HeadsChoices.apart, ORDERS.get)


# -- drawing ------------------------------------------------------------------------------------------------------
def _sum(found: Neuron) -> str:
    """Σ parts + bias = score → weight."""
    terms = [_term("parts", f"Σ {len(found.parts)} {_nouns(found)}", found.total, scale=found.scale)]
    if found.hidden:
        terms += ["<i>+</i><span>hidden by the mask <b>−∞</b></span>", "<i>=</i><span>score <b>−∞</b></span>"]
    else:
        name, label = ("bias", "bias") if found.told else ("added", "added by the model")
        terms += ["<i>+</i>", _term(name, label, found.bias)] if found.bias else []
        terms += ["<i>=</i>", _term("score", "score", found.score)]
    terms.append(
        f"<i>→</i><span title='{TERMS['weight']}'>weight <b>{found.weight:.3g}</b> "
        f"<i>{_ordinal(found.rank)} of {int(found.allowed.sum())} keys</i></span>"
    )
    if not found.hidden:
        missing = _minus(f"{found.remainder:.0e}")
        terms.append(f"<span title='{TERMS['remainder']}'><i>not explained {missing}</i></span>")
    return f"<div class='sum'>{''.join(terms)}</div>"


def _nouns(found: Neuron) -> str:
    """What the parts are."""
    kinds = {1: "dimensions", 2: "pairs"}
    return " and ".join(kinds[size] for size in sorted({len(part) for part in found.parts}, reverse=True))


def _term(name: str, label: str, value: float, **known: float) -> str:
    return f"<span title='{TERMS[name].format(**known)}'>{label} <b>{_signed(value)}</b></span>"


def _waterfall(found: Neuron) -> str:
    """Bars that start where the one above ended, down to the score."""
    table, made = found.table.to_dict("records"), steps(found)
    low, high = min(0.0, *(s.end for s in made)), max(0.0, *(s.end for s in made))
    rows = []
    for step in made:
        row = table[step.row] if step.kind == PART else None
        left, right = (100 * (x - low) / ((high - low) or 1) for x in sorted((step.start, step.end)))
        tone = ("up" if step.value >= 0 else "down") + (" rest" if step.kind in ("others", BIAS) else "")
        zero = 100 * -low / ((high - low) or 1)
        bar = (
            f"<u style='left:{zero:.2f}%'></u><i class='{tone}' style='left:{left:.2f}%;width:{right - left:.2f}%'></i>"
        )
        rows.append(
            f"<div class='row {step.kind}' title='{_told(step, row)}'><span class='name'>{_name(step, row)}</span>"
            f"<span class='of'>{'' if row is None else _of(row)}</span><span class='track'>{bar}</span>"
            f"<span class='value'>{_signed(step.value)}</span></div>"
        )
    return "".join(rows)


def _bars(found: Neuron) -> str:
    """All parts in their order, upwards and downwards from one line."""
    table = found.table.to_dict("records")
    low, high = min(0.0, *(r["value"] for r in table)), max(0.0, *(r["value"] for r in table))
    size = (high - low) or 1
    bars = []
    for row in table:
        value = row["value"]
        top, height = 100 * (high - max(value, 0)) / size, 100 * abs(value) / size
        tone = "up" if value >= 0 else "down"
        bars.append(
            f"<span title='{_part_name(row)}: {_detail(row)}'>"
            f"<i class='{tone}' style='top:{top:.2f}%;height:{height:.2f}%'></i></span>"
        )
    ends = (_part_name(table[0]), f"{_signed(low)} … {_signed(high)}", _part_name(table[-1]))
    under = "".join(f"<span>{text}</span>" for text in ends)
    return f"<div class='bars'>{''.join(bars)}</div><div class='ends quiet'>{under}</div>"


def _name(step: Step, row: dict | None) -> str:
    return step.name if row is None else _part_name(row)


def _part_name(row: dict) -> str:
    return f"pair {row['dimension']}·{row['partner']}" if _is_pair(row) else f"dim {row['dimension']}"


def _is_pair(row: dict) -> bool:
    return "angle" in row and row["angle"] == row["angle"]


def _of(row: dict) -> str:
    """Query and key of one part: two numbers, or two arrows, the query's to the right, with the angle between them."""
    if not _is_pair(row):
        return f"q {_signed(row['q'])} × k {_signed(row['k'])}"
    longest = max(row["q"], row["k"]) or 1.0
    arrows = "".join(
        f"<i style='width:{46 * row[side] / longest:.0f}%;transform:rotate({-turn:.0f}deg)'></i>"
        for side, turn in (("q", 0.0), ("k", row["angle"]))
    )
    against = "" if row["value"] >= 0 else " against"
    angle = _minus(f"{row['angle']:.0f}°")
    return f"<span class='turn{against}'>{arrows}</span>{row['q']:.2f} × {row['k']:.2f} × cos {angle}"


def _detail(row: dict) -> str:
    return TERMS["pair" if _is_pair(row) else "single"].format(**row)


def _told(step: Step, row: dict | None) -> str:
    """The tooltip of a bar."""
    if row is not None:
        return _detail(row)
    return TERMS["others"] if step.kind == "others" else TERMS["score" if step.kind == SCORE else step.name]


def _signed(value: float) -> str:
    return _minus(f"{value:+.2f}" if abs(value) >= 0.005 or not value else f"{value:+.0e}")


def _minus(number: str) -> str:
    return number.replace("-", "−")


def _ordinal(rank: int) -> str:
    return "the largest" if rank == 1 else f"number {rank}"


# -- what leaves --------------------------------------------------------------------------------------------------
def _downloads(run: Run, call: AttentionCall, found: Neuron) -> None:
    file = f"layer{call.layer}-head{found.head}-query{found.query}-key{found.key}.csv"
    st.download_button(
        "Parts as CSV",
        found.table.to_csv(index=False).encode(),
        file,
        "text/csv",
        key="download-neuron",
        icon=":material/download:",
        on_click="ignore",
    )
    with st.expander("Show the code", icon=":material/code:"):
        st.code(neuron_code(run, call, found), language="python")


def neuron_code(run: Run, call: AttentionCall, found: Neuron) -> str:
    """The Python that takes this score apart."""
    where = f"cap, {call.layer}, {found.head}, query={found.query}, key={found.key}, stack={call.stack!r}"
    name, pairs = "neuron", []
    if found.paired:
        name, where = f"{name}, rotary_pairs", f"{where}, pairs=pairs"
        pairs = [f"pairs = rotary_pairs(cap, cap.find({call.layer}, {call.stack!r}))"]
    return "\n".join(
        [
            *capturing(run, f"from headwise.interp.analysis.neuron import {name}", edits=editing(run, "cap")),
            *pairs,
            f"found = neuron({where})",
            "found.table, found.total, found.bias, found.score, found.weight, found.remainder",
        ]
    )
