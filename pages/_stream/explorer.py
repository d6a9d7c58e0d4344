"""When the answer appears on the left, who says it on the right. A click runs only this."""

from __future__ import annotations

import streamlit as st

from headwise.interp.run.anatomy import Anatomy
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared.bar import Run, share
from headwise.pages._shared.defence import fragment
from headwise.pages._shared.leading import to_head
from headwise.pages._stream.choices import state
from headwise.pages._stream.question import ask
from headwise.pages._stream.when import when
from headwise.pages._stream.who import who

STYLE = """<style>
@media (max-width: 1100px) {
.st-key-sides > [data-testid=stLayoutWrapper] > [data-testid=stHorizontalBlock] { flex-wrap: wrap }
.st-key-sides > [data-testid=stLayoutWrapper] > [data-testid=stHorizontalBlock] > [data-testid=stColumn] {
  min-width: 100% }
}
.st-key-sides button { min-height: 1.75rem; padding-block: 0 }
.st-key-sides button p { font-size: .82rem }
.st-key-sides [data-testid=stVerticalBlock] { gap: .55rem }
</style>"""


@fragment
def explorer(run: Run, found: Anatomy) -> None:
    names = tuple(stream.name for stream in found.streams)
    if state.stream not in names:
        state.stream = names[0] if names else ""
    _take_events(run)
    st.html(STYLE)
    asked = ask(run, found)
    with st.container(key="sides"):
        left, right = st.columns([17, 11], gap="medium")
    with left:
        read_as = when(run, asked)
    with right:
        who(run, asked, read_as)
    if not share(run, state, stream=names[0] if names else ""):
        st.caption(
            "A long text or a file of your own does not travel in a link; the link carries the rest of the view."
        )


def _take_events(run: Run) -> None:
    """What the pictures say the person just did, before anything is drawn."""
    for key in ("stream-cells", "stream-lines", "stream-bars", "stream-map"):
        acted = _canvas.event(key)
        if "go" in acted:
            to_head(run.capture, acted["go"])
        if "row" in acted:
            state.row = int(acted["row"])
        if "position" in acted:
            state.position = int(acted["position"])
        if "every" in acted:
            state.every = bool(acted["every"])
