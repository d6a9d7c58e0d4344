"""What a person did in the explorer's pictures, once the hand has rested."""

from __future__ import annotations

from headwise import Capture
from headwise.pages._heads.choices import MEAN, state
from headwise.pages._shared import canvas as _canvas


def take_acts(cap: Capture) -> None:
    """Take over the head that was chosen, those that stand beside it, the pinned token and the zoom. The canvas counts
    rows, the model counts layers."""
    acted, calls = _canvas.event("one"), cap.stack(state.stack)
    if acted.get("layer", len(calls)) < len(calls):
        state.layer, state.head = calls[acted["layer"]].layer, acted["head"]
    if "beside" in acted:
        layers = dict(enumerate(call.layer for call in calls)) | {MEAN: MEAN}
        state.beside = tuple((layers[row], head) for row, head in acted["beside"] if row in layers)
    if "zoom" in acted:
        state.zoom = tuple(acted["zoom"]) if acted["zoom"] else None
    if "token" in acted:
        state.pin = acted["token"]
