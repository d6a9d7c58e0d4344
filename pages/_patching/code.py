"""The Python that makes what the page shows."""

from __future__ import annotations

from headwise.interp.analysis.targets import Target
from headwise.pages._patching.choices import ANSWER, state
from headwise.pages._patching.found import Two
from headwise.pages._shared.code import TARGET, asking, capturing, show_code

ROOM = "headwise.interp.analysis.patching"


def code(two: Two, aim: Target) -> None:
    """Draw it."""
    show_code(lines(two, aim))


def lines(two: Two, aim: Target) -> list[str]:
    """The code, line by line."""
    own, how = state.instead.strip(), state.direction
    proposal = f"next(one for one in corruptions(cap) if one.kind == {two.name!r})"
    kinds = [kind for kind, why in two.kinds.items() if not why]
    names = ["closeness", "corrupted", *([] if own else ["corruptions"]), "patch", "path_patch"]
    return [
        *capturing(two.run, f"from {ROOM} import {', '.join(names)}", SITES, TARGET),
        f"other = corrupted(cap, {f'{state.instead!r}' if own else f'{proposal}.raw'})",
        asking(aim),
        f"kinds = {kinds}",
        f"exact = patch(cap, other, kinds, aim, how={how!r})",
        f"estimated = patch(cap, other, kinds, aim, how={how!r}, approximate=True)",
        "print(exact, closeness(exact, estimated))",
        "heads = [HeadOutput(call.layer, head, call.stack) for call in cap.calls for head in range(call.heads)]",
        f"print(path_patch(cap, other, heads, [{_receiver()}], aim, how={how!r}))",
    ]


def _receiver() -> str:
    if state.receiver in ("", ANSWER):
        return "'answer'"
    stack, layer, head = state.receiver.split(":")
    return f"{state.receives.capitalize()}({layer}, {head}, {stack!r})"


SITES = "from headwise.interp.run.sites import HeadOutput, Key, Query, Value"
