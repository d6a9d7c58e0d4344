"""The sidebar that all pages share: which model, which text, and what that will cost."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from headwise import Capture, capture
from headwise.assets import ASSETS
from headwise.interp.errors import InputError, LoadError
from headwise.interp.run.cost import Cost, estimate
from headwise.interp.run.generate import extend, restart
from headwise.interp.subject import Inputs, Subject
from headwise.models import available, fetched
from headwise.models.inputs.tokens import TooLong
from headwise.pages._shared import input as _input
from headwise.pages._shared.choices import InputChoices
from headwise.pages._shared.shelf import server

FIRST = _input.default_text("decoder")

state = InputChoices()

HEAVY_SECONDS, HEAVY_BYTES = 20.0, 2 * 2**30  # above either, a person says go first


@dataclass(frozen=True)
class Run:
    """What the pages look at. ``given`` is what the person gave, ``inputs`` what became of it, ``key`` tells the run
    from all others, ``made`` what a page changed in it."""

    subject: Subject
    given: _input.Typed
    capture: Capture
    inputs: Inputs
    cost: Cost
    key: tuple
    made: tuple = ()


def page_frame() -> None:
    """The logo and the margins that all pages share."""
    st.logo(ASSETS / "logo.svg", size="large", icon_image=ASSETS / "icon.svg")
    st.html("<style>[data-testid=stMainBlockContainer]{padding:4.2rem 2.2rem 2rem}</style>")


def models_here() -> list[str]:
    """Names that load without a network: bundled and fetched ones."""
    return [*available(), *fetched()]


def sidebar(page: InputChoices) -> Run:
    """Draw the sidebar of a page with these choices and run the model. Ends the script with one clear sentence where
    there is nothing to look at."""
    page.restore(text=FIRST)
    page_frame()
    with st.sidebar:
        names = models_here()
        st.selectbox(
            "Model",
            [*names, *([state.model] if state.model not in names else [])],
            accept_new_options=True,
            on_change=state.another_model,
            help=(
                "A bundled or fetched model, or type a Hugging Face id (org/name) or the path of a folder with "
                "config.json and *.safetensors."
            ),
            **InputChoices.model.widget,
        )
        asked = st.container()  # the fields stand above the settings, but which they are the model says
        with st.expander("Device and precision"):
            st.selectbox("Device", InputChoices.device.among, **InputChoices.device.widget)
            st.selectbox("Precision", InputChoices.dtype.among, **InputChoices.dtype.widget)
        with asked:
            try:
                subject = _subject()
            except LoadError as error:
                st.error(str(error))
                _input.keep()
                st.stop()
            given = _input.ask(subject)
        key = (state.model, state.device, state.dtype, given.key, given.prompt, state.cut)
        inputs = _encode(subject, given, key)
        if state.written:
            inputs = _or_stop(lambda: extend(subject, inputs, state.written))
            key = (*key, state.written)
        cost = server().made("cost", key, lambda: estimate(subject, inputs))
        st.caption(cost_line(cost, "tokens" if subject.family != "vision" and subject.reads == "text" else "positions"))
        _confirm(cost, key)
    with st.spinner("Running the model …", show_time=True):
        cap = _or_stop(lambda: server().made("capture", key, lambda: capture(subject, inputs)))
    return Run(subject, given, cap, inputs, cost, key)


def share(run: Run, page: InputChoices, **defaults) -> bool:
    """Write the view into the address. False when something of it cannot travel: a long text, an uploaded file."""
    own = state.own[run.subject.family] is not None
    return page.publish(text=_input.default_text(_input.kind_of(run.subject)), **defaults) and not own


def cost_line(cost: Cost, unit: str) -> str:
    return (
        f"{cost.tokens:,} {unit} · {cost.calls} attention calls · {cost.heads} heads · keeps {_bytes(cost.bytes)} · "
        f"{_seconds(cost.run_seconds)} to run, {_seconds(cost.survey_seconds)} to look at all heads"
    )


def _subject() -> Subject:
    with st.spinner(f"Loading {state.model} …" if len(state.model) < 60 else "Loading …", show_time=True):
        return server().subject(state.model, state.device, state.dtype)


def _encode(subject: Subject, given: _input.Typed, key: tuple) -> Inputs:

    def encode() -> Inputs:
        inputs = subject.encode(given.read(), truncate=state.cut)
        return restart(inputs) if given.prompt else inputs

    try:
        with st.spinner("Reading the input …", show_time=True):
            inputs = server().made("inputs", key, encode)
    except TooLong as error:
        st.error(str(error), icon=":material/content_cut:")
        st.toggle(f"Cut after {error.limit:,g} {error.unit}", key=InputChoices.cut.key)
        st.stop()
    except InputError as error:
        st.error(str(error))
        st.stop()
    if state.cut:
        st.toggle("Cut inputs that are too long", key=InputChoices.cut.key)
    return inputs


def _confirm(cost: Cost, key: tuple) -> None:
    """Ask before anything that takes long or much memory."""
    if cost.seconds < HEAVY_SECONDS and cost.bytes < HEAVY_BYTES:
        return
    if key not in state.agreed:
        st.warning("This will take a while; other sessions of this server wait meanwhile.", icon=":material/hourglass:")
        if not st.button("Run it", type="primary"):
            st.stop()
        state.agreed |= {key}


def _or_stop(work):
    """The result, or one sentence and the end of this script run."""
    try:
        return work()
    except InputError as error:
        st.error(str(error))
    st.stop()


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            return f"{n:.0f} {unit}" if n >= 10 or unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    raise AssertionError("unreachable")


def _seconds(s: float) -> str:
    return "< 0.1 s" if s < 0.1 else f"≈ {s:.1f} s" if s < 10 else f"≈ {s:.0f} s" if s < 120 else f"≈ {s / 60:.0f} min"
