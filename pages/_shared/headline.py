"""The line above a page that is always true."""

from __future__ import annotations

import html

from headwise import Capture

STYLE = (
    "<style>.headline{font-size:.86rem;opacity:.92;line-height:1.5}.headline .alarm{color:#d1342f;font-weight:600}"
    ".headline i{opacity:.4;font-style:normal;padding:0 .35em}</style>"
)


def line(parts: list[str]) -> str:
    """Parts, each HTML by now, as one line."""
    return f"{STYLE}<div class='headline' data-testid='headline'>{'<i>·</i>'.join(parts)}</div>"


def shape(cap: Capture) -> str:
    """How many layers and heads, as HTML."""
    return html.escape(
        " + ".join(
            f"{len(calls)} layers × {'/'.join(str(h) for h in sorted({c.heads for c in calls}))} heads"
            + (f" ({name})" if len(cap.stacks) > 1 else "")
            for name in cap.stacks
            for calls in [cap.stack(name)]
        )
    )


def sizes(cap: Capture) -> str:
    """How long the input is, in the words of its kind."""
    if not cap.axes:
        return f"{max(max(c.queries, c.keys) for c in cap.calls):,} positions"
    parts = []
    for name, axis in cap.axes.items():
        own = "" if len(cap.axes) == 1 else f"{name} "
        if axis.sound is not None:
            parts.append(f"{own}{axis.sound.seconds:.2f} s in {len(axis):,} frames")
        elif axis.track is not None:
            parts.append(f"{own}{len(axis):,} {axis.track.step}s")
        elif axis.grid is not None:
            rows, columns = axis.grid
            parts.append(f"{rows} × {columns} patches")
        else:
            parts.append(f"{own}{len(axis):,} token{'s' if len(axis) != 1 else ''}")
    return html.escape(" + ".join(parts))
