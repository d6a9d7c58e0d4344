"""The Python that makes what the page shows."""

from __future__ import annotations

from headwise.interp.analysis.targets import Target
from headwise.pages._shared.bar import Run
from headwise.pages._shared.code import TARGET, asking, capturing
from headwise.pages._stream.choices import state


def code(run: Run, aim: Target | None) -> list[str]:
    """Its lines."""
    stream = f", stream={state.stream!r}" if state.stream else ""
    tuned = ", tuned=True" if state.reading == "tuned" else ""
    asks = [] if aim is None else [asking(aim), "parts = logit_attribution(cap, aim)", "print(parts)"]
    lengths = "from headwise.interp.analysis.lens import norms"
    return [
        *capturing(run, lengths, TARGET, names=("lens", "logit_attribution")),
        "print(cap.anatomy.proof)",
        "lengths = norms(cap)" if state.reading == "norms" else f"early = lens(cap{tuned}{stream})",
        *asks,
    ]
