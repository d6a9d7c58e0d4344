"""The page's small headings and notes, as HTML; all of it escaped."""

from __future__ import annotations

import html

import streamlit as st


def heading(title: str, small: str = "") -> str:
    return (
        f"<div style='font-size:.92rem;line-height:1.3'><b>{html.escape(title)}</b> "
        f"<span style='font-size:.78rem;opacity:.66'>{html.escape(small)}</span></div>"
    )


def note(text: str) -> None:
    """The sentence of a figure."""
    if text:
        st.html(f"<div class='note' data-testid='note'>{html.escape(text)}</div>")
