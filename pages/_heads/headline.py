"""The line that is always true: which model, how large, how it was seen."""

from __future__ import annotations

import html

from headwise import Capture
from headwise.pages._shared.sidebar import Run


def header_line(run: Run, fidelity: str) -> str:
    """The line that is always true, as HTML; all of it escaped."""
    cap, subject = run.capture, run.capture.subject
    shape = " + ".join(
        f"{len(calls)} layers × {'/'.join(str(h) for h in sorted({c.heads for c in calls}))} heads"
        + (f" ({name})" if len(cap.stacks) > 1 else "")
        for name in cap.stacks
        for calls in [cap.stack(name)]
    )
    unseen = "; ".join(map(str, cap.unseen))
    parts = [
        f"<b>{html.escape(subject.name)}</b>",
        f"{_count(subject.parameters)} parameters",
        html.escape(shape),
        sizes(cap),
        f"attention {html.escape(subject.implementation)}",
        html.escape(subject.precision),
        "<span title='largest change of any logit between the captured run and the same run without "
        f"capture'>max |Δlogit| {fidelity}</span>",
        f"<span class='alarm' title='{html.escape(unseen)}'>{len(cap.unseen)} modules unseen</span>"
        if cap.unseen
        else "nothing unseen",
    ]
    style = (
        "<style>.headline{font-size:.86rem;opacity:.92;line-height:1.5}.headline .alarm{color:#d1342f;font-weight:600}"
        ".headline i{opacity:.4;font-style:normal;padding:0 .35em}</style>"
    )
    return f"{style}<div class='headline' data-testid='headline'>{'<i>·</i>'.join(parts)}</div>"


def fidelity_words(fidelity: float | None) -> str:
    return "not measured" if fidelity is None else f"{fidelity:.1e}" if fidelity else "0"


def sizes(cap: Capture) -> str:
    """How long the input is, in the words of its kind."""
    if not cap.axes:
        return f"{max(max(c.queries, c.keys) for c in cap.calls):,} positions"
    parts = []
    for name, axis in cap.axes.items():
        own = "" if len(cap.axes) == 1 else f"{name} "
        if axis.sound is not None:
            parts.append(f"{own}{axis.sound.seconds:.2f} s in {len(axis):,} frames")
        elif axis.grid is not None:
            rows, columns = axis.grid
            parts.append(f"{rows} × {columns} patches")
        else:
            parts.append(f"{own}{len(axis):,} token{'s' if len(axis) != 1 else ''}")
    return html.escape(" + ".join(parts))


def _count(n: int) -> str:
    return f"{n / 1e9:.1f} B" if n >= 1e9 else f"{n / 1e6:.1f} M" if n >= 1e6 else f"{n:,}"
