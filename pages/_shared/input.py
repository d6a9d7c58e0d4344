"""What a model is given, by the kind of model: a text, a pair, a source and a target, a picture, a recording."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import streamlit as st

from headwise.assets import ASSETS
from headwise.interp.subject import Subject
from headwise.models import read_image, read_wav

EXAMPLES = {
    "decoder": {
        "A phrase said twice": (
            "The Congress of the United States met in the city of Washington. "
            "The people spoke, and the Congress of the United States met in the city of Washington."
        ),
        "A state of the Union": (
            "I have the honor to report that the state of the Union is strong. Our commerce grows, our farmers "
            "prosper, and we are at peace with all the nations of the world."
        ),
        "Who gave what to whom": "When Mary and John went to the store, John gave a drink to Mary. When Anna "
        "and Paul went to the park, Paul gave a book to",
        "It was too tired": "The animal did not cross the street because it was too tired. The animal did not "
        "cross the street because it was too wide.",
        "A list": "one, two, three, four, five, six, seven, one, two, three, four, five, six,",
    },
    "encoder": {
        "A masked word": "And it came to [MASK], when he had heard these words, that he spake unto the people.",
        "Two masked words": "The [MASK] of the Lord came unto [MASK], saying,",
        "A masked word of a review": "This [MASK] is a waste of time.",
        "Does the second follow?": (
            "And God said, Let there be light: and there was light.",
            "And God saw the light, that it was good: and God divided the light from the darkness.",
        ),
        "Does this one?": (
            "And God said, Let there be light: and there was light.",
            "The script is clever, but the actors never seem to believe a word of it.",
        ),
        "A favourable review": "A moving and wonderfully acted film, full of wit and warmth.",
        "An unfavourable review": "A dull, lifeless mess that wastes the talent of its actors.",
        "It was too tired": "The animal did not cross the street because it was too tired.",
    },
    "encoder-decoder": {
        "transformer": "transformer",
        "attention": "attention",
        "knight": "knight",
        "thoughtful": "thoughtful",
        "photographer": "photographer",
    },
}
DIGITS = ASSETS / "examples"
SPEECH = Path("/usr/share/sounds/alsa")  # where Debian's alsa-utils keeps short recordings of speech
FAMILIES = {"custom": "decoder"}  # whose examples a model of no known kind is offered


def _photographs() -> dict[str, Path]:
    """scikit-learn brings two."""
    package = find_spec("sklearn")
    folder = Path(package.submodule_search_locations[0]) / "datasets" / "images" if package else Path("-")
    found = {"A temple": folder / "china.jpg", "A flower": folder / "flower.jpg"}
    return {name: file for name, file in found.items() if file.is_file()}


FILES = {
    "vision": {f"A handwritten {name}": DIGITS / f"{name}.png" for name in ("seven", "three", "five", "eight")}
    | _photographs(),
    "audio": {file.stem.replace("_", " "): file for file in sorted(SPEECH.glob("*_*.wav"))},
}
KINDS = {
    "vision": ("picture", ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"]),
    "audio": ("recording", ["wav"]),
}
TARGETS = {"written": "Model", "typed": "Typed", "stepwise": "Stepwise"}


@dataclass(frozen=True)
class Given:
    """An input before it is encoded. ``read()`` makes what the subject encodes, ``code`` is the Python for that,
    ``key`` tells it from others, ``prompt`` says that the target is to be cut back to its start, to be written from
    there."""

    key: Hashable
    read: Callable[[], Any]
    code: str
    prompt: bool = False


def default_text(family: str) -> str:
    """What stands in the text field of a model of this kind until somebody types."""
    first = next(iter(EXAMPLES.get(FAMILIES.get(family, family), EXAMPLES["decoder"]).values()))
    return first if isinstance(first, str) else first[0]


def ask(subject: Subject) -> Given:
    """Draw the fields for this kind of model, and return what stands in them."""
    family = FAMILIES.get(subject.family, subject.family)
    return _file(family) if family in FILES else _text(family)


def keep() -> None:
    """The text, as long as there is no model to say what it takes."""
    st.text_area("Text", key="text", height=160, persist_state="session")


# -- texts ----------------------------------------------------------------------------------------------------------


def _text(family: str) -> Given:
    state = st.session_state
    if state.text in {default_text(other) for other in EXAMPLES} - {default_text(family)}:
        state.text = default_text(family)  # nobody typed it: another kind of model gets an example of its own
    label = "Source" if family == "encoder-decoder" else "Text"
    height = 72 if family == "encoder-decoder" else 120 if family == "encoder" else 160
    st.text_area(label, key="text", height=height, persist_state="session", on_change=forget)
    if family == "encoder":
        st.text_area("Second text", key="second", height=72, persist_state="session", placeholder="none")
    st.selectbox(
        "Examples",
        EXAMPLES[family],
        key="example",
        index=None,
        placeholder="Choose an example",
        label_visibility="collapsed",
        on_change=_take_example,
        args=(family,),
    )
    if family == "encoder":
        given = (state.text, state.second) if state.second else state.text
        return Given(given, lambda: given, repr(given))
    if family == "encoder-decoder":
        return _with_target(state.text, lambda: state.text, repr(state.text))
    return Given(state.text, lambda: state.text, repr(state.text))


def _with_target(key: Hashable, read: Callable[[], Any], code: str) -> Given:
    """The target of an encoder-decoder: typed, or left to the model."""
    state = st.session_state
    st.segmented_control(
        "Target",
        list(TARGETS),
        key="mode",
        format_func=TARGETS.get,
        required=True,
        persist_state="session",
        on_change=forget,
        help="Who writes the target: the model, or you. Stepwise starts with nothing written; then let the model write "
        "one token at a time, above the heads.",
    )
    if state.mode == "typed":
        st.text_area(
            "Typed target",
            key="target",
            height=72,
            persist_state="session",
            label_visibility="collapsed",
            on_change=forget,
        )
        typed = state.target or " "  # nothing typed is not the same as left to the model
        return Given((key, typed), lambda: (read(), typed), f"({code}, {typed!r})")
    return Given((key, None), lambda: (read(), None), code, prompt=state.mode == "stepwise")


def _take_example(family: str) -> None:
    state = st.session_state
    if state.example is None:
        return
    chosen = EXAMPLES[family][state.example]
    state.text, state.second = chosen if isinstance(chosen, tuple) else (chosen, "")
    forget()


def forget() -> None:
    """Another input: what was written after the last one, and where one looked in it, mean nothing now."""
    state = st.session_state
    state.zoom = state.pin = None
    state.written = ()


# -- files ----------------------------------------------------------------------------------------------------------


def _file(family: str) -> Given:
    state = st.session_state
    noun, kinds = KINDS[family]
    examples = FILES[family]
    uploaded = st.file_uploader(
        f"Your own {noun}", type=kinds, key=f"upload-{family}", on_change=_uploaded, args=(family,)
    )
    st.selectbox(
        "Examples",
        examples,
        key=f"example-{family}",
        index=None,
        placeholder=f"Choose an example {noun}" if examples else f"No example {noun} on this machine",
        label_visibility="collapsed",
        on_change=_take_file,
        args=(family,),
    )
    own = state.get(f"own-{family}")  # (name, bytes); the field itself forgets when one goes to another page
    if uploaded is not None and own is None and not state.file:
        own = state[f"own-{family}"] = (uploaded.name, uploaded.getvalue())
    if own is not None:
        name, source = own
        key = hashlib.sha256(source).hexdigest()
    else:
        name = state.file if state.file in examples else _first_file(family)
        if name is None:
            st.info(f"Upload a {noun} to look at.")
            st.stop()
        source, key = examples[name], f"example {name}"
    st.caption(f"Shown: {_plain(name)}")
    file = name if own is not None else str(source)
    if family == "vision":
        return Given(key, lambda: read_image(source), f"read_image(Path({file!r}))")
    st.audio(source if isinstance(source, bytes) else source.read_bytes(), format="audio/wav")
    return _with_target(key, lambda: read_wav(source), f"read_wav(Path({file!r}))")


def _first_file(family: str) -> str | None:
    """Digits for the model that knows digits, a photograph for the others."""
    names = list(FILES[family])
    if family == "vision" and st.session_state.model != "tiny-vit":
        names = [name for name in names if "handwritten" not in name] or names
    return names[0] if names else None


def _uploaded(family: str) -> None:
    state = st.session_state
    uploaded = state[f"upload-{family}"]
    state[f"own-{family}"] = None if uploaded is None else (uploaded.name, uploaded.getvalue())
    state.file = ""
    state[f"example-{family}"] = None
    forget()


def _take_file(family: str) -> None:
    state = st.session_state
    if state[f"example-{family}"] is not None:
        state.file = state[f"example-{family}"]
        state[f"own-{family}"] = None
        forget()


def _plain(text: str) -> str:
    """Text as it is, not as Markdown."""
    for mark in r"\`*_[]<>$#|~:":
        text = text.replace(mark, "\\" + mark)
    return text
