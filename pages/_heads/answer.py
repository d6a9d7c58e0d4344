"""What the changes did to the answer: a few large numbers, what is said now, and which answer is meant."""

from __future__ import annotations

import html

import streamlit as st

from headwise.interp.analysis.effects import (
    Effect,
    Moved,
    answers_at_all,
    asked,
    continued,
    effect,
    moved,
    word_effect,
)
from headwise.interp.attention.call import AttentionCall
from headwise.interp.drawing.paper.text import visible
from headwise.interp.errors import InputError
from headwise.pages._heads.choices import WORDS, HeadsChoices, state
from headwise.pages._heads.whatif import SLOW, Edited, acts, listed, settings, title
from headwise.pages._shared.bar import Run
from headwise.pages._shared.markdown import plain
from headwise.pages._shared.shelf import server

WRITTEN = 5  # tokens written on,
ANEW = 24  # and at most of a target that is written anew
SHOWN = 30  # letters of an answer
WORD_NAMES = {"first": "First token", "whole": "Whole word"}
TERMS = {
    "logit": "The answer's score before the softmax.",
    "logit difference": "The answer's logit less the alternative's.",
    "log-probability": "The logarithm of the probability of all these tokens, one after another.",
    "log-probability difference": "The log-probability of the one word less that of the other.",
    "Δ logit": "How far the answer's logit, its score before the softmax, moved; below 0: what is changed now used to "
    "speak for this answer.",
    "Δ logit difference": "How far the answer's logit moved against the alternative's: what moves all tokens alike "
    "drops out.",
    "Δ log P": "How far the logarithm of the probability of all these tokens, one after another, moved.",
    "Δ log P difference": "How far the log-probability of the one word moved against that of the other.",
    "P": "The probability of the answer before and after.",
    "KL": "Kullback–Leibler divergence of the whole answer after from before, in nats: 0 means that nothing changed, "
    "whichever token one looks at.",
    "output moved": "The length of the output's change, relative to the length of the output before.",
    "cosine": "The cosine of the angle between the output before and after, the mean over positions: 1 is the same "
    "direction.",
}
MEASURES = {
    "logit": "Δ logit",
    "logit difference": "Δ logit difference",
    "log-probability": "Δ log P",
    "log-probability difference": "Δ log P difference",
}
LIMITS = {
    "mean": "Mean ablation keeps what a head says on average and takes away what it says *here*.",
    "zero": "Zero ablation also takes away what later layers count on from every head, so it can overstate.",
    "resample": "Resampling puts true but misplaced output in: another seed gives another number.",
}
CAUTION = (
    "An effect shows that the head matters for this answer on this text, not what it computes; no effect can mean that "
    "backup heads stepped in. A pattern alone is no explanation."
)
SOURCES = (
    "Ablation: Michel et al. 2019; Wang et al. 2023 (means, backup heads). Patterns: Jain & Wallace 2019, “Attention "
    "is not Explanation”."
)
STYLE = """<style>
.wi{display:flex;flex-wrap:wrap;gap:.4rem}
.wi>div{flex:1 1 4.8rem;padding:.3rem .55rem .35rem;border-radius:6px;cursor:help;
background:light-dark(#f1f4f7,#1d2530)}
.wi b{display:block;font-size:1.18rem;line-height:1.3;font-weight:650;white-space:nowrap;
font-variant-numeric:tabular-nums;letter-spacing:-.01em}
.wi span{font-size:.76rem;opacity:.78;display:block;line-height:1.25;overflow-wrap:anywhere}
.wi .down b{color:light-dark(#a8590a,#e8a75c)}.wi .up b{color:light-dark(#0b6e99,#5bb8e0)}
.wi-top{display:grid;grid-template-columns:fit-content(8rem) 1fr max-content;gap:.1rem .5rem;align-items:center;
font-size:.8rem;line-height:1.4;font-variant-numeric:tabular-nums}
.wi-top bdi{overflow:hidden;text-overflow:ellipsis;white-space:pre}
.wi-top u{display:block;height:.5rem;border-radius:2px;position:relative;text-decoration:none;
background:color-mix(in srgb,currentColor 9%,transparent)}
.wi-top u i{position:absolute;inset:0 auto 0 0;border-radius:2px;background:light-dark(#0b6e99,#5bb8e0)}
.wi-top u s{position:absolute;top:-2px;bottom:-2px;width:2px;background:currentColor}
.wi-top em{font-style:normal;text-align:right;opacity:.85}
.wi-says{font-size:.84rem;line-height:1.5}.wi-says bdi{white-space:pre-wrap;color:light-dark(#8a5a00,#e5b567)}
.wi-says bdi.old{color:inherit;opacity:.65}
</style>"""


def whatif(run: Run, call: AttentionCall, now: Edited) -> None:
    """The panel of the chosen head: what can be done to it, and what that did to the answer."""
    found = trouble = None
    answered = answers_at_all(run.capture)
    if answered:
        try:
            found = _found(run, now)
        except InputError as error:
            trouble = str(error)
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall"):
        with st.container(width="stretch"):
            st.html(title(run, call))
        if answered:
            _fields(run, found)
    acts(run, call)
    if trouble is not None:
        st.error(plain(trouble))
    elif found is None:
        _output(run, now)
    else:
        _numbers(found, bool(now.made))
    listed(run, now)
    if found is not None and now.made:
        st.html(_top(found))
        _says(run, now)
    settings(run, call)


def caution() -> None:
    """What an effect can and cannot tell."""
    st.caption(f"{LIMITS[state.how]} {CAUTION}", help=SOURCES)


def _found(run: Run, now: Edited) -> Effect:
    """The effect on the answer that is chosen."""
    plain_run, changed = run.capture, now.run.capture
    wanted, against = (word.strip("\n") or None for word in (state.answer, state.rather))

    def made() -> Effect:
        if state.counted == "whole" and wanted is not None and writes(run):
            return word_effect(plain_run, changed, wanted, against)
        return effect(plain_run, changed, asked(plain_run, wanted, against))

    return server().made("effect", (run.key, now.made, wanted, against, state.counted), made)


def _fields(run: Run, found: Effect | None) -> None:
    said = "Answer" if found is None else f"on {plain(_name(found))}"
    told = "Which answer the numbers are about."
    place = st.popover(said, help=told, key="answer-open", on_change="rerun")
    if place.open:  # a field costs time in every run
        with place:
            _choose(run, found)


def _choose(run: Run, found: Effect | None) -> None:
    st.text_input(
        "Answer",
        placeholder="what the model says",
        help="A word, with or without its leading space; empty is what the model itself says.",
        **HeadsChoices.answer.widget,
    )
    st.text_input(
        "rather than",
        placeholder="nothing: the logit itself",
        help="Another answer: then the difference of the two is measured.",
        **HeadsChoices.rather.widget,
    )
    st.segmented_control(
        "Of a word of several tokens",
        WORDS,
        format_func=WORD_NAMES.get,
        required=True,
        disabled=not writes(run),
        help="The first token alone, or the sum of the log-probabilities of all of them."
        if writes(run)
        else "A word of several tokens is read token after token, which only a model that writes does.",
        **HeadsChoices.counted.widget,
    )
    if found is not None and found.position is not None:
        st.caption(f"Read at {_place(run, found.position)}.")


def writes(run: Run) -> bool:
    return run.subject.family in ("decoder", "encoder-decoder", "audio")


def _place(run: Run, position: int) -> str:
    """Where the answer is read, in words."""
    axis = run.capture.axes.get("target") or run.capture.axes.get("input")
    token = f" “{plain(visible(axis.labels[position]))}”" if axis and position < len(axis.labels) else ""
    return f"position {position}{token}"


def _numbers(found: Effect, changed: bool) -> None:
    name = html.escape(_name(found).partition(" − ")[0])
    before, after = found.probability
    if not changed:
        tiles = [
            _tile(_signed(found.before).lstrip("+"), found.measure, TERMS[found.measure]),
            _tile(f"{100 * before:.3g} %", f"P {name}", TERMS["P"]),
        ]
    else:
        measure = MEASURES[found.measure]
        side = "" if abs(found.change) < 5e-4 else "down" if found.change < 0 else "up"
        tiles = [
            _tile(_signed(found.change), measure, TERMS[measure], side),
            _tile(_percents(before, after), f"P {name}", TERMS["P"]),
            _tile(f"{found.kl:.2g}" if found.kl < 100 else f"{found.kl:.0f}", "KL, nats", TERMS["KL"]),
        ]
    st.html(f"{STYLE}<div class='wi' data-testid='effect'>{''.join(tiles)}</div>")


def _output(run: Run, now: Edited) -> None:
    """Of a model without an answer: how far its output moved."""
    st.caption(f"{plain(run.subject.name)} gives no answer, but vectors: how far they move is measured.")
    if not now.made:
        return
    found: Moved = server().made("effect", (run.key, now.made), lambda: moved(run.capture, now.run.capture))
    tiles = [
        _tile(f"{100 * found.relative:.3g} %", "output moved", TERMS["output moved"]),
        _tile(f"{found.cosine:.4f}", "cosine", TERMS["cosine"]),
    ]
    st.html(f"{STYLE}<div class='wi' data-testid='effect'>{''.join(tiles)}</div>")


def _top(found: Effect) -> str:
    rows = list(found.top)
    if found.moved not in rows:
        rows.append(found.moved)
    cells = "".join(
        f"<bdi title='{html.escape(visible(c.label), quote=True)}'>{html.escape(visible(c.label)[:SHOWN])}</bdi>"
        f"<u><i style='width:{c.after:.1%}'></i><s style='left:calc({c.before:.1%} - 1px)'></s></u>"
        f"<em>{_percents(c.before, c.after)}</em>"
        for c in rows
    )
    note = "The most probable answers after the edits; the tick is where each was before."
    return f"<div class='wi-top' title='{note}' data-testid='now-top'>{cells}</div>"


def _says(run: Run, now: Edited) -> None:
    """What the model writes on, edited and not."""
    cap, after = run.capture, now.run.capture
    if not writes(run):
        return
    told = [(t.token, t.names[0]) for t in asked(cap)]
    anew = len(told) > 1  # a target that has ended: what stands there is what was said before
    count = ANEW if anew else WRITTEN
    seconds = run.cost.run_seconds * (min(ANEW, 2 * len(told)) if anew else 2 * WRITTEN)
    wanted = (run.key, now.made)
    if seconds > SLOW and state.spoken != wanted:
        label = f"Write {'it anew' if anew else 'on'} under the edits (≈ {seconds:.0f} s)"
        icon = ":material/keyboard_tab:"
        st.button(label, key="whatif-says", type="tertiary", icon=icon, on_click=_speak, args=(wanted,))
        return
    bar = st.progress(0.0, text="Writing on …") if seconds > SLOW else None

    def progress(part: float) -> None:
        if bar is not None:
            bar.progress(min(part, 1.0), text="Writing on …")

    try:
        was = tuple(told) if anew else server().made("written", (run.key, ()), lambda: continued(cap, (), count))
        new = server().made("written", wanted, lambda: continued(after, after.edits, count, progress))
    except InputError as error:
        st.caption(plain(f"Not written on: {error}"))
        return
    finally:
        if bar is not None:
            bar.empty()
    new, was = ([part for part in tokens if part[0] != run.subject.eos or not anew] for tokens in (new, was))
    texts = [html.escape(visible("".join(label for _, label in tokens))) for tokens in (new, was)]
    same = ", as before" if new == was else f", before: <bdi class='old'>{texts[1]}</bdi>"
    st.html(f"<div class='wi-says' data-testid='now-says'>now says: <bdi>{texts[0]}</bdi>{same}</div>")


def _speak(wanted: tuple) -> None:
    state.spoken = wanted


def _name(found: Effect) -> str:
    """What the numbers are about, on one line: the answer, and what it is held against."""
    return " − ".join(visible(part)[:SHOWN] for part in found.name.split(" − "))


def _tile(number: str, name: str, meaning: str, side: str = "") -> str:
    return f"<div class='{side}' title='{html.escape(meaning, quote=True)}'><b>{number}</b><span>{name}</span></div>"


def _signed(value: float) -> str:
    text = f"{value:+.2g}" if 0 < abs(value) < 0.1 else f"{value:+.2f}" if abs(value) < 100 else f"{value:+.0f}"
    return text.replace("-", "−")


def _percents(before: float, after: float) -> str:
    """ "83 → 21 %", with as many digits as tell the two apart, three at most."""
    for digits in range(4):
        texts = [f"{100 * share:.{digits}f}" for share in (before, after)]
        if before == after or (texts[0] != texts[1] and min(before, after) >= 10.0 ** -(1 + digits)):
            break
    return f"{texts[0]} → {texts[1]} %"
