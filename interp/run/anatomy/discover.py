"""``anatomy``: the residual streams of a subject, found on one short run, proven, and remembered with its module."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from headwise.interp.attention.call import AttentionCall
from headwise.interp.errors import InputError
from headwise.interp.run.anatomy.back import Steps
from headwise.interp.run.anatomy.describe import described
from headwise.interp.run.anatomy.graph import ASKS, Everything, Tape
from headwise.interp.run.anatomy.model import Anatomy
from headwise.interp.run.anatomy.norms import norms_in
from headwise.interp.run.anatomy.probe import default, shortened
from headwise.interp.run.anatomy.streams import Graph
from headwise.interp.run.outputs import primary
from headwise.interp.run.running import default_stack, run
from headwise.interp.run.tap.places import Seam
from headwise.interp.run.tap.recorder import SCRIPTED, Changes
from headwise.interp.subject import Inputs, Subject

Kind = tuple  # what tells one kind of input from another

_known: WeakKeyDictionary[nn.Module, dict[Kind, Anatomy]] = WeakKeyDictionary()
_locks: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_lock = threading.Lock()


def anatomy(subject: Subject, raw: Any = None) -> Anatomy:
    """The residual streams of a subject, found by dataflow on one short run and proven by numbers, never by names.

    ``raw``: an input of the kind that is meant, as for ``capture``, or Inputs; without it a short one of the subject's
    own. Remembered for each module and kind of input. What cannot be proven is left out and named in ``refused``.
    Raises InputError for an input that the subject cannot take.
    """
    inputs = default(subject) if raw is None else raw if isinstance(raw, Inputs) else subject.encode(raw)
    inputs = inputs if isinstance(inputs, Inputs) else Inputs(dict(inputs))
    module, kind = subject.module, _kind(inputs)
    with _lock:
        lock = _locks.setdefault(module, threading.RLock())
    with lock:
        known = _known.setdefault(module, {})
        if kind not in known:
            known[kind] = _discover(subject, inputs)
        return known[kind]


def _kind(inputs: Inputs) -> Kind:
    """Names and numbers of axes of the tensors, and the flags."""
    told = []
    for name, value in [*enumerate(inputs.args), *inputs.kwargs.items()]:
        flag = value if isinstance(value, bool | int | float | str | None) else type(value).__name__
        told.append((name, value.ndim if isinstance(value, Tensor) else flag))
    return tuple(told)


def _discover(subject: Subject, inputs: Inputs) -> Anatomy:
    with _evaluating(subject.module):
        for short in shortened(inputs):
            try:
                return described(subject, *trace(subject, short))
            except InputError:
                if short is inputs:
                    raise
    raise AssertionError("shortened ends with the input itself")


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """In eval mode; each part is put back into its own mode."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def trace(subject: Subject, inputs: Inputs) -> tuple[Graph, tuple[AttentionCall, ...]]:
    """One whole run as a graph, and its attention calls."""
    tape = Tape(whole=True)
    tape.given({**dict(enumerate(inputs.args)), **inputs.kwargs})
    seam = Seam(observed=Everything(), observers=(tape,), operations=Everything(ASKS))
    output, recorder = run(subject, inputs, changes=Changes(seam=seam))
    calls, unseen = recorder.finished(default_stack(subject))
    by_key = {(c.name, c.occurrence): c for c in calls}
    cores = {v: by_key[v.call] for v in tape.values if v.call in by_key}
    names = {u.name for u in unseen if u.name and u.reason != SCRIPTED}
    for visit, module, made in tape.done:
        if visit.path in names and made is not None and made.live and recorder.names.get(id(module)) == visit.path:
            cores.setdefault(made, None)
    norms = norms_in(tape.values)
    result = tape.value_of(primary(output, inputs.kwargs))
    return Graph(tape, cores, norms, Steps(tape.values, cores, norms), result, inputs.batch), tuple(calls)
