"""What the model says about its input, in one line, and writing on from there token by token."""

from __future__ import annotations

import html

import streamlit as st

from headwise import capture
from headwise.interp.analysis.answers import answers
from headwise.interp.drawing.paper.text import visible
from headwise.interp.errors import InputError
from headwise.interp.run.generate import Sampling, Step, ended, extend, finished, next_token
from headwise.pages._heads.choices import HeadsChoices, state
from headwise.pages._shared.bar import Run
from headwise.pages._shared.markdown import plain
from headwise.pages._shared.shelf import server

MANY = 10  # tokens of the second button, where nothing repeats
LONGEST = 40  # letters of an answer that are shown
SHOWN = 8  # answers
LEAST = 0.005  # what is less probable reads 0%
NEXT = {"text": "Next token", "series": "Next change", "score": "Next note"}
STYLE = """<style>
.says{display:flex;flex-wrap:wrap;gap:.3rem .55rem;align-items:center;font-size:.86rem;line-height:1.5}
.says b{font-weight:600;margin-right:.2rem}
.says span{position:relative;padding:0 .45rem;border-radius:4px;overflow:hidden;white-space:pre;
border:1px solid color-mix(in srgb,currentColor 18%,transparent)}
.says i{position:absolute;inset:0 auto 0 0;
background:color-mix(in srgb,var(--st-primary-color,#0b6e99) 22%,transparent)}
.says bdi,.says em{position:relative;font-style:normal}
.says em{opacity:.8;margin-left:.35rem;font-size:.8rem;font-variant-numeric:tabular-nums}
.st-key-next{min-width:0}
.st-key-next button{min-height:1.6rem;padding:0 .5rem;border-radius:4px;
background:linear-gradient(90deg,color-mix(in srgb,var(--st-primary-color,#0b6e99) 22%,transparent) var(--share),
transparent var(--share))}
</style>"""


def output(run: Run) -> None:
    """Draw the line; where the model writes, its next tokens go on from there, and so do buttons in the bar."""
    try:
        step = next_token(run.capture, sampling(), len(state.written))
    except InputError:  # it writes nothing; it may have other answers
        step = None
    if step is None:
        found = server().made("answers", run.key, lambda: answers(run.capture))
        lines = [row(answer.question, answer.rows) for answer in found]
        if lines:
            st.html(STYLE + "".join(lines), width="content")
        return
    over = finished(run.subject, run.inputs)
    likely = {} if over else {token: (label, share) for token, label, share in step.top[:SHOWN] if share >= LEAST}
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall", key="next-line", width="content"):
        question = row("The target has ended" if over else NEXT[run.subject.reads], ())
        st.html(STYLE + _fills(likely) + question, width="content")
        if likely:
            _next(likely)
    with run.beside:
        _write(run, step, over)


def _fills(likely: dict[int, tuple[str, float]]) -> str:
    """The style that fills each token as far as it is probable."""
    fills = (
        f".st-key-next button:nth-of-type({number}){{--share:{100 * share:.1f}%}}"
        for number, (_, share) in enumerate(likely.values(), 1)
    )
    return f"<style>{''.join(fills)}</style>"


def _next(likely: dict[int, tuple[str, float]]) -> None:
    """The tokens that may come next, each a way to go on."""
    st.pills(
        "Go on with",
        list(likely),
        key=HeadsChoices.going.key,
        format_func=lambda token: f"{plain(visible(likely[token][0])[:LONGEST])} {likely[token][1]:.0%}",
        label_visibility="collapsed",
        on_change=_go_on,
    )


def _go_on() -> None:
    if state.going is not None:
        state.written = (*state.written, state.going)
    state.going = None


def sampling() -> Sampling:
    return Sampling(state.temperature, state.top_k, state.top_p, state.seed)


def row(question: str, rows) -> str:
    """One answer as HTML; labels are anybody's text and are escaped."""
    cells = "".join(
        f"<span title='{probability:.4f}'><i style='width:{probability:.0%}'></i>"
        f"<bdi>{html.escape(visible(label)[:LONGEST])}</bdi><em>{probability:.0%}</em></span>"
        for label, probability in rows
        if probability >= LEAST
    )
    return f"<div class='says' data-testid='says'><b>{html.escape(question)}</b>{cells}</div>"


def _write(run: Run, step: Step, over: bool) -> None:
    one = st.button("Write one", key="write-one", disabled=over, shortcut="w")
    count, called = _many(run)
    many = st.button(f"Write {called}", key="write-many", disabled=over)
    if state.written and st.button("Start over", key="write-none", help="Takes back all that was written."):
        state.written = ()
        st.rerun()
    place = st.popover("Sampling", icon=":material/tune:", key="sampling", on_change="rerun")
    if place.open:  # four fields cost time in every run
        with place:
            _sampling()
    if one:
        state.written = (*state.written, step.token)
        st.rerun()
    if many:
        _write_many(run, step, count)
        st.rerun()


def _sampling() -> None:
    temperature, top_k, top_p, seed = (
        HeadsChoices.temperature,
        HeadsChoices.top_k,
        HeadsChoices.top_p,
        HeadsChoices.seed,
    )
    st.slider("Temperature", *temperature.between, step=0.05, help="0 takes the best.", **temperature.widget)
    st.slider("Top-k", *top_k.between, help="Only the k best tokens; 0 is all.", **top_k.widget)
    st.slider("Top-p", *top_p.between, step=0.05, help="Only the best tokens that hold p.", **top_p.widget)
    st.number_input("Seed", *seed.between, **seed.widget)


def _many(run: Run) -> tuple[int, str]:
    """How many tokens the second button writes, and what they are called: of a series or a score a whole cycle."""
    track = next((axis.track for axis in run.inputs.axes.values() if axis.track is not None), None)
    return (MANY, str(MANY)) if track is None else (track.period, f"a {track.cycle}")


def _write_many(run: Run, step: Step, count: int) -> None:
    """Token after token; what is written stays also when somebody breaks off."""
    inputs, bar = run.inputs, st.progress(0.0, text="Writing …")
    for number in range(count):
        state.written = (*state.written, step.token)
        if ended(run.subject, [step.token]) or number == count - 1:
            break
        bar.progress((number + 1) / count, text=f"Writing … {number + 1} of {count}")
        try:
            inputs = extend(run.subject, inputs, [step.token])
            with server().slots:
                grown = capture(run.subject, inputs)
            step = next_token(grown, sampling(), len(state.written))
        except InputError as error:  # the model takes no longer text
            state.written = state.written[:-1]
            st.toast(str(error))
            break
