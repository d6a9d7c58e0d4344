"""What is computed of a run, made once for all sessions; what takes more than a moment says how far it is."""

from __future__ import annotations

import pandas as pd

from headwise import Capture, capture
from headwise.interp.analysis.circuits.compositions import compositions
from headwise.interp.analysis.circuits.graph import Circuit, graph
from headwise.interp.analysis.circuits.reading import ReadsAndWrites, reads_and_writes
from headwise.interp.analysis.circuits.roles import roles
from headwise.interp.analysis.targets import Target
from headwise.interp.drawing.streams import Head
from headwise.pages._circuits.choices import state
from headwise.pages._shared.shelf import server
from headwise.pages._shared.sidebar import Run
from headwise.pages._shared.work import Work, worked


def corrupted_of(run: Run) -> Capture | None:
    """The run of the other input; None where there is none. Raises InputError for what the model does not take."""
    if not state.beside:
        return None
    return server().made("corrupted", (run.key, state.beside), lambda: capture(run.subject, state.beside))


def circuit_of(run: Run, corrupted: Capture | None, aim: Target) -> Circuit | None:
    """The circuit; None where somebody has cancelled the search, which is said. Raises InputError where there can be
    none."""
    key = (run.key, state.beside, aim, state.goal)
    share = int(state.goal) / 100
    run.capture.anatomy  # noqa: B018 -- found beforehand: what takes a slot must not wait for another
    return worked(
        Work("circuits", key, "search for the circuit"),
        lambda told: graph(run.capture, corrupted, aim, restore=share, progress=told),
    )


def compositions_of(run: Run) -> pd.DataFrame | None:
    """How heads compose; None where it was cancelled. Raises InputError where none has matrices."""
    key = run.key[:3]  # of the model, whatever its input
    return worked(
        Work("compositions", key, "compositions"), lambda told: compositions(run.capture, progress=told)
    )  # fmt: skip


def reading_of(run: Run, head: Head) -> ReadsAndWrites:
    """What a head looks for and writes. Raises InputError where no stream is proven."""
    stack, layer, number = head
    key = (run.key, head)
    return server().made("circuit heads", key, lambda: reads_and_writes(run.capture, (layer, number, stack)))


def roles_of(run: Run, aim: Target | None) -> pd.DataFrame | None:
    """Heads in words; None where it was cancelled."""
    return worked(Work("roles", (run.key, aim), "heads in words"), lambda told: roles(run.capture, aim, progress=told))
