"""The Python that makes what the page shows."""

from __future__ import annotations

from headwise.interp.attention.call import AttentionCall
from headwise.models.variants.offered import OFFERED
from headwise.pages._shared.bar import Run
from headwise.pages._shared.code import capturing, show_code
from headwise.pages._variants.choices import SIDES, state
from headwise.pages._variants.side import made, turned


def code(run: Run, call: AttentionCall, head: int) -> None:
    """Draw it."""
    sides = {side: made(call, getattr(state, side), turned()) for side in SIDES}
    kinds = sorted({f"from {type(by).__module__} import {type(by).__name__}" for by in sides.values()})
    masks = ["from headwise.interp.masks import *"] if any("Masked" in kind for kind in kinds) else []
    lines = [
        *capturing(run, *kinds, *masks, "from headwise.models.variants.beside import beside"),
        f"call = cap.find({call.layer}, {call.stack!r})",
    ]
    for side, by in sides.items():
        lines += [
            f"{side} = beside(call, {head}, {by!r})  # {OFFERED[getattr(state, side)].title}",
            f"print({side}.seen, {side}.held, {side}.error, {side}.call.weights({head}))",
        ]
    show_code(lines)
