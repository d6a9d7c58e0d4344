"""How a capture shows itself as the last line of a notebook's cell: as the explorer of the app where `anywidget` is
installed (`pip install "headwise[notebook]"`), else as a few words and a picture."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from headwise.interp.analysis.firstlook import first_head, first_stack
from headwise.interp.drawing.files import to_svg
from headwise.interp.drawing.matrix import head_view
from headwise.interp.drawing.survey import Survey, survey
from headwise.interp.run.capture import Capture

EXTRA = 'pip install "headwise[notebook]" makes this an explorer of all heads.'


@dataclass(frozen=True)
class Still:
    """One head as a picture that does not move, with a sentence."""

    cap: Capture
    layer: int
    head: int
    stack: str

    def __repr__(self) -> str:
        return f"{self.cap!r}: layer {self.layer}, head {self.head}\n{EXTRA}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        view = head_view(self.cap, self.cap.find(self.layer, self.stack), self.head)
        return {"text/plain": repr(self), "image/svg+xml": to_svg(view).decode()}


def shown(cap: Capture) -> Any:
    """The explorer of a capture, or what stands for it: something that a notebook can draw. A capture without attention
    is text."""
    if not cap.calls:
        return repr(cap)
    stack = first_stack(cap)
    found = survey(cap)
    layer, head = first_head(cap, table_of(found, stack), stack)
    if find_spec("anywidget") is None:
        return Still(cap, layer, head, stack)
    return _widget().Explorer(cap, layer, head, stack, found)


def one(cap: Capture, layer: int, head: int, stack: str | None = None) -> Any:
    """One head, likewise. Raises IndexError for a layer or a head that is not there."""
    call = cap.find(layer, stack)
    if not 0 <= head < call.heads:
        raise IndexError(f"head expects 0 … {call.heads - 1} in layer {layer}; got {head}.")
    if find_spec("anywidget") is None:
        return Still(cap, layer, head, call.stack)
    return _widget().Explorer(cap, layer, head, call.stack)


def bundle(cap: Capture, include: Any = None, exclude: Any = None) -> dict[str, Any]:
    """What IPython asks for: the explorer in a notebook, its words in a terminal."""
    said = {"text/plain": repr(cap)}
    drawn = shown(cap) if "ipykernel" in sys.modules else None
    made = drawn._repr_mimebundle_(include=include, exclude=exclude) if hasattr(drawn, "_repr_mimebundle_") else said
    return made if isinstance(drawn, Still) else made | said


def table_of(found: Survey, stack: str) -> Any:
    """The metrics of a stack."""
    return found.table[found.table["stack"] == stack].drop(columns="stack")


def _widget() -> Any:
    from headwise.notebook import widget  # here, because anywidget is an extra

    return widget
