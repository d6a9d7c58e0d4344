"""What a person has chosen: each page's choices are one class that owns them in the session and in the address bar.

A page declares its choices as a class (`HeadsChoices`, `MasksChoices`, `EmbeddingsChoices`); on an object of it, which
holds nothing itself, they read and write like attributes:

    class HeadsChoices(RunChoices):
        scale = Choice("linear", among=("linear", "log"))

    state = HeadsChoices()
    st.segmented_control("Scale", HeadsChoices.scale.among, **HeadsChoices.scale.widget)
    state.scale   # "linear", until somebody chooses

Nothing else touches ``st.session_state`` (the canvas reads its own event). A copied link opens the same view.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import streamlit as st

from headwise.models import devices

LONGEST = 4_000  # characters of a text; a longer one would not survive as an address
MOST_TOKENS = 512  # written by the model, in an address

PUBLISHED = "published"  # in the session: which page wrote which addresses, the last one at the end, and when
REMEMBERED = 200  # addresses
SETTLED = 0.7  # seconds after which the browser knows its address

# How long a choice means something. Each ends whatever stands behind it too: another model is another input.
MODEL, INPUT, POSITIONS = "model", "input", "positions"
LIVES = (MODEL, INPUT, POSITIONS)


class Choice:
    """One choice: what it is until somebody chooses, and what it may be.

    default: its value until then.
    among, between: the values it may have, or the least and the largest one (None: no end).
    link: does it travel in the address?
    until: MODEL, INPUT or POSITIONS when another one of these makes it meaningless.
    left: what is left of a value when another one of these comes, where that does not end all of it.
    longest: texts that are longer stay out of the address.
    read, write: between the value and its text in the address; by default what fits the default value. ``read`` raises
        ValueError where a text means nothing.
    key: in the session and in the address; by default the attribute's name.
    """

    def __init__(
        self,
        default: Any,
        *,
        among: tuple | None = None,
        between: tuple | None = None,
        link: bool = True,
        until: str | None = None,
        left: Callable[[Any, str], Any] | None = None,
        longest: int | None = None,
        read: Callable[[str], Any] | None = None,
        write: Callable[[Any], str] | None = None,
        key: str = "",
    ):
        self.default, self.among, self.between, self.link = default, among, between, link
        self.until, self.left, self.longest, self.key = until, left, longest, key
        self.read, self.write = read or type(default), write or str
        if isinstance(default, bool):
            self.read, self.write = (lambda text: bool(int(text))), (lambda value: str(int(value)))

    def __set_name__(self, owner: type, name: str):
        self.key = self.key or name

    def __get__(self, choices: Choices | None, owner: type) -> Any:
        return self if choices is None else st.session_state.get(self.key, self.default)

    def __set__(self, choices: Choices, value: Any) -> None:
        st.session_state[self.key] = value

    @property
    def widget(self) -> dict[str, str]:
        """What makes a widget this choice's: the value lives on while other pages are looked at."""
        return {"key": self.key, "persist_state": "session"}

    def bounded(self, low: float, high: float) -> dict[str, Any]:
        """The same for a slider whose ends move with other choices: a value beyond them moves along."""
        value = st.session_state.get(self.key, self.default)
        if not low <= value <= high:
            st.session_state[self.key] = min(max(value, low), high)
        return self.widget | {"min_value": low, "max_value": high}

    def one_of(self, options: list | tuple) -> Any:
        """The value, which becomes the first option when it is none of them."""
        if st.session_state.get(self.key, self.default) not in options:
            st.session_state[self.key] = options[0]
        return st.session_state.get(self.key, self.default)

    def parse(self, text: str | None, default: Any) -> Any:
        """An address is written by anybody: what means nothing is the default."""
        if text is None:
            return default
        try:
            value = self.read(text)
        except (ValueError, OverflowError):
            return default
        if self.between is not None:
            if value != value:  # NaN
                return default
            low, high = self.between
            value = value if low is None else max(value, low)
            value = value if high is None else min(value, high)
        return value if self.among is None or value in self.among else default


class Each(Choice):
    """A choice for each of several names: ``state.own["vision"]``. Stays out of the address.

    key: with {} where the name stands.
    """

    def __init__(self, default: Any, *, key: str):
        super().__init__(default, link=False, key=key)

    def __get__(self, choices: Choices | None, owner: type) -> Any:
        return self

    def __set__(self, choices: Choices, value: Any) -> None:
        raise AttributeError(f"{self.key} is one choice for each of several names: set one of them")

    def of(self, name: object) -> str:
        """The key of the widget that this is for ``name``."""
        return self.key.format(name)

    def __getitem__(self, name: object) -> Any:
        return st.session_state.get(self.key.format(name), self.default)

    def __setitem__(self, name: object, value: Any) -> None:
        st.session_state[self.key.format(name)] = value


class Choices:
    """The choices of a page. Every subclass is known here, because a reset reaches all pages."""

    known: ClassVar[list[type[Choices]]] = []

    def __init_subclass__(cls):
        Choices.known.append(cls)

    @classmethod
    def each(cls) -> Iterator[Choice]:
        """All single choices, those of the classes it stands on first."""
        for owner in reversed(cls.__mro__):
            for choice in vars(owner).values():
                if isinstance(choice, Choice) and not isinstance(choice, Each):
                    yield choice

    def restore(self, **defaults: Any) -> None:
        """Fill the session from the address once, and again when somebody went back or forward in the browser; else
        keep the values of widgets alive across pages. ``defaults`` are what choices are here until somebody chooses,
        where that is not what they declare."""
        state = st.session_state
        back = self._another_address()
        for choice in self.each():
            default = defaults.get(choice.key, choice.default)
            if choice.key not in state or (back and choice.link):
                state[choice.key] = choice.parse(st.query_params.get(choice.key) if choice.link else None, default)
            elif choice.link:
                state[choice.key] = state[choice.key]

    def open(self, address: Mapping[str, str], **defaults: Any) -> None:
        """Choose what an address says; the rest as it is until somebody chooses."""
        for choice in self.each():
            if choice.link:
                default = defaults.get(choice.key, choice.default)
                st.session_state[choice.key] = choice.parse(address.get(choice.key), default)

    def publish(self, **defaults: Any) -> bool:
        """Write what differs from the defaults into the address. False when a text is too long to be carried."""
        wanted, whole = self.address(**defaults)
        known = dict(st.query_params) == wanted  # to the browser: somebody went back there
        if not known:
            st.query_params.from_dict(wanted)
        wrote, _ = st.session_state.get(PUBLISHED, ((), 0.0))
        if not wrote or wrote[-1] != (type(self), wanted):
            when = 0.0 if known else time.monotonic()
            st.session_state[PUBLISHED] = ((*wrote, (type(self), wanted))[-REMEMBERED:], when)
        return whole

    def address(self, **defaults: Any) -> tuple[dict[str, str], bool]:
        """What differs from the defaults, as an address tells it; and whether that is all of it."""
        wanted, whole = {}, True
        for choice in self.each():
            default = defaults.get(choice.key, choice.default)
            value = st.session_state.get(choice.key, default)
            if not choice.link or value is None or value == default:
                continue
            if choice.longest is not None and len(value) > choice.longest:
                whole = False
            else:
                wanted[choice.key] = choice.write(value)
        return wanted, whole

    def _another_address(self) -> bool:
        """Whether somebody went back or forward: the address is one that this page wrote, but not the last one. What
        the browser asked before it had heard of the last address is not that, so a young one does not count."""
        wrote, when = st.session_state.get(PUBLISHED, ((), 0.0))
        if not wrote or time.monotonic() - when < SETTLED:
            return False
        now = (type(self), dict(st.query_params))
        if wrote[-1][0] is not type(self) and not now[1]:  # so begins a page that somebody turned to
            return False
        return now != wrote[-1] and now in wrote

    def news(self, key: str, part: str = "point_indices") -> list | None:
        """Places just selected in the table or chart of that key. None where nothing changed: a selection stays, only
        a new one is an act."""
        state = st.session_state
        selected = list((state.get(key) or {}).get("selection", {}).get(part, []))
        if selected == state.get(f"{key}_seen", []):
            return None
        state[f"{key}_seen"] = selected
        return selected

    def another_model(self) -> None:
        """Another model has other heads: the first look is its own."""
        self._end(MODEL)

    def another_input(self) -> None:
        """What was written after the last input, and where one looked in it, mean nothing now."""
        self._end(INPUT)

    def other_positions(self) -> None:
        """Words for tokens, another stack: a zoom and a pin of before mean nothing."""
        self._end(POSITIONS)

    @staticmethod
    def _end(life: str) -> None:
        ended = LIVES[LIVES.index(life) :]
        for owner in Choices.known:
            for choice in owner.each():
                if choice.until in ended:
                    st.session_state[choice.key] = choice.default
                elif choice.left is not None:
                    value = st.session_state.get(choice.key, choice.default)
                    st.session_state[choice.key] = choice.left(value, life)


def asks() -> bool:
    """Does the address ask for anything?"""
    return bool(st.query_params)


def numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("-")))


def dashed(values: tuple) -> str:
    return "-".join(map(str, values))


class InputChoices(Choices):
    """What the bar asks: which model runs, on what input. Shared by the pages that run one."""

    present = Choice(False)  # large type, for a room
    model = Choice("tiny-decoder")
    device = Choice("cpu", among=devices())
    dtype = Choice("float32", among=("float32", "bfloat16", "float16"))
    text = Choice("", longest=LONGEST)
    second = Choice("", longest=LONGEST)
    target = Choice("", longest=LONGEST)
    mode = Choice("written", among=("written", "typed", "stepwise"))  # who writes the target
    told = Choice("", link=False, until=MODEL)  # the target that the model wrote last
    written = Choice((), read=lambda text: numbers(text)[:MOST_TOKENS], write=dashed, until=INPUT)
    file = Choice("")  # the example picture or recording
    cut = Choice(False)
    example = Choice(None, link=False)  # the example text just taken
    agreed = Choice(frozenset(), link=False)  # runs that take long, and were wanted all the same
    examples = Each(None, key="example-{}")  # by family; each of these
    uploaded = Each(None, key="upload-{}")
    own = Each(None, key="own-{}")  # (name, bytes): the field itself forgets when one goes to another page

    def take_mode(self) -> None:
        """Another one writes the target: a person begins with what the model wrote."""
        if self.mode == "typed" and self.told:
            self.target = self.told
        self.another_input()

    def take_example(self, text: str | tuple[str, str]) -> None:
        self.text, self.second = text if isinstance(text, tuple) else (text, "")
        self.another_input()

    def take_file(self, family: str) -> None:
        """The example just chosen is looked at, instead of an own file."""
        if self.examples[family] is not None:
            self.file = self.examples[family]
            self.own[family] = None
            self.another_input()

    def take_upload(self, family: str) -> None:
        """The other way round."""
        file = self.uploaded[family]
        self.own[family] = None if file is None else (file.name, file.getvalue())
        self.file = ""
        self.examples[family] = None
        self.another_input()


ALONE = "∅"  # rather than nothing: the answer's own value


class AnswerChoices(InputChoices):
    """Which answer is asked about, and rather than which other, on the pages that explain one."""

    answer = Choice("", until=MODEL, longest=LONGEST)  # "" is what the model says; the Heads page's too
    against = Choice("", until=MODEL, longest=LONGEST)  # "" is what comes next to it
    halted = Choice(frozenset(), link=False, until=INPUT)  # works that somebody has cancelled


class HeadChoices(InputChoices):
    """Which head is looked at, and for which answer, wherever one came from. ``layer`` and ``head`` are −1 until
    somebody chooses: the head that is most worth a first look."""

    stack = Choice("", until=MODEL)
    layer = Choice(-1, between=(0, None), until=MODEL)
    head = Choice(-1, between=(0, None), until=MODEL)
    answer = Choice("", until=MODEL, longest=LONGEST)
    rather = Choice("", until=MODEL, longest=LONGEST)
