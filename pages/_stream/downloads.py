"""What of the page leaves the house: figures, numbers, and the Python that makes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from headwise.interp.analysis.targets import Target
from headwise.interp.drawing import files as export
from headwise.interp.drawing import streams
from headwise.pages._shared.sidebar import Run
from headwise.pages._stream.choices import state

KINDS = {"png": "image/png", "svg": "image/svg+xml", "csv": "text/csv"}


def cells_files(
    run: Run, cells: streams.Cells, title: str, numbers: Callable[[], pd.DataFrame], name: str = "stream"
) -> None:
    """Buttons for a table of cells, and for the numbers behind it."""
    look = _look(run, title)
    _buttons(
        name,
        png=lambda: export.cells_figure(cells, "png", **look),
        svg=lambda: export.cells_figure(cells, "svg", **look),
        csv=lambda: _csv(numbers()),
    )


def bars_files(run: Run, rows: Sequence[dict], sums: Sequence[tuple], title: str, table: pd.DataFrame) -> None:
    """The same for a list of bars."""
    look = _look(run, title)
    lines, below = [(row["name"], row["value"], row["text"]) for row in rows], [each[:2] for each in sums]
    _buttons(
        "parts",
        png=lambda: export.bars_figure(lines, below, "png", **look),
        svg=lambda: export.bars_figure(lines, below, "svg", **look),
        csv=lambda: _csv(table),
    )


def _look(run: Run, title: str) -> dict[str, Any]:
    """Read now: a file is made on another thread, which has no session."""
    theme = "dark" if st.context.theme.type == "dark" else "light"
    return {"title": f"{run.subject.name} · {title}", "theme": theme, "stamp": export.stamp(run.capture)}


def _buttons(name: str, **makers: Callable[[], bytes]) -> None:
    with st.container(horizontal=True, gap="small"):
        for kind, make in makers.items():
            st.download_button(
                kind.upper(),
                make,
                f"{name}.{kind}",
                KINDS[kind],
                key=f"download-{name}-{kind}",
                icon=":material/download:",
                on_click="ignore",
            )


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False).encode("utf-8-sig")


def code(run: Run, aim: Target | None) -> str:
    """The Python that makes this view."""
    given = run.given
    placed = (state.device, state.dtype) != ("cpu", "float32")
    placement = f", device={state.device!r}, dtype=torch.{state.dtype}" if placed else ""
    reads = [name for name in ("read_image", "read_wav") if f"{name}(" in given.code]
    steps = [name for name, used in (("extend", state.written), ("restart", given.prompt)) if used]
    inputs = [f"inputs = subject.encode({given.code}{', truncate=True' if state.cut else ''})"]
    if given.prompt:
        inputs.append("inputs = restart(inputs)")
    if state.written:
        inputs.append(f"inputs = extend(subject, inputs, {list(state.written)})")
    stream = f", stream={state.stream!r}" if state.stream else ""
    told = "" if aim is None else ", ".join(repr(part) for part in (aim.token, aim.against, aim.position))
    tuned = ", tuned=True" if state.reading == "tuned" else ""
    asks = [
        f"aim = target(cap, {told})  # {aim}",
        "parts = logit_attribution(cap, aim)",
        "print(parts)",
    ]
    return "\n".join(
        [
            *(["from pathlib import Path", ""] if reads else []),
            *(["import torch", ""] if placed else []),
            "from headwise import capture, lens, load, logit_attribution",
            "from headwise.interp.analysis.lens import norms",
            "from headwise.interp.analysis.targets import target",
            *([f"from headwise.interp.run.generate import {', '.join(steps)}"] if steps else []),
            *([f"from headwise.models import {', '.join(reads)}"] if reads else []),
            "",
            f"subject = load({state.model!r}{placement})",
            *inputs,
            "cap = capture(subject, inputs)",
            "print(cap.anatomy.proof)",
            "lengths = norms(cap)" if state.reading == "norms" else f"early = lens(cap{tuned}{stream})",
            *(asks if aim is not None else []),
        ]
    )
