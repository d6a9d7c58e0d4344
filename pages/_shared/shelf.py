"""What all sessions of the browser share: results by kind and key, behind one door, and the slots to compute in."""

from __future__ import annotations

import atexit
import gc
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import streamlit as st

from headwise.interp.run.cost import estimate
from headwise.interp.subject import Subject
from headwise.models import available, load

SLOTS = 2  # results that are computed at the same time
SCRIPT = "ScriptRunner.scriptThread"  # what Streamlit calls the threads that run pages
PATIENCE = 5.0  # seconds that an ending server gives each of them


@dataclass(frozen=True)
class Kind:
    """How many results of a kind are kept at most, the least recently used go first; does making one take a slot?"""

    most: int
    slot: bool = False


KINDS = {
    "subject": Kind(3),
    "cost": Kind(64),
    "inputs": Kind(6, slot=True),  # a model may write its own target, a recording becomes a spectrogram
    "capture": Kind(6, slot=True),
    "survey": Kind(12, slot=True),
    "induction": Kind(3, slot=True),
    "words": Kind(64, slot=True),  # what each head is called
    "answers": Kind(64),
    "anatomy": Kind(6, slot=True),
    "suggestions": Kind(64),
    "lens": Kind(6, slot=True),
    "norms": Kind(12, slot=True),
    "parts": Kind(24, slot=True),
    "sources": Kind(24, slot=True),
    "features": Kind(6, slot=True),
    "refusals": Kind(24, slot=True),
    "attributions": Kind(32, slot=True),
    "floors": Kind(24, slot=True),
    "faithful": Kind(64, slot=True),
    "sanity": Kind(24, slot=True),
    "corrupted": Kind(8, slot=True),
    "circuits": Kind(12, slot=True),
    "compositions": Kind(4, slot=True),
    "circuit heads": Kind(24, slot=True),
    "roles": Kind(12, slot=True),
    "proposals": Kind(24, slot=True),
    "telling": Kind(64, slot=True),
    "counterpart": Kind(8, slot=True),
    "patchable": Kind(24, slot=True),
    "estimated": Kind(24, slot=True),
    "patched": Kind(12, slot=True),
    "paths": Kind(24, slot=True),
    "edited": Kind(8, slot=True),
    "effect": Kind(64, slot=True),
    "written": Kind(64, slot=True),  # what a model writes on, edited or not
    "played": Kind(8),  # a score as sound
    "removals": Kind(16, slot=True),
    "beside": Kind(6, slot=True),  # the other run of a comparison
    "compared": Kind(12, slot=True),
    "likeness": Kind(12, slot=True),
    "mechanisms": Kind(64, slot=True),  # a head through others, as one of their options grows
    "timings": Kind(16, slot=True),
    "zoo": Kind(256, slot=True),
    "reading": Kind(8, slot=True),
    "clusters": Kind(32),
    "projection": Kind(32),
    "contrast": Kind(32),
}


class Shelf:
    """Results by key, made once also when many sessions ask at the same time. Unlike ``st.cache_resource`` it lets
    the making show progress and be broken off by a rerun: what was not finished is not kept."""

    def __init__(self, size: int):
        self.size = size
        self.items: OrderedDict[Hashable, Any] = OrderedDict()
        self.making: dict[Hashable, threading.Lock] = {}
        self.lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        with self.lock:
            if key in self.items:
                self.items.move_to_end(key)
                return self.items[key]
            making = self.making.setdefault(key, threading.Lock())
        with making:
            with self.lock:
                if key in self.items:
                    return self.items[key]
            try:
                item = make()
            finally:
                with self.lock:
                    self.making.pop(key, None)
            with self.lock:
                self.items[key] = item
                while len(self.items) > self.size:
                    self.items.popitem(last=False)
        return item


class Server:
    """One door to everything that is made once for all sessions."""

    def __init__(self):
        self.shelves = {name: Shelf(kind.most) for name, kind in KINDS.items()}
        self.slots = threading.BoundedSemaphore(SLOTS)

    def made(self, kind: str, key: Hashable, make: Callable[[], Any]) -> Any:
        """The result of that kind and key, made now if it is not there."""

        def in_slot() -> Any:
            with self.slots:
                return make()

        return self.shelves[kind].get(key, in_slot if KINDS[kind].slot else make)

    def subject(self, name: str, device: str, dtype: str) -> Subject:
        return self.made("subject", (name, device, dtype), lambda: load(name, device=device, dtype=dtype))


@st.cache_resource(show_spinner="Starting Headwise …")
def server() -> Server:
    """The one of this process, warmed up. Streamlit collects garbage after every rerun; what is loaded by now never
    is any, so it is frozen out of those collections (×20 reruns a second)."""
    started = Server()
    atexit.register(_rest)
    subject = started.subject(available()[0], "cpu", "float32")
    estimate(subject, subject.encode("Warm up."))
    gc.collect()
    gc.freeze()
    return started


def _rest() -> None:
    """At the end of the process wait for the scripts that still run: a thread in the middle of an operation of torch's
    would take the process down. They have been told to stop, and do at their next call of Streamlit."""
    for thread in threading.enumerate():
        if thread.name == SCRIPT:
            thread.join(PATIENCE)
