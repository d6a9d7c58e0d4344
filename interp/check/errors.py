"""How a check can end before its time, and whose fault a crash is.

A model may raise anything at an input it was not made for; that is ``Refused``, and probes expect it. Whatever else a
probe raises is an error of ours and must never be taken for a refusal. The two are told apart by the last frame of
ours in the traceback: where it hands over to the model (``handed``, or a listener passing an operation on), the model
raised; anywhere else, we did.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INTERP = Path(__file__).resolve().parents[1]
ENGINE = {(INTERP / room).parts for room in ("check", "run", "attention", "analysis")}  # not the zoo, not models
DEPTH = len(INTERP.parts) + 1
PASSED_ON = re.compile(r"\bfunc\(")  # a listener runs the operation that the model called (see also locate.watch)


class CheckError(ValueError):
    """The check could not run. The message is one sentence the user can act on."""


class OutOfTime(Exception):
    """The budget is spent."""


class DoesNotApply(Exception):
    """A probe has nothing to do here. The message says why; ``moot``: nothing is promised that it could test."""

    def __init__(self, why: str, *, moot: bool = False):
        super().__init__(why)
        self.moot = moot


class Refused(Exception):
    """The model raised ``error``."""

    def __init__(self, error: Exception):
        super().__init__(str(error))
        self.error = error

    @property
    def kind(self) -> str:
        return type(self.error).__name__

    def brief(self, size: int = 120) -> str:
        """ "ValueError: the first line of what it said"."""
        return f"{self.kind}: {first_line(self.error)[:size]}"


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def handed(function, *args, **kwargs):
    """Call what is not ours: the model, or a function its user gave."""
    return function(*args, **kwargs)


@contextmanager
def theirs() -> Iterator[None]:
    """What the model raises inside becomes ``Refused``; a crash of ours, and the end of the budget, pass."""
    try:
        yield
    except (CheckError, OutOfTime, Refused):
        raise
    except Exception as error:  # a model may raise anything
        if is_ours(error):
            raise
        raise Refused(error) from error


def is_ours(error: Exception) -> bool:
    """Did our own code raise this, rather than the model it ran?"""
    frames = _engine(error)
    if not frames:
        return False
    return frames[-1].name != handed.__name__ and not PASSED_ON.search(frames[-1].line or "func(")


def crashed(error: Exception) -> str:
    """What to say of a crash of ours: what, where, and please report."""
    at = (_engine(error) or traceback.extract_tb(error.__traceback__))[-1]
    return (
        f"an error of Headwise, not of the model; nothing was tested here: {type(error).__name__}: "
        f"{first_line(error)[:160]} ({Path(at.filename).name}, line {at.lineno}). Please report it"
    )


def _engine(error: Exception) -> list[traceback.FrameSummary]:
    """Frames of the traceback that lie in our code, the model's own excluded, outermost first."""
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if Path(frame.filename).resolve().parts[:DEPTH] in ENGINE]
