"""The sidebar that all pages share: which model, which text, and what that will cost."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from headwise import Capture
from headwise.assets import ASSETS
from headwise.interp.errors import InputError, LoadError
from headwise.interp.run.cost import Cost
from headwise.interp.run.generate import extend, restart
from headwise.interp.subject import Inputs, Subject
from headwise.models import available, fetched
from headwise.models.inputs.tokens import TooLong
from headwise.pages._shared import input as _input
from headwise.pages._shared.choices import CHOICES, publish, restore
from headwise.pages._shared.shelf import server

FIRST = _input.default_text("decoder")

HEAVY_SECONDS, HEAVY_BYTES = 20.0, 2 * 2**30  # above either, a person says go first


@dataclass(frozen=True)
class Run:
    """What the pages look at. ``given`` is what the person gave, ``inputs`` what became of it, ``key`` tells the run
    from all others."""

    subject: Subject
    given: _input.Given
    capture: Capture
    inputs: Inputs
    cost: Cost
    key: tuple


def page_frame() -> None:
    """The logo and the margins that all pages share."""
    st.logo(ASSETS / "logo.svg", size="large", icon_image=ASSETS / "icon.svg")
    st.html("<style>[data-testid=stMainBlockContainer]{padding:4.2rem 2.2rem 2rem}</style>")


def models_here() -> list[str]:
    """Names that load without a network: bundled and fetched ones."""
    return [*available(), *fetched()]


def sidebar() -> Run:
    """Draw the sidebar and run the model. Ends the script with one clear sentence where there is nothing to look at."""
    restore(text=FIRST)
    page_frame()
    state = st.session_state
    with st.sidebar:
        names = models_here()
        st.selectbox(
            "Model",
            [*names, *([state.model] if state.model not in names else [])],
            key="model",
            accept_new_options=True,
            persist_state="session",
            on_change=_other_model,
            help=(
                "A bundled or fetched model, or type a Hugging Face id (org/name) or the path of a folder with "
                "config.json and *.safetensors."
            ),
        )
        asked = st.container()  # the fields stand above the settings, but which they are the model says
        with st.expander("Device and precision"):
            st.selectbox("Device", CHOICES["device"], key="device", persist_state="session")
            st.selectbox("Precision", CHOICES["dtype"], key="dtype", persist_state="session")
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
        cost = server().cost(key, subject, inputs)
        st.caption(cost_line(cost, "positions" if subject.family == "vision" else "tokens"))
        _confirm(cost, key)
    with st.spinner("Running the model …", show_time=True):
        cap = _or_stop(lambda: server().capture(key, subject, inputs))
    return Run(subject, given, cap, inputs, cost, key)


def share(run: Run, **defaults) -> bool:
    """Write the view into the address. False when something of it cannot travel: a long text, an uploaded file."""
    own = st.session_state.get(f"own-{run.subject.family}") is not None
    return publish(text=_input.default_text(run.subject.family), **defaults) and not own


def cost_line(cost: Cost, unit: str) -> str:
    return (
        f"{cost.tokens:,} {unit} · {cost.calls} attention calls · {cost.heads} heads · keeps {_bytes(cost.bytes)} · "
        f"{_seconds(cost.run_seconds)} to run, {_seconds(cost.survey_seconds)} to look at all heads"
    )


def _other_model() -> None:
    """Another model has other heads: the first look is its own."""
    state = st.session_state
    state.layer = state.head = -1
    state.stack, state.compare = "", ""
    _input.forget()


def _subject() -> Subject:
    state = st.session_state
    with st.spinner(f"Loading {state.model} …" if len(state.model) < 60 else "Loading …", show_time=True):
        return server().subject(state.model, state.device, state.dtype)


def _encode(subject: Subject, given: _input.Given, key: tuple) -> Inputs:
    state = st.session_state

    def encode() -> Inputs:
        inputs = subject.encode(given.read(), truncate=state.cut)
        return restart(inputs) if given.prompt else inputs

    try:
        with st.spinner("Reading the input …", show_time=True):
            inputs = server().inputs(key, encode)
    except TooLong as error:
        st.error(str(error), icon=":material/content_cut:")
        st.toggle(f"Cut after {error.limit:,g} {error.unit}", key="cut")
        st.stop()
    except InputError as error:
        st.error(str(error))
        st.stop()
    if state.cut:
        st.toggle("Cut inputs that are too long", key="cut")
    return inputs


def _confirm(cost: Cost, key: tuple) -> None:
    """Ask before anything that takes long or much memory."""
    if cost.seconds < HEAVY_SECONDS and cost.bytes < HEAVY_BYTES:
        return
    agreed = st.session_state.setdefault("agreed", set())
    if key not in agreed:
        st.warning("This will take a while; other sessions of this server wait meanwhile.", icon=":material/hourglass:")
        if not st.button("Run it", type="primary"):
            st.stop()
        agreed.add(key)


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
