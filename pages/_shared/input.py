"""What a model is given, by the kind of model: a text, a pair, a source and a target, a series, a score, a picture, a
recording."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import streamlit as st

from headwise.assets import ASSETS
from headwise.interp.subject import Subject
from headwise.models import read_image, read_wav
from headwise.pages._shared.choices import InputChoices
from headwise.pages._shared.markdown import plain


def _brought(name: str) -> dict[str, str]:
    """The examples that a bundled model brings, by what they are called."""
    file = ASSETS / name / "examples.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


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
    "single": {  # an encoder's that takes no pairs
        "A masked word": "The Congress of the United [MASK] met in the city of Washington.",
        "Two masked words": "The [MASK] of the United States is the [MASK] of the people.",
        "Nothing masked": "The people of the United States have a right to know what the government does.",
    },
    "encoder-decoder": {
        "transformer": "transformer",
        "attention": "attention",
        "knight": "knight",
        "thoughtful": "thoughtful",
        "photographer": "photographer",
    },
    "series": _brought("tiny-forecaster"),
    "score": _brought("tiny-music"),
}
FIELDS = {  # what the field for a text is called, its height in pixels, and how one writes into it
    "decoder": ("Text", 160, None),
    "encoder": ("Text", 120, None),
    "single": ("Text", 160, None),
    "encoder-decoder": ("Source", 72, None),
    "series": (
        "Series",
        220,
        "A month a line, such as “1990-01 353.7” or the number alone. Change one, or paste yours.",
    ),
    "score": (
        "Score",
        260,
        "A line for each voice, and in it an eighth after the other: a note such as C♯5, “.” for the note before going "
        "on, “-” for silence. “|” ends a bar.",
    ),
}
HANDWRITTEN = ("seven", "three", "five", "eight")
SPEECH = Path("/usr/share/sounds/alsa")  # where Debian's alsa-utils keeps short recordings of speech
FAMILIES = {"custom": "decoder"}  # whose examples a model of no known kind is offered


def _photographs() -> dict[str, Path]:
    """scikit-learn brings two."""
    package = find_spec("sklearn")
    folder = Path(package.submodule_search_locations[0]) / "datasets" / "images" if package else Path("-")
    found = {"A temple": folder / "china.jpg", "A flower": folder / "flower.jpg"}
    return {name: file for name, file in found.items() if file.is_file()}


FILES = {
    "vision": {f"A handwritten {name}": ASSETS / "examples" / f"{name}.png" for name in HANDWRITTEN} | _photographs(),
    "audio": {file.stem.replace("_", " "): file for file in sorted(SPEECH.glob("*_*.wav"))},
}
KINDS = {
    "vision": ("picture", ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"]),
    "audio": ("recording", ["wav"]),
}
TARGETS = {"written": "Model", "typed": "Typed", "stepwise": "Stepwise"}
DIGITS = set("0123456789")  # the labels of a model that tells them

state = InputChoices()


@dataclass(frozen=True)
class Typed:
    """An input before it is encoded. ``read()`` makes what the subject encodes, ``code`` is the Python for that,
    ``key`` tells it from others, ``prompt`` says that the target is to be cut back to its start, to be written from
    there."""

    key: Hashable
    read: Callable[[], Any]
    code: str
    prompt: bool = False


def kind_of(subject: Subject) -> str:
    """Whose examples and fields a model gets: what it reads, where that is no text, else its family."""
    if subject.reads != "text":
        return subject.reads
    if subject.family == "encoder" and not subject.pairs:
        return "single"
    return FAMILIES.get(subject.family, subject.family)


def default_text(family: str) -> str:
    """What stands in the text field of a model of this kind until somebody types."""
    first = next(iter(EXAMPLES.get(FAMILIES.get(family, family), EXAMPLES["decoder"]).values()))
    return first if isinstance(first, str) else first[0]


def ask(subject: Subject) -> Typed:
    """Draw the fields for this kind of model, and return what stands in them."""
    family = kind_of(subject)
    return _file(family, subject) if family in FILES else _text(family)


def keep() -> None:
    """The text, as long as there is no model to say what it takes."""
    st.text_area("Text", height=160, **InputChoices.text.widget)


# -- texts ----------------------------------------------------------------------------------------------------------


def _text(family: str) -> Typed:
    if state.text in _examples_of(family):
        state.text = default_text(family)  # nobody typed it: another kind of model gets an example of its own
    label, height, help = FIELDS[family]
    st.text_area(label, height=height, help=help, on_change=state.another_input, **InputChoices.text.widget)
    if family == "encoder":
        st.text_area("Second text", height=72, placeholder="none", **InputChoices.second.widget)
    st.selectbox(
        "Examples",
        EXAMPLES[family],
        key=InputChoices.example.key,
        index=None,
        placeholder="Choose an example",
        label_visibility="collapsed",
        on_change=_take_example,
        args=(family,),
    )
    if family == "encoder":
        given = (state.text, state.second) if state.second else state.text
        return Typed(given, lambda: given, repr(given))
    if family == "encoder-decoder":
        return _with_target(state.text, lambda: state.text, repr(state.text))
    return Typed(state.text, lambda: state.text, repr(state.text))


def _examples_of(family: str) -> set[str]:
    """The texts of the examples of all other kinds, as they stand in the field."""
    others = (text for other, texts in EXAMPLES.items() if other != family for text in texts.values())
    texts = {text if isinstance(text, str) else text[0] for text in others}
    return texts - {text if isinstance(text, str) else text[0] for text in EXAMPLES[family].values()}


def _with_target(key: Hashable, read: Callable[[], Any], code: str) -> Typed:
    """The target of an encoder-decoder: typed, or left to the model."""
    st.segmented_control(
        "Target",
        list(TARGETS),
        format_func=TARGETS.get,
        required=True,
        on_change=state.another_input,
        help="Who writes the target: the model, or you. Stepwise starts with nothing written; then let the model write "
        "one token at a time, above the heads.",
        **InputChoices.mode.widget,
    )
    if state.mode == "typed":
        st.text_area(
            "Typed target",
            height=72,
            label_visibility="collapsed",
            on_change=state.another_input,
            **InputChoices.target.widget,
        )
        typed = state.target or " "  # nothing typed is not the same as left to the model
        return Typed((key, typed), lambda: (read(), typed), f"({code}, {typed!r})")
    return Typed((key, None), lambda: (read(), None), code, prompt=state.mode == "stepwise")


def _take_example(family: str) -> None:
    if state.example is not None:
        state.take_example(EXAMPLES[family][state.example])


# -- files ----------------------------------------------------------------------------------------------------------


def _file(family: str, subject: Subject) -> Typed:
    noun, kinds = KINDS[family]
    examples = FILES[family]
    uploaded = st.file_uploader(
        f"Your own {noun}",
        type=kinds,
        key=InputChoices.uploaded.of(family),
        on_change=state.take_upload,
        args=(family,),
    )
    st.selectbox(
        "Examples",
        examples,
        key=InputChoices.examples.of(family),
        index=None,
        placeholder=f"Choose an example {noun}" if examples else f"No example {noun} on this machine",
        label_visibility="collapsed",
        on_change=state.take_file,
        args=(family,),
    )
    own = state.own[family]
    if uploaded is not None and own is None and not state.file:
        own = state.own[family] = (uploaded.name, uploaded.getvalue())
    if own is not None:
        name, source = own
        key = hashlib.sha256(source).hexdigest()
    else:
        name = state.file if state.file in examples else _first_file(family, subject)
        if name is None:
            st.info(f"Upload a {noun} to look at.")
            st.stop()
        source, key = examples[name], f"example {name}"
    st.caption(f"Shown: {plain(name)}")
    file = name if own is not None else str(source)
    if family == "vision":
        return Typed(key, lambda: read_image(source), f"read_image(Path({file!r}))")
    st.audio(source if isinstance(source, bytes) else source.read_bytes(), format="audio/wav")
    return _with_target(key, lambda: read_wav(source), f"read_wav(Path({file!r}))")


def _first_file(family: str, subject: Subject) -> str | None:
    """Digits for a model that tells digits, a photograph for the others."""
    names = list(FILES[family])
    if set(subject.labels) != DIGITS:
        names = [name for name in names if "handwritten" not in name] or names
    return names[0] if names else None
