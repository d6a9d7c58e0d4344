"""What each layer was allowed to see against its promise, and how far a changed token travels."""

from __future__ import annotations

import streamlit as st

from headwise import Capture
from headwise.interp.analysis.metrics import ForbiddenMass, sweep
from headwise.interp.analysis.travel import Travel, exchange, followed
from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.promise import Promise
from headwise.interp.drawing.edges import mask_given, travelled
from headwise.interp.drawing.paper.text import visible
from headwise.interp.drawing.survey import survey
from headwise.interp.errors import InputError
from headwise.interp.masks import Mask
from headwise.interp.run.generate import label
from headwise.pages._masks.choices import CHOSEN, MasksChoices, state
from headwise.pages._masks.edges import WIDEST
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared.bar import Run
from headwise.pages._shared.defence import fragment
from headwise.pages._shared.markdown import plain
from headwise.pages._shared.shelf import server


@fragment
def look(run: Run) -> None:
    cap = run.capture
    st.caption(
        "What each layer was allowed to see against what this model promises, and how far a changed token travels."
    )
    surveyed = server().made("survey", run.key, lambda: survey(cap))
    left, right = st.columns([1, 1], gap="large")
    with left:
        st.markdown("**Observed mask against the promise**")
        claims = _claims(cap)
        table = _masses(surveyed.table, cap, claims)
        rows = [
            {
                "stack": call.stack,
                "layer": call.layer,
                "mask given": repr(call.pattern),
                "promised": "unknown: choose" if claim.mask is None else repr(claim.mask),
                "says": claim.source,
                "forbidden mass": float(_of(table, call).forbidden.max()),
                "per head": _of(table, call).forbidden.tolist(),
            }
            for call, claim in zip(cap.calls, claims, strict=True)
        ]
        st.dataframe(
            rows,
            hide_index=True,
            height="content" if len(rows) < 9 else 320,
            column_order=["stack", "layer", "forbidden mass", "promised", "says", "mask given", "per head"],
            column_config={
                "stack": st.column_config.TextColumn(width=70),
                "layer": st.column_config.NumberColumn(width=45),
                "says": st.column_config.TextColumn("who says so"),
                "forbidden mass": st.column_config.NumberColumn(
                    width=95, format="%.2e", help="The worst head's mean weight on forbidden keys."
                ),
                "per head": st.column_config.BarChartColumn(
                    y_min=0.0, y_max=1.0, help="Each head's mean weight on forbidden keys, 0 to 1."
                ),
            },
        )
        calls = {f"{call.stack} layer {call.layer}": call for call in cap.calls}
        MasksChoices.mask_layer.one_of(list(calls))
        name = st.selectbox("Layer", list(calls), label_visibility="collapsed", **MasksChoices.mask_layer.widget)
        promise = next(c for mine, c in zip(cap.calls, claims, strict=True) if mine.name == calls[name].name)
        st.caption(plain(f"Promised: {promise}"))
        _observed(cap, calls[name], promise.mask)
    with right:
        st.markdown("**Change a token, see where it shows**")
        _travel(cap)


def _claims(cap: Capture) -> list[Promise]:
    """What each call promises; where nobody says, what the reader chooses."""
    claims = [call.claim for call in cap.calls]
    if all(claim.mask is not None for claim in claims):
        return claims
    widget = MasksChoices.mask_promise.widget
    chosen = st.selectbox("Nobody says what some layers may see. Take it to be", CHOSEN, **widget)
    yours = Promise(CHOSEN[chosen], "nothing says" if CHOSEN[chosen] is None else "you chose")
    return [yours if claim.mask is None else claim for claim in claims]


def _masses(table, cap: Capture, claims: list[Promise]):
    """The survey's table, with the forbidden mass of layers whose promise the reader chose."""
    chosen = [(call, claim) for call, claim in zip(cap.calls, claims, strict=True) if claim.source == "you chose"]
    if not chosen:
        return table
    mine = sweep(cap, [ForbiddenMass], expect=chosen[0][1].mask)
    places = {(call.stack, call.layer) for call, _ in chosen}
    told = [place not in places for place in zip(table["stack"], table.layer, strict=True)]
    return table.assign(forbidden=table.forbidden.where(told, mine.forbidden))


def _of(table, call: AttentionCall):
    return table[(table["stack"] == call.stack) & (table.layer == call.layer)]


def _observed(cap: Capture, call: AttentionCall, promise: Mask | None) -> None:
    given = mask_given(cap, call, WIDEST, promise=promise)
    _canvas.head(given, key="observed")
    if given.left_out:
        st.caption(" · ".join(given.left_out))


def _travel(cap: Capture) -> None:
    axis = cap.axes.get("target", cap.axes.get("input"))
    labels = axis.labels if axis is not None else ()
    acted = _canvas.event("travel").get("token")
    if acted and acted["axis"] == "key":
        state.changed = acted["index"]
    position = min(len(labels) // 3 if state.changed is None else state.changed, len(labels) - 1)
    try:
        with st.spinner("Two more runs …"):
            found = followed(cap, position)
    except InputError as error:
        st.info(str(error))
        return
    was, now = (plain(visible(label(cap.subject, token))) for token in exchange(cap, position))
    st.caption(f"Token {position}, “{was}”, became “{now}”. How far each layer's output moved at each token:")
    shown, pin = travelled(found, labels, WIDEST), {"axis": "key", "index": position}
    _canvas.head(shown, key="travel", scale="log", selected=pin, height=260)
    _verdict(found)


def _verdict(found: Travel) -> None:
    click = "Click a token above the picture to change it instead. "
    if found.leaked:
        where = "the past" if found.past else "positions that it may not reach"
        st.error(f"A changed token reached {where}: it first shows {found.leaked[0]}.", icon=":material/error:")
    elif not found.promised:
        st.caption(click + "This model is allowed to see both ways.")
    else:
        what = "Nothing before it changed" if found.past else "Nothing changed where it may not"
        how = f"but for rounding, {found.rounding:.0e} at most" if found.rounding else "to the last bit"
        st.caption(f"{click}{what}, {how}.")
