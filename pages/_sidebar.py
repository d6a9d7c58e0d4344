"""The sidebar that all pages share: which model, which text, and what that will cost."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from interp import Capture
from interp.cost import Cost
from interp.subject import InputError, LoadError, Subject
from models import available
from models.text import TooLong
from pages._server import server
from pages._state import CHOICES, restore

EXAMPLES = {
    "A phrase said twice": (
        "The Congress of the United States met in the city of Washington. "
        "The people spoke, and the Congress of the United States met in the city of Washington."
    ),
    "A state of the Union": (
        "I have the honor to report that the state of the Union is strong. Our commerce grows, our farmers prosper, "
        "and we are at peace with all the nations of the world."
    ),
    "Who gave what to whom": "When Mary and John went to the store, John gave a drink to Mary. When Anna "
    "and Paul went to the park, Paul gave a book to",
    "It was too tired": "The animal did not cross the street because it was too tired. The animal did not "
    "cross the street because it was too wide.",
    "A list": "one, two, three, four, five, six, seven, one, two, three, four, five, six,",
}
FIRST = next(iter(EXAMPLES.values()))
HEAVY_SECONDS, HEAVY_BYTES = 20.0, 2 * 2**30  # above either, a person says go first


@dataclass(frozen=True)
class Run:
    """What the pages look at."""

    subject: Subject
    capture: Capture
    cost: Cost
    key: tuple


def sidebar() -> Run:
    """Draw the sidebar and run the model. Ends the script with one clear sentence where there is nothing to look at."""
    restore(text=FIRST)
    st.logo("assets/logo.svg", size="large", icon_image="assets/icon.svg")
    st.html("<style>[data-testid=stMainBlockContainer]{padding:4.2rem 2.2rem 2rem}</style>")
    with st.sidebar:
        names = [*available(), *([st.session_state.model] if st.session_state.model not in available() else [])]
        st.selectbox(
            "Model",
            names,
            key="model",
            accept_new_options=True,
            persist_state="session",
            help=(
                "A bundled model, or type a Hugging Face id (org/name) or the path of a folder with "
                "config.json and *.safetensors."
            ),
        )
        st.text_area("Text", key="text", height=160, persist_state="session")
        st.selectbox(
            "Examples",
            EXAMPLES,
            key="example",
            index=None,
            placeholder="Choose an example text",
            label_visibility="collapsed",
            on_change=_take_example,
        )
        with st.expander("Device and precision"):
            st.selectbox("Device", CHOICES["device"], key="device", persist_state="session")
            st.selectbox("Precision", CHOICES["dtype"], key="dtype", persist_state="session")
        subject = _subject()
        inputs = _encode(subject)
        state = st.session_state
        key = (state.model, state.device, state.dtype, state.text, state.cut)
        cost = server().cost(key, subject, inputs)
        st.caption(cost_line(cost))
        _confirm(cost, key)
    with st.spinner("Running the model …", show_time=True):
        cap = _or_stop(lambda: server().capture(key, subject, inputs))
    return Run(subject, cap, cost, key)


def cost_line(cost: Cost) -> str:
    return (
        f"{cost.tokens:,} tokens · {cost.calls} attention calls · {cost.heads} heads · keeps {_bytes(cost.bytes)} · "
        f"{_seconds(cost.run_seconds)} to run, {_seconds(cost.survey_seconds)} to look at all heads"
    )


def _take_example() -> None:
    if st.session_state.example is not None:
        st.session_state.text = EXAMPLES[st.session_state.example]
        st.session_state.zoom = st.session_state.pin = None


def _subject() -> Subject:
    state = st.session_state
    with st.spinner(f"Loading {state.model} …" if len(state.model) < 60 else "Loading …", show_time=True):
        return _or_stop(lambda: server().subject(state.model, state.device, state.dtype))


def _encode(subject: Subject):
    try:
        inputs = subject.encode(st.session_state.text, truncate=st.session_state.cut)
    except TooLong as error:
        st.error(str(error), icon=":material/content_cut:")
        st.toggle(f"Cut the text after {error.limit:,} {error.unit}", key="cut")
        st.stop()
    except InputError as error:
        st.error(str(error))
        st.stop()
    if st.session_state.cut:
        st.toggle("Cut texts that are too long", key="cut")
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
    except (InputError, LoadError) as error:
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
