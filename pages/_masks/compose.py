"""A mask built by hand: who sees whom, how far that reaches, and its code."""

from __future__ import annotations

import streamlit as st

from headwise.interp.drawing.edges import reached
from headwise.interp.masks import (
    Bidirectional,
    Blocks,
    Causal,
    Chunks,
    Global,
    Mask,
    Packed,
    Padding,
    Prefix,
    Strided,
    Window,
    Windows2d,
)
from headwise.interp.masks.code import CONVENTIONS, code
from headwise.pages._masks.choices import PATTERNS, MasksChoices
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared.choices import Choice
from headwise.pages._shared.defence import fragment


@fragment
def compose() -> None:
    st.caption("Build a mask: who sees whom, how far that reaches over layers, and the code for whoever takes it.")
    left, right = st.columns([4, 7], gap="large")
    with left:
        length = st.slider("Tokens", **MasksChoices.compose_length.bounded(4, 64))
        mask = _mask_from_widgets(length)
        layers = st.slider(
            "Layers of reach",
            help="Information travels on through the residual stream: a boolean power of the mask.",
            **MasksChoices.compose_layers.bounded(1, 8),
        )
    with right:
        st.code(repr(mask), language="python")
        _canvas.head(reached(mask, length, layers), key="composed", height=420)
        empty = [str(i) for i in (~mask.dense(length, length).any(1)).nonzero().flatten().tolist()]
        if empty:
            st.warning(
                f"Rows that see nothing: {', '.join(empty[:12])}{' …' if len(empty) > 12 else ''}. "
                "Their softmax is NaN, zero or uniform, depending on the backend."
            )
        for tab, convention in zip(st.tabs(list(CONVENTIONS)), CONVENTIONS, strict=True):
            tab.code(code(mask, convention, length), language="python")


def _slider(label: str, choice: Choice, low: int, high: int, help: str | None = None) -> int:
    return st.slider(label, help=help, **choice.bounded(low, high))


def _mask_from_widgets(length: int) -> Mask:
    pattern = st.selectbox("Pattern", PATTERNS, format_func=str.capitalize, **MasksChoices.compose_pattern.widget)
    if pattern == "prefix":
        mask: Mask = Prefix(_slider("Prefix length", MasksChoices.compose_prefix, 1, length))
    else:
        mask = Causal() if pattern == "causal" else Bidirectional()
    if pattern == "window only" or st.toggle("Window", **MasksChoices.compose_window.widget):
        wide = "Hugging Face's sliding_window=W is W − 1 keys to the left."
        left = _slider("Keys to the left", MasksChoices.compose_left, 0, length - 1, wide)
        both = pattern != "causal"
        right = _slider("Keys to the right", MasksChoices.compose_right, 0, length - 1) if both else 0
        mask = Window(left, right) if pattern == "window only" else mask & Window(left, right)
    if st.toggle("Strided", **MasksChoices.compose_strided.widget):
        mask = mask & Strided(_slider("Stride", MasksChoices.compose_stride, 1, length))
    if st.toggle("Packed documents", **MasksChoices.compose_packed.widget):
        cut = _slider("Second document starts at", MasksChoices.compose_cut, 1, length - 1)
        mask = mask & Packed((0,) * cut + (1,) * (length - cut))
    if st.toggle("Blocks", **MasksChoices.compose_blocks.widget):
        size = _slider("Block size", MasksChoices.compose_block, 1, length)
        mask = mask & Blocks(tuple(i // size for i in range(length)))
    if st.toggle("Chunks", **MasksChoices.compose_chunks.widget):
        size = _slider("Chunk size", MasksChoices.compose_chunk, 1, length, "Llama 4: causal and chunks, none before.")
        left = _slider("Chunks before it", MasksChoices.compose_chunks_left, 0, 8, "Streaming speech sees a few.")
        mask = mask & Chunks(size, left)
    if st.toggle("Windows of a grid", **MasksChoices.compose_windows2d.widget):
        mask = mask & _windows_from_widgets(length)
    if st.toggle("Global tokens", **MasksChoices.compose_global.widget):
        count = _slider("The first tokens are global", MasksChoices.compose_globals, 1, length)
        mask = mask | Global(tuple(range(count)))
    if st.toggle("Padding on the right", **MasksChoices.compose_padding.widget):
        mask = mask & Padding((_slider("Real tokens", MasksChoices.compose_real, 1, length),))
    return mask


def _windows_from_widgets(length: int) -> Mask:
    """The tokens as rows of a grid, the last one perhaps not full."""
    columns = _slider("Columns of the grid", MasksChoices.compose_columns, 2, length)
    side = _slider("Side of a window", MasksChoices.compose_side, 2, columns)
    shift = _slider("Shift", MasksChoices.compose_shift, 0, side - 1, "Swin: half a window in every second block.")
    return Windows2d(side, side, shift, grid=(-(-length // columns), columns))
