"""What stands beside the run: another input, another model, or the same run after edits."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import streamlit as st

from headwise import Capture, capture, rerun
from headwise.interp.analysis.patching.corrupting import Corruption, corruptions
from headwise.interp.errors import InputError, LoadError
from headwise.interp.run.generate import restart
from headwise.models import read_image, read_wav
from headwise.pages._compare.choices import CompareChoices, state
from headwise.pages._shared import changes
from headwise.pages._shared.bar import Run, models_beside
from headwise.pages._shared.buttons import choice
from headwise.pages._shared.changes import Change
from headwise.pages._shared.input import EXAMPLES, FILES, kind_of
from headwise.pages._shared.markdown import plain
from headwise.pages._shared.shelf import server

WAY_WORDS = {"input": "Another input", "model": "Another model", "edit": "After an edit"}
FIRST_MODELS = {  # the model that says most beside one
    "tiny-encoder": "tiny-classifier",
    "tiny-classifier": "tiny-encoder",
    "tiny-decoder": "tiny-attention-only",
    "tiny-attention-only": "tiny-decoder",
}
KIND_WORDS = {"vision": "a picture", "audio": "a recording"}  # what families read; of all others, what subjects say
NO_INPUT = "{one} reads {reads} and {other} {instead}, so no input can be given to both; choose another model."
LEFT_OUT = "“{}” is left out."
NOTHING = {
    "input": "Write the other text above: it is compared with the one in the bar.",
    "model": "No other model here reads this input. Type the name of one, or fetch one with “headwise fetch”.",
    "edit": "Nothing is changed yet. Choose a head and remove it; changes made on the Heads page show here too.",
}


@dataclass(frozen=True)
class Other:
    """The other run. ``code`` are the lines of Python that make it of ``cap``, ``imports`` what these need."""

    capture: Capture
    key: Any
    code: tuple[str, ...]
    imports: tuple[str, ...] = ()


def beside(run: Run) -> Other | None:
    """Draw the fields, and run what stands in them; None where there is nothing yet, or it cannot be, which is
    said."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="question"):
        title = "What changes, and where do heads look instead?"
        st.html(f"<div data-testid='question' style='font-size:1.12rem;font-weight:600'>{title}</div>")
        st.segmented_control(
            "Compare with",
            CompareChoices.by.among,
            format_func=WAY_WORDS.get,
            required=True,
            label_visibility="collapsed",
            on_change=state.another_pair,
            **CompareChoices.by.widget,
        )
    ways = {"input": _input, "model": _model, "edit": _edit}
    try:
        found = ways[state.by](run)
    except (InputError, LoadError) as error:
        st.error(plain(str(error)))
        return None
    if found is None:
        st.info(NOTHING[state.by], icon=":material/compare_arrows:")
    return found


# -- another input ----------------------------------------------------------------------------------------------------
def _input(run: Run) -> Other | None:
    if run.subject.family in FILES:
        return _file(run)
    made = [(each.sentence, _text_of(each.raw)) for each in _proposed(run) if isinstance(each.raw, str | tuple)]
    given = _text_of(run.given.read())
    if run.subject.reads == "text":
        proposals = (*made, *_shorter(given))
    else:  # a series or a score without a word, or with another one, is none
        proposals = tuple(each for each in EXAMPLES[kind_of(run.subject)].items() if each[1] != given)
    if not state.beside and proposals:
        state.beside = proposals[0][1]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.text_area(
            "The other text",
            height=72,
            placeholder="the other text",
            label_visibility="collapsed",
            on_change=state.another_pair,
            **CompareChoices.beside.widget,
        )
        if proposals:
            _proposals(proposals)
    if not state.beside.strip():
        return None
    raw = _like(run, state.beside)
    return _run(run, ("text", raw), lambda: raw, repr(raw))


def _like(run: Run, text: str) -> Any:
    """The other text in the place of the first one: its second text or its target stay what they are."""
    given = run.given.read()
    if not isinstance(given, tuple):
        return text
    first, gap, second = text.partition("\n")
    return (first, second) if gap and given[1] is not None else (text, given[1])


def _proposed(run: Run) -> tuple[Corruption, ...]:
    return server().made("proposals", run.key, lambda: corruptions(run.capture))


def _shorter(text: str) -> list[tuple[str, str]]:
    """The text without one of its words: the longest but the first and the last."""
    words = text.split()
    if len(words) < 3:
        return []
    gone = max(words[1:-1], key=len)
    return [(LEFT_OUT.format(gone), " ".join(text.replace(gone, "", 1).split()))]


def _text_of(raw: str | tuple[str, str]) -> str:
    return raw if isinstance(raw, str) else raw[0]


def _proposals(proposals: tuple[tuple[str, str], ...]) -> None:
    st.selectbox(
        "Proposals",
        range(len(proposals)),
        format_func=lambda index: proposals[index][0],
        index=None,
        placeholder="Or a proposal …",
        label_visibility="collapsed",
        width=300,
        key=CompareChoices.proposed.key,
        on_change=_take,
        args=(proposals,),
    )


def _take(proposals: tuple[tuple[str, str], ...]) -> None:
    if state.proposed is not None:
        state.beside = proposals[state.proposed][1]
        state.another_pair()


def _file(run: Run) -> Other | None:
    family = run.subject.family
    shown = run.given.key[0] if isinstance(run.given.key, tuple) else run.given.key  # of a recording, beside its target
    names = [name for name in FILES[family] if f"example {name}" != shown]
    changed = {each.kind: (number, each) for number, each in enumerate(_proposed(run))}
    if not names and not changed:
        return None
    CompareChoices.beside_file.one_of([*names, *changed])
    st.selectbox(
        "The other one",
        [*names, *changed],
        format_func=lambda name: (
            changed[name][1].sentence if name in changed else f"beside {name[0].lower()}{name[1:]}"
        ),
        label_visibility="collapsed",
        width=300,
        on_change=state.another_pair,
        **CompareChoices.beside_file.widget,
    )
    if state.beside_file in changed:
        number, proposed = changed[state.beside_file]
        found = server().made("beside", ("proposed", run.key, number), lambda: capture(run.subject, proposed.raw))
        return Other(found, ("proposed", number), (f"other = capture(subject, corruptions(cap)[{number}].raw)",))
    source = FILES[family][state.beside_file]
    sound = family == "audio"
    read = (lambda: (read_wav(source), None)) if sound else (lambda: read_image(source))
    said = f"(read_wav(Path({str(source)!r})), None)" if sound else f"read_image(Path({str(source)!r}))"
    return _run(run, ("file", state.beside_file), read, said)


def _run(run: Run, name: tuple, read: Callable[[], Any], said: str) -> Other:
    """Another input through the same model. ``name`` tells it from others, ``said`` is its Python."""
    key = (*name, run.key[:3], run.given.prompt, state.cut)

    def made() -> Capture:
        inputs = run.subject.encode(read(), truncate=state.cut)
        return capture(run.subject, restart(inputs) if run.given.prompt else inputs)

    with st.spinner("Running the other input …", show_time=True):
        found = server().made("beside", key, made)
    return Other(found, key, (f"other = capture(subject, {said})",))


# -- another model ----------------------------------------------------------------------------------------------------
def _model(run: Run) -> Other | None:
    names = models_beside("reads")
    likely = FIRST_MODELS.get(state.model, "")
    if not state.compare and likely in names:
        state.compare = likely
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.selectbox(
            "Other model",
            ["", *names, *([state.compare] if state.compare not in ("", *names) else [])],
            format_func=lambda name: f"beside {name}" if name else "Choose the other model …",
            accept_new_options=True,
            label_visibility="collapsed",
            width=300,
            help="On the same input. A bundled or fetched model, a Hugging Face id, or the path of a folder, such as "
            "your own model before or after fine-tuning.",
            on_change=state.another_pair,
            **CompareChoices.compare.widget,
        )
        words = {"number": "Same number", "pattern": "Most alike"}
        choice("Heads are matched by", CompareChoices.match, words.get)
    if not state.compare:
        return None
    with st.spinner(f"Running {state.compare} …", show_time=True):
        subject = server().subject(state.compare, state.device, state.dtype)
        kinds = [KIND_WORDS.get(each.family, f"a {each.reads}") for each in (run.subject, subject)]
        if kinds[0] != kinds[1]:
            raise InputError(
                NO_INPUT.format(one=run.subject.name, reads=kinds[0], other=state.compare, instead=kinds[1])
            )
        raw = run.given.read()
        key = ("model", state.compare, run.key)
        found = server().made("beside", key, lambda: capture(subject, subject.encode(raw, truncate=state.cut)))
    return Other(found, key, (f"other = capture(load({state.compare!r}), {run.given.code})",))


# -- after an edit ----------------------------------------------------------------------------------------------------
def _edit(run: Run) -> Other | None:
    cap = run.capture
    refused = {change: why for change in state.edits if (why := _refusal(cap, change))}
    made = tuple(change for change in state.edits if change not in refused)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        heads = [(call.stack, call.layer, head) for call in cap.calls for head in range(call.heads)]
        st.selectbox(
            "Remove a head",
            heads,
            format_func=lambda place: f"{'' if len(cap.stacks) == 1 else f'{place[0]} '}{place[1]}·{place[2]}",
            index=None,
            placeholder="Remove a head …",
            label_visibility="collapsed",
            width=180,
            on_change=_remove,
            args=(cap,),
            **CompareChoices.removed.widget,
        )
        choice("In its place", CompareChoices.how)
        if state.edits:
            st.button("Undo all", icon=":material/undo:", on_click=_undo_all)
        said = " · ".join(html.escape(changes.words(cap, change)) for change in made)
        if said:
            st.html(f"<div data-testid='edited' style='font-size:.84rem'><b>Edited</b> {said}</div>")
    for change, why in refused.items():
        st.warning(plain(f"{changes.write((change,))[:80]}: {why}"))
    if not made:
        return None
    key = ("edited", run.key, made)
    with st.spinner("Running the edited model …", show_time=True):
        edits = [edit for change in made for edit in changes.engine(cap, change)]
        found = server().made("beside", key, lambda: rerun(cap, edits))
    parts = [part for change in made for part in changes.code(cap, change)]
    return Other(found, key, ("other = rerun(cap, [", *(f"    {part}," for part in parts), "])"), ("edits", "rerun"))


def _refusal(cap: Capture, change: Change) -> str:
    if change.kind == "swap":
        return "A borrowed pattern is looked at on the Heads page."
    return changes.wrong(cap, change)


def _remove(cap: Capture) -> None:
    place = state.removed
    if place is not None:
        stack, layer, head = place
        made = Change(state.how, layer, head, "" if len(cap.stacks) == 1 else stack)
        kept = tuple(change for change in state.edits if change.place != made.place)
        state.edits = (*kept, made)[-changes.MOST :]
        state.removed = None
        state.another_pair()


def _undo_all() -> None:
    state.edits = ()
    state.another_pair()
