"""What is computed of a run, made once for all sessions; what takes more than a moment says how far it is."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from headwise import Capture
from headwise.interp.analysis.circuits.compositions import compositions
from headwise.interp.analysis.circuits.graph import Circuit, graph
from headwise.interp.analysis.circuits.reading import ReadsAndWrites, reads_and_writes
from headwise.interp.analysis.circuits.roles import roles
from headwise.interp.analysis.patching.corrupting import Corruption, corrupted, corruptions
from headwise.interp.analysis.targets import Target
from headwise.interp.drawing.streams import Head
from headwise.pages._circuits.choices import MEAN, state
from headwise.pages._shared.bar import Run
from headwise.pages._shared.shelf import server
from headwise.pages._shared.work import Work, worked

MOVES = 0.25  # of the answer, by which a proposal must move it to be the first
CORRUPTING = "from headwise.interp.analysis.patching.corrupting import"


@dataclass(frozen=True)
class Beside:
    """What the run is compared with: another run, None for the mean over its own input. ``name`` tells it from others,
    ``sentence`` says what was changed, ``code`` makes it of ``cap``, and ``imports`` is what that needs."""

    capture: Capture | None
    name: tuple[str, ...] = (MEAN,)
    sentence: str = ""
    code: str = "None"
    imports: tuple[str, ...] = ()


def proposals_of(run: Run) -> tuple[Corruption, ...]:
    """Corrupted inputs for this one."""
    return server().made("proposals", run.key, lambda: corruptions(run.capture))


def chosen(run: Run, aim: Target) -> str:
    """The kind of the proposal that the person chose, or the first that moves the answer; MEAN, or "" for a text of
    their own."""
    kinds = [one.kind for one in proposals_of(run)]
    if state.instead.strip():
        return ""
    if state.corruption in (*kinds, MEAN):
        return state.corruption
    own = aim.value(run.capture)
    moved = (kind for kind in kinds if abs(aim.value(_proposed(run, kind).capture) - own) > MOVES * abs(own))
    return next(moved, MEAN)


def beside_of(run: Run, kind: str) -> Beside:
    """What was ``chosen``. Raises InputError for what the model does not take."""
    if kind == MEAN:
        return Beside(None)
    if kind:
        return _proposed(run, kind)
    own = state.instead.strip()
    cap = server().made("corrupted", (run.key, own), lambda: corrupted(run.capture, own))
    return Beside(cap, ("own", own), "", f"corrupted(cap, {own!r})", (f"{CORRUPTING} corrupted",))


def _proposed(run: Run, kind: str) -> Beside:
    proposal = next(one for one in proposals_of(run) if one.kind == kind)
    cap = server().made("corrupted", (run.key, "", kind), lambda: corrupted(run.capture, proposal.raw))
    code = f"corrupted(cap, {{one.kind: one.raw for one in corruptions(cap)}}[{kind!r}])"
    return Beside(cap, ("proposal", kind), proposal.sentence, code, (f"{CORRUPTING} corrupted, corruptions",))


def circuit_of(run: Run, beside: Beside, aim: Target) -> Circuit | None:
    """The circuit; None where somebody has cancelled the search, which is said. Raises InputError where there can be
    none."""
    key = (run.key, beside.name, aim, state.goal)
    share = int(state.goal) / 100
    run.capture.anatomy  # noqa: B018 -- found beforehand: what takes a slot must not wait for another
    return worked(
        Work("circuits", key, "search for the circuit"),
        lambda told: graph(run.capture, beside.capture, aim, restore=share, progress=told),
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
