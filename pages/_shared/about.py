"""What a page's methods can and cannot tell, and where they come from: a card."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

import streamlit as st

Paragraph = tuple[str, Sequence[tuple[str, str]]]  # what is told, and the papers (title, address)

STYLE = """<style>
.about-card { font-size: .8rem; line-height: 1.45; border-radius: 8px; padding: .6rem .75rem;
  border: 1px solid color-mix(in srgb, currentColor 14%, transparent) }
.about-card div { margin-top: .2rem }
.about-card span { opacity: .75 }
.about-card a { color: inherit }
</style>"""


def about_card(paragraphs: Iterable[Paragraph]) -> None:
    """Draw it."""
    told = "".join(f"<div><span>{html.escape(text)}</span> {_references(papers)}</div>" for text, papers in paragraphs)
    st.html(f"{STYLE}<div class='about-card' data-testid='about'><b>What this can and cannot tell you</b>{told}</div>")


def _references(papers: Sequence[tuple[str, str]]) -> str:
    return " · ".join(
        f"<a href='{html.escape(address)}' target='_blank' rel='noopener'>{html.escape(name)}</a>"
        for name, address in papers
    )
