"""What a model is given, by the kind of model: a text, a pair, a source and a target, a series, a score, a picture, a
recording."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import streamlit as st

from headwise.assets import ASSETS
from headwise.interp.errors import InputError
from headwise.interp.subject import Subject
from headwise.models import read_image, read_wav
from headwise.pages._shared.choices import Choice, InputChoices
from headwise.pages._shared.markdown import plain


def _brought(name: str) -> dict[str, str]:
    """The examples that a bundled model brings, by what they are called."""
    file = ASSETS / name / "examples.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


REVIEWS = {
    "A favourable review": "A moving and wonderfully acted film, full of wit and warmth.",
    "An unfavourable review": "A dull, lifeless mess that wastes the talent of its actors.",
}
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
        "It was too tired": "The animal did not cross the street because it was too tired.",
        **REVIEWS,
    },
    "classifier": {
        **REVIEWS,
        "Neither, nor": "The script is clever, but the actors never seem to believe a word of it.",
        "Not bad at all": "It is not a bad film, and never dull, though nothing in it is new.",
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
LINE = 36  # pixels of a field in the bar; shell.css opens it where somebody writes
NARROW = 150
PAIRED = ("encoder", "classifier")  # take a second text, too
FIELDS = {  # what the field for a text is called, and how one writes into it
    "decoder": ("Text", None),
    "encoder": ("Text", None),
    "classifier": ("Text", None),
    "single": ("Text", None),
    "encoder-decoder": ("Source", None),
    "series": (
        "Series",
        "A month a line, such as “1990-01 353.7” or the number alone. Change one, or paste yours.",
    ),
    "score": (
        "Score",
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
TARGETS = {  # who writes the target
    "written": "Target by the model",
    "typed": "Target typed",
    "stepwise": "Target step by step",
}
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
    if subject.family == "encoder" and subject.labels:
        return "classifier"
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
    _field("Text", InputChoices.text)


# -- texts ----------------------------------------------------------------------------------------------------------


def _text(family: str) -> Typed:
    if state.text in _examples_of(family):
        state.text = default_text(family)  # nobody typed it: another kind of model gets an example of its own
    label, help = FIELDS[family]
    _field(label, InputChoices.text, on_change=state.another_input)
    if help:
        st.markdown(":small[ ]", help=help, width="content")
    if family in PAIRED:
        with st.container(key="bar-second", width=NARROW):
            _field("Second text", InputChoices.second, placeholder="second text: none")
    if family == "encoder-decoder":
        given = _with_target(state.text, lambda: state.text, repr(state.text))
    else:
        read = (state.text, state.second) if family in PAIRED and state.second else state.text
        given = Typed(read, lambda: read, repr(read))
    _examples("text", EXAMPLES[family], InputChoices.example.key, _take_example, family)
    return given


def _field(label: str, choice: Choice, **how: Any) -> None:
    """A field of one line, which opens where somebody writes in it."""
    st.text_area(label, height=LINE, label_visibility="collapsed", **how, **choice.widget)


def _examples(noun: str, names: Iterable[str], key: str, take: Callable[[str], None], family: str) -> None:
    names = list(names)
    with st.container(key="bar-examples", width=NARROW):
        st.selectbox(
            "Examples",
            names,
            key=key,
            index=None,
            placeholder="Examples" if names else f"No {noun} on this machine",
            label_visibility="collapsed",
            on_change=take,
            args=(family,),
        )


def _examples_of(family: str) -> set[str]:
    """The texts of the examples of all other kinds, as they stand in the field."""
    others = (text for other, texts in EXAMPLES.items() if other != family for text in texts.values())
    texts = {text if isinstance(text, str) else text[0] for text in others}
    return texts - {text if isinstance(text, str) else text[0] for text in EXAMPLES[family].values()}


def _with_target(key: Hashable, read: Callable[[], Any], code: str) -> Typed:
    """The target of an encoder-decoder: typed, or left to the model."""
    with st.container(key="bar-target", width=170):
        st.selectbox(
            "Target",
            list(TARGETS),
            format_func=TARGETS.get,
            on_change=state.take_mode,
            label_visibility="collapsed",
            **InputChoices.mode.widget,
        )
    if state.mode == "typed":
        _field("Typed target", InputChoices.target, on_change=state.another_input)
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
    with st.popover(f"Your own {noun}", icon=":material/upload:"):
        uploaded = st.file_uploader(
            f"Your own {noun}",
            type=kinds,
            key=InputChoices.uploaded.of(family),
            on_change=state.take_upload,
            args=(family,),
            label_visibility="collapsed",
        )
    _examples(f"{noun}s", examples, InputChoices.examples.of(family), state.take_file, family)
    own = state.own[family]
    if uploaded is not None and own is None and not state.file:
        own = state.own[family] = (uploaded.name, uploaded.getvalue())
    if own is not None:
        name, source = own
        key = hashlib.sha256(source).hexdigest()
    else:
        name = state.file if state.file in examples else _first_file(family, subject)
        if name is None:
            raise InputError(f"There is no example {noun} on this machine: upload one of your own in the bar.")
        source, key = examples[name], f"example {name}"
    st.caption(plain(name), width="content")
    file = name if own is not None else str(source)
    if family == "vision":
        return Typed(key, lambda: read_image(source), f"read_image(Path({file!r}))")
    with st.container(key="bar-sound", width=260):
        st.audio(source if isinstance(source, bytes) else source.read_bytes(), format="audio/wav")
    return _with_target(key, lambda: read_wav(source), f"read_wav(Path({file!r}))")


def _first_file(family: str, subject: Subject) -> str | None:
    """Digits for a model that tells digits, a photograph for the others."""
    names = list(FILES[family])
    if set(subject.labels) != DIGITS:
        names = [name for name in names if "handwritten" not in name] or names
    return names[0] if names else None
