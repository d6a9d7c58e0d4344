"""The Python that makes what the page shows."""

from __future__ import annotations

from headwise.interp.analysis.targets import Target
from headwise.interp.drawing.circuits import Head
from headwise.pages._circuits.choices import state
from headwise.pages._shared.code import TARGET, asking, capturing, show_code
from headwise.pages._shared.sidebar import Run

ROOM = "headwise.interp.analysis.circuits"


def code(run: Run, aim: Target | None, head: Head) -> None:
    """Draw it."""
    show_code(lines(run, aim, head))


def lines(run: Run, aim: Target | None, head: Head) -> list[str]:
    """The code, line by line."""
    stack, layer, number = head
    other = f"capture(subject, {state.beside!r})" if state.beside else "None"
    found = [
        asking(aim),
        f"circuit = graph(cap, {other}, aim, restore={int(state.goal) / 100})",
        "print(circuit.sentence)",
        "print(circuit.table())",
    ]
    return [
        *capturing(
            run,
            f"from {ROOM}.compositions import compositions",
            *([f"from {ROOM}.graph import graph", TARGET] if aim is not None else []),
            f"from {ROOM}.reading import reads_and_writes",
            f"from {ROOM}.roles import roles",
        ),
        *(found if aim is not None else []),
        f"print(reads_and_writes(cap, ({layer}, {number}, {stack!r})).table(through={state.through!r}))",
        f'pairs = compositions(cap).query("kind == {state.kind!r}")',
        f"print(pairs, roles(cap{', aim' if aim is not None else ''}))",
    ]
