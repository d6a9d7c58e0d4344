"""The bar on top of a page: which model runs, on what, and the run itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import streamlit as st

from headwise import Capture, capture
from headwise.interp.errors import InputError, LoadError
from headwise.interp.run.cost import Cost, estimate
from headwise.interp.run.generate import extend, restart
from headwise.interp.subject import Inputs, Subject
from headwise.models import available, fetched
from headwise.models.catalogue import CATALOGUE, of_the_same
from headwise.models.inputs.tokens import TooLong
from headwise.pages._shared import input as _input
from headwise.pages._shared.choices import InputChoices
from headwise.pages._shared.frame import frame, waiting
from headwise.pages._shared.markdown import plain
from headwise.pages._shared.shelf import server

FIRST = _input.default_text("decoder")

state = InputChoices()

HEAVY_SECONDS, HEAVY_BYTES = 20.0, 2 * 2**30  # above either, a person says go first


@dataclass(frozen=True)
class Run:
    """What the pages look at. ``given`` is what the person gave, ``inputs`` what became of it, ``key`` tells the run
    from all others, ``made`` what a page changed in it; ``beside`` is room in the bar for what a page adds."""

    subject: Subject
    given: _input.Typed
    capture: Capture
    inputs: Inputs
    cost: Cost
    key: tuple
    made: tuple = ()
    beside: Any = None


def models_here() -> list[str]:
    """Names that load without a network: bundled and fetched ones."""
    return [*available(), *fetched()]


def models_beside(what: str) -> list[str]:
    """Names of other models here that read the same kind of input ("reads") or the same tokens ("tokens") as the one
    chosen."""
    alike = of_the_same(state.model, what)
    return [name for name in models_here() if name in alike]


def model_name(name: str) -> str:
    """A model in a menu: its name, what kind it is and what it was made for."""
    known = CATALOGUE.get(name)
    return f"{name} – {known.about}" if known else name


def bar(page: InputChoices, above: Callable[[], None] | None = None) -> Run:
    """Draw the bar of a page with these choices, below what ``above`` draws, and run the model. Ends the script with
    one clear sentence where there is nothing to look at."""
    page.restore(text=FIRST)
    frame(Device=InputChoices.device, Precision=InputChoices.dtype)
    if above is not None:
        above()
    with st.container(key="bar", horizontal=True, vertical_alignment="center", gap="small"):
        with st.container(key="bar-model", width=230):
            _models()
        fields = st.container(key="bar-fields", horizontal=True, vertical_alignment="center", gap="small")
        beside = st.container(key="bar-beside", horizontal=True, width="content", gap="xsmall")
    place = st.container(key="waiting")
    try:
        name = (state.model, state.device, state.dtype)
        with waiting(
            place, f"Loading {state.model} …" if len(state.model) < 60 else "Loading …", name in server().models
        ):
            subject = server().subject(*name)
    except LoadError as error:
        with fields:
            _input.keep()
        _stop(page, FIRST, str(error))
    try:
        with fields:
            given = _input.ask(subject)
        return _run(page, subject, given, place, beside)
    except InputError as error:
        _stop(page, _default(subject), str(error))


def _run(page: InputChoices, subject: Subject, given: _input.Typed, place: Any, beside: Any) -> Run:
    key = (state.model, state.device, state.dtype, given.key, given.prompt, state.cut)
    with waiting(place, "Reading the input …", server().has("inputs", key)):
        inputs = _encode(page, subject, given, key)
    if state.written:
        inputs = extend(subject, inputs, state.written)
        key = (*key, state.written)
    cost = server().made("cost", key, lambda: estimate(subject, inputs))
    _confirm(page, subject, cost, key)
    with waiting(place, "Running the model …", server().has("capture", key)):
        cap = server().made("capture", key, lambda: capture(subject, inputs))
    if state.mode == "written":
        state.told = written_target(inputs)
    return Run(subject, given, cap, inputs, cost, key, beside=beside)


def written_target(inputs: Inputs) -> str:
    """The target of an encoder-decoder as text; "" where there is none."""
    target = inputs.axes.get("target")
    return (target.text or "").strip("\n") if target is not None else ""


def share(run: Run, page: InputChoices, **defaults) -> bool:
    """Write the view into the address. False when something of it cannot travel: a long text, an uploaded file."""
    own = state.own[run.subject.family] is not None
    return page.publish(text=_default(run.subject), **defaults) and not own


def cost_line(cost: Cost, subject: Subject) -> str:
    unit = "tokens" if subject.family != "vision" and subject.reads == "text" else "positions"
    return (
        f"{cost.tokens:,} {unit} · {cost.calls} attention calls · {cost.heads} heads · keeps {_bytes(cost.bytes)} · "
        f"{_seconds(cost.run_seconds)} to run, {_seconds(cost.survey_seconds)} to look at all heads"
    )


def _models() -> None:
    names = models_here()
    st.selectbox(
        "Model",
        [*names, *([state.model] if state.model not in names else [])],
        format_func=model_name,
        accept_new_options=True,
        on_change=state.another_model,
        label_visibility="collapsed",
        placeholder="Choose, or type org/name of Hugging Face, or a folder",
        **InputChoices.model.widget,
    )


def _encode(page: InputChoices, subject: Subject, given: _input.Typed, key: tuple) -> Inputs:

    def encode() -> Inputs:
        inputs = subject.encode(given.read(), truncate=state.cut)
        return restart(inputs) if given.prompt else inputs

    try:
        inputs = server().made("inputs", key, encode)
    except TooLong as error:
        st.toggle(f"Cut after {error.limit:,g} {error.unit}", key=InputChoices.cut.key)
        _stop(page, _default(subject), str(error), ":material/content_cut:")
    if state.cut:
        st.toggle("Cut inputs that are too long", key=InputChoices.cut.key)
    return inputs


def _confirm(page: InputChoices, subject: Subject, cost: Cost, key: tuple) -> None:
    """Ask before anything that takes long or much memory."""
    if key in state.agreed or (cost.seconds < HEAVY_SECONDS and cost.bytes < HEAVY_BYTES):
        return
    st.warning("This will take a while; other sessions of this server wait meanwhile.", icon=":material/hourglass:")
    st.caption(cost_line(cost, subject))
    if not st.button("Run it", type="primary"):
        page.publish(text=_default(subject))
        st.stop()
    state.agreed |= {key}


def _stop(page: InputChoices, default: str, sentence: str, icon: str | None = None) -> NoReturn:
    """Say what is wrong and end this script run; the address is that of what was asked for."""
    st.error(plain(sentence), icon=icon)
    page.publish(text=default)
    st.stop()


def _default(subject: Subject) -> str:
    """The text of a model of this kind that goes without saying."""
    return _input.default_text(_input.kind_of(subject))


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            return f"{n:.0f} {unit}" if n >= 10 or unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    raise AssertionError("unreachable")


def _seconds(s: float) -> str:
    return "< 0.1 s" if s < 0.1 else f"≈ {s:.1f} s" if s < 10 else f"≈ {s:.0f} s" if s < 120 else f"≈ {s / 60:.0f} min"
