"""The probes, one idea a file, in the order they run.

A probe is a generator: it yields findings and returns what it did. It raises DoesNotApply where it has nothing to do;
whatever the model raises is Refused; anything else it raises is an error of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

from headwise.interp.check.bench import Bench
from headwise.interp.check.probes.cache import cache
from headwise.interp.check.probes.content import amplified, content
from headwise.interp.check.probes.gradient import gradient
from headwise.interp.check.probes.growth import growth
from headwise.interp.check.probes.labels import labels
from headwise.interp.check.probes.layers import layers
from headwise.interp.check.probes.modes import modes
from headwise.interp.check.probes.numbers import numbers
from headwise.interp.check.probes.packed import packed
from headwise.interp.check.probes.padding import padding
from headwise.interp.check.probes.precision import precision
from headwise.interp.check.probes.repeat import repeat
from headwise.interp.check.probes.samples import samples
from headwise.interp.check.report import PROMISE, Finding


@dataclass(frozen=True)
class Probe:
    id: str  # its name in code
    letter: str  # in reports
    name: str  # what it puts to the test, as a promise
    run: Callable[[Bench], Generator[Finding, None, str]]


PROBES = (
    Probe("numbers", "N", name="numbers are finite and every query sees a key", run=numbers),
    Probe("repeat", "R", name="the same input gives the same output", run=repeat),
    Probe("samples", "B S", name="samples of a batch stay apart", run=samples),
    Probe(PROMISE, "P T E", name="no output depends on what it may not see, in every mode", run=content),
    Probe("layers", "W", name="each layer's weights keep its own mask", run=layers),
    Probe("growth", "G", name="a prefix answers as the whole does", run=growth),
    Probe("modes", "T E", name="modes and implementations agree", run=modes),
    Probe("amplified", "A", name="the same with large scores", run=amplified),
    Probe("gradient", "J", name="no gradient to what may not be seen", run=gradient),
    Probe("padding", "B", name="padding does not matter", run=padding),
    Probe("cache", "C", name="decoding with a cache equals the full run", run=cache),
    Probe("packed", "K", name="packed documents stay apart", run=packed),
    Probe("labels", "L", name="the loss compares with the next token", run=labels),
    Probe("precision", "D", name="half precision stays finite and keeps the mask", run=precision),
)
