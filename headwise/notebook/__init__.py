"""How a capture shows itself as the last line of a notebook's cell: as the explorer of the app where `anywidget` is
installed (`pip install "headwise[notebook]"`), else as a few words and a picture."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from headwise.interp.analysis.firstlook import first_head, first_stack
from headwise.interp.analysis.metrics import induction
from headwise.interp.drawing.files import to_svg
from headwise.interp.drawing.matrix import head_view
from headwise.interp.drawing.survey import Survey, survey
from headwise.interp.run.capture import Capture

CHEAP_PARAMETERS = 20_000_000  # above, induction scores take too long for a look
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
    stack, found = first_stack(cap), surveyed(cap)
    table = found.table[found.table["stack"] == stack]
    layer, head = first_head(cap, table.drop(columns="stack").dropna(axis=1, how="all"), stack)
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


def bundle(cap: Capture, include: Any = None, exclude: Any = None) -> Any:
    """What IPython asks for: the explorer in a notebook, its words in a terminal."""
    drawn = shown(cap) if "ipykernel" in sys.modules else repr(cap)
    if isinstance(drawn, str):
        return {"text/plain": drawn}
    made = drawn._repr_mimebundle_(include=include, exclude=exclude)
    data, about = made if isinstance(made, tuple) else (made, {})
    return data | {"text/plain": repr(drawn if isinstance(drawn, Still) else cap)}, about


def surveyed(cap: Capture) -> Survey:
    """Every head at a glance, with induction scores where a model writes text and is small."""
    found, subject = survey(cap), cap.subject
    writes = subject.family == "decoder" and subject.reads == "text" and subject.vocab_size
    if not writes or subject.parameters > CHEAP_PARAMETERS:
        return found
    scored = found.table.merge(induction(subject), on=["stack", "layer", "head"], how="left")
    return replace(found, table=scored)


def _widget() -> Any:
    from headwise.notebook import widget  # here, because anywidget is an extra

    return widget
