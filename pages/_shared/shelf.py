"""What all sessions of the browser share: loaded models, captures, and the two places at the stove."""

from __future__ import annotations

import gc
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import streamlit as st

from headwise import Capture, capture, check
from headwise.interp.analysis.answers import Answer
from headwise.interp.analysis.metrics import induction
from headwise.interp.check import Report
from headwise.interp.drawing.survey import Survey, survey
from headwise.interp.run.cost import Cost, estimate
from headwise.interp.subject import Inputs, Subject
from headwise.interp.zoo import Case
from headwise.models import available, load

SUBJECTS, CAPTURES = 3, 6  # kept at most, the least recently used go first


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
    def __init__(self):
        self.subjects, self.costs, self.encoded = Shelf(SUBJECTS), Shelf(64), Shelf(CAPTURES)
        self.reports, self.said = Shelf(256), Shelf(64)
        self.captures, self.surveys, self.inductions = Shelf(CAPTURES), Shelf(2 * CAPTURES), Shelf(SUBJECTS)
        self.stove = threading.BoundedSemaphore(2)

    def subject(self, name: str, device: str, dtype: str) -> Subject:
        return self.subjects.get((name, device, dtype), lambda: load(name, device=device, dtype=dtype))

    def inputs(self, key: Hashable, encode: Callable[[], Inputs]) -> Inputs:
        """Encoding may be dear: a model writes its own target, a recording becomes a spectrogram."""

        def make():
            with self.stove:
                return encode()

        return self.encoded.get(key, make)

    def cost(self, key: Hashable, subject: Subject, inputs: Inputs) -> Cost:
        return self.costs.get(key, lambda: estimate(subject, inputs))

    def capture(self, key: Hashable, subject: Subject, inputs: Inputs) -> Capture:
        def make():
            with self.stove:
                return capture(subject, inputs)

        return self.captures.get(key, make)

    def survey(self, key: Hashable, cap: Capture, progress: Callable[[float], None]) -> Survey:
        def make():
            with self.stove:
                return survey(cap, progress)

        return self.surveys.get(key, make)

    def answers(self, key: Hashable, ask: Callable[[], tuple[Answer, ...]]) -> tuple[Answer, ...]:
        return self.said.get(key, ask)

    def zoo(self, case: Case, fixed: bool) -> tuple[Report, str]:
        """The report of a zoo model, and its symptom."""

        def make():
            model = case.twin() if fixed else case.bug()
            with self.stove:
                return check(model, **case.options), case.show(model)

        return self.reports.get((case.name, fixed), make)

    def induction(self, key: Hashable, subject: Subject):
        def make():
            with self.stove:
                return induction(subject)

        return self.inductions.get(key, make)


@st.cache_resource(show_spinner="Starting Headwise …")
def server() -> Server:
    """The one of this process, warmed up. Streamlit collects garbage after every rerun; what is loaded by now never
    is any, so it is frozen out of those collections (×20 reruns a second)."""
    started = Server()
    subject = started.subject(available()[0], "cpu", "float32")
    estimate(subject, subject.encode("Warm up."))
    gc.collect()
    gc.freeze()
    return started
