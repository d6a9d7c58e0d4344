"""Masks: what a model's masks let through, masks built by hand, a lint for mask tensors, and a zoo of real bugs."""

from __future__ import annotations

import streamlit as st

from headwise import Capture, check_mask
from headwise.interp.analysis.metrics import ForbiddenMass, sweep
from headwise.interp.analysis.travel import travel
from headwise.interp.attention.call import AttentionCall
from headwise.interp.attention.promise import Promise
from headwise.interp.check import CLASSES, CheckError, Edges
from headwise.interp.drawing.edges import edges, first_leak, mask_given, reached, travelled
from headwise.interp.errors import InputError
from headwise.interp.masks import Bidirectional, Blocks, Causal, Global, Mask, Packed, Padding, Prefix, Strided, Window
from headwise.interp.masks.code import CONVENTIONS, code
from headwise.interp.masks.read import parse_mask, read_mask
from headwise.interp.zoo import CASES, find
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared.choices import CHOICES
from headwise.pages._shared.shelf import server
from headwise.pages._shared.sidebar import Run, share, sidebar

CHOSEN = {"as given": None, "causal": Causal(), "bidirectional": Bidirectional()}  # where nobody says
PATTERNS = ("causal", "bidirectional", "prefix", "window only")
WIDEST = 512  # positions drawn


def masks() -> None:
    """The page."""
    run = sidebar()
    st.segmented_control(
        "Section",
        CHOICES["section"],
        key="section",
        format_func=str.capitalize,
        required=True,
        persist_state="session",
        label_visibility="collapsed",
    )
    share(run)
    {"look": lambda: _look(run), "compose": _compose, "lint": _lint, "zoo": _zoo}[st.session_state.section]()


# -- Look ---------------------------------------------------------------------------------------------------------


@st.fragment
def _look(run: Run) -> None:
    cap = run.capture
    st.caption(
        "What each layer was allowed to see against what this model promises, and how far a changed token travels."
    )
    surveyed = server().survey(run.key, cap, lambda fraction: None)
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
            column_config={
                "says": st.column_config.TextColumn("who says so"),
                "forbidden mass": st.column_config.NumberColumn(
                    format="%.2e", help="The worst head's mean weight on forbidden keys."
                ),
                "per head": st.column_config.BarChartColumn(
                    y_min=0.0, y_max=1.0, help="Each head's mean weight on forbidden keys, 0 to 1."
                ),
            },
        )
        call = st.selectbox(
            "Layer",
            cap.calls,
            format_func=lambda c: f"{c.stack} layer {c.layer}",
            key="mask_layer",
            label_visibility="collapsed",
        )
        promise = next(c for mine, c in zip(cap.calls, claims, strict=True) if mine.name == call.name)
        _observed(cap, call, promise.mask)
    with right:
        st.markdown("**Change a token, see where it shows**")
        _travel(cap)


def _claims(cap: Capture) -> list[Promise]:
    """What each call promises; where nobody says, what the reader chooses."""
    claims = [call.claim for call in cap.calls]
    if all(claim.mask is not None for claim in claims):
        return claims
    chosen = st.selectbox("Nobody says what some layers may see. Take it to be", CHOSEN, key="mask_promise")
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
        st.session_state.changed = acted["index"]
    position = min(st.session_state.get("changed", len(labels) // 3), len(labels) - 1)
    try:
        with st.spinner("Two more runs …"):
            moved = travel(cap, position)
    except InputError as error:
        st.info(str(error))
        return
    causal = [call for call in cap.calls if call.kind == "self"][-1].claim.mask == Causal()
    shown = travelled(moved[:, :WIDEST], position, labels, causal)
    pin = {"axis": "key", "index": position}
    _canvas.head(shown, key="travel", scale="log", selected=pin, height=260)
    leaked = first_leak(shown)
    if leaked is not None:
        st.error(f"A changed token reached the past: it first shows {leaked}.", icon=":material/error:")
    elif causal:
        st.caption("Click a token above the picture to change it instead. Nothing before it changed, to the last bit.")
    else:
        st.caption("Click a token above the picture to change it instead. This model is allowed to see both ways.")


# -- Compose ------------------------------------------------------------------------------------------------------


@st.fragment
def _compose() -> None:
    st.caption("Build a mask: who sees whom, how far that reaches over layers, and the code for whoever takes it.")
    left, right = st.columns([4, 7], gap="large")
    with left:
        length = st.slider("Tokens", 4, 64, 24, key="compose_length")
        mask = _mask_from_widgets(length)
        layers = st.slider(
            "Layers of reach",
            1,
            8,
            1,
            key="compose_layers",
            help="Information travels on through the residual stream: a boolean power of the mask.",
        )
    with right:
        st.code(repr(mask), language="python")
        _canvas.head(reached(mask, length, layers), key="composed", height=420)
        empty = [str(i) for i in (~mask.dense(length, length).any(1)).nonzero().flatten().tolist()]
        if empty:
            st.warning(
                f"Rows that see nothing: {', '.join(empty[:12])}{' …' if len(empty) > 12 else ''}. "
                "Their softmax is NaN, zero or uniform, depending on the backend."
            )
        for tab, convention in zip(st.tabs(list(CONVENTIONS)), CONVENTIONS, strict=True):
            tab.code(code(mask, convention, length), language="python")


def _mask_from_widgets(length: int) -> Mask:
    pattern = st.selectbox("Pattern", PATTERNS, key="compose_pattern", format_func=str.capitalize)
    if pattern == "prefix":
        mask: Mask = Prefix(st.slider("Prefix length", 1, length, min(4, length), key="compose_prefix"))
    else:
        mask = Causal() if pattern == "causal" else Bidirectional()
    if pattern == "window only" or st.toggle("Window", key="compose_window"):
        left = st.slider(
            "Keys to the left",
            0,
            length - 1,
            min(3, length - 1),
            key="compose_left",
            help="Hugging Face's sliding_window=W is W − 1 keys to the left.",
        )
        right = 0 if pattern == "causal" else st.slider("Keys to the right", 0, length - 1, 0, key="compose_right")
        mask = Window(left, right) if pattern == "window only" else mask & Window(left, right)
    if st.toggle("Strided", key="compose_strided"):
        mask = mask & Strided(st.slider("Stride", 1, length, 4, key="compose_stride"))
    if st.toggle("Packed documents", key="compose_packed"):
        cut = st.slider("Second document starts at", 1, length - 1, length // 2, key="compose_cut")
        mask = mask & Packed((0,) * cut + (1,) * (length - cut))
    if st.toggle("Blocks", key="compose_blocks"):
        size = st.slider("Block size", 1, length, 4, key="compose_block")
        mask = mask & Blocks(tuple(i // size for i in range(length)))
    if st.toggle("Global tokens", key="compose_global"):
        count = st.slider("The first tokens are global", 1, length, 1, key="compose_globals")
        mask = mask | Global(tuple(range(count)))
    if st.toggle("Padding on the right", key="compose_padding"):
        mask = mask & Padding((st.slider("Real tokens", 1, length, max(1, length - 4), key="compose_real"),))
    return mask


# -- Lint ---------------------------------------------------------------------------------------------------------


def _lint() -> None:
    st.caption("Paste a mask tensor, or upload one: what it says, for whom it is right, and what is wrong with it.")
    left, right = st.columns([5, 6], gap="large")
    with left:
        text = st.text_area(
            "Rows of numbers, True/False or ■⬚", "1 0 0 0\n1 1 0 0\n1 1 1 0\n1 1 1 1", height=220, key="lint_text"
        )
        file = st.file_uploader("Or a file", type=["npy", "pt", "pth", "csv", "txt"], key="lint_file")
        taken = st.selectbox("It is given to", ["read it off", "sdpa", "mha", "additive", "hf"], key="lint_convention")
        promise = st.selectbox("It should be", ["anything", "causal", "bidirectional"], key="lint_expect")
    with right:
        try:
            mask = read_mask(file.name, file.getvalue()) if file is not None else parse_mask(text)
            report = check_mask(
                mask,
                convention=None if taken == "read it off" else taken,
                expect=None if promise == "anything" else promise,
            )
        except (CheckError, InputError) as error:
            st.error(str(error))
            return
        st.markdown(f"**{_plain(report.sentence)}**")
        st.code(repr(report.mask), language="python")
        for problem in report.problems:
            st.error(f"**{problem.cls}** – {_plain(problem.sentence)} Fix: {_plain(problem.fix)}.")
        if report.ok:
            st.success("Nothing wrong with it.")
        _picture(
            Edges(report.picture.observed[:WIDEST, :WIDEST], report.picture.expected[:WIDEST, :WIDEST], "mask"),
            "lint",
        )


# -- Zoo ----------------------------------------------------------------------------------------------------------


@st.fragment
def _zoo() -> None:
    st.caption(f"{len(CASES)} mask bugs as tiny living models, each beside its fix; the check runs when you look.")
    left, right = st.columns([4, 7], gap="large")
    with left:
        classes = [c for c in CLASSES if any(case.cls == c for case in CASES)]
        cls = st.selectbox("Class", classes, key="zoo_class", format_func=lambda c: f"{c}: {CLASSES[c]}")
        name = st.radio(
            "Bug", [case.name for case in CASES if case.cls == cls], key=f"zoo_{cls}", label_visibility="collapsed"
        )
        case = find(name)
    with right:
        fixed = (
            st.segmented_control(
                "Which",
                ["bug", "fix"],
                key="zoo_fixed",
                default="bug",
                required=True,
                format_func=str.capitalize,
                label_visibility="collapsed",
            )
            == "fix"
        )
        report, shown = server().zoo(case, fixed)
        st.markdown(
            f"**{_plain(case.name)}** – {_plain(case.symptom)}" + (f" &nbsp; `{case.report}`" if case.report else "")
        )
        st.code(shown, language=None, wrap_lines=True)
        if report.ok:
            st.success(f"Clean: {len([p for p in report.probed if p.applied])} probes, {report.seconds:.1f} s.")
        for finding in report.findings:
            st.error(f"**{finding.cls}** – {_plain(finding.sentence)}")
            facts = {"Where": finding.where, "Cause": finding.cause, "Fix": finding.fix}
            st.markdown("\n".join(f"- **{k}**: {_plain(v)}" for k, v in facts.items() if v))
        picture = report.dependency or next((f.picture for f in report.findings if f.picture is not None), None)
        if picture is not None:
            _picture(picture, "zoo")
    st.markdown("**Check your own model** at home; a server runs nobody's code:")
    st.code("headwise check my_model.py:make_model --expect causal", language="bash")


def _picture(picture: Edges, key: str) -> None:
    """Observed edges, with what was not expected in the alarm colour."""
    _canvas.head(edges(picture.observed, picture.expected, picture.of), key=f"picture-{key}", height=360)


def _plain(text: str) -> str:
    """Text as it is, not as Markdown."""
    for mark in r"\`*_[]<>$#|~":
        text = text.replace(mark, "\\" + mark)
    return text


if __name__ == "__main__":  # the first visitor of a server came here
    from headwise.pages import navigate

    navigate()
