"""What all sessions of the browser share: results by kind and key, behind one door, and the slots to compute in."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import streamlit as st

from headwise.interp.run.weighing import memory, weight
from headwise.interp.subject import Subject
from headwise.models import load

SLOTS = 2  # results that are computed at the same time
SHARE = 4  # models are kept up to one part in so many of the memory, results up to another
MODELS = 3  # that are kept whatever they weigh
AGAIN = 30.0  # seconds after which what is used is weighed again: a capture grows as one looks at it
SCRIPT = "ScriptRunner.scriptThread"  # what Streamlit calls the threads that run pages
PATIENCE = 5.0  # seconds that an ending server gives each of them


@dataclass(frozen=True)
class Kind:
    """Does making a result of this kind take a slot?"""

    slot: bool = False


KINDS = {
    "cost": Kind(),
    "inputs": Kind(slot=True),  # a model may write its own target, a recording becomes a spectrogram
    "capture": Kind(slot=True),
    "survey": Kind(slot=True),
    "furthest": Kind(),  # the head that looks furthest
    "measured": Kind(),
    "chips": Kind(),
    "card": Kind(),
    "grid": Kind(slot=True),
    "headline": Kind(slot=True),
    "packed": Kind(slot=True),  # all heads of a stack, as they travel to the browser
    "induction": Kind(slot=True),
    "words": Kind(slot=True),  # what each head is called
    "answers": Kind(),
    "anatomy": Kind(slot=True),
    "suggestions": Kind(),
    "lens": Kind(slot=True),
    "norms": Kind(slot=True),
    "parts": Kind(slot=True),
    "sources": Kind(slot=True),
    "features": Kind(slot=True),
    "refusals": Kind(slot=True),
    "attributions": Kind(slot=True),
    "floors": Kind(slot=True),
    "faithful": Kind(slot=True),
    "sanity": Kind(slot=True),
    "corrupted": Kind(slot=True),
    "circuits": Kind(slot=True),
    "compositions": Kind(slot=True),
    "circuit heads": Kind(slot=True),
    "roles": Kind(slot=True),
    "proposals": Kind(slot=True),
    "telling": Kind(slot=True),
    "counterpart": Kind(slot=True),
    "patchable": Kind(slot=True),
    "estimated": Kind(slot=True),
    "patched": Kind(slot=True),
    "paths": Kind(slot=True),
    "edited": Kind(slot=True),
    "effect": Kind(slot=True),
    "written": Kind(slot=True),  # what a model writes on, edited or not
    "played": Kind(),  # a score as sound
    "removals": Kind(slot=True),
    "beside": Kind(slot=True),  # the other run of a comparison
    "compared": Kind(slot=True),
    "likeness": Kind(slot=True),
    "mechanisms": Kind(slot=True),  # a head through others, as one of their options grows
    "timings": Kind(slot=True),
    "zoo": Kind(slot=True),
    "reading": Kind(slot=True),
    "clusters": Kind(),
    "projection": Kind(),
    "contrast": Kind(),
}


@dataclass
class Kept:
    """A result, its bytes, and when they were counted."""

    item: Any
    bytes: int = 0
    weighed: float = 0.0


class Shelf:
    """Results by key, made once also when many sessions ask at the same time, kept while there is room: the least
    recently used go first. Unlike ``st.cache_resource`` it lets the making show progress and be broken off by a rerun:
    what was not finished is not kept.

    room: bytes that all may weigh together.
    least: results that are kept whatever they weigh.
    """

    def __init__(self, room: int, least: int = 1):
        self.room, self.least = room, least
        self.kept: OrderedDict[Hashable, Kept] = OrderedDict()
        self.bytes = 0  # of all
        self.making: dict[Hashable, threading.Lock] = {}
        self.lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        with self.lock:
            found = self._used(key)
            making = None if found else self.making.setdefault(key, threading.Lock())
        if found is None:
            with making:
                found = self._made(key, make)
        elif time.monotonic() - found.weighed > AGAIN:
            self._weigh(key, found)
        return found.item

    def __contains__(self, key: Hashable) -> bool:
        return key in self.kept

    def _used(self, key: Hashable) -> Kept | None:
        if key in self.kept:
            self.kept.move_to_end(key)
        return self.kept.get(key)

    def _made(self, key: Hashable, make: Callable[[], Any]) -> Kept:
        """Unless somebody else was faster."""
        with self.lock:
            found = self._used(key)
        if found is not None:
            return found
        try:
            made = Kept(make())
        finally:
            with self.lock:
                self.making.pop(key, None)
        with self.lock:
            self.kept[key] = made
        self._weigh(key, made)
        return made

    def _weigh(self, key: Hashable, kept: Kept) -> None:
        kept.weighed = time.monotonic()
        size = weight(key) + weight(kept.item)
        with self.lock:
            if self.kept.get(key) is kept:  # and has not gone meanwhile
                self.bytes += size - kept.bytes
                kept.bytes = size
            while self.bytes > self.room and len(self.kept) > self.least:
                self.bytes -= self.kept.popitem(last=False)[1].bytes


class Server:
    """One door to everything that is made once for all sessions.

    room: bytes of results that are kept, and as many of models; by default a quarter of the memory that this process
        may have, or what HEADWISE_KEEP says.
    """

    def __init__(self, room: int | None = None):
        room = room or int(float(os.environ.get("HEADWISE_KEEP", 0))) or memory() // SHARE
        self.results, self.models = Shelf(room), Shelf(room, MODELS)
        self.slots = threading.BoundedSemaphore(SLOTS)

    def made(self, kind: str, key: Hashable, make: Callable[[], Any]) -> Any:
        """The result of that kind and key, made now if it is not there."""

        def in_slot() -> Any:
            with self.slots:
                return make()

        return self.results.get((kind, key), in_slot if KINDS[kind].slot else make)

    def has(self, kind: str, key: Hashable) -> bool:
        """Whether it is there: a spinner costs more than a result that is."""
        return (kind, key) in self.results

    def subject(self, name: str, device: str, dtype: str) -> Subject:
        return self.models.get((name, device, dtype), lambda: load(name, device=device, dtype=dtype))


@st.cache_resource(show_spinner=False)
def server() -> Server:
    """The one of this process."""
    atexit.register(_rest)
    return Server()


def _rest() -> None:
    """At the end of the process wait for the scripts that still run: a thread in the middle of an operation of torch's
    would take the process down. They have been told to stop, and do at their next call of Streamlit."""
    for thread in threading.enumerate():
        if thread.name == SCRIPT:
            thread.join(PATIENCE)
