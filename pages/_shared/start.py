"""What the server does before anybody comes."""

from __future__ import annotations

import gc
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from headwise.pages._shared.ways import ICONS

TEXT = "Whoever comes first finds the house warm, and whoever comes first"

WARM = threading.Event()


@asynccontextmanager
async def warmed(app: Any) -> AsyncIterator[None]:
    """The life of the server: it answers at once, and warms up meanwhile."""
    work = threading.Thread(target=warm, name="warm-up")
    work.start()
    yield
    work.join()


async def ready(request: Request) -> PlainTextResponse:
    """For whoever sends people here: 200 once the server is warm, 503 before."""
    return PlainTextResponse("ready") if WARM.is_set() else PlainTextResponse("warming up", 503)


def warm() -> None:
    """Load all pages and the first model, and run it once as the first page does.

    What is loaded by then never is garbage, so it is frozen out of the collections to come, each of which holds up all
    sessions.
    """
    for page in ICONS:
        import_module(f"headwise.pages.{page}")
    from headwise import capture  # seconds of loading, while the server answers
    from headwise.interp.analysis.effects import asked, removals
    from headwise.interp.analysis.metrics import induction
    from headwise.interp.drawing.survey import survey
    from headwise.pages._shared.choices import InputChoices
    from headwise.pages._shared.shelf import server

    subject = server().subject(InputChoices.model.default, InputChoices.device.default, InputChoices.dtype.default)
    cap = capture(subject, TEXT)
    survey(cap)
    induction(subject)
    removals(cap, cap.stacks[0], "mean", asked(cap))
    _ = cap.fidelity, cap.anatomy
    gc.collect()
    gc.freeze()
    WARM.set()


ROUTES = [Route("/readyz", ready)]
