"""The Python that makes what the page shows."""

from __future__ import annotations

from headwise.interp.analysis.targets import Target
from headwise.interp.drawing.circuits import Head
from headwise.pages._circuits.choices import state
from headwise.pages._circuits.found import Beside
from headwise.pages._shared.bar import Run
from headwise.pages._shared.code import TARGET, asking, capturing, show_code

ROOM = "headwise.interp.analysis.circuits"


def code(run: Run, aim: Target | None, head: Head, beside: Beside | None) -> None:
    """Draw it."""
    show_code(lines(run, aim, head, beside))


def lines(run: Run, aim: Target | None, head: Head, beside: Beside | None) -> list[str]:
    """The code, line by line."""
    stack, layer, number = head
    found = []
    if aim is not None and beside is not None:
        found = [
            asking(aim),
            f"circuit = graph(cap, {beside.code}, aim, restore={int(state.goal) / 100})",
            "print(circuit.sentence)",
            "print(circuit.table())",
        ]
    return [
        *capturing(
            run,
            f"from {ROOM}.compositions import compositions",
            *([f"from {ROOM}.graph import graph", *beside.imports, TARGET] if found else []),
            f"from {ROOM}.reading import reads_and_writes",
            f"from {ROOM}.roles import roles",
        ),
        *found,
        f"print(reads_and_writes(cap, ({layer}, {number}, {stack!r})).table(through={state.through!r}))",
        f'pairs = compositions(cap).query("kind == {state.kind!r}")',
        f"print(pairs, roles(cap{', aim' if found else ''}))",
    ]
