"""The Python that makes what a page shows: the lines that every page begins with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import streamlit as st

from headwise.interp.analysis.targets import Target
from headwise.pages._shared.bar import Run
from headwise.pages._shared.choices import InputChoices

TARGET = "from headwise.interp.analysis.targets import target"  # for the line of ``asking``

state = InputChoices()


def show_code(lines: Iterable[str]) -> None:
    """The folded-up code of a view."""
    with st.expander("Show the code", icon=":material/code:"):
        st.code("\n".join(lines), language="python")


def capturing(run: Run, *imports: str, names: Iterable[str] = (), edits: Sequence[str] = ()) -> list[str]:
    """The lines of Python that make the run's capture, ``cap``, and then the ``edits``; ``names`` of the library and
    ``imports``, whole lines, are wanted beside those that this needs."""
    given = run.given
    wanted = sorted({"capture", "load", *names, *(("edits", "rerun") if edits else ())})
    reads = [name for name in ("read_image", "read_wav") if f"{name}(" in given.code]
    steps = [name for name, used in (("extend", state.written), ("restart", given.prompt)) if used]
    more = [f"from headwise.interp.run.generate import {', '.join(steps)}"] if steps else []
    return [
        *(["from pathlib import Path", ""] if reads else []),
        *(["import torch", ""] if placement() else []),
        f"from headwise import {', '.join(wanted)}",
        *sorted([*imports, *more]),
        *(["from headwise.interp.masks.spoken import spoken_mask"] if "spoken_mask(" in "".join(edits) else []),
        *([f"from headwise.models import {', '.join(reads)}"] if reads else []),
        "",
        f"subject = load({state.model!r}{placement()})",
        f"inputs = subject.encode({given.code}{', truncate=True' if state.cut else ''})",
        *(["inputs = restart(inputs)"] if given.prompt else []),
        *([f"inputs = extend(subject, inputs, {list(state.written)})"] if state.written else []),
        "cap = capture(subject, inputs)",
        *edits,
    ]


def asking(aim: Target) -> str:
    """The line that makes ``aim``, what is asked about the answer."""
    told = ", ".join(repr(part) for part in (aim.token, aim.against, aim.position))
    return f"aim = target(cap, {told})  # {aim}"


def placement() -> str:
    """What of ``load`` is not as it is by default."""
    placed = (state.device, state.dtype) != ("cpu", "float32")
    return f", device={state.device!r}, dtype=torch.{state.dtype}" if placed else ""
