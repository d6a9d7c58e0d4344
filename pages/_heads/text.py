"""What the model reads and wrote, as text above its heads."""

from __future__ import annotations

from headwise.interp.attention.call import AttentionCall
from headwise.interp.drawing.canvas import running_text
from headwise.pages._heads.choices import state
from headwise.pages._heads.head import EXPLORER, look_at
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared.bar import Run


def text(run: Run, call: AttentionCall) -> None:
    """Draw the text of a call's positions, coloured by what the chosen head looks at; nothing where they are none."""
    found = running_text(run.capture, call, look_at(), len(state.written))
    if found is not None:
        _canvas.words(found, EXPLORER, key="running-text")
