"""The pages' small headings and notes, as HTML; all of it escaped."""

from __future__ import annotations

import html

import streamlit as st

SMALL = "font-size:.85rem;line-height:1.4;opacity:.76"


def heading(title: str, small: str = "") -> str:
    return (
        f"<div style='font-size:.92rem;line-height:1.3'><b>{html.escape(title)}</b> "
        f"<span style='font-size:.78rem;opacity:.66'>{html.escape(small)}</span></div>"
    )


def note(text: str) -> None:
    """The sentence of a figure."""
    if text:
        st.html(f"<div data-testid='note' style='{SMALL}'>{html.escape(text)}</div>")
