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
    name: str  # what it looks at
    run: Callable[[Bench], Generator[Finding, None, str]]


PROBES = (
    Probe("numbers", "N", name="NaN and rows that see nothing", run=numbers),
    Probe("repeat", "R", name="the same input twice", run=repeat),
    Probe("samples", "B S", name="samples of a batch stay apart", run=samples),
    Probe(PROMISE, "P T E", name="replace what an output may not see, in every mode", run=content),
    Probe("layers", "W", name="each layer's weights against its own mask", run=layers),
    Probe("growth", "G", name="a prefix answers as the whole does", run=growth),
    Probe("modes", "T E", name="modes and implementations agree", run=modes),
    Probe("amplified", "A", name="the same with amplified scores", run=amplified),
    Probe("gradient", "J", name="gradient to what may not be seen", run=gradient),
    Probe("padding", "B", name="padding", run=padding),
    Probe("cache", "C", name="decoding with a cache", run=cache),
    Probe("packed", "K", name="packed documents", run=packed),
    Probe("labels", "L", name="labels", run=labels),
    Probe("precision", "D", name="half precision", run=precision),
)
