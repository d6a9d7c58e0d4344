"""A choice among few, as buttons."""

from __future__ import annotations

import streamlit as st

from headwise.pages._shared.choices import Choice


def choice(
    label: str, of: Choice, name=str.capitalize, options: tuple[str, ...] | None = None, disabled: bool = False
) -> None:
    """A row of buttons, one of which is on."""
    st.segmented_control(
        label,
        options or of.among,
        format_func=name,
        required=True,
        label_visibility="collapsed",
        width="content",
        disabled=disabled,
        **of.widget,
    )
